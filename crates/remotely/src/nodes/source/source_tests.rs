//! Each format as its own program documents it: which groups and hosts there are, how hosts are reached, what is refused.

use super::*;

fn sources(format: Format, text: &str) -> Sources {
    let mut sources = Sources::new();
    sources.add("inv", "inv.file", format, text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    sources
}

/// What happened, and why.
fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {}", chain(cause)))
}

fn fold(sources: &Sources, text: &str) -> String {
    NodeSet::look_up(text, sources).unwrap_or_else(|error| panic!("{text}: {}", chain(&error))).fold()
}

fn target(sources: &Sources, name: &str) -> String {
    let nodes = NodeSet::look_up(name, sources).unwrap_or_else(|error| panic!("{name}: {error}"));
    nodes.iter().map(|node| node.target().to_string()).collect::<Vec<_>>().join(" ")
}

fn refused(format: Format, text: &str) -> String {
    let error = Sources::new().add("inv", "inv.file", format, text).expect_err(text);
    chain(&error)
}

const INI: &str = r#"
# ansible's own example, more or less
mail.example.com
bare:2222 ansible_user=ops    # a comment

[webservers]
web[01:03].example.com ansible_user=www
web[01:03].example.com
foo.example.com  ansible_host=10.0.0.7 ansible_port=2200 other="a b"

[dbservers]
db-[a:c].example.com
n[0:20:10]
[fe80::1]:2022

[hidden]
gone ansible_connection=winrm
tpl ansible_host="{{ inventory_hostname }}.internal"
here ansible_connection=local

[dc:children]
webservers
dbservers

[dc:vars]
ansible_user=deploy
ansible_port = 22

[dbservers:vars]
ansible_ssh_user="postgres"
"#;

#[test]
fn ansibles_ini() {
    let sources = sources(Format::AnsibleIni, INI);
    assert_eq!(fold(&sources, "@webservers"), "foo.example.com,web[01-03].example.com");
    assert_eq!(
        fold(&sources, "@inv:dc ! @webservers"),
        "db-a.example.com,db-b.example.com,db-c.example.com,fe80::1,n[0,10,20]"
    );
    // Whom we cannot go to may be in a group, but not in what comes out.
    assert!(matches!(NodeSet::look_up("@all", &sources), Err(NodeError::Host { .. })));
    assert_eq!(NodeSet::look_up("@all ! gone ! tpl", &sources).unwrap().len(), 14);
    assert_eq!(fold(&sources, "@all!gone!tpl"), fold(&sources, "@*!@hidden,here"));
    assert_eq!(fold(&sources, "@ungrouped"), "bare,mail.example.com");
    assert_eq!(fold(&sources, "@w*s"), fold(&sources, "@webservers"));
    assert_eq!(fold(&sources, "web0?.example.com & *3*"), "web03.example.com");
    // What is said of the host counts more than of its group, of a group more than of those above it.
    assert_eq!(target(&sources, "web01.example.com"), "www@web01.example.com:22");
    assert_eq!(target(&sources, "foo.example.com"), "deploy@10.0.0.7:2200");
    assert_eq!(target(&sources, "n10"), "postgres@n10:22");
    assert_eq!(target(&sources, "@dbservers & fe80*"), "postgres@[fe80::1]:2022");
    assert_eq!(target(&sources, "bare"), "ops@bare:2222");
    assert_eq!(target(&sources, "here"), "local:");
    // What is not listed is a target; what a known name says with more counts as said.
    assert_eq!(target(&sources, "root@bare other"), "root@bare other");
    assert_eq!(target(&sources, "ssh:here"), "local:");
    for (name, why) in
        [("gone", "ansible reaches it by \"winrm\""), ("tpl", "a template, which only ansible can fill in")]
    {
        let error = NodeSet::look_up(name, &sources).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("inv.file") && error.contains(name), "{error}");
    }
}

#[test]
fn ansibles_ini_is_refused_with_the_line() {
    let table = [
        ("[a:what]\n", "inv.file, line 1: [a:what] was expected to end in :children or :vars, or to have no colon"),
        ("\n[a:vars]\nx\n", "inv.file, line 3: NAME=VALUE was expected"),
        ("web1 x\n", "inv.file, line 1: NAME=VALUE was expected behind the host, not \"x\""),
        ("web[1-3]\n", "inv.file, line 1: in \"web[1-3]\", a range such as [01:50] or [a:f] was expected"),
        ("web[01:5]\n", "inv.file, line 1: in \"web[01:5]\", both ends of a range need as many digits"),
        ("web[1:9999999]\n", "inv.file, line 1: there are more than 1000000 hosts"),
        ("a[0:99999]b[0:99999]\n", "inv.file, line 1: there are more than 1000000 hosts"),
        ("web1 'x\n", "inv.file, line 1: a ' is not closed"),
        ("[a:children]\nb\n[b:children]\na\n", "is a child of itself"),
        ("[a b]\n", "inv.file, line 1: \"a b\" cannot be the name of a group"),
        ("#!/bin/sh\n", "inv.file, line 1: this is a program; give what it prints as a file instead"),
    ];
    for (text, message) in table {
        let error = refused(Format::AnsibleIni, text);
        assert!(error.ends_with(message), "{text:?}: {error}");
    }
}

#[cfg(feature = "inventory")]
const YAML: &str = r"
all:
  vars: &defaults
    ansible_user: deploy
    ansible_port: 2222
    list: [1, 2]
  hosts:
    mail.example.com:
  children:
    webservers:
      hosts:
        web[01:03].example.com:
          ansible_user: www
        foo.example.com: { ansible_host: '::1', ansible_port: 22 }
    dbservers:
      vars:
        <<: *defaults
        ansible_user: postgres
      hosts: [db1, db2]
      children:
        replicas:
          hosts: db3
    replicas:
      vars: { ansible_port: 1 }
other:
  children:
    webservers:
";

#[cfg(feature = "inventory")]
#[test]
fn ansibles_yaml() {
    let sources = sources(Format::Yaml, YAML);
    assert_eq!(fold(&sources, "@webservers"), "foo.example.com,web[01-03].example.com");
    assert_eq!(fold(&sources, "@other"), fold(&sources, "@webservers"));
    assert_eq!(fold(&sources, "@dbservers"), "db[1-3]");
    assert_eq!(NodeSet::look_up("@all", &sources).unwrap().len(), 8);
    assert_eq!(target(&sources, "web02.example.com"), "www@web02.example.com:2222");
    assert_eq!(target(&sources, "foo.example.com"), "deploy@[::1]:22");
    assert_eq!(target(&sources, "db1"), "postgres@db1:2222");
    assert_eq!(target(&sources, "db3"), "postgres@db3:1");
    assert_eq!(target(&sources, "mail.example.com"), "deploy@mail.example.com:2222");
}

#[cfg(feature = "inventory")]
#[test]
fn clustershells_yaml_and_text() {
    let mut sources = sources(
        Format::Yaml,
        "roles:\n  adm: 'mgmt[1-2]'\n  io: [oss0, '@adm']\n  bad: '@nosuch'\nracks:\n  r1: n[1-9]\n",
    );
    assert_eq!(fold(&sources, "@io"), "mgmt[1-2],oss0");
    assert_eq!(fold(&sources, "@racks:r1 & n[1-3]"), "n[1-3]");
    assert_eq!(fold(&sources, "@racks:*"), "n[1-9]");
    assert!(matches!(NodeSet::look_up("@roles:r1", &sources), Err(NodeError::Group { .. })));
    let text = "# groups\nadm: example0\noss: example4 example5 # two\nmds:example6\nall: example[0,4-159]\nboth: @oss,@mds!example5\noss: example[7-8]\n";
    sources.add("local", "groups", Format::Groups, text).unwrap();
    assert_eq!(fold(&sources, "@oss"), "example[4-5,7-8]");
    assert_eq!(fold(&sources, "@both"), "example[4,6-8]");
    assert_eq!(fold(&sources, "@local:all"), "example[0,4-159]");
    // The first source that has it.
    assert_eq!(fold(&sources, "@adm @local:adm"), "example0,mgmt[1-2]");
    let error = NodeSet::look_up("@nosuch:x", &sources).unwrap_err();
    assert_eq!(error.to_string(), "there is no source of groups \"nosuch\", there are roles racks local ssh");
    let error = NodeSet::look_up("@bad", &sources).unwrap_err();
    assert_eq!(error.to_string(), "there is no group @nosuch, there are @adm @io @bad @r1 @adm @oss @mds @all @both");
    assert_eq!(refused(Format::Groups, "a: b\nweb\n"), "inv.file, line 2: a line 'group: nodes' was expected");
    let error = refused(Format::Groups, "a: web[1-\n");
    assert_eq!(
        error,
        "inv.file, line 1: group a: column 7, behind \"web[1-\": expected a number, found the end"
            .replace("column 7, behind \"web[1-\"", "column 8, behind \" web[1-\"")
    );
}

#[cfg(feature = "inventory")]
const TOML: &str = r#"
[groups]
web = "web[1-200]"
front = ["@web & web[1-10]", "lb1"]
rest = "@web ! @front"
known = "db*"
box = "cache"

[hosts."db[1-2]"]
user = "postgres"
port = 2222
address = "{name}.internal"
via = "gw+sudo"

[hosts]
db3 = { user = "x" }
cache = { target = "gw+ssh:{name}.lan" }
lb1 = {}
"#;

#[cfg(feature = "inventory")]
#[test]
fn our_own() {
    let sources = sources(Format::Toml, TOML);
    assert_eq!(fold(&sources, "@front"), "lb1,web[1-10]");
    assert_eq!(fold(&sources, "@rest"), "web[11-200]");
    assert_eq!(fold(&sources, "@known"), "db[1-3]");
    assert_eq!(target(&sources, "db2"), "gw+sudo+postgres@db2.internal:2222");
    assert_eq!(target(&sources, "db3"), "x@db3");
    assert_eq!(target(&sources, "@box"), "gw+cache.lan");
    assert_eq!(target(&sources, "lb1"), "lb1");
    let order: Vec<GroupName> = sources.groups().collect();
    assert_eq!(
        order.iter().map(|name| name.group.as_str()).collect::<Vec<_>>(),
        ["web", "front", "rest", "known", "box"]
    );
    assert_eq!(order[0].to_string(), "@inv:web");
    let all = NodeSet::look_up("@*", &sources).unwrap();
    assert_eq!(all.len(), 205);
    assert_eq!(all.iter().next().unwrap().name(), "db1");
    assert_eq!(fold(&sources, "web*5 ! web1*"), "web[5,25-95/10]");
    let error = NodeSet::look_up("nosuch*", &sources).unwrap_err().to_string();
    assert!(error.starts_with("no known host matches \"nosuch*\""), "{error}");
    // What is not there need not be taken out.
    assert_eq!(fold(&sources, "lb1 ! nosuch*"), "lb1");
}

#[cfg(feature = "inventory")]
#[test]
fn our_own_is_refused_with_the_line() {
    let table = [
        ("x = 1\n", "inv.file, line 1: [groups] or [hosts] was expected, not \"x\""),
        ("[groups]\na = 1\n", "inv.file, line 2: the nodes of the group a were expected as text"),
        (
            "[groups]\na = 'web['\n",
            "inv.file, line 2: group a: column 5, behind \"web[\": expected a number, found the end",
        ),
        ("[groups]\n\"a b\" = 'x'\n", "inv.file, line 2: \"a b\" cannot be the name of a group"),
        ("[hosts.a]\nname = 'x'\n", "inv.file, line 2: target, address, user, port or via was expected, not \"name\""),
        (
            "[hosts.a]\nport = 'x'\n",
            "inv.file, line 1: the host a: in \"ssh:a:x\", the port \"x\" is not a number from 1 to 65535",
        ),
        (
            "[hosts.a]\ntarget = 'b'\nuser='c'\n",
            "target says all there is to say: no address, user, port or via beside it",
        ),
        ("[hosts.\"a,b\"]\n", "inv.file, line 1: \"a,b\" is not the name of a host"),
        ("[hosts.\"n[1-1000001]\"]\n", "inv.file, line 1: there are more than 1000000 hosts"),
        ("[hosts]\na = 1\n", "inv.file, line 2: a table such as { user = \"ops\", port = 2222 } was expected"),
    ];
    for (text, message) in table {
        let error = refused(Format::Toml, text);
        assert!(error.ends_with(message), "{text:?}: {error}");
    }
    assert!(refused(Format::Toml, "[groups\n").starts_with("inv.file, line 1: "));
    assert!(refused(Format::Toml, &format!("a = {}", "[".repeat(100_000))).starts_with("inv.file, line 1: "));
}

#[cfg(feature = "inventory")]
#[test]
fn yaml_that_grows_or_goes_deep_is_refused() {
    let mut laughs = String::from("a0: &a0 { hosts: {h: } }\n");
    for n in 1..30 {
        let below = n - 1;
        laughs += &format!("a{n}: &a{n} {{ children: {{ x{n}: *a{below}, y{n}: *a{below} }} }}\n");
    }
    assert!(refused(Format::Yaml, &laughs).contains("there are more than 1000000 groups"));
    let mut merged = String::from("m0: &m0 { vars: {a: 1} }\n");
    for n in 1..40 {
        let below = n - 1;
        merged += &format!("m{n}: &m{n} {{ <<: [*m{below}, *m{below}] }}\n");
    }
    assert!(refused(Format::Yaml, &merged).contains("there is too much in it"));
    assert!(refused(Format::Yaml, &format!("a: {}", "[".repeat(100_000))).contains("inv.file, line 1: "));
    let deep = (0..100).fold(String::new(), |text, n| format!("{text}{}a:\n", " ".repeat(n)));
    assert!(refused(Format::Yaml, &deep).contains("deep within each other"));
    for text in ["a: &x [*x]", "a: *b", "[1, 2]: x", "- a", "a:\n  hosts:\n    x: [", "a:\n  hosts: {'': }\n"] {
        refused(Format::Yaml, text);
    }
    assert_eq!(NodeSet::look_up("@*", &sources(Format::Yaml, "")).unwrap().len(), 0);
}

#[test]
fn groups_that_go_in_a_circle_are_named() {
    let circle = sources(Format::Groups, "a: x,@b\nb: @c\nc: @a\nself: @*\n");
    for text in ["@a", "@b", "@*", "@[a-b]", "@self"] {
        if text != "@[a-b]" {
            let error = NodeSet::look_up(text, &circle).unwrap_err().to_string();
            assert!(error.starts_with("groups go in a circle, or too deep: @"), "{text}: {error}");
        }
    }
    let error = NodeSet::look_up("@b", &circle).unwrap_err().to_string();
    assert_eq!(error, "groups go in a circle, or too deep: @b -> @c -> @a -> @b");
    let deep: String = (0..200).map(|n| format!("g{n}: @g{}\n", n + 1)).collect();
    assert!(matches!(NodeSet::look_up("@g0", &sources(Format::Groups, &deep)), Err(NodeError::Circle { .. })));
    // What doubles at each step is written out once.
    let double: String = (1..60).map(|n| format!("g{n}: @g{0},@g{0}\n", n - 1)).collect();
    let double = sources(Format::Groups, &format!("g0: a[1-10]\n{double}"));
    assert_eq!(fold(&double, "@g59"), "a[1-10]");
    assert_eq!(fold(&double, "@g[1-3]"), "a[1-10]");
}

#[test]
fn a_file_is_known_by_its_name_or_by_how_it_begins() {
    let table = [
        ("x.toml", "a: b", Format::Toml),
        ("x.yml", "[a]", Format::Yaml),
        ("x.ini", "a: b", Format::AnsibleIni),
        ("hosts", "[web]\nweb1\n", Format::AnsibleIni),
        ("hosts", "# c\n\nweb1 ansible_host=::1\n", Format::AnsibleIni),
        ("hosts", "web1\n", Format::AnsibleIni),
        ("hosts", "web1:2222\n", Format::AnsibleIni),
        ("hosts", "---\na:\n", Format::Yaml),
        ("hosts", "all:\n  hosts:\n", Format::Yaml),
        ("groups", "# c\nadm: example0\n", Format::Groups),
        ("groups", "adm:example0\n", Format::Groups),
        ("x.cfg", "roles:\n  a: b\n", Format::Yaml),
        ("empty", "", Format::Groups),
    ];
    for (name, text, expected) in table {
        let found = format(Path::new(name), text);
        // A host without anything is a line that no other format begins with.
        assert_eq!(found, expected, "{name}: {text:?}");
    }
}

#[test]
fn sshs_hosts_are_those_without_patterns_also_of_included_files() {
    let home = tempfile::tempdir().unwrap();
    let ssh = home.path().join(".ssh");
    std::fs::create_dir_all(ssh.join("config.d")).unwrap();
    let config = "Include config.d/*.conf nothing\nHost web1 web2 !web3 *.lan\n  User x\nhost=\"quoted\"\n\
                  HOST docker a+b # c\nMatch host m\n  HostName n\nInclude ~/.ssh/config\n";
    std::fs::write(ssh.join("config"), config).unwrap();
    std::fs::write(ssh.join("config.d/b.conf"), "Host inb\n").unwrap();
    std::fs::write(ssh.join("config.d/a.conf"), "Host ina\nInclude /dev/null\n").unwrap();
    std::fs::write(ssh.join("config.d/.c.conf"), "Host inc\n").unwrap();
    let hosts = ssh_config::read(home.path()).unwrap();
    let names: Vec<String> = hosts.iter().map(|node| node.target().to_string()).collect();
    assert_eq!(names, ["ina", "inb", "web1", "web2", "quoted", "ssh:docker"]);
    assert!(ssh_config::read(&home.path().join("none")).unwrap().is_empty());

    let sources = Sources { ssh: hosts, ..Sources::new() };
    assert_eq!(fold(&sources, "web*"), "web[1-2]");
    assert_eq!(fold(&sources, "@ssh:in*"), "ina,inb");
    assert_eq!(fold(&sources, "@*"), "");
}

#[test]
fn files_are_read_and_what_is_no_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("prod.groups");
    std::fs::write(&file, b"\xef\xbb\xbfweb: web[1-2]\n").unwrap();
    let mut sources = Sources::new();
    sources.read(&file).unwrap();
    assert_eq!(fold(&sources, "@prod:web"), "web[1-2]");
    std::fs::write(&file, b"web: \xff\n").unwrap();
    for (path, why) in
        [(file, "it is not UTF-8"), (directory.path().into(), "Is a directory"), ("/nowhere/x".into(), "No such file")]
    {
        let error = chain(&sources.read(&path).unwrap_err());
        assert!(error.starts_with("could not read the inventory /") && error.contains(why), "{error}");
    }
}

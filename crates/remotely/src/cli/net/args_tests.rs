//! Command lines that users of sshuttle have, and what they mean.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Net {
    #[command(flatten)]
    args: Args,
}

fn args(words: &str) -> Args {
    Net::try_parse_from(std::iter::once("net").chain(words.split_whitespace())).expect(words).args
}

fn asked(words: &str) -> Result<String, AskedError> {
    args(words).asked(false).map(|asked| format!("{asked:?}"))
}

#[test]
fn what_is_meant() {
    for (words, expected) in [
        ("gw -- curl x", r#"Private { target: "gw", subnets: [], command: ["curl", "x"], name: None }"#),
        (
            "gw 10/8 --name vpn -- sh",
            r#"Private { target: "gw", subnets: ["10/8"], command: ["sh"], name: Some("vpn") }"#,
        ),
        ("gw", r#"Private { target: "gw", subnets: [], command: [], name: None }"#),
        ("gw 10/8 fd00::/8", r#"Whole { target: "gw", subnets: ["10/8", "fd00::/8"] }"#),
        ("-r gw 10/8", r#"Whole { target: "gw", subnets: ["10/8"] }"#),
        ("-r gw -N", r#"Whole { target: "gw", subnets: [] }"#),
        ("gw -s nets", r#"Whole { target: "gw", subnets: [] }"#),
        ("--join vpn -- id", r#"Join { name: "vpn", command: ["id"] }"#),
        ("--join vpn", r#"Join { name: "vpn", command: [] }"#),
        ("--sudoers-no-modify --sudoers-user %adm", r#"Sudoers { user: Some("%adm") }"#),
    ] {
        assert_eq!(asked(words).as_deref(), Ok(expected), "{words}");
    }
}

#[test]
fn what_is_not_said() {
    for (words, error) in [
        ("", AskedError::NoTarget),
        ("-r - 10/8", AskedError::Nowhere("-".into())),
        ("--dns gw", AskedError::NoSubnets),
        ("-D gw", AskedError::NoSubnets),
        ("gw -l 1200 -- id", AskedError::WholeOnly("--listen")),
        ("gw --method nat -- id", AskedError::WholeOnly("--method")),
    ] {
        assert_eq!(asked(words).unwrap_err(), error, "{words}");
    }
    assert_eq!(args("gw 10/8").asked(true).unwrap_err(), AskedError::NoTarget);
}

#[test]
fn a_command_line_of_sshuttle() {
    let words = "-r me@gw:2222 --dns -vv -e ssh --no-latency-control --latency-buffer-size 65536 -l 127.0.0.1:0,[::1]:0 \
                 --ns-hosts 10.0.0.1,fd00::1 --to-ns 10.0.0.2:5353 --method tproxy -t 0x10 -x 10.1.0.0/16 -x db -X out -s in \
                 --seed-hosts a,b -H -N -D --pidfile p --syslog --user me --group us --disable-ipv6 --python /usr/bin/python3 \
                 --namespace lab 0/0:443 [fd00::/8]:80-90 web.corp";
    let args = args(words);
    let Ok(Asked::Whole { target, subnets }) = args.asked(true) else { panic!("{args:?}") };
    assert_eq!(
        (target.as_str(), &subnets[..]),
        ("me@gw:2222", &["0/0:443", "[fd00::/8]:80-90", "web.corp"].map(String::from)[..])
    );
    assert_eq!(args.idle(), ["--no-latency-control", "--latency-buffer-size", "--python"]);
    assert_eq!(args.tmark, Some(16));
    assert_eq!(args.to_ns, Some("10.0.0.2:5353".parse().unwrap()));
    assert_eq!(args.ns_hosts.len(), 2);
    assert_eq!(
        args.listen,
        Some(Listen { v4: Some("127.0.0.1:0".parse().unwrap()), v6: Some("[::1]:0".parse().unwrap()) })
    );
}

#[test]
fn addresses_and_marks() {
    assert_eq!(listen("1200"), Ok(Listen { v4: Some("127.0.0.1:1200".parse().unwrap()), v6: None }));
    assert_eq!(listen("0.0.0.0"), Ok(Listen { v4: Some("0.0.0.0:0".parse().unwrap()), v6: None }));
    for bad in ["", "70000", "1.2.3.4:70000", "host:80", "1200,1300", "1.2.3.4:1,,"] {
        assert!(listen(bad).is_err(), "{bad}");
    }
    assert_eq!(server("fd00::1"), Ok("[fd00::1]:53".parse().unwrap()));
    assert_eq!(server("[fd00::1]"), Ok("[fd00::1]:53".parse().unwrap()));
    assert_eq!((mark("0x01"), mark("ff")), (Ok(1), Ok(255)));
    assert!(mark("0").is_err() && mark("0x").is_err() && mark("wide").is_err());
}

#[test]
fn users_and_the_ssh_command() {
    assert_eq!(number("user", "/etc/passwd", "root"), Ok(0));
    assert_eq!(number("user", "/etc/passwd", "4711"), Ok(4711));
    assert!(number("group", "/etc/group", "no such group").is_err());
    let target = || "gw".parse().unwrap();
    let connect = args("gw 10/8 -e ssh").connect(target()).unwrap();
    assert!(connect.ssh_opts.is_empty());
    let words = ["net", "gw", "10/8", "-e", "ssh -F config -p 22", "--ssh-opts", "-4"];
    let connect = Net::try_parse_from(words).unwrap().args.connect(target()).unwrap();
    assert_eq!(connect.ssh_opts, ["-F", "config", "-p", "22", "-4"]);
    assert!(args("gw 10/8 -e rsh").connect(target()).is_err());
}

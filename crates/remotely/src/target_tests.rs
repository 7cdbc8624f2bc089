//! What is a target and what is not, as tables; and that printing and parsing undo each other.

use super::*;

fn ssh(user: Option<&str>, host: &str, port: Option<u16>) -> Hop {
    Hop::Ssh(Ssh { user: user.map(Into::into), host: host.into(), port })
}

fn sudo(user: Option<&str>) -> Hop {
    Hop::Sudo { user: user.map(Into::into) }
}

fn kubectl(namespace: Option<&str>, pod: &str, container: Option<&str>) -> Hop {
    Hop::Kubectl { namespace: namespace.map(Into::into), pod: pod.into(), container: container.map(Into::into) }
}

fn command(words: &[&str]) -> Hop {
    Hop::Command { words: words.iter().map(|word| (*word).to_owned()).collect() }
}

#[test]
fn targets_parse() {
    let table: &[(&str, &[Hop])] = &[
        ("host", &[ssh(None, "host", None)]),
        ("user@host", &[ssh(Some("user"), "host", None)]),
        ("host:2222", &[ssh(None, "host", Some(2222))]),
        ("user@host:2222", &[ssh(Some("user"), "host", Some(2222))]),
        ("user@corp.example@host", &[ssh(Some("user@corp.example"), "host", None)]),
        ("10.0.0.1", &[ssh(None, "10.0.0.1", None)]),
        ("[::1]", &[ssh(None, "::1", None)]),
        ("[::1]:22", &[ssh(None, "::1", Some(22))]),
        ("u@[fe80::1%eth0]:22", &[ssh(Some("u"), "fe80::1%eth0", Some(22))]),
        ("ssh:host", &[ssh(None, "host", None)]),
        ("ssh:user@host:22", &[ssh(Some("user"), "host", Some(22))]),
        ("ssh:sudo", &[ssh(None, "sudo", None)]),
        ("ssh:local:22", &[ssh(None, "local", Some(22))]),
        ("ssh://user@host:2222", &[ssh(Some("user"), "host", Some(2222))]),
        ("ssh://host/", &[ssh(None, "host", None)]),
        ("ssh://[::1]:22", &[ssh(None, "::1", Some(22))]),
        ("local", &[ssh(None, "local", None)]),
        ("local:", &[Hop::Local]),
        ("sudo", &[sudo(None)]),
        ("sudo:", &[sudo(None)]),
        ("sudo:web", &[sudo(Some("web"))]),
        ("sudo:1000", &[sudo(Some("1000"))]),
        ("su", &[Hop::Su { user: None }]),
        ("su:web", &[Hop::Su { user: Some("web".into()) }]),
        ("docker:web-1", &[Hop::Docker { container: "web-1".into() }]),
        ("docker:17", &[Hop::Docker { container: "17".into() }]),
        ("docker", &[ssh(None, "docker", None)]),
        ("ssh:docker:17", &[ssh(None, "docker", Some(17))]),
        ("podman:web", &[Hop::Podman { container: "web".into() }]),
        ("docker-run:reg:5000/a/b:1@sha256:00", &[Hop::DockerRun { image: "reg:5000/a/b:1@sha256:00".into() }]),
        ("podman-run:debian", &[Hop::PodmanRun { image: "debian".into() }]),
        ("nsenter:4711", &[Hop::Nsenter { pid: 4711 }]),
        ("netns:blue", &[Hop::Netns { name: "blue".into() }]),
        ("srun:n1", &[Hop::Srun { job: None, node: "n1".into() }]),
        ("srun:12_3/n1", &[Hop::Srun { job: Some("12_3".into()), node: "n1".into() }]),
        ("kubectl:web-0", &[kubectl(None, "web-0", None)]),
        ("kubectl:prod/web-0", &[kubectl(Some("prod"), "web-0", None)]),
        ("kubectl:prod/web-0/app", &[kubectl(Some("prod"), "web-0", Some("app"))]),
        ("kubectl:/web-0/app", &[kubectl(None, "web-0", Some("app"))]),
        ("machine:box", &[Hop::Machine { name: "box".into() }]),
        ("systemd:", &[Hop::Systemd { user: false }]),
        ("systemd:user", &[Hop::Systemd { user: true }]),
        ("command:lxc exec web --", &[command(&["lxc", "exec", "web", "--"])]),
        ("command:a 'b+c' \"d+\\\"e\" f\\+g+sudo", &[command(&["a", "b+c", "d+\"e", "f+g"]), sudo(None)]),
        ("gw+command:x+docker:db", &[ssh(None, "gw", None), command(&["x"]), Hop::Docker { container: "db".into() }]),
        ("user@host+sudo", &[ssh(Some("user"), "host", None), sudo(None)]),
        (
            "gw+user@inner:2200+sudo:web",
            &[ssh(None, "gw", None), ssh(Some("user"), "inner", Some(2200)), sudo(Some("web"))],
        ),
    ];
    for (text, hops) in table {
        assert_eq!(text.parse::<Target>().as_ref().map(Target::hops), Ok(*hops), "{text}");
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let table = [
        ("", "the target is empty: name a host, for instance user@host"),
        ("a++b", "the target \"a++b\" has an empty hop: hops are joined by one '+', for instance user@host+sudo"),
        ("+a", "the target \"+a\" has an empty hop: hops are joined by one '+', for instance user@host+sudo"),
        (
            "host:http",
            "unknown transport \"host\": known are ssh: local: sudo: su: docker: docker-run: podman: podman-run: \
             nsenter: netns: srun: kubectl: machine: systemd: command: (a bare host is ssh)",
        ),
        ("a,b", "in \"a,b\", the host name cannot have ',' in it"),
        (
            "slurm:123",
            "in \"slurm:123\", slurm: is no way to one host: `remotely exec slurm:123 -- ...` goes to all nodes of a job, \
             srun:JOB/NODE to one of them, `remotely slurm: -- ...` asks for a new one (a host of that name is ssh:slurm:123)",
        ),
        ("docker:", "in \"docker:\", the container is missing"),
        (
            "docker:--privileged",
            "in \"docker:--privileged\", the container cannot have '-' in it as its first character",
        ),
        ("docker:a/b", "in \"docker:a/b\", the container cannot have '/' in it"),
        ("docker-run:a b", "in \"docker-run:a b\", the image cannot have ' ' in it"),
        ("docker-run:-v", "in \"docker-run:-v\", the image cannot have '-' in it as its first character"),
        ("podman:$(id)", "in \"podman:$(id)\", the container cannot have '$' in it"),
        ("nsenter:", "in \"nsenter:\", the number of a process is wanted after the colon"),
        ("nsenter:0", "in \"nsenter:0\", the number of a process is wanted after the colon"),
        ("nsenter:1x", "in \"nsenter:1x\", the number of a process is wanted after the colon"),
        ("netns:../x", "in \"netns:../x\", the network namespace cannot have '/' in it"),
        ("netns:..", "in \"netns:..\", the network namespace cannot have '.' in it"),
        ("srun:n[1-3]", "in \"srun:n[1-3]\", the node cannot have '[' in it"),
        ("srun:n1,n2", "in \"srun:n1,n2\", the node cannot have ',' in it"),
        ("srun:job/n1", "in \"srun:job/n1\", the job number cannot have 'j' in it"),
        ("srun:12/", "in \"srun:12/\", the node is missing"),
        ("kubectl:a/b/c/d", "in \"kubectl:a/b/c/d\", [namespace/]pod[/container] is wanted after the colon"),
        ("kubectl:/web", "in \"kubectl:/web\", the namespace is missing"),
        ("kubectl:-n", "in \"kubectl:-n\", the pod cannot have '-' in it as its first character"),
        ("machine:root@box", "in \"machine:root@box\", the machine cannot have '@' in it"),
        ("systemd:web", "in \"systemd:web\", user, or nothing, is wanted after the colon"),
        ("command:", "in \"command:\", the program is missing"),
        ("command:''", "in \"command:''\", the program is missing"),
        ("command:-x", "in \"command:-x\", the program cannot have '-' in it as its first character"),
        ("command:a 'b+c", "in \"command:a 'b+c\", the command cannot be split into words: a ' is not closed"),
        ("command:a 'b\nc'", "in \"command:a 'b\\nc'\", the command cannot have '\\n' in it"),
        ("local:22", "in \"local:22\", local: takes nothing after the colon (a host of that name is ssh:local:22)"),
        ("::1", "in \"::1\", an IPv6 address stands in brackets: [address] or [address]:port"),
        ("u@fe80::1", "in \"u@fe80::1\", an IPv6 address stands in brackets: [address] or [address]:port"),
        ("[::1", "in \"[::1\", an IPv6 address stands in brackets: [address] or [address]:port"),
        ("[::1]22", "in \"[::1]22\", an IPv6 address stands in brackets: [address] or [address]:port"),
        ("host:", "in \"host:\", the port \"\" is not a number from 1 to 65535"),
        ("host:0", "in \"host:0\", the port \"0\" is not a number from 1 to 65535"),
        ("u@host:65536", "in \"u@host:65536\", the port \"65536\" is not a number from 1 to 65535"),
        ("u@host:ssh", "in \"u@host:ssh\", the port \"ssh\" is not a number from 1 to 65535"),
        ("@host", "in \"@host\", the user name is missing"),
        ("user@", "in \"user@\", the host name is missing"),
        ("ssh://", "in \"ssh://\", the host name is missing"),
        ("-oProxyCommand=x", "in \"-oProxyCommand=x\", the host name cannot have '-' in it as its first character"),
        ("-u@host", "in \"-u@host\", the user name cannot have '-' in it as its first character"),
        ("sudo:-i", "in \"sudo:-i\", the user name cannot have '-' in it as its first character"),
        ("a b", "in \"a b\", the host name cannot have ' ' in it"),
        ("u@host;id", "in \"u@host;id\", the host name cannot have ';' in it"),
        ("ssh://host/path", "in \"ssh://host/path\", the host name cannot have '/' in it"),
    ];
    for (text, message) in table {
        assert_eq!(text.parse::<Target>().map_err(|error| error.to_string()), Err(message.to_owned()), "{text}");
    }
}

/// Every target that can be made by parsing anything prints as a text that parses to the same.
#[test]
fn printing_and_parsing_undo_each_other() {
    const PIECES: &[&str] = &[
        "ssh",
        "local",
        "sudo",
        "docker",
        "host",
        "user",
        "1",
        "22",
        ":",
        "//",
        "@",
        "+",
        "[",
        "]",
        "::1",
        "-",
        ".",
        "é",
        " ",
        "%",
        "su:",
        "docker-run:",
        "podman",
        "nsenter:",
        "netns:",
        "srun:",
        "kubectl:",
        "machine:",
        "systemd:",
        "command:",
        "command:",
        "/",
        "'",
        "\"",
        "\\",
        "'+'",
    ];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |bound: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % bound as u64).unwrap()
    };
    let mut parsed = 0;
    for _ in 0..400_000 {
        let text: String = (0..=next(9)).map(|_| PIECES[next(PIECES.len())]).collect();
        let Ok(target) = text.parse::<Target>() else { continue };
        parsed += 1;
        assert_eq!(target.to_string().parse::<Target>(), Ok(target.clone()), "{text:?} printed as {target}");
    }
    assert!(parsed > 5_000, "only {parsed} texts were targets");
}

/// Building checks as parsing does, and makes what parsing makes.
#[test]
fn building_is_parsing() -> Result<(), TargetError> {
    let here = Target::local;
    let table = [
        (Target::ssh("u@[::1]:22")?, "u@[::1]:22"),
        (Target::ssh("gw")?.and_ssh("inner")?.sudo(None)?.sudo(Some("web"))?, "gw+inner+sudo+sudo:web"),
        (here().su(None)?.su(Some("web"))?, "local:+su+su:web"),
        (here().docker("db")?.podman("db")?, "local:+docker:db+podman:db"),
        (here().docker_run("a/b:1")?.podman_run("c")?, "local:+docker-run:a/b:1+podman-run:c"),
        (here().nsenter(17)?.netns("blue")?, "local:+nsenter:17+netns:blue"),
        (here().srun(None, "n1")?.srun(Some("7"), "n2")?, "local:+srun:n1+srun:7/n2"),
        (here().kubectl(None, "p", None)?.kubectl(Some("n"), "p", Some("c"))?, "local:+kubectl:p+kubectl:n/p/c"),
        (here().kubectl(None, "p", Some("c"))?, "local:+kubectl:/p/c"),
        (here().machine("box")?.systemd(true).systemd(false), "local:+machine:box+systemd:user+systemd:"),
        (here().command(["a b", "c+d", "it's", ""])?, "local:+command:'a b' 'c+d' 'it'\\''s' ''"),
    ];
    for (built, text) in table {
        assert_eq!(built.to_string(), text);
        assert_eq!(text.parse(), Ok(built), "{text}");
    }
    let refused = [
        Target::ssh("-oProxyCommand=x"),
        Target::ssh("a+sudo"),
        here().sudo(Some("-i")),
        here().sudo(Some("")),
        here().su(Some("a b")),
        here().docker("a+b"),
        here().docker_run(""),
        here().nsenter(0),
        here().srun(Some("1/2"), "n"),
        here().srun(None, "1/n"),
        here().kubectl(Some(""), "p", None),
        here().kubectl(None, "a/b", None),
        here().kubectl(None, "p", Some("-c")),
        here().command(Vec::<String>::new()),
        here().command(["a", "b\0"]),
    ];
    for (n, target) in refused.into_iter().enumerate() {
        assert!(target.is_err(), "{n}: {target:?}");
    }
    Ok(())
}

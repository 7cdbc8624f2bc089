//! What is a target and what is not, as tables; and that printing and parsing undo each other.

use super::*;

fn ssh(user: Option<&str>, host: &str, port: Option<u16>) -> Hop {
    Hop::Ssh(Ssh { user: user.map(Into::into), host: host.into(), port })
}

fn sudo(user: Option<&str>) -> Hop {
    Hop::Sudo { user: user.map(Into::into) }
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
        ("docker:web", "unknown transport \"docker\": known are ssh: local: sudo: (a bare host is ssh)"),
        ("docker:17", "unknown transport \"docker\": known are ssh: local: sudo: (a bare host is ssh)"),
        ("host+command:nc", "unknown transport \"command\": known are ssh: local: sudo: (a bare host is ssh)"),
        ("host:http", "unknown transport \"host\": known are ssh: local: sudo: (a bare host is ssh)"),
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
        "ssh", "local", "sudo", "docker", "host", "user", "1", "22", ":", "//", "@", "+", "[", "]", "::1", "-", ".",
        "é", " ", "%",
    ];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |bound: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % bound as u64).unwrap()
    };
    let mut parsed = 0;
    for _ in 0..200_000 {
        let text: String = (0..=next(9)).map(|_| PIECES[next(PIECES.len())]).collect();
        let Ok(target) = text.parse::<Target>() else { continue };
        parsed += 1;
        assert_eq!(target.to_string().parse::<Target>(), Ok(target.clone()), "{text:?} printed as {target}");
    }
    assert!(parsed > 5_000, "only {parsed} texts were targets");
}

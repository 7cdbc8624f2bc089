//! What is read as which subnet, compared with what sshuttle 2.0 reads, and what is refused.

use std::io::Write;

use super::*;

fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    match name {
        "one.example" | "*.example" | "3com" => Ok(vec!["192.0.2.1".parse().unwrap()]),
        "two.example" => Ok(vec!["192.0.2.1".parse().unwrap(), "192.0.2.65".parse().unwrap()]),
        "both.example" => Ok(vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn shown(text: &str) -> String {
    match parse(text, &mut resolve, &mut Vec::new()) {
        Ok(subnets) => subnets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        Err(e) => format!("error: {e}"),
    }
}

#[test]
fn reads_what_sshuttle_reads() {
    let table = [
        ("10.1.2.3", "10.1.2.3/32"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.2.3/8:80", "10.0.0.0/8:80"),
        ("10.1.2.3:8000-8080", "10.1.2.3/32:8000-8080"),
        ("10.1.2.3:0", "10.1.2.3/32"),
        ("0/0", "0.0.0.0/0"),
        ("0/0:443", "0.0.0.0/0:443"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("::1", "::1/128"),
        ("10/8", "0.0.0.0/8"),
        ("192.168/16", "192.0.0.0/16"),
        ("10.1", "10.0.0.1/32"),
        ("0x7f.1", "127.0.0.1/32"),
        ("1:2::3/64", "1:2::/64"),
        ("1:2::3", "1:2::3/128"),
        ("[1:2::3]", "1:2::3/128"),
        ("[1:2::3/64]:456", "[1:2::/64]:456"),
        ("[1:2::3]:456-460", "[1:2::3/128]:456-460"),
        ("1:2::3/64:456", "[1:2::/64]:456"),
        ("one.example", "192.0.2.1/32"),
        ("*.example:22", "192.0.2.1/32:22"),
        ("3com", "192.0.2.1/32"),
        ("two.example/26", "192.0.2.0/26 192.0.2.64/26"),
        ("both.example:80", "192.0.2.1/32:80 [2001:db8::1/128]:80"),
    ];
    for (text, means) in table {
        assert_eq!(shown(text), means, "{text}");
    }
}

#[test]
fn refuses_the_absurd_and_says_what_is_wrong() {
    let table = [
        ("10.0.0.0/33", "error: 10.0.0.0/33: /33 is not between /0 and /32"),
        ("::/129", "error: ::/129: /129 is not between /0 and /128"),
        ("10.0.0.0/999999999999", "error: 10.0.0.0/999999999999: /999999999999 is not between /0 and /32"),
        ("10.0.0.1:70000", "error: 10.0.0.1:70000: there is no port 70000 (1 to 65535)"),
        ("10.0.0.1:0-80", "error: 10.0.0.1:0-80: there is no port 0 (1 to 65535)"),
        ("10.0.0.1:90-80", "error: 10.0.0.1:90-80: the ports 90-80 are the wrong way round"),
        ("no.example", "error: no.example: no address is known for this name"),
        ("10.0.0.256", "error: 10.0.0.256: no address is known for this name"),
        (
            "both.example/24",
            "error: both.example has IPv4 and IPv6 addresses, so the width /24 can't be meant for both: write the addresses",
        ),
    ];
    for (text, says) in table {
        assert_eq!(shown(text), says, "{text}");
    }
    let shapes = [
        "",
        "/",
        ":",
        "/8",
        ":80",
        "10.0.0.0/",
        "10.0.0.0/8/8",
        "10.0.0.1:",
        "10.0.0.1:1-",
        "a b",
        "[::1",
        "[::1]80",
        "[::1]/64",
        "-",
        "::1%lo",
        "10.0.0.0/-1",
        "10.0.0.1:+5",
    ];
    for text in shapes {
        let said = shown(text);
        assert!(said.contains("is not a subnet") || text == "-" && said.contains("no address"), "{text}: {said}");
    }
}

#[test]
fn warns_of_what_is_hardly_meant() {
    let cautions = |text: &str| {
        let mut cautions = Vec::new();
        parse(text, &mut resolve, &mut cautions).unwrap();
        cautions.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(
        cautions("10/8"),
        "10/8 is read as 0.0.0.10, as inet_aton(3) does; write all four numbers if that is not meant"
    );
    assert_eq!(cautions("0/0"), "");
    assert_eq!(cautions("10.0.0.0/8"), "");
    assert_eq!(cautions("two.example/24"), "two.example has 2 addresses; the width is meant for each of them");
    assert_eq!(cautions("two.example"), "");
}

#[test]
fn reads_files_with_comments() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"# ours\n\n  10.0.0.0/8  \n::/0 # all\nbad/99\n").unwrap();
    let error = read(file.path(), &mut resolve, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.ends_with(":5: bad: no address is known for this name"), "{error}");
    std::fs::write(file.path(), "# ours\n\n  10.0.0.0/8  \n::/0 # all\n").unwrap();
    let subnets = read(file.path(), &mut resolve, &mut Vec::new()).unwrap();
    assert_eq!(subnets.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "::/0"]);
    let error = read(Path::new("/no/such"), &mut resolve, &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "/no/such: the subnets in it can't be read");
}

proptest::proptest! {
    #[test]
    fn never_panics(text in "\\PC{0,40}") {
        let _ = parse(&text, &mut resolve, &mut Vec::new());
    }

    #[test]
    fn what_is_shown_is_read_as_the_same(bits: u128, width in 0u8..=128, six: bool, port in 0u16.., more in 0u16..) {
        let family = if six { Family::V6 } else { Family::V4 };
        let ports = Ports::new(port, port.saturating_add(more));
        let subnet = Subnet::new(family.address(bits), width % (family.bits() + 1), ports).unwrap();
        let read = parse(&subnet.to_string(), &mut resolve, &mut Vec::new()).unwrap();
        proptest::prop_assert_eq!(read, vec![subnet]);
    }
}

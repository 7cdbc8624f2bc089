//! The helper's language: what it understands, what it refuses, and that nothing makes it panic.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<Vec<Request>, LineError> {
    let mut reader = Reader::new();
    reader.take(text.as_bytes());
    let mut requests = Vec::new();
    while let Some(request) = reader.next_request()? {
        requests.push(request);
    }
    Ok(requests)
}

const START: &str = "ROUTES\n2,8,0,10.0.0.0,0,0\n2,16,1,10.1.0.0,80,90\n10,8,0,fd00::,0,0\nNSLIST\n2,127.0.0.53\n10,::1\nOWN\n6,192.0.2.2,4000,10.1.1.1,22\n17,0.0.0.0,4001,-,0\nPORTS 12301,12300,0,5300\nGO 1 1000 - 0x1 4711 router kill-switch\n";

#[test]
fn understands_what_sshuttle_says_and_more() {
    let requests = read(&format!("{START}HOST web.corp,10.0.0.7\nSOURCE fd00::7,443\nDONE\n")).unwrap();
    let [Request::Go(go), host, source, done] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(go.client, 4711);
    assert_eq!(go.desired.instance, 12300);
    assert_eq!(go.desired.tcp, Listeners { v4: Some(12300), v6: Some(12301) });
    assert_eq!(go.desired.udp, go.desired.tcp);
    assert_eq!(go.desired.dns, Listeners { v4: Some(5300), v6: None });
    assert_eq!((go.desired.user, go.desired.group, go.desired.mark), (Some(1000), None, Some(1)));
    assert!(go.desired.router && go.desired.kill_switch && !go.desired.owned);
    assert!(go.desired.table.captures("10.1.0.1".parse().unwrap(), 91));
    assert!(!go.desired.table.captures("10.1.0.1".parse().unwrap(), 90));
    assert_eq!(go.desired.own.len(), 2);
    assert_eq!(*host, Request::Host { name: "web.corp".into(), address: "10.0.0.7".parse().unwrap() });
    assert_eq!(*source, Request::Source("[fd00::7]:443".parse().unwrap()));
    assert_eq!(*done, Request::Done);
    let plain = read("ROUTES\nNSLIST\nPORTS 0,1,0,0\nGO 0 - - 0x01 1\n").unwrap();
    assert_eq!(plain.len(), 1);
    assert_eq!(read(&format!("{START}{START}")).unwrap().len(), 2, "the rules may change");
}

#[test]
fn pieces_of_any_size_are_the_same() {
    let mut reader = Reader::new();
    let mut requests = Vec::new();
    for byte in START.bytes() {
        reader.take(&[byte]);
        requests.extend(reader.next_request().unwrap());
    }
    assert_eq!(requests, read(START).unwrap());
}

#[test]
fn refuses_all_else() {
    let table = [
        "HELLO\n",
        "\n",
        " ROUTES\n",
        "routes\n",
        "HOST a,10.0.0.1\n",
        "DONE\n",
        "ROUTES\n\n",
        "ROUTES\n2,33,0,10.0.0.0,0,0\n",
        "ROUTES\n10,8,0,10.0.0.0,0,0\n",
        "ROUTES\n2,8,2,10.0.0.0,0,0\n",
        "ROUTES\n2,8,0,10.0.0.0,90,80\n",
        "ROUTES\n2,8,0,10.0.0.0,0,80\n",
        "ROUTES\n2,8,0,10.0.0.0,0,0,0\n",
        "ROUTES\n2,8,0,web,0,0\n",
        "ROUTES\nROUTES\n",
        "ROUTES\nNSLIST\n2,web\n",
        "ROUTES\nNSLIST\nOWN\n1,1.1.1.1,1,2.2.2.2,2\n",
        "ROUTES\nNSLIST\nOWN\n6,-,0,-,0\n",
        "ROUTES\nNSLIST\nOWN\n6,1.1.1.1,1,::1,2\n",
        "ROUTES\nNSLIST\nPORTS 1,2,3\n",
        "ROUTES\nNSLIST\nPORTS 1,2,3,65536\n",
        "ROUTES\nNSLIST\nPORTS 1,2,3,4\nGO 0 root - - 1\n",
        "ROUTES\nNSLIST\nPORTS 1,2,3,4\nGO 0 - - 0 1\n",
        "ROUTES\nNSLIST\nPORTS 1,2,3,4\nGO 0 - - - 1 twice\n",
        "ROUTES\nNSLIST\nPORTS 1,2,3,4\nGO 0 - - - 1 router router\n",
        "ROUTES\nNSLIST\nPORTS 1,2,3,4\nGO 0 - - -\n",
    ];
    for text in table {
        assert!(matches!(read(text), Err(LineError::Unexpected { .. })), "{text:?}: {:?}", read(text));
    }
    for line in ["HOST\n", "host a,10.0.0.1\n", "SOURCE 10.0.0.1\n", "SOURCE 10.0.0.1,0\n", "GO\n", "QUERY_PF_NAT\n"] {
        assert!(read(&format!("{START}{line}")).is_err(), "{line}");
    }
    assert_eq!(read(&format!("{}\n", "x".repeat(400))), Err(LineError::Long));
    assert_eq!(read(&"x".repeat(400)), Err(LineError::Long));
    assert_eq!(read(&format!("{START}SOURCE {}", "1".repeat(400))), Err(LineError::Long));
    assert_eq!(read(&format!("HOST {}", "x".repeat(400))), Err(LineError::Long), "before there are rules");
    let many = format!("ROUTES\nNSLIST\n{}", "2,1.1.1.1\n".repeat(300));
    assert_eq!(read(&many), Err(LineError::Many { section: "NSLIST" }));
}

#[test]
fn a_bad_name_is_passed_over_and_nothing_else() {
    let longest = format!("{}.c", "x".repeat(251));
    let good = format!("{longest},fd00:1111:2222:3333:4444:5555:6666:7777");
    let host = |name: &str| Request::Host { name: name.into(), address: "10.0.0.1".parse().unwrap() };
    for bad in [
        "HOST a b,10.0.0.1",
        "HOST ,10.0.0.1",
        "HOST a;b,10.0.0.1",
        "HOST a,b",
        "HOST a",
        "HOST ",
        "HOST \u{e9},10.0.0.1",
        &format!("HOST {longest}x,10.0.0.1"),
        &format!("HOST {}", "HOST a,10.0.0.1 ".repeat(1000)),
    ] {
        let text = format!("{START}HOST a,10.0.0.1\n{bad}\nHOST b,10.0.0.1\nHOST {good}\nDONE\n");
        let whole = read(&text).unwrap();
        assert_eq!(whole[1..3], [host("a"), host("b")], "{bad}");
        assert!(matches!(&whole[3], Request::Host { name, .. } if *name == longest));
        assert_eq!(whole[4..], [Request::Done]);
        // In pieces, of which no more is kept than a line has.
        let mut reader = Reader::new();
        let mut requests = Vec::new();
        for byte in text.bytes() {
            reader.take(&[byte]);
            requests.extend(reader.next_request().unwrap());
            assert!(reader.bytes.len() < LONGEST);
        }
        assert_eq!(requests, whole);
    }
}

fn words() -> impl Strategy<Value = String> {
    let tokens = [
        "ROUTES",
        "NSLIST",
        "OWN",
        "PORTS ",
        "GO ",
        "HOST ",
        "SOURCE ",
        "DONE",
        "\n",
        "\n",
        ",",
        " ",
        "-",
        "0",
        "1",
        "2",
        "10",
        "65535",
        "70000",
        "10.0.0.0",
        "fd00::",
        "0x1",
        "router",
        "2,8,0,10.0.0.0,0,0\n",
        "PORTS 1,2,3,4\n",
        "GO 0 - - - 1\n",
        "é",
        "\0",
    ];
    proptest::collection::vec(proptest::sample::select(tokens.to_vec()), 0..60).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_keep_more_than_a_line(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        let mut reader = Reader::new();
        reader.take(&bytes);
        while let Ok(Some(_)) = reader.next_request() {}
    }

    #[test]
    fn no_words_make_it_panic_and_what_it_reads_it_says_the_same(text in words()) {
        let mut reader = Reader::new();
        reader.take(text.as_bytes());
        let mut said = START.to_owned();
        let mut requests = read(START).unwrap();
        while let Ok(Some(request)) = reader.next_request() {
            said.push_str(&say(&request));
            requests.push(request);
        }
        prop_assert!(said.lines().all(|line| line.len() < LONGEST));
        prop_assert_eq!(read(&said).unwrap(), requests);
    }
}

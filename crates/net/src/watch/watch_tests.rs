//! What hostwatch finds, in virtual time and with a nameserver that is a table.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use super::*;

type Zone = Arc<Mutex<BTreeMap<(Vec<u8>, u16), Vec<u8>>>>;

/// Answers questions of a zone, with an error for all else.
fn nameserver(zone: &Zone) -> impl Fn(Vec<u8>) -> std::future::Ready<io::Result<Vec<u8>>> + use<> {
    let zone = zone.clone();
    move |question| {
        let name = question[12..question.len() - 4].to_vec();
        let kind = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
        let zone = zone.lock().unwrap();
        let Some(data) = zone.get(&(name, kind)) else {
            return std::future::ready(Err(io::ErrorKind::NotFound.into()));
        };
        let mut message = question;
        message[7] = 1;
        message.extend([0xc0, 12]);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1, 0, 0, 0, 60]);
        message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        message.extend(data);
        std::future::ready(Ok(message))
    }
}

fn add(zone: &Zone, name: &str, address: &str) {
    let question = |name: &str, kind| dns::question(name, kind).unwrap();
    let wire = |question: Vec<u8>| question[12..question.len() - 4].to_vec();
    let address: IpAddr = address.parse().unwrap();
    let (kind, data) = match address {
        IpAddr::V4(address) => (Kind::A, address.octets().to_vec()),
        IpAddr::V6(address) => (Kind::Aaaa, address.octets().to_vec()),
    };
    let mut zone = zone.lock().unwrap();
    zone.insert((wire(question(name, kind)), kind as u16), data);
    zone.insert((wire(question(&dns::reverse(address), Kind::Ptr)), Kind::Ptr as u16), wire(question(name, kind)));
}

fn sources(place: &std::path::Path) -> Sources {
    Sources {
        seeds: Vec::new(),
        auto: true,
        search: vec!["corp.example".into()],
        hosts: place.join("hosts"),
        connections: place.into(),
        kept: Some(place.join("kept")),
    }
}

async fn until_quiet(found: &mut mpsc::Receiver<(String, IpAddr)>, within: Duration) -> Vec<String> {
    let mut all = Vec::new();
    while let Ok(Some((name, address))) = tokio::time::timeout(within, found.recv()).await {
        all.push(format!("{name} {address}"));
    }
    all.sort();
    all
}

#[tokio::test(start_paused = true)]
async fn finds_by_hosts_connections_and_nameservers() {
    let place = tempfile::tempdir().unwrap();
    fs::write(
        place.path().join("hosts"),
        "127.0.0.1 localhost\n10.0.0.1 web.corp.example alias # comment\nfd00::1 six\nbad line\n255.1.1.1 no\n",
    )
    .unwrap();
    let tcp = "  sl  local_address rem_address   st\n   0: 0200000A:0016 0300000A:C350 01\n   1: 0100007F:0016 00000000:0000 0A\n";
    fs::write(place.path().join("tcp"), tcp).unwrap();
    fs::write(
        place.path().join("tcp6"),
        "head\n 0: 000000FD000000000000000007000000:0050 00000000000000000000000000000000:0000 0A\n",
    )
    .unwrap();
    let zone = Zone::default();
    add(&zone, "db.corp.example", "10.0.0.3");
    add(&zone, "mail.corp.example", "fd00::7");
    add(&zone, "seed.corp.example", "10.0.0.9");
    let (send, mut found) = mpsc::channel(1);
    let watched = Sources { seeds: vec!["seed".into(), "10.0.0.9".into()], ..sources(place.path()) };
    let task = tokio::spawn(watch(watched, nameserver(&zone), send));
    let all = until_quiet(&mut found, Duration::from_secs(20)).await;
    assert_eq!(
        all,
        [
            "alias 10.0.0.1",
            "db 10.0.0.3",
            "db.corp.example 10.0.0.3",
            "mail fd00::7",
            "mail.corp.example fd00::7",
            "seed 10.0.0.9",
            "seed.corp.example 10.0.0.9",
            "six fd00::1",
            "web 10.0.0.1",
            "web.corp.example 10.0.0.1",
        ]
    );
    let kept = place.path().join("kept");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&kept).unwrap().contains("db.corp.example,10.0.0.3\n"));
    // A new connection is seen within half a minute; nothing is said twice.
    add(&zone, "late.corp.example", "10.0.0.4");
    fs::write(place.path().join("tcp"), format!("{tcp}   2: 0200000A:0016 0400000A:C350 01\n")).unwrap();
    assert_eq!(until_quiet(&mut found, Duration::from_secs(31)).await, ["late 10.0.0.4", "late.corp.example 10.0.0.4"]);
    // What has moved is found again within a quarter of an hour.
    add(&zone, "db.corp.example", "10.0.0.33");
    assert_eq!(
        until_quiet(&mut found, Duration::from_secs(16 * 60)).await,
        ["db 10.0.0.33", "db.corp.example 10.0.0.33"]
    );
    drop(found);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn only_seeds_unless_asked_for_more() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("hosts"), "10.0.0.1 web\n").unwrap();
    let zone = Zone::default();
    add(&zone, "seed.example", "10.0.0.9");
    let (send, mut found) = mpsc::channel(1);
    let watched = Sources { seeds: vec!["seed.example".into()], auto: false, ..sources(place.path()) };
    let task = tokio::spawn(watch(watched, nameserver(&zone), send));
    assert_eq!(until_quiet(&mut found, Duration::from_secs(60)).await, ["seed 10.0.0.9", "seed.example 10.0.0.9"]);
    assert!(!place.path().join("kept").exists());
    drop(found);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn names_of_the_last_time_come_at_once_and_a_dead_nameserver_stops_nothing() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("kept"), "old.example,10.0.0.5\nbad\nevil name,10.0.0.6\nx,127.0.0.1\n").unwrap();
    fs::write(place.path().join("hosts"), (1..100).map(|n| format!("10.1.0.{n} h{n}\n")).collect::<String>()).unwrap();
    let (send, mut found) = mpsc::channel(1);
    let task = tokio::spawn(watch(sources(place.path()), |_| std::future::pending(), send));
    let all = until_quiet(&mut found, Duration::from_secs(5)).await;
    assert_eq!(all.len(), 2 + 99);
    assert!(all.contains(&"old 10.0.0.5".to_owned()));
    drop(found);
    task.await.unwrap();
}

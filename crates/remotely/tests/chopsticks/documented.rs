//! The examples of chopsticks' documentation.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use remotely::copy::Options;
use remotely::target::Target;
use remotely::{Group, Queue, Tunnel, facts, remote};

use crate::{check_output, get_pid, group, listening, local, text, way};

#[remote]
fn tell_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Readme: "Time on host".
#[tokio::test]
async fn the_time_of_a_host() {
    let tunnel = local("troy.example.com");
    let (before, there, after) = (tell_time(), tunnel.call(tell_time, ()).await.unwrap(), tell_time());
    assert!(before <= there && there <= after, "{before:?} {there:?} {after:?}");
    assert_eq!(tunnel.host(), "troy.example.com");
}

/// Readme and groups: the address of each host.
#[tokio::test]
async fn the_addresses_of_a_group() {
    let group = group(&["web1.example.com", "web2.example.com", "web3.example.com"]);
    let addresses = group.call(facts::addresses, ()).await.raise_failures().unwrap();
    assert_eq!(addresses.keys().collect::<Vec<_>>(), ["web1.example.com", "web2.example.com", "web3.example.com"]);
    for (host, addresses) in addresses {
        assert!(addresses.iter().any(|address| address.address.is_loopback()), "{host}: {addresses:?}");
    }
}

#[remote]
fn tell_version() -> Option<String> {
    std::env::var("VERSION").ok()
}

/// Readme: containers with different versions of something, under names of their own.
#[tokio::test]
async fn workers_that_differ() {
    let worker = |(n, version): (u32, &str)| {
        let target = Target::local().command(["env", &format!("VERSION={version}")]).unwrap();
        Tunnel::new(target).named(format!("worker-{n}"))
    };
    let group: Group = [(1, "3.4"), (2, "3.5"), (3, "3.6")].into_iter().map(worker).collect();
    let versions = group.call(tell_version, ()).await.raise_failures().unwrap();
    let wanted = [("worker-1", "3.4"), ("worker-2", "3.5"), ("worker-3", "3.6")];
    assert_eq!(versions, wanted.map(|(host, version)| (host.to_owned(), Some(version.to_owned()))).into());
}

/// Examples: a configuration to three servers, then a service is restarted.
#[tokio::test]
async fn a_configuration_and_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("uwsgi.ini"), "[uwsgi]\n").unwrap();
    let servers = group(&["www1", "www2", "www3"]);
    let options = Options { parents: true, ..Options::default() };
    servers.put(at("uwsgi.ini"), at("{host}/uwsgi.ini"), &options).await.raise_failures().unwrap();
    let restart = format!("cat {}/www*/uwsgi.ini && echo restarted", dir.path().display());
    let said = servers.call(check_output, (restart,)).await.raise_failures().unwrap();
    assert!(said.values().all(|said| said == "[uwsgi]\n[uwsgi]\n[uwsgi]\nrestarted\n"), "{said:?}");
    // What `check_output` raises.
    let failures = servers.call(check_output, ("echo no >&2; exit 3".into(),)).await.raise_failures().unwrap_err();
    assert!(failures.to_string().starts_with("3 of 3 hosts failed\n  www1: exit status: 3: no"), "{failures}");
    servers.close().await;
}

/// Queues: three files onto three hosts.
#[tokio::test]
async fn three_files_onto_three_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (queue, group) = (Queue::new(), group(&["host1", "host2", "host3"]));
    let mut put = Vec::new();
    for file in ["a.txt", "b.txt", "c.txt"] {
        std::fs::write(at(file), file).unwrap();
        for tunnel in group.tunnels() {
            let there = at(tunnel.host()).join(file);
            put.push(queue.transfer(tunnel, tunnel.put(at(file), there).parents()));
        }
    }
    queue.finished().await;
    for put in put {
        put.await.unwrap();
    }
    for host in group.hosts() {
        for file in ["a.txt", "b.txt", "c.txt"] {
            assert_eq!(std::fs::read_to_string(at(host).join(file)).unwrap(), file);
        }
    }
}

/// Groups: sets of hosts, and tunnels as groups of one.
#[tokio::test]
async fn groups_are_added() {
    let (web, workers) = (group(&["web1", "web2"]), group(&["worker1", "worker2"]));
    let said = (&web + &workers).call(get_pid, ()).await.raise_failures().unwrap();
    assert_eq!(said.into_keys().collect::<Vec<_>>(), ["web1", "web2", "worker1", "worker2"]);
    assert_eq!(format!("{:?}", local("docker1") + local("docker2")), r#"Group(["docker1", "docker2"])"#);
}

#[remote]
fn do_it() -> String {
    "done".into()
}

/// How to: a script of one file. Functions need no module of their own.
#[tokio::test]
async fn one_file() {
    #[remote]
    fn inside() -> String {
        do_it()
    }
    let tunnel = local("remote");
    assert_eq!(tunnel.call(do_it, ()).await.unwrap(), "done");
    assert_eq!(tunnel.call(inside, ()).await.unwrap(), "done");
}

/// Tunnels: a driver of one's own. Chopsticks asks it not to write to standard output; here that is passed over. What it
/// writes to standard error is shown.
#[tokio::test]
async fn a_new_kind_of_tunnel() {
    let dir = tempfile::tempdir().unwrap();
    let script = way(&dir, "echo Welcome; echo starting $1 >&2; shift; exec \"$@\"");
    let (listening, heard) = listening("x");
    drop(listening);
    let keep = heard.clone();
    let target = Target::local().command([script.to_str().unwrap(), "vm7"]).unwrap();
    let tunnel = Tunnel::new(target).named("vm7").on_line(move |line| keep.lock().unwrap().push(line.clone()));
    assert_eq!(tunnel.call(here::ask, ()).await.unwrap(), "vm7");
    assert_eq!(text(&heard), ["starting vm7"]);
}

/// Where a function runs.
mod here {
    #[remotely::remote]
    pub(super) fn ask() -> String {
        remotely::here::host()
    }
}

/// The work of one machine: its own pool, and what that found.
#[remote]
async fn run_pool(workers: u32) -> Result<BTreeMap<String, Vec<String>>, remotely::group::Failures> {
    let pool: Group = (0..workers).map(|n| Tunnel::local().named(format!("worker{n}"))).collect();
    pool.call(tell_path, ()).await.raise_failures()
}

#[remote]
fn tell_path() -> Vec<String> {
    remotely::here::path()
}

/// Tunnels: physical hosts that each have a pool of workers, "for an instant cluster".
#[tokio::test]
async fn an_instant_cluster() {
    let cluster = group(&["big1", "big2"]);
    let found = cluster.call(run_pool, (2,)).await.raise_failures().unwrap();
    assert_eq!(found.len(), 2);
    for (host, pool) in found {
        for (worker, path) in pool {
            assert_eq!(path, ["localhost", host.as_str(), worker.as_str()]);
        }
    }
}

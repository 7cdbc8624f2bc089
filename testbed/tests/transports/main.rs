//! All transports, each against the real thing where it can be had, in one suite: a row of `conforms` per transport.
//! kubectl and systemd-run are stand-ins that check their arguments and run the rest.

mod carrier;
mod checks;

use std::time::{Duration, Instant};

use carrier::{Carrier, From};
use testbed::engine::Kind;
use testbed::{Client, Engine, HostOptions, Pair, Wire};

#[test]
fn ssh() {
    let pair = Pair::start();
    let failing: &[(&str, &[&str])] = &[
        ("dev@no-such-host.invalid", &["no-such-host.invalid", "is the name right?"]),
        ("dev@far+docker:db", &["docker:db: there is no docker at that place of the way", "docker.io"]),
        ("dev@far+kubectl:db", &["kubectl:db: there is no kubectl at that place of the way"]),
    ];
    Carrier { from: From::Client(&pair.client), target: "dev@far", lasts: true, terminal_output: false, failing }
        .conforms();
    pair.host_clean_within(Duration::from_secs(10));
}

#[test]
fn local_and_command() {
    let client = Client::start();
    let from = || From::Client(&client);
    Carrier { from: from(), target: "local:", lasts: true, terminal_output: false, failing: &[] }.conforms();
    let failing: &[(&str, &[&str])] = &[
        ("command:env PATH=/nowhere", &["there is no sh in that place"]),
        ("command:no-such-program a", &["there is no no-such-program in PATH here", "is the name right,"]),
    ];
    let target = "command:env 'A=b+c d' HOME=/nowhere XDG_CACHE_HOME=/nowhere nice";
    // Of its own, so that the first time there is no agent.
    let target = target.replace("/nowhere XDG_CACHE_HOME=/nowhere", &client.work().display().to_string());
    Carrier { from: from(), target: &target, lasts: true, terminal_output: false, failing }.conforms();
}

#[test]
fn sudo_and_su() {
    let options = HostOptions { sudo: true, ..HostOptions::default() };
    let pair = Pair::of(Client::start(), options, Wire::default());
    let from = || From::Client(&pair.client);
    let failing: &[(&str, &[&str])] = &[
        ("sudo", &["sudo: sudo asks for a password", "NOPASSWD"]),
        ("dev@far+sudo:nobody-there", &["sudo:nobody-there: there is no such user"]),
        ("dev@far+sudo+sudo:nobody-there", &["there is no such user"]),
    ];
    Carrier { from: from(), target: "dev@far+sudo", lasts: true, terminal_output: false, failing }.conforms();
    let failing: &[(&str, &[&str])] = &[
        ("dev@far+su", &["su: su asks for a password, and nobody can be asked for one here", "sudo+su"]),
        ("dev@far+sudo+su:nobody-there", &["su:nobody-there: there is no such user"]),
    ];
    Carrier { from: from(), target: "dev@far+sudo+su:games", lasts: true, terminal_output: false, failing }.conforms();
    pair.host_clean_within(Duration::from_secs(10));
}

#[test]
fn docker() {
    let engine = Engine::start(Kind::Docker);
    let naked = engine.ask(&["docker", "inspect", "-f", "{{.State.Pid}}", "naked"]);
    containers(&engine, "docker", &[]);
    // The number is that of the engine's pid namespace; its processes are entered from there.
    let inside = format!("command:nsenter --target {} --pid --mount+nsenter:{}", engine.init(), naked.trim());
    let failing: &[(&str, &[&str])] = &[(&inside, &["there is no sh in that place"])];
    let target = "docker:box+command:env HOME=/tmp";
    Carrier { from: From::Engine(&engine), target, lasts: true, terminal_output: false, failing }.conforms();
}

#[test]
fn podman() {
    let engine = Engine::start(Kind::Podman);
    containers(&engine, "podman", &[]);
}

/// A running and a throwaway container of an engine, and what it says about those that there are not.
fn containers(engine: &Engine, program: &str, more: &[(&str, &[&str])]) {
    let target = |text: &str| text.replace("E:", &format!("{program}:")).replace("E-", &format!("{program}-"));
    let named = |text: &str, what: &str| (target(text), format!("{}: {what}", target(text)));
    let known = [
        named("E:nope", "there is no container of that name"),
        named("E:stopped", "the container does not run"),
        named("E:naked", "there is no sh in the container"),
        named("E-run:localhost/naked:1", "there is no sh in the container"),
        named("E-run:localhost:1/nope:1", "there is no such image, and it could not be pulled"),
    ];
    let texts: Vec<[&str; 1]> = known.iter().map(|(_, what)| [what.as_str()]).collect();
    let mut failing: Vec<(&str, &[&str])> =
        known.iter().zip(&texts).map(|((target, _), text)| (target.as_str(), &text[..])).collect();
    failing.extend(more);
    let from = || From::Engine(engine);
    let all = |engine: &Engine| engine.ask(&[program, "ps", "--all", "--quiet"]).lines().count();
    let before = all(engine);
    Carrier { from: from(), target: &target("E:box"), lasts: true, terminal_output: false, failing: &failing }
        .conforms();
    Carrier {
        from: from(),
        target: &target("E-run:localhost/box:1"),
        lasts: false,
        terminal_output: false,
        failing: &[],
    }
    .conforms();
    // However those ended, one of them with its client killed.
    let deadline = Instant::now() + Duration::from_secs(10);
    while all(engine) != before {
        assert!(Instant::now() < deadline, "left over:\n{}", engine.ask(&[program, "ps", "--all"]));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn namespaces() {
    let engine = Engine::start(Kind::Netns);
    let from = || From::Engine(&engine);
    let failing: &[(&str, &[&str])] =
        &[("netns:green", &["netns:green: there is no network namespace of that name", "ip netns"])];
    Carrier { from: from(), target: "netns:blue", lasts: true, terminal_output: false, failing }.conforms();
    let pair = Pair::start();
    let target = format!("nsenter:{}", pair.host.init());
    let failing: &[(&str, &[&str])] = &[
        ("nsenter:4194303", &["nsenter:4194303: there is no such process, or it is not this user's"]),
        ("command:setpriv --reuid 65534 --clear-groups --+nsenter:1", &["nsenter:1: "]),
    ];
    Carrier { from: from(), target: &target, lasts: true, terminal_output: false, failing }.conforms();
}

#[test]
fn slurm() {
    let engine = Engine::start(Kind::Slurm);
    let from = || From::Engine(&engine);
    let failing: &[(&str, &[&str])] = &[
        ("srun:n7", &["srun:n7: there is no such node in the partition or the job", "sinfo -N"]),
        ("srun:99/n1", &["srun:99/n1: there is no such job that runs", "squeue"]),
        ("srun:1/n0", &["srun:1/n0: there is no such node in the partition or the job"]),
        ("command:env -u SLURM_CONF+srun:n1", &["srun:n1: Slurm's controller did not answer"]),
    ];
    Carrier { from: from(), target: "srun:n1", lasts: true, terminal_output: true, failing }.conforms();
    // The home is that of here on both nodes, where the agent is already.
    let target = format!("srun:1/n1+command:env HOME={}", engine.room().join("state").display());
    Carrier { from: from(), target: &target, lasts: true, terminal_output: true, failing: &[] }.conforms();
}

#[test]
fn allocations_of_slurm_are_had_used_and_given_back() {
    let engine = Engine::start(Kind::Slurm);
    let run = |words: &[&str]| {
        let mut command = From::Engine(&engine).remotely(words);
        testbed::Process::start(&mut command, b"").wait(Duration::from_secs(40))
    };
    let given_back = || {
        let deadline = Instant::now() + Duration::from_secs(10);
        while engine.ask(&["squeue", "--noheader", "--format=%i"]).trim() != "1" {
            assert!(Instant::now() < deadline, "not given back: {}", engine.ask(&["squeue"]));
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let outcome = run(&["slurm:", "-N1", "-w", "n0", "--", "sh", "-c", "echo ran; exit 5"]);
    assert_eq!((outcome.code(), outcome.text().as_str()), (5, "ran\n"), "{}", outcome.errors());
    given_back();
    let words = ["slurm:", "-w", "n0", "--", "sh", "-c", "echo began; sleep 1000"];
    let killed = testbed::Process::start(&mut From::Engine(&engine).remotely(&words), b"");
    killed.expect("began", Duration::from_secs(20));
    killed.signal(9);
    given_back();
    let outcome = run(&["slurm:", "-w", "n7", "--", "true"]);
    assert_eq!(outcome.code(), 255, "{}", outcome.errors());
    assert!(outcome.errors().contains("Slurm gave no allocation"), "{}", outcome.errors());
    // The nodes of a job are a group, each reached by srun.
    let outcome = run(&["exec", "slurm:1", "--", "echo on $SLURMD_NODENAME"]);
    assert_eq!((outcome.code(), outcome.text().as_str()), (0, "n1: on n1\n"), "{}", outcome.errors());
}

#[test]
fn kubectl_as_documented() {
    let engine = Engine::start(Kind::Netns);
    engine.program("kubectl", KUBECTL);
    let from = || From::Engine(&engine);
    let failing: &[(&str, &[&str])] = &[
        ("kubectl:gone", &["kubectl:gone: there is no such pod", "kubectl get pods"]),
        ("kubectl:naked", &["kubectl:naked: there is no sh in the container"]),
    ];
    Carrier { from: from(), target: "kubectl:prod/web-0/app", lasts: true, terminal_output: false, failing }.conforms();
    let outcome = testbed::Process::start(&mut from().remotely(&["doctor", "kubectl:/web-0/app"]), b"");
    assert!(outcome.wait(Duration::from_secs(20)).text().contains("the agent answered"));
}

#[test]
fn systemd_as_documented() {
    let engine = Engine::start(Kind::Netns);
    engine.program("systemd-run", SYSTEMD_RUN);
    for (target, place) in [("machine:box", "box"), ("systemd:", "system"), ("systemd:user", "user")] {
        let home = engine.room().join(place);
        std::fs::create_dir(&home).expect("testbed: create a directory");
        let failing: &[(&str, &[&str])] = &[("machine:gone", &["machine:gone: there is no such machine"])];
        let target = format!("{target}+command:env HOME={}", home.display());
        Carrier { from: From::Engine(&engine), target: &target, lasts: true, terminal_output: false, failing }
            .conforms();
    }
}

/// Takes exactly what `kubectl exec` is to be given.
const KUBECTL: &str = r#"#!/bin/sh
refuse() { echo "kubectl: unexpected arguments: $*" >&2; exit 64; }
[ "$1 $2 $3" = "exec -i --quiet" ] || refuse "$@"
shift 3
case "$1 $2 $3 $4 $5 $6" in
"-n prod -c app web-0 --") shift 6 ;;
"-c app web-0 -- "*) shift 4 ;;
"gone -- "*) echo 'Error from server (NotFound): pods "gone" not found' >&2; exit 1 ;;
"naked -- "*)
    echo 'error: Internal error occurred: error executing command in container: exec: "sh": executable file not found in $PATH: unknown' >&2
    exit 1 ;;
*) refuse "$@" ;;
esac
[ "$1 $2" = "sh -c" ] && [ $# = 3 ] || refuse "$@"
exec "$@"
"#;

/// Takes exactly what `systemd-run` is to be given, and replaces in it what the service manager replaces.
const SYSTEMD_RUN: &str = r#"#!/usr/bin/python3
import os, re, sys
words = sys.argv[1:]
def expect(expected):
    global words
    if words[:len(expected)] != expected:
        sys.exit("systemd-run: unexpected arguments: %r" % words)
    words = words[len(expected):]
expect(["--quiet", "--pipe", "--wait", "--collect"])
if words[0] == "--machine":
    if words[1] == "gone":
        sys.exit("Failed to start transient service unit: No machine 'gone' known")
    expect(["--machine", "box"])
elif words[0] == "--user":
    expect(["--user"])
expect(["--"])
if not words[0].startswith("/"):
    sys.exit("systemd-run: not an absolute path: %r" % words[0])
def literal(word):
    word = os.fsencode(word)
    if re.search(rb"\$", word.replace(b"$$", b"")):
        sys.exit("systemd-run: would be replaced: %r" % word)
    return word.replace(b"$$", b"$")
os.execv(words[0], [literal(word) for word in words])
"#;

//! Ways to name a host, options before and after it, and what is said about those that can't be used.

use std::time::Duration;

use testbed::{Checks, Client, HostOptions, Pair, Wire};

#[test]
fn by_ssh() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    let port = pair.relay.address().port();
    let (run, not_here) =
        ("sh -c 'cat /proc/sys/kernel/hostname >/dev/null; grep -o only-far /etc/hosts'", "only-far\n");
    for target in ["far", "dev@far", "ssh:far", "ssh:dev@far", "ssh://dev@far"] {
        checks.gives(target, &format!("remotely {target} -- {run}"), not_here);
    }
    checks.gives("host:port", &format!("remotely 127.0.0.1:{port} -- {run}"), not_here);
    checks.gives("user@host:port", &format!("remotely dev@localhost:{port} -- {run}"), not_here);
    checks.gives("ssh://host:port", &format!("remotely ssh://dev@127.0.0.1:{port} -- {run}"), not_here);
    checks.gives(
        "--ssh-opts",
        &format!("remotely --ssh-opts '-p {port} -o LogLevel=QUIET' dev@localhost -- {run}"),
        not_here,
    );
    checks.gives("ssh-opts after", &format!("remotely dev@localhost ssh-opts='-p {port}' -- {run}"), not_here);
    checks.gives("ssh-opts as two words", &format!("remotely ssh-opts '-p {port}' dev@localhost -- {run}"), not_here);
    checks.gives("options without dashes", &format!("remotely no-sudo dev@far nfs-afterwards=same -- {run}"), not_here);
    checks.gives("SSH_AUTH_SOCK of there", "eval $(ssh-agent) >/dev/null; remotely ssh-opts=-A dev@far -- sh -c 'test -S $SSH_AUTH_SOCK && ssh-add -l'; kill $SSH_AGENT_PID", "The agent has no identities.\n");
    checks.finish();
}

#[test]
fn local_and_sudo() {
    let pair =
        Pair::of(Client::start_with_sudo(), HostOptions { sudo: true, ..HostOptions::default() }, Wire::default());
    let mut checks = Checks::on(&pair);
    checks.gives(
        "local",
        "echo x | remotely local: -- sh -c 'cat; echo $$ >f; exit 0'; test -e f && echo there",
        "x\nthere\n",
    );
    checks.gives(
        "local identity",
        "remotely local: -- sh -c 'id -u; pwd' >o; { id -u; pwd; } | cmp - o && echo same",
        "same\n",
    );
    checks.fails("local status", "remotely local: -- sh -c 'exit 9'", 9, "");
    checks.gives(
        "sudo there",
        "remotely dev@far+sudo -- id -u; remotely dev@far+sudo -- stat -c %a /etc/shadow; echo $?",
        &format!("{}\n640\n0\n", pair.client.uid()),
    );
    checks.same("ids by sudo", "RUN=${RUN:+remotely dev@far+sudo --}; $RUN id; $RUN stat -c '%u %g' /etc/shadow . /var/mail; $RUN cat /etc/shadow 2>/dev/null; echo $?");
    checks.gives(
        "sudo here",
        "remotely local:+sudo -- sh -c 'id -u; echo x >f'; stat -c %u f | grep -c .",
        &format!("{}\n1\n", pair.client.uid()),
    );
    checks.finish();
}

#[test]
fn what_cannot_be_used() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    checks.fails("no target", "remotely", 125, "remotely: ");
    checks.fails("no command", "remotely dev@far", 125, "--");
    checks.fails("no dashes", "remotely dev@far true", 125, "--");
    checks.fails("unknown scheme", "remotely carrier-pigeon:x -- true", 125, "carrier-pigeon");
    checks.fails("empty hop", "remotely dev@far+ -- true", 125, "+");
    checks.fails(
        "an option for a host",
        "remotely 'ssh:-oProxyCommand=touch pwned' -- true; s=$?; [ -e pwned ] && exit 1; exit $s",
        125,
        "",
    );
    checks.fails("unknown option", "remotely --no-such-option dev@far -- true", 125, "no-such-option");
    checks.fails("nfs", "remotely --fs nfs dev@far -- true", 125, "nfs");
    checks.fails("bad value", "remotely nfs-afterwards=perhaps dev@far -- true", 125, "perhaps");
    checks.fails("unknown host", "remotely dev@no-such-host.invalid -- true", 255, "no-such-host.invalid");
    checks.fails("refused port", "remotely dev@127.0.0.1:1 -- true", 255, "127.0.0.1");
    checks.fails("wrong user", "remotely nobody-there@far -- true", 255, "nobody-there");
    checks.fails("no ssh", "PATH=/nowhere $(command -v remotely) dev@far -- true", 255, "ssh");
    checks.gives(
        "help",
        "remotely help | grep -c Usage; remotely -help >/dev/null && remotely --help >/dev/null; echo $?",
        "1\n0\n",
    );
    checks.gives("one line each", "remotely dev@no-such-host.invalid -- true 2>&1 | grep -c '^remotely: '", "1\n");
    checks.gives(
        "completions and man page",
        "remotely completions bash | grep -c . | grep -q .. && remotely man . && grep -c '[.]TH' remotely.1",
        "1\n",
    );
    checks.finish();
}

#[test]
fn sessions_are_refused() {
    // MaxSessions of 0 lets nobody in: what sshd says must be told.
    let options = HostOptions { sshd: vec!["MaxSessions=0".into()], ..HostOptions::default() };
    let pair = Pair::with(options, Wire::default());
    let outcome = pair.there("$RUN true", Duration::from_secs(20));
    assert_eq!(outcome.code(), 255, "{outcome}");
    assert!(outcome.errors().contains("remotely: "), "{outcome}");
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn feign_and_doctor() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    checks.gives(
        "feign",
        "echo 'command -v gcc; hostname; exit 3' | remotely feign dev@far 2>/dev/null; echo $?",
        "far\n3\n",
    );
    checks.gives(
        "doctor of a good host",
        "remotely doctor dev@far >out 2>&1; s=$?; grep -ci fuse out | grep -q . && echo $s",
        "0\n",
    );
    checks.finish();
    let pair = Pair::with(HostOptions { fuse: testbed::Fuse::Missing, ..HostOptions::default() }, Wire::default());
    let mut checks = Checks::on(&pair);
    checks.gives(
        "doctor of a bad host",
        "remotely doctor dev@far >out 2>&1; s=$?; grep -ci '/dev/fuse' out | grep -q . && [ $s != 0 ] && echo told",
        "told\n",
    );
    checks.finish();
}

#[test]
fn what_is_to_look_at() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    checks.gives("--stats", "remotely --stats dev@far -- sh -c 'cat /etc/hostname >/dev/null' 2>&1 | grep -ciE 'round trip|request|bytes' | grep -q '^[1-9]' && echo told", "told\n");
    checks.gives("-v does not touch the streams", "remotely -vv dev@far -- sh -c 'echo out; echo err >&2' 2>log; grep -c ^err log; [ $(wc -l <log) -gt 1 ] && echo logged", "out\n1\nlogged\n");
    checks.gives("nothing is said without them", "remotely dev@far -- true 2>&1 | wc -c", "0\n");
    checks.finish();
}

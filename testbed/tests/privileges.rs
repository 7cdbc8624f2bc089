//! Hosts that allow less: no user namespaces, no /dev/fuse, with sudo and without; and what is said where nothing helps.

use std::time::Duration;

use testbed::{Checks, Client, Fuse, HostOptions, Pair, Wire};

#[test]
fn without_user_namespaces_by_sudo() {
    let options = HostOptions { user_namespaces: false, sudo: true, ..HostOptions::default() };
    let pair = Pair::with(options, Wire::default());
    let mut checks = Checks::on(&pair);
    checks.gives("runs", "echo x | $RUN sh -c 'cat; pwd >where'; cat where | xargs basename", "x\nwork\n");
    // The first attempt had been sent the input, too.
    checks.same("what is not read stays", "seq 9 | { $RUN sh -c 'read a; echo $a'; cat; }");
    checks.same("as the user of here", "$RUN id -u; $RUN id -G; $RUN cat /etc/shadow 2>/dev/null; echo $?; $RUN touch f; stat -c '%u %g' f; $RUN stat -c '%u %g' /etc/passwd /root f");
    checks.same(
        "groups I am in",
        "touch f; $RUN chgrp 24001 f; stat -c %g f; $RUN chgrp 24009 f; $RUN chown 0 f; stat -c '%u %g' f",
    );
    checks.same("no capabilities", "$RUN grep CapEff /proc/self/status; $RUN sh -c 'mount -t tmpfs x /mnt 2>/dev/null || echo no; kill -0 1 2>/dev/null || echo no'");
    checks.fails("no-sudo", "remotely no-sudo dev@far -- true", 125, "user.max_user_namespaces");
    checks.finish();
}

#[test]
fn without_user_namespaces_and_sudo() {
    let pair = Pair::with(HostOptions { user_namespaces: false, ..HostOptions::default() }, Wire::default());
    let mut checks = Checks::on(&pair);
    checks.fails("what was tried", "$RUN true", 125, "sudo");
    checks.gives("one message", "$RUN true 2>&1 | grep -c '^remotely: '", "1\n");
    checks.gives(
        "what could be allowed",
        "$RUN true 2>&1 | grep -c 'max_user_namespaces\\|NOPASSWD' | grep -q '^[1-9]' && echo told",
        "told\n",
    );
    checks.gives("nothing ran", "$RUN touch ran 2>/dev/null; ls", "");
    checks.finish();
}

#[test]
fn without_fuse() {
    for (fuse, sudo) in [(Fuse::Missing, false), (Fuse::Missing, true), (Fuse::Forbidden, false)] {
        let pair = Pair::with(HostOptions { fuse, sudo, ..HostOptions::default() }, Wire::default());
        let mut checks = Checks::on(&pair);
        checks.fails(&format!("{fuse:?}, sudo {sudo}"), "$RUN true", 125, "/dev/fuse");
        checks.finish();
    }
    let pair = Pair::with(HostOptions { fuse: Fuse::Forbidden, sudo: true, ..HostOptions::default() }, Wire::default());
    let mut checks = Checks::on(&pair);
    checks.gives("by sudo", "$RUN sh -c 'echo fine'", "fine\n");
    checks.finish();
}

#[test]
fn with_subordinate_ids_owners_show_as_here() {
    let pair = Pair::with(HostOptions { subordinate_ids: true, ..HostOptions::default() }, Wire::default());
    let mut checks = Checks::on(&pair);
    checks.same("owners", "$RUN stat -c '%u %g' /etc/passwd /etc/shadow /var/mail .; $RUN id -u; $RUN id -g");
    checks.same(
        "still nobody else's rights",
        "$RUN cat /etc/shadow 2>/dev/null; echo $?; $RUN touch /etc/x 2>/dev/null; echo $?",
    );
    checks.finish();
}

#[test]
fn access_lists_where_root_is_root() {
    let pair = Pair::of(Client::start_with_sudo(), HostOptions::default(), Wire::default());
    let mut checks = Checks::on(&pair);
    let root = "RUN=${RUN:+sudo $(command -v remotely) local: --};";
    let show = "getfacl -cn a; $RUN setfacl -b a; getfacl -cn a";
    checks.same(
        "set there",
        &format!("{root} touch a; $RUN setfacl -m u:12345:rw,g:23456:r a; $RUN getfacl -cn a; {show}"),
    );
    let inherited = "$RUN sh -c 'umask 077; mkdir d/e; touch d/f'; getfacl -cn d/e d/f";
    checks.same("inherited", &format!("{root} mkdir d; setfacl -d -m u:12345:rwx d; {inherited}"));
    checks.finish();
}

#[test]
fn access_lists_with_root_on_the_host() {
    let pair = Pair::with(HostOptions { sudo: true, ..HostOptions::default() }, Wire::default());
    let mut checks = Checks::on(&pair);
    checks.gives(
        "not shown in a user namespace",
        "touch a; setfacl -m u:12345:rw a; remotely dev@far+sudo -- getfacl -cn a; getfacl -cn a | grep -c 12345",
        "user::rw-\ngroup::rw-\nother::r--\n\n1\n",
    );
    let inherited = "$RUN sh -c 'umask 077; mkdir d/e; touch d/f'; getfacl -cn d/e d/f";
    let sudo = "RUN=${RUN:+remotely dev@far+sudo --};";
    checks.same("inherited", &format!("{sudo} mkdir d; setfacl -d -m u:12345:rwx d; {inherited}"));
    checks.finish();
}

/// Gives the host an account with the number of the client's user.
fn add_namesake(pair: &Pair) {
    let uid = pair.client.uid();
    pair.host.sh(&format!("echo 'namesake:*:{uid}:{uid}::/:/bin/sh' >>/etc/passwd"));
}

#[test]
fn with_root_on_the_host_the_command_is_nobody_there() {
    let pair = Pair::with(HostOptions { sudo: true, ..HostOptions::default() }, Wire::default());
    add_namesake(&pair);
    let uid = pair.client.uid();
    let mut remotely = pair.client.remotely(["dev@far+sudo", "--", "sh", "-c", "echo secret >mine; id -u; sleep 61.5"]);
    remotely.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    let mut run = remotely.spawn().expect("the client starts");
    pair.host.wait_process("sleep 61.5", Duration::from_secs(20));
    let as_namesake = format!("setpriv --reuid={uid} --regid={uid} --clear-groups");
    let tried = pair.host.sh(&format!(
        "for pid in $(pgrep -f 'sleep 61[.]5'); do stat -c %u /proc/$pid; {as_namesake} sh -c \"cat /proc/$pid/environ; \
         ls /proc/$pid/root/ /proc/$pid/cwd/; kill -0 $pid && echo killed\" 2>/dev/null || true; done | sort -u; {as_namesake} id -u"
    ));
    let by_name = "echo one >/dev/stdout; echo two >/dev/stderr";
    let mut opened = pair.client.remotely(["dev@far+sudo", "--", "sh", "-c", by_name]);
    let opened = opened.stdin(std::process::Stdio::null()).output().expect("the client runs");
    assert_eq!((&opened.stdout[..], &opened.stderr[..]), (&b"one\n"[..], &b"two\n"[..]), "its own pipes");
    let shifted = 0x7000_0000 + uid;
    assert_eq!(tried, format!("{shifted}\n{uid}\n"), "whose it is, and what the user of that number got");
    let _ = run.kill();
    let _ = run.wait();
    pair.clean_within(Duration::from_secs(20));
}

#[test]
fn with_root_but_without_user_namespaces_nobody_else_may_have_the_number() {
    let options = HostOptions { user_namespaces: false, sudo: true, ..HostOptions::default() };
    let pair = Pair::with(options, Wire::default());
    add_namesake(&pair);
    let mut checks = Checks::on(&pair);
    checks.fails("who has it", "$RUN touch ran", 125, "namesake");
    checks.fails("by sudo", "remotely dev@far+sudo -- touch ran", 125, "max_user_namespaces");
    checks.gives("nothing ran", "ls", "");
    checks.finish();
}

#[test]
fn the_command_has_no_power_over_the_host() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    checks.gives(
        "processes of the host",
        "$RUN sh -c 'kill -0 1 2>/dev/null; ps ax -o comm | grep -c sshd; true'",
        "0\n",
    );
    checks.gives("files of the host", "$RUN ls /home/dev 2>/dev/null; $RUN ls /opt/busybox 2>/dev/null; $RUN sh -c 'ls /proc/1/root/opt/busybox/sh /proc/*/cwd/opt/busybox/sh 2>/dev/null'; echo none", "none\n");
    checks.gives(
        "the agent's descriptors",
        "$RUN sh -c 'ls -l /proc/self/fd /proc/1/fd 2>/dev/null | grep -c fuse; true'",
        "0\n",
    );
    checks.finish();
    // What the host's user may see of it is bounded as well: no mount in the host's own namespace.
    let process = pair.start_there(&["sh", "-c", "echo ready; sleep 60"]);
    process.expect("ready\n", Duration::from_secs(15));
    assert!(pair.host.new_mounts().is_empty(), "{:?}", pair.host.new_mounts());
    assert!(!pair.client.mounts().iter().any(|m| m.contains("fuse")));
}

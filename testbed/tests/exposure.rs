//! What a command may and may not see and do: ids decide as here, secrets are hidden, errors of the disk are told.

use testbed::{Checks, Pair};

#[test]
fn ids_decide_as_here() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    let closed = pair.client.home().join("closed");
    let setup = format!(
        "mkdir -p {0}; cd {0}; for who in 24001 24002 24009; do echo of-$who >file-$who; chown 0:$who file-$who; chmod 640 file-$who; \
         mkdir dir-$who; chown 0:$who dir-$who; chmod 770 dir-$who; done; echo root >root; chmod 600 root; mkdir rootdir; chmod 700 rootdir; \
         echo x >rootdir/f; echo wide >sticky-victim; mkdir sticky; chmod 1777 sticky; echo v >sticky/victim",
        closed.display()
    );
    testbed::spawn::must(testbed::spawn::command("sh").args(["-euc", &setup]));
    let ask = format!("cd {}; $RUN sh -c '", closed.display());
    checks.same("groups", &format!("{ask}cat file-*; touch dir-*/new; ls dir-24001 dir-24009; echo more >>file-24002; cat file-24002' 2>/dev/null"));
    checks.same("test", &format!("{ask}for f in file-* dir-* root rootdir; do test -r $f && echo r; test -w $f && echo w; test -x $f && echo x; done; true'"));
    checks.same(
        "root",
        &format!("{ask}cat root rootdir/f; ls rootdir; echo x >root; rm -f sticky/victim; ls sticky' 2>/dev/null"),
    );
    checks.same(
        "shadow",
        "$RUN cat /etc/shadow; $RUN touch /etc/x /usr/local/x /root/x; $RUN mkdir /opt/x; $RUN ls /root 2>/dev/null",
    );
    checks.same("reasons", "$RUN sh -c 'cat /etc/shadow; touch /etc/x; mkdir /opt/x; rm /etc/passwd' 2>&1 | grep -o '[A-Z][a-z]* [a-z ]*$'");
    checks.same(
        "mine",
        "touch f; $RUN stat -c '%u %g %a %F' f .; $RUN sh -c 'touch g; mkdir d'; stat -c '%u %g %a' f g d",
    );
    let foreign = pair.client.home().join("mine-but-what-is-in-it");
    let setup = format!(
        "mkdir {0}; chown {1} {0}; cd {0}; echo r >file; mkdir dir; echo s >gone; ln -s x link",
        foreign.display(),
        pair.client.uid()
    );
    testbed::spawn::must(testbed::spawn::command("sh").args(["-euc", &format!("{setup}; cp -a . ../again")]));
    let rename = "mv file renamed; mv dir moved; rm -f gone link; cat renamed; rmdir moved; ls; chmod 666 renamed";
    checks.same(
        "files of others in a directory of mine",
        &format!(
            "cd ~; [ -n \"$RUN\" ] && d=again || d=mine-but-what-is-in-it; cd $d; $RUN sh -c '{rename}' 2>/dev/null"
        ),
    );
    checks.finish();
}

#[test]
fn what_is_exposed() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    let home = pair.client.home().display().to_string();
    checks.fails("private ssh key", "$RUN cat ~/.ssh/id_ed25519", 1, "");
    checks.gives("not its bytes either", "$RUN sh -c 'cat ~/.ssh/* 2>/dev/null | grep -c PRIVATE; true'", "0\n");
    checks.options(&format!("--show {home}/.ssh/id_ed25519")).gives(
        "--show",
        "$RUN grep -c PRIVATE ~/.ssh/id_ed25519",
        "2\n",
    );
    checks.options(&format!("--hide {home}/work/secret"));
    let hide = "mkdir secret; echo s >secret/f; ln secret/f linked; echo o >open;";
    checks.gives("--hide", &format!("{hide} $RUN sh -c 'cat secret/f; ls; cat open'"), "linked\nopen\no\n").holds(
        "",
        true,
        String::new,
    );
    checks.fails(
        "nothing in the place of what is hidden",
        "mkdir secret; $RUN sh -c 'echo x >secret/f'; s=$?; ls secret; exit $s",
        2,
        "",
    );
    checks.options(&format!("--hide {home}/work/later/secret"));
    checks.gives(
        "nor what comes to be there",
        "$RUN sh -c 'mkdir later; echo made; read go; mv later l2 2>/dev/null; cat */secret; ls' 2>/dev/null \
         < <(until test -d later; do sleep 0.1; done; echo s >later/secret; echo go); cat later/secret",
        "made\nlater\ns\n",
    );
    checks.options("--read-only");
    checks.gives(
        "--read-only",
        "echo x >f; $RUN sh -c 'echo y >f; touch g; rm f; mkdir d; chmod 0 f; mv f e; cat f' 2>/dev/null; ls",
        "x\nf\n",
    );
    checks.gives(
        "--read-only says why",
        "$RUN sh -c 'touch g' 2>&1 | grep -o 'Read-only.*'",
        "Read-only file system\n",
    );
    checks.options("--host-path /opt").gives("--host-path", "$RUN ls /opt/busybox/true", "/opt/busybox/true\n");
    checks.options("").gives(
        "network files of the host",
        "$RUN head -1 /etc/resolv.conf; $RUN grep only-far /etc/hosts",
        "# of far\n10.77.255.254 only-far.example\n",
    );
    checks.gives("proc and dev of the host", "$RUN sh -c 'echo x >/dev/null; ls /proc/self/exe; test -c /dev/tty && test -d /dev/pts && touch /dev/shm/x && rm /dev/shm/x && echo ok'", "/proc/self/exe\nok\n");
    checks.gives(
        "not the processes of here",
        "$RUN sh -c 'ls -d /proc/[0-9]* | wc -l | grep -q \"^[0-9]$\" && echo few'",
        "few\n",
    );
    checks.gives(
        "no escape",
        "$RUN sh -c 'cd /; cd ../../..; ls -d usr; cat /proc/1/root/etc/hostname' 2>/dev/null | head -1",
        "usr\n",
    );
    checks.finish();
}

#[test]
fn full_disk_is_told() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    checks.fails(
        "dd",
        "$RUN dd if=/dev/zero of=$HOME/small/f bs=64k count=64; s=$?; rm -f ~/small/*; exit $s",
        1,
        "No space left",
    );
    checks.fails("close", "$RUN cp /usr/bin/python3 ~/small/; s=$?; rm -f ~/small/*; exit $s", 1, "No space left");
    let silent = r#"cat >w.py <<'END'
import os
fd = os.open(os.environ['HOME'] + '/small/named', os.O_WRONLY | os.O_CREAT)
for i in range(64):
    try: os.write(fd, b'x' * 65536)
    except OSError: pass
END
$RUN /usr/bin/python3 w.py; s=$?; rm -f ~/small/*; exit $((s != 0 ? 9 : 0))"#;
    checks.fails("a command that does not care", silent, 9, "small/named");
    checks.gives("goes on after it", "$RUN sh -c 'head -c 2000000 /dev/zero >~/small/f; rm ~/small/f; echo fits >~/small/g' 2>/dev/null; cat ~/small/g; rm ~/small/g", "fits\n");
    checks.finish();
}

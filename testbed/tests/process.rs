//! The process: argv, environment, working directory, identity, exit status and signals are those of here
//! (tables A, D and E of docs/semantics.md).

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use testbed::{Checks, HostOptions, Pair, Process, Wire};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn arguments_and_environment() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    checks.same("A1", r#"$RUN printf '<%s>' $'new\nline' $'tab\t' "quo'te\"" '$x' '*' '\' '' -n --help "a  b" ';' '&' '|' '`id`' '$(id)' '~' '#' '!'"#);
    checks.same("A1 leading dash", "$RUN echo -- -x --; $RUN printf -- '-%s' a");
    checks.same("A2", r#"$RUN printf '<%s>' $'\x80\xff\xc0' $'\xe4' é 中 | od -An -tx1"#);
    checks.same("A3", "$RUN bash -c 'exec -a foo cat /proc/self/cmdline' | tr '\\0' ' '; $RUN bash -c 'exec -l cat /proc/self/cmdline' | tr '\\0' ' '");
    checks.same("A5 one long argument", "$RUN sh -c 'echo ${#1}' x \"$(head -c 131071 /dev/zero | tr '\\0' a)\"");
    checks.same("A5 1.9 MB", "a=$(head -c 100000 /dev/zero | tr '\\0' a); $RUN sh -c 'echo $# ${#19}' x $a $a $a $a $a $a $a $a $a $a $a $a $a $a $a $a $a $a $a");
    checks.same(
        "A6",
        r#"export NL=$'a\nb' EMPTY= BAD=$'\xff\x80' EQ=a=b 'QUOTE=''"' SPACE='  '; $RUN env -0 | tr '\0' '|' | sed 's,|_=[^|]*,,' | sort"#,
    );
    checks.same("A6 nothing else", "PATH=$PATH env -i PATH=\"$PATH\" A=1 $RUN env | sort");
    checks.same(
        "A6 odd names",
        r#"RUN="$RUN" /usr/bin/python3 -c '
import os
odd = ["odd.name=1", b"1=2", b"\xff=3", "PATH=" + os.environ["PATH"]]
os.execvp("env", ["env", "-i"] + odd + os.environ["RUN"].split() + ["env", "-0"])' | tr '\0' '|'"#,
    );
    checks.same(
        "A6 30,000 entries",
        "RUN=\"$RUN\" /usr/bin/python3 -c '
import os
e = dict(os.environ)
run = e.pop(\"RUN\")
for i in range(30000): e[\"N%d\" % i] = str(i)
os.execvpe(\"sh\", [\"sh\", \"-c\", run + \" env\"], e)' | grep -v ^_= | sort | md5sum",
    );
    checks.same(
        "A8",
        "$RUN sh -c 'echo $HOME $USER $SHELL $LOGNAME $LANG $TMPDIR $SSH_CONNECTION $SSH_CLIENT; cd ~ && pwd'",
    );
    checks.same("A8 tmp", "TMPDIR=$PWD $RUN mktemp -u | grep -c ^$PWD");
    checks.finish();
}

#[test]
fn working_directory_and_program() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    checks.same("A9 spaces", "mkdir 'a  b'; cd 'a  b'; $RUN pwd; $RUN pwd -P; $RUN sh -c 'echo x >y; cat ../a*b/y'");
    checks.same("A9 bytes", r"mkdir $'x\xff\ny'; cd $'x\xff\ny'; $RUN pwd | od -c; touch f; $RUN ls");
    checks.same(
        "A9 link",
        "mkdir -p a/b; ln -s a/b l; cd l; $RUN sh -c pwd; $RUN sh -c \"pwd -P\"; $RUN sh -c 'cd -P ..; ls'",
    );
    checks.same("A9 deep", "for i in {1..40}; do d=$(printf 'd%.0s' {1..95}); mkdir $d; cd $d; done; $RUN sh -c 'pwd | wc -c; echo deep >f'; cat f");
    checks.same("A9 root", "cd /; $RUN pwd; cd /usr/bin; $RUN sh -c 'ls -d bash'");
    checks.same("A11", "printf '#!/bin/sh\\necho \"$0\" \"$@\"\\n' >s; chmod +x s; $RUN ./s a 'b c'; $RUN $PWD/s d; ln -s s l; $RUN ./l; PATH=$PWD:$PATH; $RUN s e");
    checks.same("A11 interpreter", "printf '#!/usr/bin/env -S cat -A\\nx\\ty\\n' >s; chmod +x s; $RUN ./s; printf '#! /bin/echo  one two\\n' >t; chmod +x t; $RUN ./t three");
    checks.same("A11 path order", "mkdir p q; printf '#!/bin/sh\\necho p' >p/c; printf '#!/bin/sh\\necho q' >q/c; chmod +x q/c; PATH=p:q:$PATH $RUN c; chmod +x p/c; PATH=p:q:$PATH $RUN c");
    checks.same("A12 missing", "$RUN no-such-command 2>/dev/null; echo $?; $RUN ./no-such 2>/dev/null; echo $?; $RUN /no/such 2>/dev/null; echo $?");
    checks.same("A12 not executable", "echo x >f; $RUN ./f 2>/dev/null; echo $?; $RUN . 2>/dev/null; $RUN ./. 2>/dev/null; echo $?; mkdir d; $RUN ./d 2>/dev/null; echo $?");
    checks.same(
        "A12 wrong machine",
        "head -c 64 /bin/true | sed 's/\\x3e\\x00/\\xb7\\x00/' >f; chmod +x f; $RUN ./f 2>/dev/null; echo $?",
    );
    checks.gives(
        "A12 no interpreter",
        "printf '#!/no/such\\n' >f; chmod +x f; $RUN ./f 2>/dev/null; case $? in 126|127) echo ok; esac",
        "ok\n",
    );
    checks.fails("A12 names it", "$RUN no-such-command", 127, "no-such-command");
    checks.fails("A10 gone", "mkdir d; cd d; rmdir ../d; $RUN true", 125, "");
    checks.gives("A10 did not run", "mkdir d; cd d; rmdir ../d; $RUN touch ../ran 2>/dev/null; ls ..", "");
    checks.finish();
}

#[test]
fn what_a_process_inherits() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    checks.same(
        "E13 umask",
        "umask 027; $RUN sh -c 'umask; touch f'; umask 022; stat -c %a f; umask 0; $RUN sh -c umask",
    );
    checks.same("E13 limits", "ulimit -S -n 512; ulimit -c 0; ulimit -t 1000; ulimit -f 20000; ulimit -S -s 4096; $RUN bash -c 'ulimit -Sa; ulimit -Hc -Hn -Ht'");
    checks.same(
        "E13 file size limit works",
        "ulimit -f 4; $RUN sh -c 'head -c 100000 /dev/zero >f'; echo $?; stat -c %s f",
    );
    checks.same("E13 nice", "nice -n 7 $RUN nice; nice -n 7 $RUN sh -c 'nice -n 3 nice'");
    checks.same("E13 ignored and blocked signals", "trap '' USR1 PIPE; $RUN grep -E 'Sig(Blk|Ign)' /proc/self/status; trap - USR1 PIPE; trap '' HUP; $RUN sh -c 'kill -HUP $$; echo alive'");
    checks.same(
        "E13 default signals",
        "$RUN grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status; $RUN sh -c 'kill -PIPE $$'; echo $?",
    );
    checks.same("E13 oom score", "echo 321 >/proc/self/oom_score_adj; $RUN cat /proc/self/oom_score_adj");
    checks.same("E13 no_new_privs and dumpable", "$RUN sh -c 'ls -ld /proc/self/fd >/dev/null && echo readable'");
    checks.same("E15", "$RUN id -u; $RUN id -g; $RUN id -un; $RUN whoami; $RUN sh -c 'echo ~dev; echo $EUID'");
    checks.same("hostname", "$RUN hostname; $RUN uname -n");
    checks.same("session", "$RUN /usr/bin/python3 -c 'import os; print(os.getpid() == os.getpgrp() or os.getpgrp() > 0, os.getsid(0) > 0)'");
    checks.same("C5 only these descriptors", "exec 5>&-; $RUN ls /proc/self/fd | wc -l");
    checks.same("probe", "$RUN probe 2>/dev/null | head -c 0; echo $?");
    // Everything that a process is given, in one look; but for what a shell says of itself (`_`), and groups, which need subordinate ids.
    checks.same(
        "everything",
        r#"ulimit -Sn 300; umask 027; exec 5</dev/null 7<<<text; trap '' USR2; (cd /usr && exec $RUN nice -n 3 probe) | /usr/bin/python3 -c '
import json, sys
p = json.load(sys.stdin)
for key in "argv cwd umask nice uid gid hostname isatty rlimits blocked ignored dumpable sched".split(): print(key, p[key])
print(sorted(entry for entry in p["env"] if not entry.startswith("5f3d")))
print([(fd["fd"], fd["type"], fd["cloexec"], fd["flags"] & 0o2003, fd["tty"]) for fd in p["fds"]])'"#,
    );
    checks.finish();
}

#[test]
fn exit_status() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    checks.within(Duration::from_secs(60)).same("D1", "for i in 0 1 2 77 124 125 126 127 128 129 130 137 139 143 254 255 256; do { $RUN sh -c \"exit $i\"; echo $i $?; } & done | sort; wait");
    checks.same("D3", "ulimit -c unlimited; $RUN sh -c 'kill -SEGV $$' 2>/dev/null; echo $?; ls");
    checks.same(
        "D3 others",
        "for s in TERM KILL INT HUP ABRT USR1 ALRM; do $RUN sh -c \"kill -$s \\$\\$\" 2>/dev/null; echo $s $?; done",
    );
    checks.same("D11", "set -o pipefail; $RUN false | cat; echo $?; $RUN true | cat; echo $?");
    checks.same("D8", "$RUN sh -c '(sleep 0.5; kill -CONT $$) & kill -STOP $$; echo went on'; echo $?");
    checks.same("nested", "$RUN sh -c 'sh -c \"exit 3\"; echo $?; (exit 4)'; echo $?");
    for signal in [11, 9, 15, 2] {
        let mut killed = pair.client.remotely([&pair.target(), "--", "sh", "-c", &format!("kill -{signal} $$")]);
        let outcome = Process::start(&mut killed, b"").wait(LIMIT);
        checks.holds("D3 killed by the signal itself", outcome.status.signal() == Some(signal), || {
            format!("{signal}: {outcome}")
        });
        checks.holds("D3 no core of the client", !outcome.status.core_dumped(), || outcome.to_string());
    }
    checks.finish();
}

#[test]
fn signals_are_passed_on() {
    let pair = Pair::start();
    let names = [
        (1, "HUP"),
        (2, "INT"),
        (3, "QUIT"),
        (10, "USR1"),
        (12, "USR2"),
        (14, "ALRM"),
        (15, "TERM"),
        (28, "WINCH"),
        (18, "CONT"),
    ];
    let traps: String = names.iter().map(|(_, name)| format!("trap 'echo got-{name}' {name}; ")).collect();
    let script = format!("{traps} trap 'exit 7' URG; echo ready; while :; do sleep 0.02; done");
    let mut process = pair.start_there(&["bash", "-c", &script]);
    process.expect("ready\n", LIMIT);
    for (number, name) in names {
        process.signal(number);
        let took = process.expect(&format!("got-{name}\n"), Duration::from_secs(3));
        println!("E1 {name} after {took:?}");
    }
    process.signal(23);
    assert_eq!(process.ended(LIMIT).expect("E2: it exits").code(), Some(7));
    drop(process);

    let mut process = pair.start_there(&["sh", "-c", "echo ready; sleep 100"]);
    process.expect("ready\n", LIMIT);
    process.signal(15);
    let status = process.ended(Duration::from_secs(5)).expect("E1: the group ends");
    assert_eq!(status.signal(), Some(15), "{status}");
    drop(process);

    let mut checks = Checks::on(&pair);
    checks.same("E2", "$RUN bash -c 'trap \"exit 7\" USR1; echo r >ready; while :; do sleep 0.02; done' & until [ -e ready ]; do sleep 0.05; done; kill -USR1 $!; wait $!; echo $?");
    checks.same("E19", "timeout 2 $RUN sleep 100; echo $?");
    checks.same("E19 kill", "timeout -s KILL 2 $RUN sleep 100; echo $?");
    checks.same("whole group", "timeout 2 $RUN sh -c 'sleep 100 | sleep 101; echo no'; echo $?");
    checks.finish();
}

#[test]
fn stopped_and_continued() {
    let pair = Pair::start();
    let mut process = pair.start_there(&["sh", "-c", "echo ready; kill -STOP $$; echo on"]);
    process.expect("ready\n", LIMIT);
    // E20: without a terminal the client must not hang silently; it is stopped too, or says so.
    let deadline = Instant::now() + Duration::from_secs(5);
    let client = |pid| testbed::leftover::processes(std::path::Path::new("/proc")).into_iter().find(|p| p.pid == pid);
    let mut shown = false;
    while !shown && Instant::now() < deadline {
        shown = client(process.pid()).is_some_and(|p| p.state == 'T') || !process.stderr().is_empty();
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(shown, "E20: nothing shows that the command was stopped");
    process.signal(18);
    process.expect("on\n", LIMIT);
    assert_eq!(process.ended(LIMIT).expect("it ends").code(), Some(0));
    drop(process);
    pair.clean_within(Duration::from_secs(5));

    // E5: the client stopped and continued; all data arrives.
    let process = pair.start_there(&["sh", "-c", "seq 1 200000; sleep 0.5; echo end"]);
    process.expect("1\n", LIMIT);
    process.signal(19);
    std::thread::sleep(Duration::from_secs(1));
    process.signal(18);
    let outcome = process.wait(LIMIT).success();
    assert_eq!(outcome.text().lines().count(), 200_001);
}

#[test]
fn orphans_are_reaped_and_end_with_the_run() {
    let pair = Pair::start();
    let process = pair.start_there(&[
        "sh",
        "-c",
        "i=0; while [ $i -lt 300 ]; do (true &); i=$((i+1)); done; sleep 0.3; echo done; cat",
    ]);
    process.expect("done\n", LIMIT);
    let zombies = pair.host.processes().into_iter().filter(|p| p.state == 'Z').count();
    assert_eq!(zombies, 0, "E16");
    drop(process);
    pair.clean_within(Duration::from_secs(10));
    let mut checks = Checks::on(&pair);
    checks.gives(
        "E9",
        "$RUN sh -c 'setsid sh -c \"sleep 1000 & sleep 1001\" >/dev/null 2>&1 </dev/null & sleep 0.2; echo left'",
        "left\n",
    );
    checks.gives("E8", "$RUN sh -c '(trap \"\" HUP INT TERM; exec setsid sleep 1002 >/dev/null 2>&1 </dev/null) & sleep 0.2; echo left'", "left\n");
    checks.finish();
}

#[test]
fn the_end_is_known_at_once() {
    let pair = Pair::with(HostOptions::default(), Wire::rtt(50));
    let process = pair.start_there(&["sh", "-c", "echo ready; read x; exit 5"]);
    let mut process = process;
    process.expect("ready\n", LIMIT);
    let mut input = process.stdin();
    let started = Instant::now();
    std::io::Write::write_all(&mut input, b"\n").expect("a line");
    let status = process.ended(LIMIT).expect("it ends");
    let took = started.elapsed();
    println!("D7: {took:?}");
    assert_eq!(status.code(), Some(5));
    // One round trip, and room for a busy machine with two cores.
    assert!(took < Duration::from_millis(150), "D7: {took:?}");
    drop(process);
    pair.clean_within(Duration::from_secs(5));
}

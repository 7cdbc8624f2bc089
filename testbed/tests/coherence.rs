//! One coherent file system on both sides: locks, changes here seen there, changes there applied here before anything of the
//! command can be observed.

use std::time::Duration;

use testbed::{Checks, HostOptions, Pair, Wire};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn locks_are_seen_on_both_sides() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    let hold = |how: &str, first: &str, second: &str| {
        format!(
            r#"cat >hold.py <<'END'
import fcntl, sys, time
f = open('lock', 'a+'); getattr(fcntl, '{how}')(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.readline()
END
cat >try.py <<'END'
import fcntl
f = open('lock', 'a+')
try: getattr(fcntl, '{how}')(f, fcntl.LOCK_EX | fcntl.LOCK_NB); print('free')
except OSError: print('busy')
END
mkfifo end; {first} /usr/bin/python3 hold.py <end >said & exec 7>end
until grep -q held said; do sleep 0.02; done
{second} /usr/bin/python3 try.py; echo >&7; exec 7>&-; wait; {second} /usr/bin/python3 try.py"#
        )
    };
    for how in ["flock", "lockf"] {
        checks.gives(&format!("{how} held there, tried here"), &hold(how, "$RUN", ""), "busy\nfree\n");
        checks.gives(&format!("{how} held here, tried there"), &hold(how, "", "$RUN"), "busy\nfree\n");
        checks.gives(&format!("{how} both there"), &hold(how, "$RUN", "$RUN"), "busy\nfree\n");
    }
    checks.same_python("kinds of locks",
        r#"
fd = os.open('l', os.O_RDWR | os.O_CREAT); os.write(fd, b'x' * 100)
def child(f):
    r, w = os.pipe(); pid = os.fork()
    if pid == 0:
        try: os.write(w, repr(f()).encode())
        except OSError as e: os.write(w, errno.errorcode[e.errno].encode())
        os._exit(0)
    os.waitpid(pid, 0); return os.read(r, 999)
def other(kind, at=0, n=0): return child(lambda: fcntl.lockf(os.open('l', os.O_RDWR), kind | fcntl.LOCK_NB, n, at))
t('range', lambda: (fcntl.lockf(fd, fcntl.LOCK_EX, 10, 20), other(fcntl.LOCK_EX, 20, 1), other(fcntl.LOCK_EX, 30, 1), other(fcntl.LOCK_EX, 0, 20)))
t('shared', lambda: (fcntl.lockf(fd, fcntl.LOCK_SH, 10, 20), other(fcntl.LOCK_SH, 20, 1), other(fcntl.LOCK_EX, 20, 1)))
def holder():
    def ask():
        q = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0)
        a = struct.unpack('hhqqi4x', fcntl.fcntl(os.open('l', os.O_RDWR), fcntl.F_GETLK, q)); return a[0] == fcntl.F_RDLCK, a[2:4]
    return child(ask)
t('who holds it', holder)
t('unlock a part', lambda: (fcntl.lockf(fd, fcntl.LOCK_UN, 5, 20), other(fcntl.LOCK_EX, 20, 5), other(fcntl.LOCK_EX, 25, 1)))
t('closing any descriptor frees', lambda: (os.close(os.open('l', os.O_RDONLY)), other(fcntl.LOCK_EX)))
t('flock is of the description', lambda: (fcntl.flock(fd, fcntl.LOCK_EX), child(lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)), child(lambda: fcntl.flock(os.open('l', os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB))))
"#,
    );
    checks.finish();
}

#[test]
fn changes_here_are_seen_there() {
    let pair = Pair::with(HostOptions::default(), Wire::rtt(20));
    let work = pair.client.work().to_owned();
    let mut shell = pair.start_there(&["bash"]);
    let mut input = shell.stdin();
    let mut number = 0;
    let mut ask = |script: &str, expected: &str| {
        use std::io::Write as _;
        number += 1;
        let mark = format!("<{number}>");
        input.write_all(format!("({script}) 2>&1; echo '{mark}'\n").as_bytes()).expect("the shell takes a line");
        shell.expect(&mark, LIMIT);
        let all = String::from_utf8_lossy(&shell.stdout()).into_owned();
        let before = format!("<{}>\n", number - 1);
        let answer = all.split_once(&mark).map_or("", |(head, _)| head);
        let answer = answer.rsplit_once(&before).map_or(answer, |(_, tail)| tail).to_owned();
        assert_eq!(answer, expected, "{script}");
    };
    // What is seen is bounded in time: the notice travels one way, and inotify itself is not instant.
    let notice = || std::thread::sleep(Duration::from_millis(500));
    let own =
        |path: &std::path::Path| std::os::unix::fs::chown(path, Some(pair.client.uid()), None).expect("chown here");
    let write = |name: &str, text: &str| {
        std::fs::write(work.join(name), text).expect("write here");
        own(&work.join(name));
    };
    write("f", "v1\n");
    ask("cat f; ls; test -e g && echo there", "v1\nf\n");
    write("f", "v2 is longer\n");
    write("g", "new\n");
    notice();
    ask("cat f g; ls", "v2 is longer\nnew\nf\ng\n");
    write("h", "1\n");
    std::fs::rename(work.join("h"), work.join("f")).expect("rename here");
    std::fs::remove_file(work.join("g")).expect("remove here");
    notice();
    ask("cat f; test -e g || echo gone; ls", "1\ngone\nf\n");
    std::fs::create_dir_all(work.join("d/e")).expect("mkdir here");
    own(&work.join("d"));
    own(&work.join("d/e"));
    write("d/e/x", "deep\n");
    notice();
    ask("cat d/e/x; mv d moved; cat moved/e/x", "deep\ndeep\n");
    assert!(work.join("moved/e/x").exists() && !work.join("d").exists());
    write("moved/e/x", "again\n");
    notice();
    ask("cat moved/e/x; exec 5<moved/e/x; read a <&5; echo $a", "again\nagain\n");
    std::fs::remove_dir_all(work.join("moved")).expect("remove here");
    notice();
    ask("ls", "f\n");
    // A file that is rewritten again and again is never seen torn: each line has one length and one letter.
    let rewriting = work.join("torn");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let writer = std::thread::spawn(move || {
        for i in 0u32.. {
            if stopped.load(std::sync::atomic::Ordering::Relaxed) {
                return;
            }
            let letter = char::from(b'a' + (i % 26) as u8).to_string();
            let next = rewriting.with_extension("next");
            std::fs::write(&next, letter.repeat(1 + i as usize % 7000)).expect("write here");
            std::fs::rename(&next, &rewriting).expect("rename here");
            std::thread::sleep(Duration::from_millis(3));
        }
    });
    let whole = "for i in $(seq 60); do t=$(cat torn 2>/dev/null) || continue; c=${t:0:1}; [ -z \"${t//$c/}\" ] || echo torn $i; sleep 0.02; done";
    ask(whole, "");
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().expect("the writer");
    drop(input);
    shell.wait(LIMIT).success();
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn changes_there_are_here_before_they_can_be_told() {
    let pair = Pair::with(HostOptions::default(), Wire::rtt(20));
    let mut checks = Checks::on(&pair);
    let each =
        "i=0; while [ $i -lt 40 ]; do i=$((i+1)); head -c 70000 /dev/zero >f$i; mkdir d$i; mv f$i d$i/g; echo $i; done";
    let reader = "while read -r i; do [ \"$(stat -c %s d$i/g)\" = 70000 ] || echo missing $i; done";
    checks.gives("each line of output", &format!("$RUN sh -c '{each}' | {reader}"), "");
    checks.gives("standard error too", &format!("$RUN sh -c '({each}) >&2' 2>&1 >/dev/null | {reader}"), "");
    checks.gives("the exit", "for i in 1 2 3 4 5; do $RUN sh -c 'head -c 3000000 /dev/zero >big; ln big big2; rm big'; stat -c '%s %h' big2; rm big2; done", &"3000000 1\n".repeat(5));
    checks.gives("background writers", "$RUN sh -c '(sleep 0.3; echo late >late) & wait'; cat late", "late\n");
    checks.gives("fsync", "$RUN /usr/bin/python3 -c 'import os; f = os.open(\"s\", os.O_WRONLY | os.O_CREAT); os.write(f, b\"x\"); os.fsync(f); os.kill(os.getpid(), 9)'; cat s", "x");
    checks.options("--sync strict").gives(
        "--sync strict",
        "$RUN sh -c 'echo a >a; ln a b; echo c >>b'; cat a",
        "a\nc\n",
    );
    checks.finish();
}

#[test]
fn who_writes_on_and_on_keeps_nobody_waiting() {
    // Six seconds of writing, of which one is under way.
    let pair = Pair::with(HostOptions::default(), Wire { rate: 8_000_000, ..Wire::rtt(5) });
    let mut checks = Checks::on(&pair);
    let script = r#"$RUN bash -c '
    head -c 48000000 /dev/zero >out & pid=$!
    until [ -s out ]; do :; done
    stat -c %n out; head -c 3 out | wc -c
    kill -0 $pid && echo still writing; wait; stat -c %s out'"#;
    checks.gives("looked at meanwhile", script, "out\n3\nstill writing\n48000000\n");
    checks.finish();
}

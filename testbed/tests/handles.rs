//! Locks and open files of a command as a local one has them: what a lock shows, when it goes, that waiting for it can be ended,
//! who is told of a write that failed late, and that an open file outlives its name.

use std::time::{Duration, Instant};

use testbed::{Checks, HostOptions, Pair, Wire};

#[test]
fn a_counter_under_a_lock_counts_here_and_there() {
    let pair = Pair::with(HostOptions::default(), Wire::rtt(5));
    let mut checks = Checks::on(&pair);
    checks.within(Duration::from_secs(60));
    let script = r#"cat >count.py <<'END'
import fcntl, os, sys, time
f = os.open('counter', os.O_RDWR)
for i in range(int(sys.argv[2])):
    getattr(fcntl, sys.argv[1])(f, fcntl.LOCK_EX)
    n = int(os.pread(f, 20, 0))
    os.pwrite(f, b'%06d\n' % (n + 1), 0)
    getattr(fcntl, sys.argv[1])(f, fcntl.LOCK_UN)
    time.sleep(0.001 * (i % 4))
END
echo 000000 >counter
$RUN /usr/bin/python3 count.py HOW 150 & until [ "$(cat counter)" != 000000 ]; do sleep 0.01; done
/usr/bin/python3 count.py HOW 500; wait; cat counter"#;
    for how in ["lockf", "flock"] {
        checks.gives(how, &script.replace("HOW", how), "000650\n");
    }
    checks.finish();
}

#[test]
fn locks_end_as_they_do_here() {
    let pair = Pair::with(HostOptions::default(), Wire::rtt(5));
    let mut checks = Checks::on(&pair);
    checks.same_python(
        "locks of an open file",
        r#"
GET, SET, WAIT = 36, 37, 38
def ofd(fd, kind, command=SET): fcntl.fcntl(fd, command, struct.pack('hhqqi4x', kind, 0, 0, 0, 0))
put('l', b'x')
def again():
    for i in range(20):
        a = os.open('l', os.O_RDWR); ofd(a, fcntl.F_WRLCK); os.close(a)
t('closed and taken again', again)
a = os.open('l', os.O_RDWR); ofd(a, fcntl.F_WRLCK); b = os.open('l', os.O_RDWR)
t('held', lambda: ofd(b, fcntl.F_RDLCK))
c = os.dup(a); os.close(a)
t('one descriptor left', lambda: ofd(b, fcntl.F_RDLCK))
pid = os.fork()
if pid == 0: os._exit(0)
os.waitpid(pid, 0)
t('a child that is gone', lambda: ofd(b, fcntl.F_RDLCK))
os.close(c)
t('none left', lambda: ofd(b, fcntl.F_WRLCK))
t('beside those of processes', lambda: (os.close(b), fcntl.lockf(os.open('l', os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)))
def flocks():
    for i in range(20):
        a = os.open('l', os.O_RDONLY); fcntl.flock(a, fcntl.LOCK_EX | fcntl.LOCK_NB); os.close(a)
t('flock', flocks)
"#,
    );
    checks.same_python(
        "waiting is ended by a signal",
        r#"
import signal, time
def alarm(*_): raise InterruptedError(errno.EINTR, 'alarm')
signal.signal(signal.SIGALRM, alarm)
a = os.open('l', os.O_RDWR | os.O_CREAT); fcntl.flock(a, fcntl.LOCK_EX)
b = os.open('l', os.O_RDWR)
for ms in (1, 2, 5, 10, 20, 50, 300):
    # Behind a write that is under way, too.
    os.pwrite(b, b'x' * 300000, 0)
    signal.setitimer(signal.ITIMER_REAL, ms / 1000)
    t('alarm', lambda: fcntl.flock(b, fcntl.LOCK_EX))
def killed(ms):
    pid = os.fork()
    if pid == 0:
        c = os.open('l', os.O_RDWR); os.pwrite(c, b'x' * 300000, 0); fcntl.flock(c, fcntl.LOCK_EX); os._exit(7)
    time.sleep(ms / 1000); start = time.monotonic(); os.kill(pid, 9)
    return os.waitpid(pid, 0)[1], time.monotonic() - start < 3
for ms in (5, 20, 30, 40, 60, 300): t('killed', lambda: killed(ms))
fcntl.flock(a, fcntl.LOCK_UN)
t('free', lambda: fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB))
"#,
    );
    checks.finish();
}

#[test]
fn a_late_error_is_told_to_who_forked() {
    let pair = Pair::with(HostOptions::default(), Wire::rtt(5));
    let mut checks = Checks::on(&pair);
    // The child's end closes the descriptor too, and is told of the full disk like any close.
    let script = r#"cat >w.py <<'END'
import errno, os
fd = os.open(os.environ['HOME'] + '/small/f', os.O_WRONLY | os.O_CREAT)
wrote = 0
try:
    for i in range(3): wrote += os.write(fd, b'x' * 1000000)
except OSError as e: print('write', errno.errorcode[e.errno])
pid = os.fork()
if pid == 0: os._exit(0)
os.waitpid(pid, 0)
for what in ('fsync', 'close'):
    try: getattr(os, what)(fd); print(what)
    except OSError as e: print(what, errno.errorcode[e.errno])
END
$RUN /usr/bin/python3 w.py 2>/dev/null; rm -f ~/small/*"#;
    let outcome = pair.there(script, Duration::from_secs(20));
    let told = ["fsync ENOSPC\nclose\n", "write ENOSPC\nfsync\nclose\n", "write ENOSPC\nfsync ENOSPC\nclose\n"];
    checks.holds("fork", told.contains(&outcome.text().as_str()), || outcome.to_string());
    checks.finish();
}

#[test]
fn what_is_open_there_outlives_its_name_here() {
    let pair = Pair::with(HostOptions::default(), Wire::rtt(20));
    let mut checks = Checks::on(&pair);
    let script = r#"cat >read.py <<'END'
import os, sys
a, b = os.open('replaced', os.O_RDONLY), os.open('removed', os.O_RDONLY)
print('open', flush=True); sys.stdin.readline()
for fd in (a, b): print(os.read(fd, 99), os.fstat(fd).st_nlink)
END
echo old >replaced; echo old >removed; mkfifo go; $RUN /usr/bin/python3 read.py <go >said & exec 7>go
until grep -q open said; do sleep 0.02; done
sleep 0.2; echo new >new; mv new replaced; rm removed; sleep 0.3; echo >&7; exec 7>&-; wait; cat said"#;
    let expected = "open\nb'old\\n' 0\nb'old\\n' 0\n";
    checks.gives("replaced and removed here", script, expected);
    checks.finish();
}

#[test]
fn opening_many_files_waits_for_nobody() {
    let pair = Pair::with(HostOptions::default(), Wire::rtt(50));
    let script = "mkdir d; for i in $(seq 300); do echo $i >d/$i; done; $RUN sh -c 'cat d/* >/dev/null; s=$(date +%s%N); \
                  cat d/* >/dev/null; cat d/* | tail -1; echo $((($(date +%s%N) - s) / 1000000))'";
    let started = Instant::now();
    let outcome = pair.there(script, Duration::from_secs(60)).success();
    let text = outcome.text();
    let took: u64 = text.lines().last().and_then(|line| line.parse().ok()).expect("milliseconds");
    // 600 opens of files that are known: half a minute of round trips, if they were waited for.
    assert!(took < 15_000, "{took} ms, {:?} in all: {outcome}", started.elapsed());
}

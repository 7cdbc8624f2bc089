//! Standard streams are those of here, byte by byte and in order, with their ends (table B of docs/semantics.md).

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use testbed::{Checks, HostOptions, Pair, Process, Wire};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn ends_and_order() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    checks.same("B1", "printf abc | $RUN cat; echo $?");
    checks.same("B4", "yes | $RUN head -1; echo ${PIPESTATUS[@]}");
    checks.same("B5", "$RUN yes | head -1; echo ${PIPESTATUS[1]}");
    checks.same("B5 status", "$RUN yes | true; echo ${PIPESTATUS[0]}");
    checks.same("B6", "$RUN sh -c 'trap \"\" PIPE; while :; do echo x 2>err || break; done; grep -o \"Broken pipe\" err' | head -1; sleep 1; cat err | grep -o 'Broken pipe'");
    checks.same(
        "B12 all bytes",
        "/usr/bin/python3 -c 'import sys; sys.stdout.buffer.write(bytes(range(256)) * 5000)' | $RUN cat | md5sum",
    );
    checks.same(
        "B12 single bytes",
        "seq 1 20000 | $RUN /usr/bin/python3 -c 'import os
while b := os.read(0, 1): os.write(1, b)' | md5sum",
    );
    checks.same("B14", "for i in 1 2 3; do $RUN sh -c 'echo a; echo b >&2; echo c; echo d >&2' 2>&1; done");
    checks.same("B14 file", "$RUN sh -c 'echo a; echo b >&2; echo c' >f 2>&1; cat f");
    checks.same("B15", "$RUN sh -c 'for i in 1 2 3; do echo o$i; echo e$i >&2; done' >o 2>e; cat o e");
    checks.same("B18", "seq 3 >lines; while read l; do $RUN true; echo $l; done <lines");
    checks.same("B18 partly", "seq 10 >lines; { $RUN sh -c 'read a; read b; echo $a $b'; cat; } <lines");
    checks.same(
        "B18 python",
        "seq 10 >lines; { $RUN /usr/bin/python3 -c 'import os; print(os.read(0, 4))'; cat; } <lines",
    );
    checks.same("offset of output", "{ echo 1; $RUN echo 2; echo 3; } >f; cat f; $RUN sh -c 'echo 4' 1<>f; cat f");
    checks.same("B21", "for i in 1 2 3 4; do $RUN sh -c 'i=0; while [ $i -lt 50 ]; do echo line; i=$((i+1)); done' >>f & done; wait; sort f | uniq -c | tr -s ' '");
    checks.same("B24", "(echo q) | $RUN sh -c 'sort; sleep 1; echo later'");
    checks.same("closed stdin", "$RUN sh -c 'cat; echo $?' <&- 2>/dev/null; $RUN sh -c 'cat | wc -c' </dev/null");
    checks.same("closed stdout", "$RUN sh -c 'echo x 2>/dev/null || echo failed >&2' >&- 2>e; cat e");
    checks.same(
        "dev null",
        "$RUN sh -c 'echo x; cat' </dev/null >/dev/null; echo $?; $RUN sh -c 'readlink /proc/self/fd/0' </dev/null",
    );
    checks.same("dev full", "$RUN sh -c 'echo x' >/dev/full 2>/dev/null || echo told");
    checks.same("same pipe", "$RUN sh -c '[ /proc/self/fd/1 -ef /proc/self/fd/2 ] && echo same' 2>&1 | cat; $RUN sh -c '[ /proc/self/fd/1 -ef /proc/self/fd/2 ] || echo other' 2>/dev/null | cat");
    checks.same("kinds", "echo | $RUN sh -c 'test -p /dev/stdin && echo pipe'; $RUN sh -c 'test -f /dev/stdin && echo file' </etc/hostname; $RUN sh -c 'test -p /dev/stdout && echo pipe >&2' 2>&1 >/dev/null | cat");
    checks.finish();
}

#[test]
fn what_is_not_read_stays_in_the_pipe() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    let lines = "printf '1\\n2\\n3\\n' | while read l; do $RUN true; echo $l; done";
    checks.same("B18 loop over a pipe", lines);
    checks.same(
        "B18 loop, slow writer",
        "for i in 1 2 3; do echo $i; sleep 0.2; done | while read l; do $RUN true; echo $l; done",
    );
    checks.same("B18 loop that reads", "seq 9 | while read l; do $RUN sh -c 'read a; echo got $a'; echo $l; done");
    checks.same("B18 head", "(seq 1000; sleep 0.5) | { sleep 0.2; $RUN head -c 3; cat; } | md5sum");
    checks.same("B18 head of lines", "(seq 1000; sleep 0.5) | { sleep 0.2; $RUN head -n 3; cat; } | md5sum");
    checks.same("B18 dd", "seq 1000 | { $RUN dd bs=1 count=3 2>/dev/null; cat; } | md5sum");
    checks.same(
        "B18 several",
        "seq 10 | { $RUN sh -c 'read a; echo $a'; read b; echo $b; $RUN sh -c 'read c; echo $c'; cat; }",
    );
    checks
        .same("B18 other descriptor", "seq 10 | { exec 5<&0 </dev/null; $RUN sh -c 'read a <&5; echo $a'; cat <&5; }");
    checks.same("B18 fifo", "mkfifo p; seq 10 >p & { $RUN sh -c 'read a; read b; echo $a $b'; cat; } <p; wait");
    checks.same("B18 half of much", "seq 1000000 | { $RUN head -c 3000000 | md5sum; cat; } | md5sum");
    checks.same("B18 closed early", "seq 100 | { $RUN sh -c 'read a; echo $a; exec <&-; sleep 0.3'; cat; }");
    checks.same("B18 fails", "seq 3 | { $RUN /nowhere 2>/dev/null; cat; }");
    checks.same(
        "B4 later",
        "(trap 'exit 9' PIPE; echo a; sleep 0.5; echo b; sleep 0.5; echo c) | $RUN head -1; echo ${PIPESTATUS[@]}",
    );
    checks.same("B4 much", "yes | $RUN head -c 100000 | md5sum; echo ${PIPESTATUS[@]}");
    checks.finish();
}

#[test]
fn tokens_of_make_are_shared() {
    let pair = Pair::with(HostOptions::default(), Wire::rtt(10));
    let mut checks = Checks::on(&pair);
    let sub = r#"many: 1 2 3 4 5 6 7 8
1 2 3 4 5 6 7 8: ; @echo in >>log; sleep 0.15; echo out >>log; touch $(NAME)$@.done
END
export RUN; make -s -j4 2>&1; echo $?; ls *.done"#;
    checks.same("B27 alone", &format!("cat >Makefile <<'END'\nall: x\nx: ; +@$(RUN) make -s many NAME=$@\n{sub}"));
    // As many at a time as there are tokens.
    let most = "awk '/in/ { if (++n > most) most = n } /out/ { n-- } END { print most }' log";
    checks.same(
        "B27 all of them",
        &format!("cat >Makefile <<'END'\nall: x\nx: ; +@$(RUN) make -s many NAME=$@\n{sub}; {most}"),
    );
    checks.same("B27 beside others", &format!("cat >Makefile <<'END'\nall: x y z\nx: ; +@$(RUN) make -s many NAME=$@\ny z: ; +@make -s many NAME=$@\n{sub}"));
    checks.same("B27 many", &format!("cat >Makefile <<'END'\nall: x y z\nx y: ; +@$(RUN) make -s many NAME=$@\nz: ; +@make -s many NAME=$@\n{sub}"));
    let long = r#"x y: ; +@$(RUN) make -s many NAME=$@
z: ; +@make -s long
long: a b c d
a b c d: ; @sleep 1.5
many: 1 2 3 4 5 6 7 8
1 2 3 4 5 6 7 8: ; @sleep 0.0$@
END
export RUN; for i in 1 2; do make -s -j4 2>&1; echo $?; done"#;
    checks.same("B27 beside longer ones", &format!("cat >Makefile <<'END'\nall: x y z\n{long}"));
    checks.finish();
}

#[test]
fn returns_at_once() {
    let pair = Pair::start();
    // B3: standard input stays open.
    let mut process = pair.start_there(&["true"]);
    let input = process.stdin();
    assert!(process.ended(Duration::from_secs(5)).expect("B3: returns with its input open").success());
    drop(input);
    drop(process);
    let mut checks = Checks::on(&pair);
    let started = Instant::now();
    checks.gives("B16", "$RUN sh -c 'sleep 60 & echo hi' >f 2>&1; cat f", "hi\n");
    checks.holds("B16 at once", started.elapsed() < Duration::from_secs(5), || format!("{:?}", started.elapsed()));
    // B5: the writer there is gone soon.
    let script = "$RUN sh -c 'yes; echo $? >status' | head -1; for i in $(seq 50); do [ -e status ] && break; sleep 0.1; done; cat status";
    checks.same("B5 SIGPIPE", script);
    checks.finish();
}

#[test]
fn a_blocked_stream_stops_no_other() {
    let pair = Pair::start();
    // B10: standard output is not read; standard error flows, signals arrive.
    let script = "trap 'echo interrupted >&2' INT; (trap '' INT; exec head -c 50000000 /dev/zero) & sleep 1; echo first >&2; wait; wait";
    let mut command = pair.client.remotely([&pair.target(), "--", "bash", "-c", script]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
    let mut errors = child.stderr.take().expect("a pipe");
    let mut line = [0; 6];
    let started = Instant::now();
    errors.read_exact(&mut line).expect("B10: standard error flows");
    assert_eq!(&line, b"first\n");
    println!("B10: {:?}", started.elapsed());
    let started = Instant::now();
    testbed::spawn::send_signal(child.id(), 2);
    let mut line = [0; 12];
    errors.read_exact(&mut line).expect("B9: a signal arrives");
    assert_eq!(&line, b"interrupted\n");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    let mut all = Vec::new();
    child.stdout.take().expect("a pipe").read_to_end(&mut all).expect("read");
    assert_eq!(all.len(), 50_000_000);
    child.wait().expect("wait");

    // B9: an input that nobody reads for a while, and a signal meanwhile.
    let script = "trap 'echo interrupted' INT; echo ready; sleep 2 & wait $!; wait $!; wc -c";
    let mut process = pair.start_there(&["bash", "-c", script]);
    let mut input = process.stdin();
    let writer = std::thread::spawn(move || {
        let block = vec![b'x'; 1 << 20];
        (0..100).for_each(|_| input.write_all(&block).expect("write"));
    });
    process.expect("ready\n", LIMIT);
    std::thread::sleep(Duration::from_millis(500));
    process.signal(2);
    let took = process.expect("interrupted\n", LIMIT);
    println!("B9: {took:?}");
    assert!(took < Duration::from_secs(1), "B9: {took:?}");
    writer.join().expect("writer");
    assert!(process.wait(Duration::from_secs(30)).text().ends_with("104857600\n"));
    pair.clean_within(Duration::from_secs(5));
}

#[test]
fn non_blocking_flags_stay_as_they_are() {
    let pair = Pair::start();
    let script = r#"cat >flags.py <<'END'
import fcntl, os, subprocess, sys
r, w = os.pipe(); r2, w2 = os.pipe()
def flags(): return [fcntl.fcntl(f, fcntl.F_GETFL) for f in (r, w, r2, w2)]
before = flags()
p = subprocess.Popen(os.environ['RUN'].split() + ['sh', '-c', 'echo up; cat'], stdin=r, stdout=w2)
os.read(r2, 3)
print(flags() == before)
os.write(w, b'x'); os.read(r2, 1)
if len(sys.argv) > 1: p.kill()
else: os.close(w); w = r
p.wait()
before[1] = flags()[1]
print(flags() == before, fcntl.fcntl(r, fcntl.F_GETFL) & os.O_NONBLOCK)
END
export RUN; /usr/bin/python3 flags.py; /usr/bin/python3 flags.py kill"#;
    Checks::on(&pair).gives("B25", script, "True\nTrue 0\nTrue\nTrue 0\n").finish();
}

#[test]
fn heavy_one_byte_there_and_back() {
    for rtt in [0, 50] {
        let pair = Pair::with(HostOptions::default(), Wire::rtt(rtt));
        let mut command = pair.client.remotely([&pair.target(), "--", "cat"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start");
        let (mut input, mut output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let mut times: Vec<_> = (0..101)
            .map(|_| {
                let started = Instant::now();
                input.write_all(b"x").expect("write");
                output.read_exact(&mut [0]).expect("read");
                started.elapsed()
            })
            .collect();
        drop(input);
        assert!(child.wait().expect("wait").success());
        times.remove(0);
        times.sort();
        let (median, bound) = (times[50], Duration::from_millis(rtt + 10));
        println!("B26 at {rtt} ms: median {median:?}, fastest {:?}", times[0]);
        assert!(median < bound, "B26 at {rtt} ms: {times:?}");
    }
}

#[test]
fn heavy_bulk_with_bounded_memory() {
    let pair = Pair::start();
    let total: usize = 512 << 20;
    // B8: a reader that is slow at first, then fast.
    let mut command = pair.client.remotely([&pair.target(), "--", "head", "-c", &total.to_string(), "/dev/zero"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("start");
    let mut output = child.stdout.take().expect("a pipe");
    let mut block = vec![0; 1 << 20];
    let mut got = 0;
    let slow = Instant::now();
    while slow.elapsed() < Duration::from_secs(5) {
        got += output.read(&mut block[..65536]).expect("read");
        std::thread::sleep(Duration::from_millis(60));
    }
    let peak = |p: &testbed::leftover::Running, proc: &std::path::Path| {
        let status = std::fs::read_to_string(proc.join(format!("{}/status", p.pid))).unwrap_or_default();
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or_default().to_owned();
        line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    let (here, there) = (std::path::Path::new("/proc"), pair.host.root().join("proc"));
    let peaks: Vec<_> = pair
        .client
        .processes()
        .iter()
        .map(|p| (p.name.clone(), peak(p, here)))
        .chain(pair.host.processes().iter().map(|p| (p.name.clone(), peak(p, &there))))
        .collect();
    println!("B8: peak of resident KiB {peaks:?}");
    assert!(peaks.iter().all(|(_, peak)| *peak < 64 << 10), "B8: {peaks:?}");
    let fast = Instant::now();
    while let Ok(more @ 1..) = output.read(&mut block) {
        got += more;
    }
    println!("B8: {:.0} MB/s", (total - got.min(total)).max(total / 2) as f64 / fast.elapsed().as_secs_f64() / 1e6);
    assert_eq!(got, total);
    assert!(child.wait().expect("wait").success());

    let started = Instant::now();
    let outcome = pair.there(&format!("head -c {total} /dev/zero | $RUN wc -c"), Duration::from_secs(60)).success();
    println!("B12: {:.0} MB/s in", total as f64 / started.elapsed().as_secs_f64() / 1e6);
    assert_eq!(outcome.text(), format!("{total}\n"));
    let intact = "seq 30000000 | head -c 209715200 | $RUN md5sum; echo ${PIPESTATUS[@]}";
    Checks::on(&pair).within(Duration::from_secs(60)).same("B12 intact", intact).finish();
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn heavy_many_at_once() {
    let pair = Pair::start();
    // B11: twelve commands at a time; one of them is stalled and stalls no other.
    let mut stalled = pair.client.remotely([&pair.target(), "--", "yes"]);
    let mut stalled = stalled.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("start");
    let script = "for i in $(seq 12); do (seq 1 50000 | $RUN cat | md5sum) & done | sort | uniq -c | tr -s ' '; wait";
    let outcome = pair.there(script, Duration::from_secs(60)).success();
    assert!(outcome.text().starts_with(" 12 "), "{outcome}");
    drop(stalled.stdout.take());
    stalled.wait().expect("wait");
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn a_pipe_reader_gets_its_end_when_the_last_writer_ends() {
    let pair = Pair::start();
    // B17: the status is known at once; the pipe's end may come with it or with the grandchild's.
    let mut process = Process::start(
        &mut pair.client.remotely([&pair.target(), "--", "sh", "-c", "(sleep 3; echo late) & echo hi"]),
        b"",
    );
    process.expect("hi\n", LIMIT);
    assert!(process.ended(Duration::from_secs(2)).expect("B17: status at once").success());
    drop(process);
    pair.clean_within(Duration::from_secs(10));
}

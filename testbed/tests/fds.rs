//! Descriptors from 3 on are made anew there by kind (table C of docs/semantics.md).

use testbed::{Checks, Pair};

#[test]
fn extra_descriptors() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    checks.same("C1 in", "printf three | $RUN sh -c 'cat <&3' 3<&0 </dev/null");
    checks.same(
        "C1 out",
        "$RUN sh -c 'echo seven >&7; echo one' 7>seven; cat seven; $RUN sh -c 'echo pipe >&7' 7>&1 | cat",
    );
    checks.same("C1 socket", r#"cat >s.py <<'END'
import os, socket, subprocess
a, b = socket.socketpair(); os.dup2(b.fileno(), 9); b.close()
p = subprocess.Popen(os.environ['RUN'].split() + ['sh', '-c', 'read x <&9; echo "<$x>" >&9; cat <&9; echo bye >&9'], pass_fds=[9]); os.close(9)
a.send(b'hello\n'); print(a.recv(99)); a.send(b'more'); a.shutdown(socket.SHUT_WR)
d = b''
while x := a.recv(99): d += x
print(d, p.wait())
END
RUN="$RUN" /usr/bin/python3 s.py"#);
    checks.same("C2", "echo line >f; $RUN cat <&3 3<f; $RUN sh -c 'cat <&3' 3<f");
    checks.same("C2 offset", "seq 5 >f; exec 3<f; read a <&3; $RUN sh -c 'read b <&3; echo $b'; read c <&3; echo $c");
    checks.same(
        "C2 read and write",
        "echo 12345 >f; exec 5<>f; $RUN sh -c 'read x <&5; echo 678 >&5'; echo 9 >&5; cat f",
    );
    checks.same("C3", "$RUN diff <(echo a) <(echo b); echo $?; $RUN cat <(echo x) <(seq 3)");
    checks
        .same("C3 out", "$RUN tee >(tr a b >out) </dev/null; echo aaa | $RUN tee >(tr a b >out2); sleep 0.3; cat out2");
    checks.same("C5", "exec 4</etc/hostname 6>/dev/null; $RUN sh -c 'ls /proc/self/fd; readlink /proc/self/fd/4'");
    checks.same("high number", "echo x >f; exec 200<f; $RUN sh -c 'cat /proc/self/fd/200'");
    checks.same("duplicates", "exec 3>f; $RUN sh -c 'echo a >&3; echo b >&4; echo c >&3' 4>&3; cat f");
    checks.same("directory", "mkdir d; touch d/x; exec 8<d; $RUN ls /proc/self/fd/8/");
    checks.finish();
}

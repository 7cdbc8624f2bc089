//! Programs that people run, in both places, compared: compiler, make, git, tar, xz, process trees.

use testbed::{Checks, HostOptions, Pair, Wire};

#[test]
fn real_programs() {
    let pair = Pair::with(HostOptions::default(), Wire::rtt(5));
    let mut checks = Checks::on(&pair);
    let source = "printf '#include <stdio.h>\\nint main(int c, char **v) { printf(\"%%s %%d\\\\n\", v[1], c); return 42; }\\n' >a.c;";
    checks.same("compiler", &format!("{source} $RUN gcc -O1 -Wall -o a a.c && ./a here; $RUN ./a there; echo $?; ls"));
    checks.same("make", &format!("{source} printf 'all: a b c d\\n%%: %%.c\\n\\tcc -o $@ $<\\n' >Makefile; cp a.c b.c; cp a.c c.c; cp a.c d.c; $RUN make -j4 | sort; ls; $RUN make | tail -1"));
    checks.same("git", "export GIT_AUTHOR_DATE='2001-02-03 04:05:06 +0000' GIT_COMMITTER_DATE='2001-02-03 04:05:06 +0000'; export GIT_CONFIG_COUNT=2 GIT_CONFIG_KEY_0=user.email GIT_CONFIG_VALUE_0=a@b GIT_CONFIG_KEY_1=user.name GIT_CONFIG_VALUE_1=a; git init -q -b main .; echo 1 >f; $RUN git add f; $RUN git commit -qm one; git log --format=%H; echo 2 >>f; $RUN git status --short; $RUN git stash -q; git status --short; $RUN git fsck");
    checks.same("tar", "mkdir -p t/u; echo a >t/a; ln t/a t/b; ln -s a t/c; mkfifo t/p; chmod 600 t/a; touch -h -d @99.5 t/c t/p t/u t/a; $RUN tar cf x.tar --sort=name t; rm -rf t; $RUN tar xf x.tar; stat -c '%n %a %h %Y %F' t/*; tar df x.tar");
    checks.same(
        "sqlite as python has it",
        "$RUN /usr/bin/python3 -c '
import sqlite3
d = sqlite3.connect(\"d.db\"); d.execute(\"pragma journal_mode=wal\"); d.execute(\"create table t(x)\")
for i in range(200): d.execute(\"insert into t values(?)\", (i,))
d.commit(); print(d.execute(\"select sum(x) from t\").fetchone())'; /usr/bin/python3 -c '
import sqlite3
print(sqlite3.connect(\"d.db\").execute(\"select count(*) from t\").fetchone())'",
    );
    checks.same("a tree of processes", "$RUN /usr/bin/python3 -c '
import concurrent.futures, subprocess
with concurrent.futures.ThreadPoolExecutor(8) as p:
    print(sum(int(subprocess.run([\"sh\", \"-c\", \"echo %d >n%d; cat n%d\" % (i, i, i)], capture_output=True, text=True).stdout) for i in p.map(lambda i: i, range(64))))'; ls | wc -l");
    checks.same("xz", "seq 1 300000 >n; $RUN xz -6 -T2 n; xz -t n.xz; ls; $RUN xz -dc n.xz | md5sum");
    checks.same("find", "mkdir -p a/b/c; touch a/b/c/{1..50}; $RUN find . -type f -o -name 'c*' | sort | md5sum; $RUN du -s --apparent-size a/b | wc -l");
    checks.finish();
}

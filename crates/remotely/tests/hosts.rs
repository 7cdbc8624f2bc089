//! `remotely hosts` as its users run it: every example of docs/hosts.md, engines by stand-ins, and standard input.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// What a shell prints, standard error included, where the only program of its own is ours. `home` is also where it is.
#[expect(clippy::disallowed_methods, reason = "starts the program under test")]
fn shell(home: &Path, line: &str) -> String {
    let ours = Path::new(env!("CARGO_BIN_EXE_remotely")).parent().expect("a directory");
    let path = format!("{}:{}:/usr/bin:/bin", home.join("bin").display(), ours.display());
    let output = Command::new("bash")
        .args(["-c", &format!("{{ {line}\n}} 2>&1 </dev/stdin")])
        .current_dir(home)
        .env_clear()
        .envs([("PATH", path.as_str()), ("HOME", &home.to_string_lossy())])
        .output()
        .expect("bash");
    String::from_utf8(output.stdout).expect("text")
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    fs::write(path, text).expect("a file");
}

/// Fenced blocks with a file name are written first, then each `$ ` line of the others is run and its output compared.
#[test]
fn every_example_of_the_documentation_is_true() {
    let text = include_str!("../../../docs/hosts.md");
    let home = home();
    let mut blocks = Vec::new();
    for part in text.split("\n```").skip(1).step_by(2) {
        blocks.push(part.split_once('\n').expect("a block"));
    }
    let mut files = 0;
    for (info, body) in &blocks {
        if let Some((_, name)) = info.split_once(' ') {
            write(&home.path().join(name), &format!("{body}\n"));
            files += 1;
        }
    }
    let mut examples = 0;
    for (_, body) in blocks.iter().filter(|(info, _)| *info == "console") {
        for example in format!("\n{body}").split("\n$ ").skip(1) {
            let (line, expected) = example.split_once('\n').unwrap_or((example, ""));
            assert_eq!(shell(home.path(), line).trim_end(), expected.trim_end(), "$ {line}");
            examples += 1;
        }
    }
    assert!(files >= 6 && examples >= 25, "{files} files, {examples} examples");
}

#[test]
fn results_are_printed_as_they_are_asked_for() {
    let home = home();
    write(&home.path().join("inv.ini"), "[a]\nx[1:2]\n[b]\nx2\n");
    write(&home.path().join("more.ini"), "[b]\ny\n");
    let table = [
        ("remotely hosts a -x b -x a", ""),
        ("remotely hosts -S, a b -f; remotely hosts -S ', ' a b", "a,b\na, b\n"),
        (r"remotely hosts -S '\t' a b", "a\tb\n"),
        ("remotely hosts -s2 'a[1-3]'", "a1 a2\na3\n"),
        ("remotely hosts -s2 --json -f 'a[1-3]'", "[\"a[1-2]\",\"a3\"]\n"),
        (
            "remotely hosts -s 0 a 2>&1 | head -1",
            "remotely: invalid value '0' for '--split <N>': a number above 0 is wanted\n",
        ),
        (
            "remotely hosts -c 'a[1-600000]' 'b[1-600000]'",
            "remotely: \"b[1-600000]\": the node set stands for more than 1000000 names, all its terms together\n",
        ),
        ("remotely hosts fold a b", "a,b\n"),
        ("remotely hosts a stats tty", "a\nstats\ntty\n"),
        ("remotely hosts --json \"'a\\\"'\" 2>&1 | grep -c 'names no host'", "1\n"),
        (
            "remotely hosts --pick 3 -c 'a[1-9]'; remotely hosts --pick 3 -c a; remotely hosts --pick 0 -c a",
            "3\n1\n0\n",
        ),
        ("printf '# c\\na1 #b\\n\\na2\\n' | remotely hosts - a3", "a1\na2\na3\n"),
        ("remotely hosts --inventory inv.ini -gf", "@a x[1-2]\n@b x2\n"),
        ("remotely hosts --inventory inv.ini --inventory more.ini -g", "@a\n@inv:b\n@more:b\n"),
        (
            "remotely hosts --inventory more.ini -g --json y",
            "[{\"group\":\"b\",\"source\":\"more\",\"count\":1,\"nodes\":\"y\"}]\n",
        ),
        ("remotely hosts '@nosuch'; echo $?", "remotely: \"@nosuch\": there is no group @nosuch\n125\n"),
        (
            "remotely hosts --inventory nosuch a",
            "remotely: could not read the inventory nosuch: No such file or directory (os error 2)\n",
        ),
        (
            "remotely hosts 'a b;c'",
            "remotely: \"a b;c\": \"b;c\" names no host: in \"b;c\", the host name cannot have ';' in it\n",
        ),
        ("remotely hosts 'a[1-200000]' | head -1", "a1\n"),
    ];
    for (line, expected) in table {
        assert_eq!(shell(home.path(), line), expected, "{line}");
    }
}

#[test]
fn engines_that_are_missing_or_refuse_are_named() {
    let home = home();
    let bin = home.path().join("bin");
    let stand_in = |name: &str, script: &str| {
        write(&bin.join(name), &format!("#!/bin/bash\n{script}\n"));
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("chmod");
    };
    let outside = "remotely: \"slurm:\": slurm: alone is the job of this process, and there is none (SLURM_JOB_ID is not set): name it, slurm:1234\n";
    assert_eq!(shell(home.path(), "remotely hosts slurm:"), outside);
    stand_in("squeue", "echo \"$*\" >&2; exit 1");
    let said = shell(home.path(), "remotely hosts 'slurm:12_3'");
    let argv = "--noheader --states=R,CG,S --format=%A|%N --jobs 12_3";
    assert_eq!(said, format!("remotely: \"slurm:12_3\": squeue failed (exit status: 1): {argv}\n"));
    stand_in("squeue", "echo '12|'");
    let said = shell(home.path(), "SLURM_JOB_ID=12 remotely hosts slurm:");
    assert!(said.contains("the Slurm job 12 has no nodes: it is waiting, or has ended"), "{said}");
    stand_in("kubectl", "printf '%s\\n' \"$@\" >&2; exit 3");
    let said = shell(home.path(), "remotely hosts 'kubectl:-n prod -l app=web'");
    assert!(
        said.contains(
            "kubectl failed (exit status: 3): get\npods\n--namespace\nprod\n-l\napp=web\n--output\njsonpath="
        ),
        "{said}"
    );
    stand_in("kubectl", "echo nonsense");
    assert!(
        shell(home.path(), "remotely hosts kubectl:-lapp=web").contains("the answer of kubectl was not understood")
    );
    fs::remove_file(bin.join("kubectl")).expect("rm");
    let said = shell(home.path(), "PATH=${PATH%:/usr/bin:/bin} remotely hosts kubectl:-lapp=web");
    assert_eq!(
        said,
        "remotely: \"kubectl:-lapp=web\": kubectl is needed to ask for nodes: there is no kubectl in PATH here\n"
    );
}

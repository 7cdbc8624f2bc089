//! The bootstrap against real shells: `remotely doctor`, with a program named `ssh` that hands the line to a login shell.
//! Needs root (mount namespaces), csh, fish and busybox.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fake;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use fake::{Host, SHELLS, Said};

const CACHE: &str = "home/.cache/remotely";

fn assert_uploaded(output: &Output) {
    assert!(output.is_linked() && output.has_uploaded(), "{}", output.text());
}

fn assert_found(output: &Output) {
    assert!(output.is_linked() && !output.has_uploaded(), "{}", output.text());
}

/// One agent and nothing else.
fn assert_one_agent(host: &Host, place: &str) {
    let files = host.files(place);
    assert!(matches!(files.as_slice(), [agent] if agent.starts_with("agent-")), "{place}: {files:?}");
}

#[test]
fn every_login_shell_gets_the_agent_once() {
    for shell in SHELLS {
        let host = Host::with_shell(shell);
        assert_uploaded(&host.doctor());
        assert_one_agent(&host, CACHE);
        let cache = fs::metadata(host.at(CACHE)).unwrap();
        assert_eq!(cache.permissions().mode() & 0o7777, 0o700, "{shell}");
        assert_found(&host.doctor());
    }
}

#[test]
fn every_sh_becomes_the_agent() {
    for sh in ["/bin/dash", "/bin/bash", "/bin/busybox"] {
        let mut host = Host::new();
        host.with_program("probe", "");
        symlink(sh, host.at("bin").join("sh")).unwrap();
        assert_uploaded(&host.doctor());
        assert_found(&host.doctor());
    }
}

#[test]
fn a_hit_needs_no_program_but_the_shell() {
    let mut host = Host::new();
    assert_uploaded(&host.doctor());
    host.with_only(&["sh"]);
    assert_found(&host.doctor());
}

#[test]
fn a_miss_needs_no_gzip() {
    let mut host = Host::new();
    host.with_only(&["sh", "id", "head", "mkdir", "chmod", "cat", "mv", "rm", "uname"]);
    assert_uploaded(&host.doctor());
    assert_one_agent(&host, CACHE);
}

#[test]
fn busybox_alone_is_enough() {
    let mut host = Host::with_shell("sh");
    let only = host.at("box");
    fs::create_dir(&only).unwrap();
    for name in ["sh", "id", "head", "mkdir", "chmod", "cat", "mv", "rm", "uname", "gzip"] {
        symlink("/bin/busybox", only.join(name)).unwrap();
    }
    host.path = only.to_str().unwrap().into();
    assert_uploaded(&host.doctor());
    assert_found(&host.doctor());
}

#[test]
fn the_noise_of_a_login_shell_is_skipped() {
    let host = Host::with_shell("bash");
    let noise = "printf '\\0remotely and not\\n'; head -c 3000000 /dev/zero | tr '\\0' n; printf '\\0remo'\n";
    fs::write(host.home().join(".bashrc"), noise).unwrap();
    assert_uploaded(&host.doctor());
    assert_found(&host.doctor());
}

#[test]
fn twenty_first_uses_at_once_leave_one_agent() {
    let host = Host::new();
    let doctors: Vec<_> = (0..20).map(|_| host.start_doctor()).collect();
    for doctor in doctors {
        let output = doctor.wait_with_output().unwrap();
        assert!(output.is_linked(), "{}", output.text());
    }
    assert_one_agent(&host, CACHE);
}

#[test]
fn a_cut_upload_leaves_nothing_and_is_repaired() {
    let mut host = Host::new();
    host.filter = "dd bs=1 count=300000 2>/dev/null |".into();
    let cut = host.doctor();
    assert_eq!(cut.status.code(), Some(255), "{}", cut.text());
    assert!(cut.text().contains("before the agent answered"), "{}", cut.text());
    assert!(host.files(CACHE).is_empty(), "{:?}", host.files(CACHE));
    host.filter = String::new();
    assert_uploaded(&host.doctor());
    assert_one_agent(&host, CACHE);
}

/// The host's power fails, or all its processes are killed, in the middle of an upload.
#[test]
fn what_a_killed_upload_left_is_removed_by_the_next() {
    let mut host = Host::new();
    // The shell and all that it started end as soon as there is something of the upload.
    let kill = format!(
        "#!/bin/sh\n\
         until [ -s {cache}/.new-* ] && [ \"$(cat {cache}/.new-* | wc -c)\" -gt 100000 ]; do sleep 0.01; done; kill -9 -$1\n",
        cache = host.at(CACHE).display()
    );
    host.with_program("killer", &kill);
    let session = "#!/bin/sh\nkiller $$ & { dd bs=1 count=300000 2>/dev/null; sleep 60; } | \"$@\"\n";
    host.with_program("session", session);
    // The connection goes with the host: a status of the transport, not that of a shell whose agent died by a signal, which
    // would be tried once more.
    host.with_program("doomed", "#!/bin/sh\nsetsid session \"$@\"\nexit 1\n");
    host.filter = format!("env PATH={} doomed", host.path);
    let cut = host.doctor();
    assert_eq!(cut.status.code(), Some(255), "{}", cut.text());
    assert_eq!(host.files(CACHE).len(), 1, "a file was left, as the test wants it: {:?}", host.files(CACHE));
    std::thread::sleep(Duration::from_millis(1200));
    host.filter = String::new();
    assert_uploaded(&host.doctor());
    assert_one_agent(&host, CACHE);
}

#[test]
fn an_agent_that_cannot_be_executed_is_replaced() {
    for shell in ["dash", "bash", "busybox sh"] {
        let mut host = Host::with_shell(shell);
        // The shell that the line runs in, which is the one to execute it.
        host.with_program("probe", "");
        symlink(format!("/bin/{}", shell.split(' ').next().unwrap()), host.at("bin").join("sh")).unwrap();
        assert_uploaded(&host.doctor());
        let agent = host.at(CACHE).join(&host.files(CACHE)[0]);
        let whole = fs::read(&agent).unwrap();
        // The last two are scripts of nothing: they end well and say nothing.
        for damage in [&b"\x7fELF damaged"[..], &whole[..100_000], b"", &[0; 4096]] {
            fs::write(&agent, damage).unwrap();
            assert_uploaded(&host.doctor());
            assert_found(&host.doctor());
        }
    }
}

#[test]
fn a_damaged_copy_here_is_made_again() {
    let mut host = Host::new();
    host.cache_here = host.at("cache-here");
    assert_uploaded(&host.doctor());
    let packed = host.files("cache-here/remotely").into_iter().find(|name| name.starts_with("packed-")).unwrap();
    let packed = host.cache_here.join("remotely").join(packed);
    let mut bytes = fs::read(&packed).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&packed, bytes).unwrap();
    fs::remove_dir_all(host.at(CACHE)).unwrap();
    // The first place has been found wanting by then.
    assert_uploaded(&host.doctor());
    assert!(host.files(CACHE).is_empty());
    assert_one_agent(&host, "var-tmp/remotely-0");
}

#[test]
fn only_the_newest_agents_are_kept() {
    let host = Host::new();
    fs::create_dir_all(host.at(CACHE)).unwrap();
    for n in 0..9 {
        fs::write(host.at(CACHE).join(format!("agent-{n}")), "").unwrap();
        let time = std::time::SystemTime::now() - Duration::from_secs(1000 - n);
        fs::File::options()
            .write(true)
            .open(host.at(CACHE).join(format!("agent-{n}")))
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    assert_uploaded(&host.doctor());
    let kept: Vec<_> = host.files(CACHE).into_iter().filter(|name| name.len() < 10).collect();
    assert_eq!(kept, ["agent-4", "agent-5", "agent-6", "agent-7", "agent-8"]);
}

#[test]
fn places_that_do_not_do_are_passed_over() {
    let bad_homes = [
        ("noexec", "mount -t tmpfs -o noexec,mode=700 none HOME"),
        ("read-only", "mount -t tmpfs -o ro none HOME"),
        ("full", "mount -t tmpfs -o size=64k none HOME; head -c 100000 /dev/zero >HOME/fill 2>/dev/null || :"),
        ("too small", "mount -t tmpfs -o size=1m none HOME"),
        ("without inodes", "mount -t tmpfs -o nr_inodes=1 none HOME"),
    ];
    for (what, prepare) in bad_homes {
        let mut host = Host::new();
        host.prepare = prepare.replace("HOME", host.home().to_str().unwrap());
        assert_uploaded(&host.doctor());
        assert_one_agent(&host, "var-tmp/remotely-0");
        assert_found(&host.doctor());
        assert!(host.files("tmp").is_empty(), "{what}");
    }
}

#[test]
fn directories_of_others_and_links_are_refused() {
    let host = Host::new();
    // A link in the home, a stranger's directory in /var/tmp, a file in /tmp: /dev/shm is left.
    let elsewhere = host.at("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::create_dir(host.home().join(".cache")).unwrap();
    symlink(&elsewhere, host.at(CACHE)).unwrap();
    let foreign = host.at("var-tmp/remotely-0");
    fs::create_dir(&foreign).unwrap();
    chown(&foreign, Some(4321), Some(4321)).unwrap();
    fs::write(host.at("tmp/remotely-0"), "").unwrap();
    assert_uploaded(&host.doctor());
    assert_one_agent(&host, "shm/remotely-0");
    assert_eq!(fs::metadata(&foreign).unwrap().uid(), 4321);
    assert!(host.files("elsewhere").is_empty() && host.files("var-tmp/remotely-0").is_empty());

    // A stranger's agent is not used either, nor one behind a link.
    let agent = host.files("shm/remotely-0").remove(0);
    let good = host.at("shm/remotely-0").join(&agent);
    fs::copy(&good, foreign.join(&agent)).unwrap();
    fs::copy(&good, elsewhere.join(&agent)).unwrap();
    fs::remove_dir_all(host.at("shm/remotely-0")).unwrap();
    assert_uploaded(&host.doctor());
}

#[test]
fn a_host_without_any_place_says_what_is_wrong_with_each() {
    let host = Host::new();
    fs::write(host.home().join(".cache"), "").unwrap();
    for place in ["var-tmp", "tmp", "shm"] {
        fs::write(host.at(place).join("remotely-0"), "").unwrap();
    }
    let output = host.doctor();
    assert_eq!(output.status.code(), Some(255));
    for place in ["/.cache/remotely: ", "/var/tmp/remotely-0: ", "/tmp/remotely-0: ", "/dev/shm/remotely-0: "] {
        assert!(output.text().contains(place), "{place} in {}", output.text());
    }
}

#[test]
fn another_architecture_is_named() {
    let mut host = Host::new();
    host.with_program("uname", "#!/bin/sh\ncase $1 in -s) echo Linux;; -m) echo riscv64;; *) echo Linux;; esac\n");
    let output = host.doctor();
    assert_eq!(output.status.code(), Some(255));
    let expected = format!("the host is Linux riscv64, this executable is for Linux {}", std::env::consts::ARCH);
    assert!(output.text().contains(&expected), "{}", output.text());
}

#[test]
fn a_remotely_host_in_path_is_used_if_it_is_the_same() {
    let mut host = Host::new();
    host.with_program("remotely-host", "#!/bin/sh\necho something else\n");
    assert_uploaded(&host.doctor());
    fs::remove_dir_all(host.at(CACHE)).unwrap();
    fs::remove_file(host.at("bin/remotely-host")).unwrap();
    symlink(env!("CARGO_BIN_EXE_remotely"), host.at("bin/remotely-host")).unwrap();
    assert_found(&host.doctor());
    assert!(!host.at(CACHE).exists());
}

#[test]
fn a_chain_of_hops_passes_through_every_shell() {
    for shell in SHELLS {
        let mut host = Host::with_shell(shell);
        host.path = format!("{}:{}", host.at("here").display(), host.path);
        let output = host.doctor_of("gw+user@inner:22+sudo:nobody", &["--ssh-opts", "-A -o 'X=a b'"]);
        assert!(output.is_linked(), "{shell}: {}", output.text());
        // That user has no home.
        assert_eq!(host.files("var-tmp"), ["remotely-65534"]);
    }
}

#[test]
fn an_ssh_that_fails_is_reported_with_its_words_and_a_hint() {
    let host = Host::new();
    let script = "#!/bin/sh\necho 'dev@host: Permission denied (publickey).' >&2\nexit 255\n";
    let output = host.doctor_with_ssh(script, &[]).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    let text = output.text();
    assert!(text.contains("no link to host: ssh ended with exit status 255 before the agent answered"), "{text}");
    assert!(
        text.contains("Permission denied (publickey)") && text.contains("did not accept this user and key"),
        "{text}"
    );
}

fn is_alive(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !status.is_empty() && !status.contains(") Z ")
}

/// The pid that a fake ssh wrote down.
fn pid(at: &Path) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let pid = fs::read_to_string(at).unwrap_or_default();
        if pid.ends_with('\n') {
            return pid.trim().into();
        }
        assert!(Instant::now() < deadline, "no ssh was started");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_silent_host_is_given_up_and_its_ssh_ended() {
    let host = Host::new();
    let at = host.at("pid");
    let script = format!("#!/bin/sh\ntrap '' TERM\necho $$ >{}\nwhile :; do sleep 0.1; done\n", at.display());
    let doctor = host.doctor_with_ssh(&script, &["--connect-timeout", "0.5"]);
    let ssh = pid(&at);
    // The second part of doctor, over the same ssh, has no time limit of ours.
    let deadline = Instant::now() + Duration::from_secs(10);
    while is_alive(&ssh) {
        assert!(Instant::now() < deadline, "ssh {ssh} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
    end(doctor);
}

#[test]
fn a_killed_client_takes_its_ssh_along() {
    let host = Host::new();
    let at = host.at("pid");
    let script = format!("#!/bin/sh\necho $$ >{}\nexec sleep 60 </dev/null\n", at.display());
    let doctor = host.doctor_with_ssh(&script, &[]);
    let ssh = pid(&at);
    end(doctor);
    let deadline = Instant::now() + Duration::from_secs(5);
    while is_alive(&ssh) {
        assert!(Instant::now() < deadline, "ssh {ssh} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn end(mut doctor: std::process::Child) {
    doctor.kill().unwrap();
    doctor.wait().unwrap();
}

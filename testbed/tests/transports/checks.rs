//! The contract of a transport: what a pipe to a shell on the host must do. Every carrier runs all of it; what fails is told
//! at the end.

use std::fs::{self, File};
use std::io::Read;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use testbed::spawn::{Outcome, Process, command};

use crate::carrier::Carrier;

const LIMIT: Duration = Duration::from_secs(30);
/// What a killed client may take to be noticed.
const GONE: Duration = Duration::from_secs(10);

type Check = fn(&Carrier) -> Result<(), String>;

const CHECKS: &[(&str, Check)] = &[
    ("arbitrary bytes both ways", bytes_both_ways),
    ("half-close", half_close),
    ("standard error apart", errors_apart),
    ("exit code", exit_code),
    ("no terminal, no noise", no_noise),
    ("argv and env bytes", words),
    ("slow reader", slow_reader),
    ("killed client", killed),
    ("doctor, cold and warm", doctor),
    ("what cannot be reached", failing),
];

impl Carrier<'_> {
    /// Runs all checks.
    ///
    /// # Panics
    /// When one fails; the text has all that do.
    #[track_caller]
    pub(crate) fn conforms(&self) {
        let mut failures = Vec::new();
        for (name, check) in CHECKS {
            let began = Instant::now();
            if let Err(what) = check(self) {
                failures.push(format!("{}: {name}: {what}", self.target));
            }
            println!("{}: {name}: {:?}", self.target, began.elapsed());
        }
        assert!(failures.is_empty(), "{} of {} failed\n{}", failures.len(), CHECKS.len(), failures.join("\n\n"));
    }

    fn run(&self, script: &str, input: &[u8]) -> Result<Outcome, String> {
        Process::start(&mut self.start(script), input).finish(LIMIT)
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} instead of {expected:?}")) }
}

/// Bytes without a pattern; every value, and every pair of them, is among a MiB of them.
fn arbitrary(size: usize) -> Vec<u8> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn bytes_both_ways(carrier: &Carrier) -> Result<(), String> {
    for size in [1 << 20, 32 << 20] {
        let sent = arbitrary(size);
        let outcome = carrier.run("cat", &sent)?;
        if outcome.stdout != sent {
            let at = outcome.stdout.iter().zip(&sent).position(|(a, b)| a != b);
            let got = outcome.stdout.len();
            return Err(format!("{got} of {size} bytes came back, different at {at:?}; {}", outcome.errors()));
        }
        equal("exit code", outcome.code(), 0)?;
    }
    Ok(())
}

fn half_close(carrier: &Carrier) -> Result<(), String> {
    let outcome = carrier.run("n=$(wc -c); echo $n; sleep 0.3; echo end", &arbitrary(70_000))?;
    equal("answer", outcome.text(), "70000\nend\n".into())
}

fn errors_apart(carrier: &Carrier) -> Result<(), String> {
    let outcome = carrier.run("echo out; echo err >&2; echo more", b"")?;
    equal("standard output", outcome.text(), "out\nmore\n".into())?;
    let errors = outcome.errors();
    if errors.contains("err\n") { Ok(()) } else { Err(format!("standard error: {errors:?}")) }
}

fn exit_code(carrier: &Carrier) -> Result<(), String> {
    equal("exit code", carrier.run("exit 7", b"")?.code(), 7)?;
    equal("exit code", carrier.run("exit 0", b"")?.code(), 0)
}

fn no_noise(carrier: &Carrier) -> Result<(), String> {
    let script = r"for fd in 0 1 2; do [ -t $fd ] && echo tty $fd; done; printf 'a\r\n\001\004\n'; cat";
    let outcome = carrier.run(script, b"x\r\n\x03\x04\x1a")?;
    let expected =
        format!(r"{}a\r\n\x01\x04\nx\r\n\x03\x04\x1a", if carrier.terminal_output { r"tty 1\n" } else { "" });
    equal("standard output", outcome.stdout.escape_ascii().to_string(), expected)?;
    equal("standard error", outcome.errors(), String::new())
}

fn words(carrier: &Carrier) -> Result<(), String> {
    let script = r#"printf '%s|' "a'b" 'c"d  e' '$HOME \ \\ ! * ~ ?' "$(printf 'x\ty')" é '' "${NO_SUCH-unset}" '#' '%s' '{a,b}'; b=$(printf '\377\376\200'); X="$b c" sh -c 'printf "%s|%s|" "$X" "$1"' sh "$b"; echo $?"#;
    let here = Process::start(command("sh").args(["-c", script]), b"").finish(LIMIT)?;
    let there = carrier.run(script, b"")?;
    equal("words", there.stdout.escape_ascii().to_string(), here.stdout.escape_ascii().to_string())
}

/// Nobody reads for a while: the far side must come to a halt, and go on afterwards, and not a byte is lost.
fn slow_reader(carrier: &Carrier) -> Result<(), String> {
    const BLOCKS: usize = 64;
    let script = "i=0; while [ $i -lt 64 ]; do head -c 1048576 /dev/zero; i=$((i+1)); echo $i >&2; done";
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| e.to_string())?;
    let mut local = carrier.start(script);
    local.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
    let process = Process::start_plain(&mut local);
    drop(local);
    std::thread::sleep(Duration::from_millis(1500));
    let counted =
        |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).lines().filter_map(|l| l.parse::<usize>().ok()).max();
    let before = counted(process.stderr()).unwrap_or_default();
    if before > BLOCKS / 2 {
        return Err(format!("{before} MiB were written while nobody read"));
    }
    let mut total = 0;
    let mut file = File::from(reader);
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block).map_err(|e| e.to_string())? {
            0 => break,
            n => total += n,
        }
    }
    let outcome = process.finish(LIMIT)?;
    equal("bytes", total, BLOCKS << 20)?;
    equal("exit code", outcome.code(), 0)
}

/// The client is killed, and the local process with it: what that had started must end by the end of its pipe.
fn killed(carrier: &Carrier) -> Result<(), String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mark = format!("far-process-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let mut local = Process::start_open(&mut carrier.start(&format!(": {mark}; echo up; cat >/dev/null; exit")));
    local.expect("up\n", LIMIT);
    let alive = || marked(&mark);
    if alive().is_empty() {
        return Err("the far process is not to be seen".into());
    }
    let pipe = local.stdin();
    local.signal(9);
    drop(pipe);
    let deadline = Instant::now() + GONE;
    while !alive().is_empty() {
        if Instant::now() > deadline {
            return Err(format!("still there after {GONE:?}: {:?}", alive()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Processes of this machine with that text in their arguments, those in containers and hosts included.
fn marked(text: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let lines = entries.flatten().filter_map(|entry| {
        let words = fs::read(entry.path().join("cmdline")).ok()?;
        Some(format!("{} {}", entry.file_name().to_string_lossy(), String::from_utf8_lossy(&words).replace('\0', " ")))
    });
    lines.filter(|line| line.contains(text)).collect()
}

fn doctor(carrier: &Carrier) -> Result<(), String> {
    for turn in ["cold", "warm"] {
        let outcome = Process::start(&mut carrier.from.remotely(&["doctor", carrier.target]), b"").finish(LIMIT)?;
        let said = outcome.text();
        let (linked, sent) = (said.contains("the agent answered"), said.contains("it was sent first"));
        let wanted = turn == "cold" || !carrier.lasts;
        if !linked || sent != wanted || !said.contains("the host\n") || said.contains("did not answer") {
            return Err(format!("{turn}: {outcome}"));
        }
    }
    Ok(())
}

fn failing(carrier: &Carrier) -> Result<(), String> {
    for (target, texts) in carrier.failing {
        let outcome = Process::start(&mut carrier.from.remotely(&[target, "--", "true"]), b"").finish(LIMIT)?;
        let said = outcome.errors();
        let lines = said.lines().filter(|line| line.starts_with("remotely: ")).count();
        let hinted = said.lines().any(|line| line.starts_with("hint: "));
        if outcome.code() != 255 || lines != 1 || !hinted || !texts.iter().all(|text| said.contains(text)) {
            return Err(format!("{target} should say {texts:?}: {outcome}"));
        }
    }
    Ok(())
}

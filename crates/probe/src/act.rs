//! The verbs: processes that behave in one particular way. Plain system calls, so that what a test sees is the kernel's.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::io::Errno;

use crate::print;

type Done = Result<i32, String>;

/// Does `verb`; the exit code.
pub(crate) fn act(verb: &[u8], words: &[Vec<u8>]) -> Done {
    match verb {
        b"exit" => Ok(number(words, 0)? as i32),
        b"kill" => kill(number(words, 0)? as i32),
        b"trap" => trap(number(words, 0)? as i32, number(words, 1)? as i32),
        b"signals" => signals(number(words, 0)?),
        b"sizes" => sizes(number(words, 0)?),
        b"read" => read(number(words, 0)?, number(words, 1).unwrap_or(0) as i32),
        b"write" => write(number(words, 0)?, number(words, 1).unwrap_or(1) as i32),
        b"echo" => echo(number(words, 0).unwrap_or(-1) as i32),
        b"ignore-pipe" => ignore_pipe(),
        b"sleep" => sleep(number(words, 0)?).map(|()| 0),
        b"daemon" => daemon(number(words, 0)?),
        b"allocate" => allocate(number(words, 0)?),
        b"with" => with(words),
        _ => Err(format!("no such verb: {}", verb.escape_ascii())),
    }
}

fn number(words: &[Vec<u8>], index: usize) -> Result<i64, String> {
    let word = words.get(index).ok_or("a number is missing")?;
    parse(word)
}

fn parse(word: &[u8]) -> Result<i64, String> {
    let text = std::str::from_utf8(word).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| format!("not a number: {}", word.escape_ascii()))
}

fn kill(signal: i32) -> Done {
    // SAFETY: kill(2) takes two integers.
    if unsafe { libc::kill(libc::getpid(), signal) } != 0 {
        return Err(format!("cannot send signal {signal}"));
    }
    print("continued\n").map(|()| 0)
}

/// The last signal that was caught.
static CAUGHT: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: i32) {
    CAUGHT.store(signal, Ordering::SeqCst);
}

/// Catches a signal without restarting calls, and blocks it except in [`wait`].
fn catch(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: zeroed structures are valid, `note` does only what a handler may.
    unsafe {
        let mut before = std::mem::zeroed();
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for &signal in signals {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as *const () as usize;
            libc::sigaction(signal, &action, std::ptr::null_mut());
            libc::sigaddset(&mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &set, &mut before);
        for &signal in signals {
            libc::sigdelset(&mut before, signal);
        }
        before
    }
}

/// Waits for the next signal that was caught.
fn wait(mask: &libc::sigset_t) -> i32 {
    loop {
        // SAFETY: the mask is initialised.
        unsafe { libc::sigsuspend(mask) };
        let signal = CAUGHT.swap(0, Ordering::SeqCst);
        if signal != 0 {
            return signal;
        }
    }
}

fn trap(signal: i32, code: i32) -> Done {
    let mask = catch(&[signal]);
    print("ready\n")?;
    wait(&mask);
    Ok(code)
}

fn signals(count: i64) -> Done {
    let all: Vec<i32> = (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP, 32, 33].contains(signal)).collect();
    let mask = catch(&all);
    print("ready\n")?;
    for _ in 0..count {
        print(&format!("{}\n", wait(&mask)))?;
    }
    Ok(0)
}

fn sizes(count: i64) -> Done {
    let mask = catch(&[libc::SIGWINCH]);
    for turn in 0..count {
        if turn > 0 {
            wait(&mask);
        }
        let size = rustix::termios::tcgetwinsize(rustix::stdio::stdin()).map_err(|errno| errno.to_string())?;
        print(&format!("{} {}\n", size.ws_row, size.ws_col))?;
    }
    Ok(0)
}

fn borrow(fd: i32) -> BorrowedFd<'static> {
    // SAFETY: standard descriptors, or one that the test has made; a closed one makes calls fail.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

fn read(count: i64, fd: i32) -> Done {
    let mut left = usize::try_from(count).map_err(|error| error.to_string())?;
    let mut buffer = vec![0; left.min(64 << 10)];
    while left > 0 {
        let len = left.min(buffer.len());
        match rustix::io::read(borrow(fd), &mut buffer[..len]) {
            Ok(0) => break,
            Ok(len) => left -= len,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(format!("cannot read: {errno}")),
        }
    }
    print(&format!("{}\n", count - left as i64)).map(|()| 0)
}

/// Writes all of it.
pub(crate) fn write_all(fd: i32, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(borrow(fd), bytes) {
            Ok(len) => bytes = &bytes[len..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn write(count: i64, fd: i32) -> Done {
    let mut left = usize::try_from(count).map_err(|error| error.to_string())?;
    // A multiple of 256, so that each block begins with a zero.
    let block: Vec<u8> = (0..64 << 10).map(|position| position as u8).collect();
    while left > 0 {
        let len = left.min(block.len());
        write_all(fd, &block[..len]).map_err(|errno| format!("cannot write: {errno}"))?;
        left -= len;
    }
    Ok(0)
}

fn echo(fd: i32) -> Done {
    let (from, to) = if fd == -1 { (0, 1) } else { (fd, fd) };
    let mut byte = [0; 1];
    loop {
        match rustix::io::read(borrow(from), &mut byte) {
            Ok(0) => return Ok(0),
            Ok(_) => write_all(to, &byte).map_err(|errno| format!("cannot write: {errno}"))?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(format!("cannot read: {errno}")),
        }
    }
}

fn ignore_pipe() -> Done {
    // SAFETY: sets a disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    loop {
        if let Err(errno) = write_all(1, b"y\n") {
            let _ = write_all(2, format!("{}\n", errno.raw_os_error()).as_bytes());
            return Ok(0);
        }
    }
}

fn sleep(milliseconds: i64) -> Result<(), String> {
    let time = u64::try_from(milliseconds).map_err(|error| error.to_string())?;
    std::thread::sleep(std::time::Duration::from_millis(time));
    Ok(())
}

fn daemon(milliseconds: i64) -> Done {
    // SAFETY: this process has one thread; the children only make system calls and sleep.
    unsafe {
        match libc::fork() {
            -1 => Err("cannot fork".into()),
            0 => {
                libc::setsid();
                match libc::fork() {
                    0 => {
                        print(&format!("{}\n", libc::getpid()))?;
                        // What it was started with is let go, as daemons do.
                        for fd in 0..3 {
                            libc::close(fd);
                        }
                        sleep(milliseconds)?;
                        libc::_exit(0)
                    }
                    _ => libc::_exit(0),
                }
            }
            child => {
                libc::waitpid(child, std::ptr::null_mut(), 0);
                Ok(0)
            }
        }
    }
}

fn allocate(mib: i64) -> Done {
    let size = usize::try_from(mib).map_err(|error| error.to_string())? << 20;
    let mut memory = vec![0u8; size];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    print("ready\n")?;
    let mut byte = [0; 64];
    while rustix::io::read(rustix::stdio::stdin(), &mut byte).is_ok_and(|len| len > 0) {}
    // The pages are in use until here.
    Ok(i32::from(std::hint::black_box(&memory)[size / 2] == 2))
}

/// Changes this process and executes a command in it.
fn with(words: &[Vec<u8>]) -> Done {
    let end = words.iter().position(|word| word == b"--").ok_or("there is no --")?;
    let (changes, command) = (&words[..end], &words[end + 1..]);
    let mut name = None;
    let mut env: Option<Vec<Vec<u8>>> = None;
    let mut hexadecimal = false;
    for change in changes {
        let at = change.iter().position(|&byte| byte == b'=').ok_or("WHAT has no =")?;
        let (what, value) = (&change[..at], &change[at + 1..]);
        match what {
            b"name" => name = Some(value.to_vec()),
            b"hex" => hexadecimal = true,
            b"env" => env.get_or_insert_default().push(unhex(value)?),
            _ => apply(what, value)?,
        }
    }
    let mut command: Vec<Vec<u8>> =
        if hexadecimal { command.iter().map(|word| unhex(word)).collect::<Result<_, _>>()? } else { command.to_vec() };
    let path =
        CString::new(command.first().cloned().ok_or("there is no command")?).map_err(|error| error.to_string())?;
    if let Some(name) = name {
        command[0] = name;
    }
    execute(&path, &command, env.as_deref())
}

fn apply(what: &[u8], value: &[u8]) -> Result<(), String> {
    // SAFETY: plain calls that change attributes of this process.
    unsafe {
        match what {
            b"ignore" => _ = libc::signal(parse(value)? as i32, libc::SIG_IGN),
            b"block" => {
                let mut set = std::mem::zeroed();
                libc::sigemptyset(&mut set);
                libc::sigaddset(&mut set, parse(value)? as i32);
                libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            }
            b"close" => _ = libc::close(parse(value)? as i32),
            b"umask" => {
                let mask = std::str::from_utf8(value).ok().and_then(|text| u32::from_str_radix(text, 8).ok());
                libc::umask(mask.ok_or("not an octal number")?);
            }
            b"nice" => _ = libc::nice(parse(value)? as i32),
            b"limit" => {
                let colon = value.iter().position(|&byte| byte == b':').ok_or("limit has no :")?;
                let resource = parse(&value[..colon])? as u32;
                let mut limit: libc::rlimit = std::mem::zeroed();
                libc::getrlimit(resource, &mut limit);
                limit.rlim_cur = parse(&value[colon + 1..])? as u64;
                if libc::setrlimit(resource, &limit) != 0 {
                    return Err("cannot set the limit".into());
                }
            }
            _ => return Err(format!("no such change: {}", what.escape_ascii())),
        }
    }
    Ok(())
}

fn execute(path: &CStr, argv: &[Vec<u8>], env: Option<&[Vec<u8>]>) -> Done {
    let strings = |list: &[Vec<u8>]| -> Result<Vec<CString>, String> {
        list.iter().map(|word| CString::new(word.clone()).map_err(|error| error.to_string())).collect()
    };
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let argv = strings(argv)?;
    let env = env.map(strings).transpose()?;
    let (argv, env) = (pointers(&argv), env.as_deref().map(pointers));
    // SAFETY: both are null-terminated arrays of C strings that live until here.
    unsafe {
        match env {
            Some(env) => libc::execvpe(path.as_ptr(), argv.as_ptr(), env.as_ptr()),
            None => libc::execvp(path.as_ptr(), argv.as_ptr()),
        };
    }
    Err(format!("cannot execute {}: {}", path.to_bytes().escape_ascii(), std::io::Error::last_os_error()))
}

fn unhex(text: &[u8]) -> Result<Vec<u8>, String> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).ok_or("not hexadecimal");
    text.chunks(2)
        .map(|pair| match pair {
            [high, low] => Ok((digit(high)? << 4 | digit(low)?) as u8),
            _ => Err("an odd number of digits".into()),
        })
        .collect()
}

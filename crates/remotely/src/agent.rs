//! How a program becomes the agent: before its `main`, when it was started with the word for that. So the `remotely` executable,
//! a program that uses the library, its tests and its examples all are their own agents, whatever they do in `main`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use crate::bootstrap::{WORD, place};

// SAFETY: the section holds pointers to functions that libc calls, one after the other and before main, with argc, argv
// and envp, which a C function may leave alone.
#[used]
#[unsafe(link_section = ".init_array")]
static TAKE_OVER: extern "C" fn() = take_over;

/// In a static executable libc is set up by then, and so, with glibc, are the arguments of Rust's standard library, whose own
/// entry of the section has a number and thereby comes first. Where they come with `main` only, `#[remotely::main]` asks again.
extern "C" fn take_over() {
    become_agent();
}

/// Does not return if this process was started to be an agent. Must be called while it has one thread.
pub(crate) fn become_agent() {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_none_or(|word| word != WORD) {
        return;
    }
    let words: Vec<OsString> = words.collect();
    keep_memory();
    match words.as_slice() {
        #[cfg(feature = "run")]
        [kind] if kind == "run" => drop(remotely_agent::run()),
        [kind] if kind == "tunnel" => drop(remotely_agent::tunnel()),
        [kind] if kind == "join" => drop(remotely_agent::join()),
        [flag] if flag == "--hash" => done(place::print_hash()),
        [flag, hash] if flag == "--verify" => done(place::verify(hash.as_bytes())),
        _ => {
            let usage = format!(
                "remotely: {WORD} is for the other side, as: {WORD} run, tunnel, join, --hash, --verify HASH\n"
            );
            let _ = io::stderr().write_all(usage.as_bytes());
            std::process::exit(125)
        }
    }
}

/// Blocks of data come and go all the time. What malloc(3) gives back to the kernel at once has to be mapped and cleared
/// again page by page, which costs a quarter of the time of a long read.
pub(crate) fn keep_memory() {
    for (what, bytes) in
        [(libc::M_MMAP_THRESHOLD, 32 << 20), (libc::M_TRIM_THRESHOLD, 64 << 20), (libc::M_TOP_PAD, 1 << 20)]
    {
        // SAFETY: mallopt(3) sets a number; there is no other thread yet.
        unsafe { libc::mallopt(what, bytes) };
    }
}

fn done(result: io::Result<()>) -> ! {
    if let Err(error) = &result {
        let _ = io::stderr().write_all(format!("remotely: {error}\n").as_bytes());
    }
    std::process::exit(i32::from(result.is_err()))
}

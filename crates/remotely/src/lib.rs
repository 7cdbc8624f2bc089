//! Remotely makes another machine feel like part of this one: a command of this machine runs on a host's CPU, with the
//! files, the environment, the user, the terminal, the signals and the exit status of here.
//!
//! The crate is both the `remotely` executable and what it is made of. The way of a run: [`cli`] reads the words into
//! [`options`]; [`bootstrap`] goes to the [`target`] through a [`transport`] and has the host's shell become the agent;
//! `run` serves files and relays descriptors and signals over the link until the command ends; [`report`] says how.

pub mod bootstrap;
pub mod cli;
pub mod options;
pub mod report;
pub mod run;
pub mod stderr;
pub mod target;
pub mod transport;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

/// The `main` of the executable: the agent when it was started as that, else the command line.
pub fn main() -> ExitCode {
    keep_memory();
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "agent") {
        let words: Vec<OsString> = words.collect();
        return match words.as_slice() {
            [] => remotely_agent::main(),
            [flag] if flag == "--hash" => done(bootstrap::place::print_hash()),
            [flag, hash] if flag == "--verify" => done(bootstrap::place::verify(hash.as_bytes())),
            _ => {
                report::note("agent is started by the other side, as: agent, agent --hash, agent --verify HASH");
                report::exit_code(report::Failure::Setup)
            }
        };
    }
    cli::main()
}

/// Blocks of file data come and go all the time. What malloc(3) gives back to the kernel at once has to be mapped and
/// cleared again page by page, which costs a quarter of the time of a long read.
fn keep_memory() {
    for (what, bytes) in
        [(libc::M_MMAP_THRESHOLD, 32 << 20), (libc::M_TRIM_THRESHOLD, 64 << 20), (libc::M_TOP_PAD, 1 << 20)]
    {
        // SAFETY: mallopt(3) sets a number; there is no other thread yet.
        unsafe { libc::mallopt(what, bytes) };
    }
}

fn done(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::error(&error, None);
            ExitCode::FAILURE
        }
    }
}

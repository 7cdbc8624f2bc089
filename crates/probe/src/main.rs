//! What a process was given, as JSON, and processes that behave in ways that tests need. Run by the tests, here and on a
//! host, and compared. Starts without Rust's runtime, which changes signals and closed descriptors.
#![no_main]

mod act;
mod json;
mod show;

use std::ffi::{CStr, c_char, c_int};

const USAGE: &str = "\
probe                         show everything that this process was given
probe exit CODE               exit
probe kill SIGNAL             send oneself a signal; if it does not kill, print 'continued'
probe trap SIGNAL CODE        print 'ready', wait for the signal, exit
probe signals COUNT           print 'ready', then the numbers of COUNT signals as they come
probe sizes COUNT             print the size of the terminal, again at each SIGWINCH, COUNT times in all
probe read COUNT [FD]         read that many bytes (or to the end), print how many there were
probe write COUNT [FD]        write that many bytes, each the lowest byte of its position
probe echo [FD]               write back each byte that comes, one by one
probe ignore-pipe             ignore SIGPIPE and write until it fails, then print the errno to standard error
probe sleep MILLISECONDS      sleep
probe daemon MILLISECONDS     print the pid of a process in a session of its own that sleeps, and exit
probe allocate MIB            touch that much memory, print 'ready', wait for the end of standard input
probe with WHAT... -- CMD...  execute CMD with: ignore=N block=N close=FD umask=OCTAL nice=N limit=RESOURCE:SOFT
                              name=ARGV0 env=HEX (an entry; the first one empties the environment), hex=on (each word
                              of CMD is hexadecimal)
";

/// Called by libc.
///
/// # Safety
/// As C has it: `argv` holds `argc` C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let words: Vec<Vec<u8>> = (0..argc as usize)
        // SAFETY: argv holds argc C strings.
        .map(|index| unsafe { CStr::from_ptr(*argv.add(index)) }.to_bytes().to_vec())
        .collect();
    let code = match words.get(1) {
        None => show::everything(&words),
        Some(verb) => act::act(verb, words.get(2..).unwrap_or_default()),
    };
    match code {
        Ok(code) => code,
        Err(why) => {
            let _ = rustix::io::write(rustix::stdio::stderr(), format!("probe: {why}\n{USAGE}").as_bytes());
            125
        }
    }
}

/// Writes all of it to standard output.
fn print(text: &str) -> Result<(), String> {
    act::write_all(1, text.as_bytes()).map_err(|errno| format!("cannot write: {errno}"))
}

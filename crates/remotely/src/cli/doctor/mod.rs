//! `remotely doctor TARGET`: what this machine and the host have for a run, line by line, and how to mend what is missing.

mod here;
mod host;
mod link;

use std::io::Write;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::{log, way};
use crate::report::{self, Failure, exit_code};
use crate::target::Target;

/// Check this machine, the way to a host, and the host; say how to mend what is wrong.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The host.
    target: Target,
    #[command(flatten)]
    way: way::Way,
}

/// One line of the answer.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    verdict: Verdict,
    what: String,
    /// What to do about it.
    mend: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Finding {
    fn ok(what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, what: what.into(), mend: None }
    }

    fn warn(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, what: what.into(), mend: Some(mend.into()) }
    }

    fn fail(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, what: what.into(), mend: Some(mend.into()) }
    }
}

pub(super) fn main(args: Args) -> ExitCode {
    log::start(args.way.verbose);
    let options = args.way.options(args.target);
    let mut worst = Verdict::Ok;
    let mut show = |section: &str, findings: Vec<Finding>| {
        // Whoever reads this may stop reading.
        let mut out = std::io::stdout();
        let _ = writeln!(out, "{section}");
        for Finding { verdict, what, mend } in findings {
            worst = worst.max(verdict);
            let sign = match verdict {
                Verdict::Ok => "ok  ",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            let _ = writeln!(out, "  {sign}  {what}");
            if let Some(mend) = mend {
                let _ = writeln!(out, "        -> {mend}");
            }
        }
    };
    show("this machine", here::examine(&options));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            report::note(&format!("could not start: {error}"));
            return exit_code(Failure::Setup);
        }
    };
    let examined = runtime.block_on(async {
        let examination = async {
            let (link, reached) = link::examine(&options).await;
            let linked = link.iter().all(|finding| finding.verdict != Verdict::Fail);
            show(&format!("the link to {}", options.target), link);
            if reached {
                show("the host", host::examine(&options).await);
            }
            linked
        };
        // Leaving the future in order ends ssh, and gives the terminal its echo back after a password prompt.
        tokio::select! {
            linked = examination => Ok(linked),
            signal = asked_to_end() => Err(signal),
        }
    });
    let linked = match examined {
        Ok(linked) => linked,
        Err(signal) => return ExitCode::from(128 + signal),
    };
    match (linked, worst) {
        (false, _) => exit_code(Failure::Link),
        (true, Verdict::Fail) => exit_code(Failure::Setup),
        (true, Verdict::Ok | Verdict::Warn) => ExitCode::SUCCESS,
    }
}

/// The first signal that asks this process to end.
async fn asked_to_end() -> u8 {
    let caught = |kind: SignalKind, number: u8| async move {
        match signal(kind) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        };
        number
    };
    tokio::select! {
        number = caught(SignalKind::interrupt(), 2) => number,
        number = caught(SignalKind::quit(), 3) => number,
        number = caught(SignalKind::hangup(), 1) => number,
        number = caught(SignalKind::terminate(), 15) => number,
    }
}

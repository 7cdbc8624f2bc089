//! `remotely exec TARGETS -- COMMAND`: a command of the hosts, on all of them at once. The work is done by [`crate::group`] and
//! [`crate::exec`]; here is what is shown of it.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::fleet::{Fleet, FleetError, stop};
use super::gather::{Gathered, Host};
use super::spool::Spool;
use crate::Error;
use crate::exec::{Chunk, Command, StartError, Status};
use crate::group::Group;
use crate::tunnel::ErrorKind;

/// Run a command of the hosts on all of them at once.
///
/// The hosts' own programs and files are used, as by ssh. One word is given to the user's login shell there, as ssh does; several are the
/// command and its arguments as they are. Lines appear behind the name of their host.
#[derive(Debug, clap::Args)]
#[command(override_usage = "remotely exec [OPTIONS] TARGETS -- COMMAND [ARGS]...", after_help = AFTER)]
pub(super) struct Args {
    #[command(flatten)]
    fleet: Fleet,
    /// Show equal outputs once, with the hosts that gave them, when all are done.
    #[arg(short = 'b', long)]
    gather: bool,
    /// Show what most hosts gave, and how the others differ from it.
    #[arg(long)]
    diff: bool,
    /// Print an object of JSON for each host, when it is done.
    #[arg(long, conflicts_with_all = ["gather", "diff"])]
    json: bool,
    /// Lines without the names of their hosts.
    #[arg(short = 'N', long)]
    no_prefix: bool,
    /// Give standard input to the command on every host. Without this it reads nothing.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// The command.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

const AFTER: &str = "\
Exit status: the highest of the commands (128 and its number for a signal), 124 for a host
that took too long, 127 and 126 for a command that is not there or cannot be executed, 255 for
a host that could not be reached or was lost, 130 after Ctrl-C, 125 if nothing was begun.

Examples:
  remotely exec web[1-200] -- uptime
  remotely exec -b @web -x web13 -- 'rpm -q openssl | sort'
  remotely exec --sudo -f 8 -t 60 @db -- systemctl restart postgresql";

enum Event {
    Begun,
    Chunk(Chunk),
    Ended(Result<Status, Error>, Duration),
}

pub(super) fn main(args: Args) -> ExitCode {
    args.fleet.main(run(&args))
}

async fn run(args: &Args) -> Result<u8, FleetError> {
    let (group, screen) = args.fleet.shown("exec", !args.no_prefix).await?;
    let lines = !(args.gather || args.diff || args.json);
    let show = |host: &str, is_error: bool, line: &[u8]| match lines || (is_error && !args.json) {
        true => screen.line(host, is_error, line),
        false => Ok(()),
    };
    let command = match args.command.as_slice() {
        [text] => Command::login_shell(text),
        [program, words @ ..] => Command::new(program).args(words),
        [] => unreachable!("clap asks for one"),
    };
    let (events, mut coming) = mpsc::channel(1024);
    let results = start(&group, &command, args.stdin.then(Spool::of_stdin), events);
    let mut hosts: Vec<Host> = group.hosts().map(Host::new).collect();
    let (mut worst, mut failed) = (0, 0);
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    // One for all turns: what comes between two would be lost.
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            event = coming.recv() => match event {
                None => break,
                Some((n, Event::Begun)) => hosts[n].begin(),
                Some((n, Event::Chunk(chunk))) => {
                    let gone = hosts[n].take(chunk, show);
                    if lines {
                        hosts[n].forget();
                    }
                    if gone.is_err() {
                        drop(results);
                        stop(&group).await;
                        return Ok(141);
                    }
                }
                Some((n, Event::Ended(result, time))) => {
                    let code = code(&result);
                    worst = worst.max(code);
                    failed += usize::from(code != 0);
                    let host = &mut hosts[n];
                    let _ = host.end(result, time, show);
                    if args.json {
                        let _ = screen.output(host.json().as_bytes());
                    }
                    screen.done(failed);
                }
            },
            _ = ticks.tick() => screen.tick(),
            _ = &mut interrupted => {
                drop(results);
                if args.gather || args.diff {
                    let _ = screen.output(Gathered::of(&hosts).shown(args.diff).as_slice());
                }
                screen.error(super::gather::unfinished(&hosts).as_bytes());
                stop(&group).await;
                return Ok(130);
            }
        }
    }
    if args.gather || args.diff {
        let _ = screen.output(Gathered::of(&hosts).shown(args.diff).as_slice());
    }
    if !args.json {
        screen.error(super::gather::endings(&hosts).as_bytes());
    }
    group.close().await;
    Ok(worst)
}

fn start(
    group: &Group,
    command: &Command,
    input: Option<Arc<Spool>>,
    events: mpsc::Sender<(usize, Event)>,
) -> crate::group::Results<()> {
    let timeout = group.timeout();
    let mut next = 0..;
    group.on_each(move |tunnel, windows| {
        let n = next.next().unwrap_or_default();
        let (command, input, events) = (command.clone(), input.clone(), events.clone());
        async move {
            let began = Instant::now();
            let _ = events.send((n, Event::Begun)).await;
            let (starting, to) = (tunnel.clone(), events.clone());
            let ran = windows.reach(&tunnel, timeout, move || {
                let running = starting.start(command.clone(), input.as_ref().map(Spool::reader));
                let to = to.clone();
                async move {
                    let mut running = running;
                    while let Some(chunk) = running.next().await {
                        if to.send((n, Event::Chunk(chunk))).await.is_err() {
                            break;
                        }
                    }
                    running.status().await
                }
            });
            let result = ran.await;
            let _ = events.send((n, Event::Ended(result, began.elapsed()))).await;
            Ok(())
        }
    })
}

fn code(result: &Result<Status, Error>) -> u8 {
    match result {
        Ok(status) => u8::try_from(status.shell_code()).unwrap_or(255),
        Err(error) => match (error.kind(), error.downcast()) {
            (_, Some(StartError::NotFound(_))) => 127,
            (_, Some(StartError::NotExecutable(..))) => 126,
            (ErrorKind::Timeout(_), _) => 124,
            (
                ErrorKind::Connect(_)
                | ErrorKind::Gateway { .. }
                | ErrorKind::NoGateway { .. }
                | ErrorKind::Lost { .. }
                | ErrorKind::Closed,
                _,
            ) => 255,
            _ => 125,
        },
    }
}

//! `remotely put` and `remotely fetch`: files and trees to many hosts, and from them. The work is done by [`crate::group`].

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use remotely_copy::{CopyError, Failure, Observer, Options, Progress, Report, Unchanged};

use super::fleet::{Fleet, FleetError, stop};
use crate::Error;
use crate::group::{Results, SamePlace};
use crate::report;
use crate::tunnel::ErrorKind;

/// Copy a file or a tree of here to all hosts.
///
/// If the destination is a directory, or ends in a slash, the source goes into it under its own name; else it is the new name.
/// A relative destination is beneath the home directory there. {host} stands for the host's name.
#[derive(Debug, clap::Args)]
#[command(override_usage = "remotely put [OPTIONS] TARGETS SOURCE DESTINATION", after_help = PUT)]
pub(super) struct PutArgs {
    #[command(flatten)]
    fleet: Fleet,
    /// A file or a directory of here.
    source: PathBuf,
    /// Where it goes on each host.
    destination: PathBuf,
    #[command(flatten)]
    how: How,
}

const PUT: &str = "\
Examples:
  remotely put web[1-200] nginx.conf /etc/nginx/
  remotely put --sudo --mode 600 @db server.key /etc/ssl/private/server.key
  remotely put -p build web1 dist/ releases/42";

/// Copy a file or a tree of all hosts to here.
///
/// In the destination, {host} stands for the host's name, so that each has a place of its own.
#[derive(Debug, clap::Args)]
#[command(override_usage = "remotely fetch [OPTIONS] TARGETS SOURCE DESTINATION", after_help = FETCH)]
pub(super) struct FetchArgs {
    #[command(flatten)]
    fleet: Fleet,
    /// A file or a directory of each host. A relative one is beneath the home directory there.
    source: PathBuf,
    /// Where it goes here.
    destination: PathBuf,
    #[command(flatten)]
    how: How,
}

const FETCH: &str = "\
Examples:
  remotely fetch web1 /var/log/nginx/error.log .
  remotely fetch -p web[1-200] /var/log/nginx 'logs/{host}'";

#[derive(Debug, Clone, clap::Args)]
struct How {
    /// Make the directories that lead to the destination.
    #[arg(short, long)]
    parents: bool,
    /// Permission bits of a single file, in octal; without this, those of the source.
    #[arg(long, value_name = "MODE", value_parser = octal)]
    mode: Option<u32>,
    /// Take over owners and groups, by number. For root on the receiving side.
    #[arg(long)]
    owner: bool,
    /// Take over extended attributes, and with them ACLs.
    #[arg(short = 'X', long)]
    xattrs: bool,
    /// Leave out files whose size and time are the same at the destination.
    #[arg(short, long)]
    update: bool,
    /// Leave out files whose content is the same at the destination, whatever their times.
    #[arg(short, long, conflicts_with = "update")]
    checksum: bool,
    /// Of files that are at the destination in another state, send only changed blocks.
    #[arg(short, long)]
    delta: bool,
    /// Do not wait until the files are on the disk.
    #[arg(long)]
    no_sync: bool,
    /// Keep nothing of a large file when the transfer is cut, and go on from nothing.
    #[arg(long)]
    no_resume: bool,
    /// Print an object of JSON for each host, when it is done or has failed.
    #[arg(long)]
    json: bool,
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(|| "octal digits up to 7777".into())
}

impl How {
    fn options(&self, observer: Observer) -> Options {
        Options {
            parents: self.parents,
            owner: self.owner,
            xattrs: self.xattrs,
            sync: !self.no_sync,
            resume: !self.no_resume,
            unchanged: match (self.update, self.checksum) {
                (true, _) => Unchanged::Stamp,
                (_, true) => Unchanged::Hash,
                _ => Unchanged::Send,
            },
            delta: self.delta,
            mode: self.mode,
            observer: Some(observer),
        }
    }
}

pub(super) fn put(args: PutArgs) -> ExitCode {
    let PutArgs { fleet, source, destination, how } = args;
    main("put", &fleet, &how, move |group, options| Ok(group.put(&source, &destination, options)))
}

pub(super) fn fetch(args: FetchArgs) -> ExitCode {
    let FetchArgs { fleet, source, destination, how } = args;
    main("fetch", &fleet, &how, move |group, options| group.fetch(&source, &destination, options))
}

#[derive(Debug, thiserror::Error)]
enum TransferError {
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error(transparent)]
    SamePlace(#[from] SamePlace),
}

fn main(
    verb: &str,
    fleet: &Fleet,
    how: &How,
    start: impl FnOnce(&crate::Group, &Options) -> Result<Results<Report>, SamePlace>,
) -> ExitCode {
    fleet.main(run(verb, fleet, how, start))
}

async fn run(
    verb: &str,
    fleet: &Fleet,
    how: &How,
    start: impl FnOnce(&crate::Group, &Options) -> Result<Results<Report>, SamePlace>,
) -> Result<u8, TransferError> {
    let (group, screen) = fleet.shown(verb, true).await?;
    let (bar, most) = (screen.clone(), AtomicU64::new(0));
    let alone = group.len() == 1;
    let observer = Observer::new(move |Progress { bytes, total, files }| {
        if alone && most.fetch_max(bytes, Ordering::Relaxed) < bytes {
            bar.copied(files, bytes, total);
        }
    });
    let mut results = start(&group, &how.options(observer))?;
    let (mut worst, mut failed) = (0, 0);
    // One for all turns: what comes between two would be lost.
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let (host, result) = tokio::select! {
            next = results.next() => match next {
                Some(next) => next,
                None => break,
            },
            _ = &mut interrupted => {
                drop(results);
                stop(&group).await;
                remotely_copy::idle().await;
                return Ok(130);
            }
        };
        if let Err(error) = &result {
            failed += 1;
            worst = worst.max(match error.kind() {
                ErrorKind::Timeout(_) => 124,
                ErrorKind::Copy(_) => 1,
                _ => 255,
            });
        }
        match &result {
            result if how.json => drop(screen.output(json(&host, result).as_bytes())),
            Ok(report) => {
                for skipped in &report.skipped {
                    screen.error(format!("remotely: {host}: left out: {skipped}\n").as_bytes());
                }
                let _ = screen.line(&host, false, summary(verb, report).as_bytes());
            }
            Err(error) => {
                screen.error(format!("remotely: {}\n", report::chain(error)).as_bytes());
                let (report, failures, _) = partly(error);
                for skipped in report.iter().flat_map(|report| &report.skipped) {
                    screen.error(format!("remotely: {host}: left out: {skipped}\n").as_bytes());
                }
                // The first has been named.
                for failure in failures.iter().skip(1) {
                    screen.error(format!("remotely: {host}: {failure}\n").as_bytes());
                }
            }
        }
        screen.done(failed);
    }
    group.close().await;
    Ok(worst)
}

fn summary(verb: &str, report: &Report) -> String {
    let place = if verb == "put" { &report.remote } else { &report.local };
    let unchanged = match report.unchanged {
        0 => String::new(),
        count => format!(", {count} unchanged"),
    };
    let files = if report.files == 1 { "file" } else { "files" };
    let size = indicatif::BinaryBytes(report.bytes);
    format!("{}: {} {files}{unchanged}, {size}", shown(place), report.files)
}

/// A path as it is, or in quotes where that would be no line, or not the name.
fn shown(path: &Path) -> String {
    match path.to_str().filter(|text| !text.contains(char::is_control)) {
        Some(text) => text.to_owned(),
        None => format!("{path:?}"),
    }
}

/// What was done all the same, what was not, and how much more of that nobody named.
fn partly(error: &Error) -> (Option<&Report>, &[Failure], u64) {
    match error.kind() {
        ErrorKind::Copy(error) => match &**error {
            CopyError::Incomplete { report, failures, unnamed } => (Some(report), failures, *unnamed),
            _ => (None, &[], 0),
        },
        _ => (None, &[], 0),
    }
}

/// An object, whether it succeeded or not. What is not known is null.
fn json(host: &str, result: &Result<Report, Error>) -> String {
    let (report, failures, unnamed) = match result {
        Ok(report) => (Some(report), &[][..], 0),
        Err(error) => partly(error),
    };
    let path = |path: &PathBuf| path.to_string_lossy().into_owned();
    let object = serde_json::json!({
        "host": host,
        "error": result.as_ref().err().map(|error| report::chain(error)),
        "local": report.map(|report| path(&report.local)),
        "remote": report.map(|report| path(&report.remote)),
        "files": report.map(|report| report.files),
        "unchanged": report.map(|report| report.unchanged),
        "bytes": report.map(|report| report.bytes),
        "wire": report.map(|report| report.wire),
        "blake3": report.and_then(|report| report.hash).map(|hash| hash.to_string()),
        "skipped": report.iter().flat_map(|report| &report.skipped).map(ToString::to_string).collect::<Vec<_>>(),
        "failed": failures.len() as u64 + unnamed,
        "failures": failures.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    format!("{object}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_line_stand_in_quotes() {
        assert_eq!(shown(Path::new("/a b")), "/a b");
        assert_eq!(shown(Path::new("/a\nb\x1b")), r#""/a\nb\u{1b}""#);
    }
}

//! `remotely facts TARGETS`: what the hosts are, what they have, how busy they are. The work is done by [`crate::facts`].

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use super::fleet::{Fleet, FleetError};
use super::screen::Screen;
use crate::facts::{self, Facts};
use crate::report::{self, Failure, exit_code};

/// Show what the hosts are, what they have, and how busy they are.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    fleet: Fleet,
    /// Print an object of JSON for each host, as it answers.
    #[arg(long)]
    json: bool,
}

pub(super) fn main(args: Args) -> ExitCode {
    super::log::start(args.fleet.verbose);
    let ran = tokio::runtime::Runtime::new().map(|runtime| runtime.block_on(run(&args)));
    match ran {
        Ok(Ok(0)) => ExitCode::SUCCESS,
        // A host that could not be asked.
        Ok(Ok(_)) => exit_code(Failure::Link),
        Ok(Err(error)) => {
            report::error(&error, None);
            exit_code(Failure::Setup)
        }
        Err(error) => {
            report::error(&error, None);
            exit_code(Failure::Setup)
        }
    }
}

async fn run(args: &Args) -> Result<usize, FleetError> {
    let group = args.fleet.group().await?;
    let screen = Arc::new(Screen::new("facts", group.len(), true));
    let shown = screen.clone();
    let group = group.on_line(move |line| drop(shown.line(&line.host, true, &line.bytes)));
    let (mut results, mut failed) = (group.call(facts::gather, ()), 0);
    while let Some((host, result)) = results.next().await {
        match result {
            Ok(facts) => {
                let text = if args.json { json(&host, &facts) } else { text(&host, &facts) };
                let _ = screen.output(text.as_bytes());
            }
            Err(error) => {
                failed += 1;
                screen.error(format!("remotely: {}\n", report::chain(&error)).as_bytes());
            }
        }
        screen.done(failed);
    }
    group.close().await;
    Ok(failed)
}

fn json(host: &str, facts: &Facts) -> String {
    let mut object = serde_json::to_value(facts).unwrap_or_default();
    if let Some(object) = object.as_object_mut() {
        object.insert("host".into(), host.into());
    }
    format!("{object}\n")
}

fn text(host: &str, facts: &Facts) -> String {
    let mut text = String::new();
    let os = facts.os.as_deref().unwrap_or("Linux");
    let days = facts.uptime / 86400.0;
    let [load, ..] = facts.load;
    let _ = writeln!(
        text,
        "{host}: {}, {os}, {} {}, {} CPUs{}, {} of memory ({} free), up {days:.1} days, load {load:.2}",
        facts.hostname,
        facts.kernel,
        facts.arch,
        facts.cpus,
        facts.cpu_model.as_ref().map(|model| format!(" ({model})")).unwrap_or_default(),
        size(facts.memory.total),
        size(facts.memory.available),
    );
    for address in facts.addresses.iter().filter(|address| !address.address.is_loopback()) {
        let _ = writeln!(text, "{host}:   {} {}/{}", address.interface, address.address, address.prefix);
    }
    for filesystem in &facts.filesystems {
        let _ = writeln!(
            text,
            "{host}:   {} {} {}, {} free",
            filesystem.mount,
            filesystem.kind,
            size(filesystem.size),
            size(filesystem.available)
        );
    }
    text
}

fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

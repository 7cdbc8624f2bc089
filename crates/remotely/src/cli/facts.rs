//! `remotely facts TARGETS`: what the hosts are, what they have, how busy they are. The work is done by [`crate::facts`].

use std::fmt::Write as _;
use std::process::ExitCode;

use super::fleet::{Fleet, FleetError};
use crate::facts::{self, Facts};
use crate::report;

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
    args.fleet.main(run(&args))
}

async fn run(args: &Args) -> Result<u8, FleetError> {
    let (group, screen) = args.fleet.shown("facts", true).await?;
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
    // For a host that could not be asked, as for one that cannot be reached.
    Ok(if failed > 0 { 255 } else { 0 })
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

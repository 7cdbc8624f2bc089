//! Carries out plans: runs the steps, takes back the half of one that failed. Called by the helper, and by who has a namespace of his own.

use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::process::Stdio;

use super::held::Held;
use super::spawn;
use crate::rules::{Method, Plan, Step};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A program cannot be started, or cannot be talked to.
    #[error("{program} can't be run")]
    Run {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It has refused what it was given.
    #[error("{program} refuses: {said}")]
    Refused {
        /// Which.
        program: String,
        /// Its own words.
        said: String,
    },
}

/// Applies plans, and holds what is tied to this process.
#[derive(Debug, Default)]
pub struct Applier {
    held: Option<Held>,
    /// Commands that are in force, which a change of rules beside them need not touch.
    standing: Vec<Step>,
    /// How to lift the kill switch that is in force.
    kept: Vec<Step>,
}

impl Applier {
    /// Nothing is applied yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Carries a plan out. When a step fails, those before it are undone, but for a kill switch that was in force before. May be called
    /// again, with the same plan or another one of the same instance: what was captured before is captured all the while.
    ///
    /// # Errors
    ///
    /// The first step that fails.
    pub fn apply(&mut self, plan: &Plan) -> Result<(), ApplyError> {
        if self.standing.is_empty() {
            // What is made by one transaction replaces itself; of commands there may be some that a dead one has left.
            for step in plan.undo.iter().filter(|step| matches!(step, Step::Run { .. })) {
                let _ = run(step);
            }
        }
        for step in &plan.apply {
            let done = match step {
                Step::Nft { text, held: true } => self.hold(text),
                Step::Nft { .. } => run(step),
                step if self.standing.contains(step) => Ok(()),
                step => run(step),
            };
            if let Err(error) = done {
                self.undo(plan);
                plan.release.iter().filter(|step| !self.kept.contains(step)).for_each(|step| drop(run(step)));
                return Err(error);
            }
        }
        self.standing = plan.apply.iter().filter(|step| !matches!(step, Step::Nft { .. })).cloned().collect();
        self.kept.clone_from(&plan.release);
        Ok(())
    }

    /// Takes a plan back, but for its kill switch. What is there no more is passed over.
    pub fn undo(&mut self, plan: &Plan) {
        self.held.take();
        self.standing.clear();
        plan.undo.iter().for_each(|step| drop(run(step)));
    }

    /// Becomes readable when the process has ended that holds tables, and with it these; `None` where there is none, or a kernel before
    /// Linux 5.3.
    pub(crate) fn holder(&self) -> Option<BorrowedFd<'_>> {
        self.held.as_ref().and_then(Held::process)
    }

    fn hold(&mut self, text: &str) -> Result<(), ApplyError> {
        let failed = |source| ApplyError::Run { program: "nft".into(), source };
        let held = match &mut self.held {
            Some(held) => held,
            empty => empty.insert(Held::start().map_err(failed)?),
        };
        let answer = held.transact(text).map_err(failed)?;
        answer.map_err(|said| ApplyError::Refused { program: "nft".into(), said })
    }
}

/// Lifts the kill switch of a plan.
pub fn release(plan: &Plan) {
    plan.release.iter().for_each(|step| drop(run(step)));
}

/// Whether this system has what a method needs.
#[must_use]
pub fn supports(method: &dyn Method) -> bool {
    let programs = method.abilities().programs;
    // The program may be there, and the kernel without it.
    let answers = || match method.name() {
        "nft" | "tproxy" => run(&Step::run("nft list tables")).is_ok(),
        "nat" => run(&Step::run("iptables -w -t nat -S OUTPUT")).is_ok(),
        _ => true,
    };
    programs.iter().all(|program| spawn::find(program).is_some()) && answers()
}

/// Runs one step, which does not have to be held.
pub(crate) fn run(step: &Step) -> Result<(), ApplyError> {
    let (program, arguments, input) = match step {
        Step::Nft { text, .. } => ("nft", vec!["-f".to_owned(), "-".to_owned()], text.as_str()),
        Step::Run { argv, input } => command(argv, input),
        Step::Unless { there, argv } => {
            if run(&Step::Run { argv: there.clone(), input: String::new() }).is_ok() {
                return Ok(());
            }
            command(argv, "")
        }
    };
    let failed = |source| ApplyError::Run { program: program.to_owned(), source };
    let mut command = spawn::command(program);
    command.args(&arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    // Nothing goes on while somebody else undoes what a killed one has done.
    spawn::dies_with_us(&mut command);
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // What does not read its input says why by its status.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().chars().take(300).collect();
    Err(ApplyError::Refused { program: program.to_owned(), said })
}

fn command<'a>(argv: &'a [String], input: &'a str) -> (&'a str, Vec<String>, &'a str) {
    let (program, arguments) = argv.split_first().map_or(("", &[][..]), |(program, rest)| (program.as_str(), rest));
    (program, arguments.to_vec(), input)
}

//! Several checks of one behaviour on one host: each is run, all that fail are told at the end. The tests use it; a row of
//! docs/semantics.md is one check.

use std::time::Duration;

use crate::pair::Pair;
use crate::spawn::{Outcome, Process};

const PRELUDE: &str = include_str!("prelude.py");

/// How long a check may take unless it says so.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A list of checks on a pair. Each starts in an empty working directory.
#[derive(Debug)]
pub struct Checks<'a> {
    pair: &'a Pair,
    run: String,
    limit: Duration,
    passed: usize,
    failures: Vec<String>,
}

impl<'a> Checks<'a> {
    /// None yet.
    pub fn on(pair: &'a Pair) -> Self {
        Self { pair, run: pair.run(), limit: LIMIT, passed: 0, failures: Vec::new() }
    }

    /// Options of `remotely` from now on: `$RUN` is `remotely OPTIONS dev@far --`.
    pub fn options(&mut self, options: &str) -> &mut Self {
        self.run = format!("remotely {options} {} --", self.pair.target());
        self
    }

    /// The time that each check may take from now on.
    pub fn within(&mut self, limit: Duration) -> &mut Self {
        self.limit = limit;
        self
    }

    /// The script gives the same exit code and standard output there as here. Standard error is not compared, since
    /// messages name programs differently; use `2>&1` where it matters.
    pub fn same(&mut self, id: &str, script: &str) -> &mut Self {
        let here = self.outcome(script, "");
        let there = self.outcome(script, &self.run.clone());
        let equal = matches!((&here, &there), (Ok(h), Ok(t)) if h.code() == t.code() && h.stdout == t.stdout);
        self.note(id, equal, || format!("{script}\nHERE: {}\nTHERE: {}", shown(&here), shown(&there)));
        self
    }

    /// The same for a script of python, after `prelude.py`.
    ///
    /// # Panics
    /// When the script can't be written.
    pub fn same_python(&mut self, id: &str, script: &str) -> &mut Self {
        let path = self.pair.client.home().join("script.py");
        std::fs::write(&path, format!("{PRELUDE}{script}")).expect("testbed: write a script");
        // Not what is first in the PATH: that may be one which the user can't reach.
        self.same(id, &format!("$RUN /usr/bin/python3 {}", path.display()))
    }

    /// The script gives `expected` on standard output and exit code 0 there.
    pub fn gives(&mut self, id: &str, script: &str, expected: &str) -> &mut Self {
        let there = self.outcome(script, &self.run.clone());
        let equal = matches!(&there, Ok(t) if t.code() == 0 && t.stdout == expected.as_bytes());
        self.note(id, equal, || format!("{script}\nEXPECTED: {expected:?}\nTHERE: {}", shown(&there)));
        self
    }

    /// The script ends with `code` there, and its standard error contains `message`.
    pub fn fails(&mut self, id: &str, script: &str, code: i32, message: &str) -> &mut Self {
        let there = self.outcome(script, &self.run.clone());
        let equal = matches!(&there, Ok(t) if t.code() == code && t.errors().contains(message));
        self.note(id, equal, || format!("{script}\nEXPECTED: {code} and {message:?}\nTHERE: {}", shown(&there)));
        self
    }

    /// Something else that should hold.
    pub fn holds(&mut self, id: &str, holds: bool, what: impl FnOnce() -> String) -> &mut Self {
        self.note(id, holds, what);
        self
    }

    /// All have been made: nothing may be left of the runs.
    ///
    /// # Panics
    /// When one failed or something is left over; the text has all of them.
    #[track_caller]
    pub fn finish(&mut self) {
        let left = self.pair.left_after(Duration::from_secs(10));
        if !left.is_empty() {
            self.failures.push(format!("X leak check: left over after 10 s\n{}", left.join("\n")));
        }
        let (failed, all) = (self.failures.len(), self.failures.len() + self.passed);
        assert!(failed == 0, "{failed} of {all} checks failed\n\n{}\n", self.failures.join("\n\n"));
    }

    fn outcome(&mut self, script: &str, run: &str) -> Result<Outcome, String> {
        self.pair.client.empty_work();
        Process::start(&mut self.pair.client.bash(script, run), b"").finish(self.limit)
    }

    fn note(&mut self, id: &str, holds: bool, what: impl FnOnce() -> String) {
        if holds {
            self.passed += 1;
        } else {
            self.failures.push(format!("{id}: {}", what()));
        }
    }
}

fn shown(outcome: &Result<Outcome, String>) -> String {
    match outcome {
        Ok(outcome) => outcome.to_string(),
        Err(what) => what.clone(),
    }
}

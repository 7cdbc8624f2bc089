//! Passwords that sudo and su want at a hop of the way: who is asked, and what was right before. Read by
//! [`bootstrap`](crate::bootstrap), which writes them to the pipe; they never are in argv, environment, or a log.

mod terminal;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::target::{Hop, Target};

/// A password. It is not shown by `Debug`, and its memory is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Vec<u8>);

impl Password {
    /// A password ends where its line does: before the first newline or NUL.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let mut bytes = bytes.into();
        let end = bytes.iter().position(|byte| matches!(byte, b'\n' | 0)).unwrap_or(bytes.len());
        bytes[end..].fill(0);
        bytes.truncate(end);
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Password(..)")
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        self.0.fill(0);
        // Or the compiler sees that nobody reads it.
        std::hint::black_box(&self.0);
    }
}

/// What a password is wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The way up to the hop that asks, and with it.
    pub way: Target,
    /// How often it was asked for in vain.
    pub failed: u32,
}

impl Question {
    /// The hop that asks.
    pub fn hop(&self) -> &Hop {
        // A target has at least one hop.
        self.way.hops().last().unwrap_or(&Hop::Local)
    }
}

impl fmt::Display for Question {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "password for {}", self.way)
    }
}

/// Who is asked for passwords. What was right is kept until the last copy of it is gone, so that the same way can be gone
/// again without asking.
#[derive(Clone, Default)]
pub struct Passwords {
    source: Source,
    known: Arc<Mutex<HashMap<Target, Password>>>,
}

type Answering = dyn Fn(&Question) -> Option<Password> + Send + Sync;

#[derive(Clone, Default)]
enum Source {
    #[default]
    None,
    Terminal,
    Function(Arc<Answering>),
}

impl Passwords {
    /// Nobody: a hop that wants a password fails.
    pub fn none() -> Self {
        Self::default()
    }

    /// The user of the controlling terminal, without echo; nobody, if there is none or this process group is not in its
    /// foreground now.
    pub fn from_terminal() -> Self {
        let source = if terminal::is_at_hand() { Source::Terminal } else { Source::None };
        Self { source, ..Self::default() }
    }

    /// A function, which is called at most three times per hop. `None`: there is no password. It may take its time, but
    /// keeps its thread.
    pub fn from_fn(answer: impl Fn(&Question) -> Option<Password> + Send + Sync + 'static) -> Self {
        Self { source: Source::Function(Arc::new(answer)), ..Self::default() }
    }

    /// Whether nobody is asked.
    pub fn is_none(&self) -> bool {
        matches!(self.source, Source::None)
    }

    /// The answer. Cancel safe: the terminal is put back.
    pub(crate) async fn ask(&self, question: Question) -> Option<Password> {
        if question.failed == 0
            && let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&question.way)
        {
            return Some(known.clone());
        }
        match &self.source {
            Source::None => None,
            Source::Terminal => terminal::ask(&question).await,
            Source::Function(answer) => {
                let answer = Arc::clone(answer);
                tokio::task::spawn_blocking(move || answer(&question)).await.ok().flatten()
            }
        }
    }

    /// That was right.
    pub(crate) fn keep(&self, way: Target, password: Password) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(way, password);
    }

    /// It is not any more.
    pub(crate) fn forget(&self, way: &Target) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(way);
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.source {
            Source::None => "Passwords::none()",
            Source::Terminal => "Passwords::from_terminal()",
            Source::Function(_) => "Passwords::from_fn(..)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(way: &str, failed: u32) -> Question {
        Question { way: way.parse().unwrap(), failed }
    }

    #[test]
    fn a_password_is_one_line_and_is_not_shown() {
        assert_eq!(Password::new("a b\nc").bytes(), b"a b");
        assert_eq!(Password::new(*b"a\0b").bytes(), b"a");
        let all = format!("{:?} {:?}", Password::new("secret"), Passwords::from_fn(|_| Some(Password::new("secret"))));
        assert!(!all.contains("secret"), "{all}");
    }

    #[tokio::test]
    async fn what_was_right_is_known_for_that_way_until_it_is_wrong() {
        let passwords =
            Passwords::from_fn(|question| Some(Password::new(format!("{}{}", question.way, question.failed))));
        let kept = Password::new("kept");
        passwords.keep("a+sudo".parse().unwrap(), kept.clone());
        let copy = passwords.clone();
        assert_eq!(copy.ask(question("a+sudo", 0)).await, Some(kept));
        assert_eq!(copy.ask(question("a+sudo", 1)).await, Some(Password::new("a+sudo1")));
        assert_eq!(copy.ask(question("b+sudo", 0)).await, Some(Password::new("b+sudo0")));
        assert_eq!(Passwords::none().ask(question("a+sudo", 0)).await, None);
    }
}

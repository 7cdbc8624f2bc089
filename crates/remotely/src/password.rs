//! Passwords that sudo and su want at a hop of the way: who is asked, and what was right before. Read by
//! [`bootstrap`](crate::bootstrap), which writes them to the pipe; they never are in argv, environment, or a log.

mod known;
mod mender;
mod terminal;

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use self::known::Known;
#[cfg(feature = "cli")]
pub(crate) use self::terminal::is_asking;
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
    /// What was right for others was tried before anybody was asked, and was wrong here; see [`Passwords::shared`].
    pub unlike: bool,
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
    known: Arc<Mutex<Known>>,
    /// Whose turn it is to ask, if one question waits for the other.
    turns: Option<Turns>,
}

type Turns = Arc<tokio::sync::Mutex<()>>;

/// There is one terminal.
static TERMINAL: LazyLock<Turns> = LazyLock::new(Turns::default);

/// What is under way about one hop: dropped when that has opened, or is given up.
#[derive(Default)]
pub(crate) struct Asking {
    /// Held until it shows whether the answer is right: those who wait may do with the same one.
    turn: Option<OwnedMutexGuard<()>>,
    /// What was right for others has been tried.
    borrowed: bool,
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
    /// foreground now. Of many hosts one is asked for after the other, and what is [alike](Self::shared) once.
    pub fn from_terminal() -> Self {
        let source = if terminal::is_at_hand() { Source::Terminal } else { Source::None };
        Self { source, turns: Some(TERMINAL.clone()), ..Self::default() }
    }

    /// A function, which is called at most three times per hop. `None`: there is no password. It may take its time, but
    /// keeps its thread.
    pub fn from_fn(answer: impl Fn(&Question) -> Option<Password> + Send + Sync + 'static) -> Self {
        Self { source: Source::Function(Arc::new(answer)), ..Self::default() }
    }

    /// One answer for many hosts: one question at a time, and before each is tried what was right for another way, once, if that way differs
    /// only in the names of the machines: the same hops, the same users. So the password of one host goes to others; where it is wrong, that is
    /// asked for by itself, with [`Question::unlike`].
    #[must_use]
    pub fn shared(self) -> Self {
        Self { turns: self.turns.or_else(|| Some(Turns::default())), ..self }
    }

    /// Whether nobody is asked.
    pub fn is_none(&self) -> bool {
        matches!(self.source, Source::None)
    }

    /// The answer. `asking` is of this hop, from the first question on. Cancel safe: the terminal is put back.
    pub(crate) async fn ask(&self, way: Target, failed: u32, asking: &mut Asking) -> Option<Password> {
        if let Some(known) = self.known_for(&way, failed, asking) {
            return Some(known);
        }
        if let (Some(turns), None) = (&self.turns, &asking.turn) {
            asking.turn = Some(turns.clone().lock_owned().await);
            // Whoever had the turn before may have found it out.
            if let Some(known) = self.known_for(&way, failed, asking) {
                asking.turn = None;
                return Some(known);
            }
        }
        let question = Question { way, failed, unlike: asking.borrowed };
        asking.borrowed = false;
        match &self.source {
            Source::None => None,
            Source::Terminal => terminal::ask(&question).await,
            Source::Function(answer) => {
                let answer = Arc::clone(answer);
                tokio::task::spawn_blocking(move || answer(&question)).await.ok().flatten()
            }
        }
    }

    fn known_for(&self, way: &Target, failed: u32, asking: &mut Asking) -> Option<Password> {
        if failed > 0 {
            return None;
        }
        let known = self.known();
        known.of(way).or_else(|| {
            let borrowed = self.turns.as_ref().and_then(|_| known.alike(way));
            asking.borrowed = borrowed.is_some();
            borrowed
        })
    }

    /// That was right.
    pub(crate) fn keep(&self, way: Target, password: Password) {
        self.known().keep(way, password);
    }

    /// It is not any more.
    pub(crate) fn forget(&self, way: &Target) {
        self.known().forget(way);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking {
    /// Lets the next one ask, though it does not show yet whether the answer is right.
    pub(crate) fn pass_on(&mut self) {
        self.turn = None;
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
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    async fn ask(passwords: &Passwords, way: &str, failed: u32) -> Option<Password> {
        passwords.ask(way.parse().unwrap(), failed, &mut Asking::default()).await
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
        assert_eq!(ask(&copy, "a+sudo", 0).await, Some(kept));
        assert_eq!(ask(&copy, "a+sudo", 1).await, Some(Password::new("a+sudo1")));
        // Who is asked for each may have one for each.
        assert_eq!(ask(&copy, "b+sudo", 0).await, Some(Password::new("b+sudo0")));
        assert_eq!(ask(&Passwords::none(), "a+sudo", 0).await, None);
    }

    /// Asks for `way` as a connection does, where `right` opens it; how often somebody was asked is counted by `passwords`.
    async fn go(passwords: Passwords, way: Target, right: &'static str) {
        let mut asking = Asking::default();
        for failed in 0..3 {
            let answer = passwords.ask(way.clone(), failed, &mut asking).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
            if answer == Password::new(right) {
                return passwords.keep(way, answer);
            }
        }
        panic!("{way} was never opened");
    }

    #[tokio::test]
    async fn what_is_shared_is_asked_for_once_and_by_itself_where_it_is_wrong() {
        static AT_ONCE: AtomicU32 = AtomicU32::new(0);
        let questions = Arc::new(Mutex::new(Vec::new()));
        let asked = questions.clone();
        let passwords = Passwords::from_fn(move |question| {
            assert_eq!(AT_ONCE.fetch_add(1, Ordering::SeqCst), 0, "two questions at once");
            std::thread::sleep(Duration::from_millis(20));
            let mut asked = asked.lock().unwrap();
            asked.push((question.way.to_string(), question.failed, question.unlike));
            AT_ONCE.fetch_sub(1, Ordering::SeqCst);
            // The first answer is a slip.
            Some(Password::new(match question.way.to_string().as_str() {
                _ if asked.len() == 1 => "slip",
                "odd+sudo" => "odd",
                _ => "usual",
            }))
        });
        let passwords = passwords.shared();
        let mut all = tokio::task::JoinSet::new();
        for n in 0..20 {
            all.spawn(go(passwords.clone(), format!("web{n}+sudo").parse().unwrap(), "usual"));
        }
        all.join_all().await;
        let first = questions.lock().unwrap().clone();
        let [(way, 0, false), (again, 1, false)] = first.as_slice() else { panic!("{first:?}") };
        assert_eq!(way, again);
        go(passwords.clone(), "odd+sudo".parse().unwrap(), "odd").await;
        go(passwords.clone(), "web20+sudo".parse().unwrap(), "usual").await;
        go(passwords.clone(), "web0+sudo:web".parse().unwrap(), "usual").await;
        let then = questions.lock().unwrap()[2..].to_vec();
        assert_eq!(then, [("odd+sudo".into(), 1, true), ("web0+sudo:web".into(), 0, false)]);
    }

    #[tokio::test]
    async fn who_gives_up_lets_the_next_one_ask() {
        let passwords =
            Passwords::from_fn(|question| Some(Password::new("x")).filter(|_| question.way.to_string() != "a+sudo"));
        let passwords = passwords.shared();
        let mut first = Asking::default();
        assert_eq!(passwords.ask("a+sudo".parse().unwrap(), 0, &mut first).await, None);
        let (second, mut asking) = ("b+sudo".parse::<Target>().unwrap(), Asking::default());
        let waiting = passwords.ask(second.clone(), 0, &mut asking);
        assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err(), "it is not its turn");
        first.pass_on();
        assert_eq!(passwords.ask(second, 0, &mut asking).await, Some(Password::new("x")));
    }
}

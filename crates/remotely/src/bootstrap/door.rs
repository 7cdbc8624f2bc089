//! The hops on the way that may want a password, one after the other, until somebody answers who is no such hop. Called by
//! [`super::connect`] and by doctor; time limits do not count while the user types.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;

use super::conversation::{Conversation, Failure, Greeted};
use super::{ConnectError, Flight};
use crate::options::ConnectOptions;
use crate::password::{Asking, Password};
use crate::target::{Hop, Target};
use crate::transport::spawn::Process;

/// How often one hop is answered.
const TRIES: u32 = 3;
/// How long those who want to ask, too, wait until it shows whether an answer is right: PAM takes two seconds where it is wrong.
const SHOWS_WITHIN: Duration = Duration::from_secs(10);

/// What was asked on one way.
pub(super) struct Doors<'a> {
    options: &'a ConnectOptions,
    /// How often each hop was answered.
    tries: HashMap<usize, u32>,
    /// The answer that is not known to be right yet.
    last: Option<(Target, Password)>,
    /// What is under way about its hop.
    asking: Asking,
}

impl<'a> Doors<'a> {
    pub(super) fn new(options: &'a ConnectOptions) -> Self {
        Self { options, tries: HashMap::new(), last: None, asking: Asking::default() }
    }

    /// Greets until it is no hop that answers: [`Greeted::Ready`] or [`Greeted::Needs`].
    pub(super) async fn pass<F: Future<Output = Bytes>>(
        &mut self,
        conversation: &mut Conversation,
        flight: &mut Flight<F>,
        process: &mut Process,
    ) -> Result<Greeted, Failure> {
        let mut greeted = self.within(conversation.greet(flight, process)).await?;
        loop {
            greeted = match greeted {
                Greeted::Opened => {
                    if let Some((way, password)) = self.last.take() {
                        self.options.passwords.keep(way, password);
                    }
                    self.asking = Asking::default();
                    conversation.pass().await?;
                    self.within(conversation.greet(flight, process)).await?
                }
                Greeted::Asked { hop } => {
                    let (way, password) = self.ask(hop).await?;
                    let last = way.hops().last().unwrap_or(&Hop::Local).clone();
                    let (_, password) = self.last.insert((way, password));
                    // Not `within`, which borrows all of it.
                    let mut answered = pin!(limited(self.options, conversation.answer(&last, password, process)));
                    match tokio::time::timeout(SHOWS_WITHIN, answered.as_mut()).await {
                        Ok(greeted) => greeted?,
                        Err(_) => {
                            self.asking.pass_on();
                            answered.await?
                        }
                    }
                }
                answered => return Ok(answered),
            };
        }
    }

    /// Why it ended, if that was because of a password.
    pub(super) fn refused(&self) -> Option<ConnectError> {
        let (way, _) = self.last.as_ref()?;
        let tries = self.tries.get(&(way.hops().len() - 1)).copied().unwrap_or_default();
        Some(ConnectError::WrongPassword { target: self.options.target.to_string(), hop: way.to_string(), tries })
    }

    async fn ask(&mut self, hop: usize) -> Result<(Target, Password), Failure> {
        let asks = |hop: &&Hop| matches!(hop, Hop::Sudo { .. } | Hop::Su { .. });
        // Whoever is on the way could say anything, but only those are answered that the user has named.
        if hop >= self.options.may_ask() || self.options.target.hops().get(hop).filter(asks).is_none() {
            let what = "somebody on the way asked for a password who should not want one";
            return Err(ConnectError::Strange { what: what.into() }.into());
        }
        let way = self.options.target.up_to(hop);
        let tries = self.tries.entry(hop).or_default();
        if *tries > 0 {
            self.options.passwords.forget(&way);
        }
        if *tries == TRIES {
            return Err(self.refused().map_or(Failure::Ended, Failure::Error));
        }
        let failed = *tries;
        *tries += 1;
        let _untimed = self.options.untimed.begin();
        match self.options.passwords.ask(way.clone(), failed, &mut self.asking).await {
            Some(password) => Ok((way, password)),
            None => {
                let target = self.options.target.to_string();
                Err(ConnectError::NoPassword { target, hop: way.to_string() }.into())
            }
        }
    }

    async fn within<T>(&self, talk: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        limited(self.options, talk).await
    }
}

async fn limited<T>(options: &ConnectOptions, talk: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match options.timeout {
        None => talk.await,
        Some(limit) => match tokio::time::timeout(limit, talk).await {
            Ok(talked) => talked,
            Err(_) => Err(ConnectError::Silent { target: options.target.to_string(), limit }.into()),
        },
    }
}

//! How the error of a remote function is told: by what its type can do, found out where `#[remote]` names the type. Each
//! pair of traits is one for types that can and one, a reference further away, for those that cannot.

use std::cell::Cell;
use std::error::Error;
use std::fmt::Debug;

use remotely_proto::call::{Failure, FailureKind};
use serde::Serialize;

use crate::remote::returned;

/// An error that a function has returned.
#[expect(missing_debug_implementations, reason = "an error need not show itself")]
pub struct Told<E>(Cell<Option<E>>);

impl<E> Told<E> {
    /// This one.
    pub fn new(error: E) -> Self {
        Self(Cell::new(Some(error)))
    }
}

/// Errors that can be serialised travel as what they are.
pub trait WithValue {
    /// The error in CBOR.
    fn value(&self) -> Option<Vec<u8>>;
}

impl<E: Serialize> WithValue for Told<E> {
    fn value(&self) -> Option<Vec<u8>> {
        let error = self.0.take()?;
        let mut serializer = minicbor_serde::Serializer::new(Vec::new());
        let written = error.serialize(&mut serializer).is_ok();
        self.0.set(Some(error));
        written.then(|| serializer.into_encoder().into_writer())
    }
}

/// All others travel as words.
pub trait NoValue {
    /// Nothing.
    fn value(&self) -> Option<Vec<u8>>;
}

impl<E> NoValue for &Told<E> {
    fn value(&self) -> Option<Vec<u8>> {
        None
    }
}

/// Errors of the standard kind, and what can be made one (`anyhow::Error`, `String`).
pub trait ViaError {
    /// What the caller hears.
    fn failure(&self, value: Option<Vec<u8>>) -> Box<Failure>;
}

impl<E: Into<Box<dyn Error + Send + Sync>>> ViaError for Told<E> {
    fn failure(&self, value: Option<Vec<u8>>) -> Box<Failure> {
        let error: Box<dyn Error + Send + Sync> = match self.0.take() {
            Some(error) => error.into(),
            None => "an error that was told before".into(),
        };
        returned(&*error, std::any::type_name::<E>(), value)
    }
}

/// Whatever else can be shown.
pub trait ViaDebug {
    /// What the caller hears.
    fn failure(&self, value: Option<Vec<u8>>) -> Box<Failure>;
}

impl<E: Debug> ViaDebug for &Told<E> {
    fn failure(&self, value: Option<Vec<u8>>) -> Box<Failure> {
        let message = self.0.take().map_or_else(String::new, |error| format!("{error:?}"));
        let type_name = Some(std::any::type_name::<E>().to_owned());
        Box::new(Failure { type_name, value: value.map(Into::into), ..Failure::new(FailureKind::Error, message) })
    }
}

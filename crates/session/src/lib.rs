//! Drives a link over a byte pipe with tokio: streams, offers, keepalive, and the end. Every service stands on it; it knows
//! nothing of what they say.
//!
//! A [`LinkBuilder`] takes streams before there is a pipe, so that they travel in the first flight; [`LinkBuilder::attach`]
//! gives the [`Link`], which opens further streams, and [`Incoming`], which yields those that the other side opens.

mod driver;
mod further;
mod link;
mod message;
mod pipe;
mod shared;
mod stream;
mod turns;

pub use remotely_proto::{
    handshake::{Hello, Role, Ticket, Versions},
    mux::{RecvError, SendError, Stats},
    open::{Class, Service, reset},
};

pub use self::{
    further::{Added, Pipes},
    link::{End, Ended, Held, Incoming, Link, LinkBuilder, Offer, Settings},
    message::{MessageReceiver, MessageSender, RecvMessageError},
    pipe::{Pipe, PipeReader, PipeWriter},
    stream::{RecvStream, SendStream, Stream},
    turns::{Job, Turns},
};

//! Files and whole trees from one side of a link to the other, over one stream: `put` and `fetch` of the client, `serve` of
//! the agent. Who has the files is the sender, who gets them the receiver, and both are the same code on either side.
//!
//! | runs | does |
//! |---|---|
//! | the task of the caller | moves bytes between the stream and the thread, nothing else |
//! | a thread of a sender | walks, reads, hashes; waits for room in the stream |
//! | a thread of a receiver | writes, hashes, renames; waits for bytes |
//!
//! A receiver writes beneath its destination only, whatever the sender says; a sender reads beneath its source only.

mod agent;
mod beneath;
mod client;
mod draft_name;
mod error;
mod flow;
mod notes;
mod options;
mod receive;
mod report;
mod seat;
mod send;
mod signature;
mod thread;

pub use remotely_proto::file::{Operation, Reason, Unchanged};

pub use self::{
    agent::{idle, serve},
    client::{fetch, put},
    error::{CopyError, Failure, Side},
    options::{Observer, Options, Progress},
    report::{Hash, Report, Skipped},
};

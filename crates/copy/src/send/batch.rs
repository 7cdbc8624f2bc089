//! Items on their way into messages: many small ones travel in one. Used by everything in a sender.

use bytes::{Bytes, BytesMut};
use remotely_proto::file::{Item, Meta};

use crate::flow::{Cut, Outlet};

/// Bytes of content in a message, as a rule.
const PAYLOAD: usize = 192 << 10;
/// The largest file that travels whole in one.
pub(super) const SMALL: usize = 64 << 10;
/// Estimated bytes of head in a message.
const HEAD: usize = 64 << 10;
/// What an item counts for besides its names.
const ITEM: usize = 96;

/// Items that wait for company.
#[derive(Debug)]
pub(super) struct Batch {
    outlet: Outlet,
    items: Vec<Item>,
    payload: BytesMut,
    head: usize,
}

impl Batch {
    pub(super) fn new(outlet: Outlet) -> Self {
        Self { outlet, items: Vec::new(), payload: BytesMut::new(), head: 0 }
    }

    /// Adds an item, whose content (if it has any) is at the end of [`payload`](Self::payload) already.
    pub(super) fn push(&mut self, item: Item) -> Result<(), Cut> {
        self.head += ITEM + weight(&item);
        self.items.push(item);
        if self.head >= HEAD || self.payload.len() >= PAYLOAD { self.flush() } else { Ok(()) }
    }

    /// Where the content of the next item goes, with room for a small file and a byte.
    pub(super) fn payload(&mut self) -> &mut BytesMut {
        if self.payload.capacity() - self.payload.len() <= SMALL {
            self.payload.reserve(if self.payload.is_empty() { PAYLOAD + SMALL + 1 } else { SMALL + 1 });
        }
        &mut self.payload
    }

    /// Sends an item with content of its own.
    pub(super) fn send(&mut self, item: Item, content: Bytes) -> Result<(), Cut> {
        self.flush()?;
        self.outlet.send(&vec![item], content)
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) -> Result<(), Cut> {
        if self.items.is_empty() {
            return Ok(());
        }
        self.head = 0;
        self.outlet.send(&std::mem::take(&mut self.items), self.payload.split().freeze())
    }

    /// Fails when nobody reads any more.
    pub(super) fn check(&self) -> Result<(), Cut> {
        self.outlet.check()
    }
}

/// Bytes of an item that have no bound of their own.
fn weight(item: &Item) -> usize {
    let xattrs = |meta: &Meta| meta.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len() + 8).sum();
    match item {
        Item::Root { path, .. } => path.len(),
        Item::Directory { seat, .. } | Item::Begin { seat, .. } => seat.name.len(),
        Item::DirectoryEnd { meta, .. } | Item::End { meta, .. } => xattrs(meta),
        Item::File { seat, meta, .. } | Item::Ask { seat, meta, .. } | Item::Keep { seat, meta } => {
            seat.name.len() + xattrs(meta)
        }
        Item::Special { seat, meta, .. } => seat.name.len() + xattrs(meta),
        Item::Symlink { seat, target, .. } | Item::Link { seat, target, .. } => seat.name.len() + target.len(),
        Item::Failed(failure) => failure.path.len(),
        Item::Skipped(skipped) => skipped.path.len(),
        Item::Data { .. } | Item::Copy { .. } | Item::Broken | Item::Forget { .. } | Item::Finish => 0,
    }
}

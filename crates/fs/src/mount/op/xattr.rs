//! Extended attributes.

use std::sync::Arc;

use bytes::Bytes;
use remotely_proto::ByteVec;
use remotely_proto::fs::{Lane, Node, Reply, Request as Ask, flag};
use rustix::io::Errno;

use crate::mount::fs::Fs;
use crate::mount::fuse::Answer;
use crate::mount::receive::unexpected;

impl Fs {
    pub(super) async fn getxattr(self: &Arc<Self>, node: Node, name: ByteVec, size: u32) -> Result<Answer, Errno> {
        if self.has_none(node).await? {
            return Err(Errno::NODATA);
        }
        let answered = self.ask(Lane::Query, &[node], Ask::Getxattr { node, name }, Bytes::new()).await?;
        value(answered.payload, size)
    }

    pub(super) async fn listxattr(self: &Arc<Self>, node: Node, size: u32) -> Result<Answer, Errno> {
        if self.has_none(node).await? {
            return value(Bytes::new(), size);
        }
        let answered = self.ask(Lane::Query, &[node], Ask::Listxattr { node }, Bytes::new()).await?;
        value(answered.payload, size)
    }

    pub(super) async fn setxattr(
        self: &Arc<Self>,
        node: Node,
        name: ByteVec,
        flags: u32,
        data: Bytes,
    ) -> Result<Answer, Errno> {
        self.change_xattr(node, Ask::Setxattr { node, name, flags }, data).await
    }

    pub(super) async fn removexattr(self: &Arc<Self>, node: Node, name: ByteVec) -> Result<Answer, Errno> {
        self.change_xattr(node, Ask::Removexattr { node, name }, Bytes::new()).await
    }

    async fn change_xattr(self: &Arc<Self>, node: Node, request: Ask, data: Bytes) -> Result<Answer, Errno> {
        self.permit_change()?;
        let answered = self.ask(Lane::Change, &[node], request, data).await?;
        let Reply::Attr { attr } = answered.reply else { return unexpected() };
        self.with(|table| table.own(node, attr, answered.seen));
        Ok(Answer::done())
    }

    /// It is known that there are none: a listing of a directory says so for each name, or `ls -l` would ask for each.
    async fn has_none(self: &Arc<Self>, node: Node) -> Result<bool, Errno> {
        let known = self.with(|table| {
            let inode = table.inode(node)?;
            Ok(inode.is_fresh().then_some(inode.attr.flags))
        })?;
        let flags = match known {
            Some(flags) => flags,
            None => self.refresh(node, None).await?.flags,
        };
        Ok(flags & flag::NO_XATTR != 0)
    }
}

/// The size if that is what was asked, else the value if there is room for it.
fn value(data: Bytes, size: u32) -> Result<Answer, Errno> {
    match size {
        0 => Ok(Answer::count(data.len() as u32)),
        _ if data.len() > size as usize => Err(Errno::RANGE),
        _ => Ok(Answer::data(vec![data])),
    }
}

//! The operations of the kernel on the mount, one file per family. Each is an async function of `Fs` that returns what the
//! kernel is answered; it awaits only when the server must be asked.

mod attr;
mod directory;
mod io;
mod lock;
mod name;
mod open;
mod xattr;

use std::sync::Arc;

use remotely_proto::fs::{Node, access};
use rustix::io::Errno;

use super::fs::{Fs, Outcome};
use super::fuse::{Answer, Op, Request};

impl Fs {
    /// Does what the kernel wants.
    pub(super) async fn operate(self: &Arc<Self>, request: Request) -> Outcome {
        let node = Node(request.node);
        let caller = (request.uid, request.gid);
        Ok(Some(match request.op {
            Op::Lookup { name } => self.lookup(node, name).await?,
            Op::Forget { nodes } => {
                self.with(|table| nodes.iter().for_each(|&(node, count)| table.unlook(Node(node), count)));
                return Ok(None);
            }
            Op::Getattr { file } => self.getattr(node, file).await?,
            Op::Setattr(set) => self.setattr(node, set).await?,
            Op::Readlink => self.readlink(node).await?,
            Op::Symlink { name, target } => self.symlink(node, name, target, caller).await?,
            Op::Mknod { name, mode, rdev, umask } => self.mknod(node, name, (mode, umask), rdev, caller).await?,
            Op::Unlink { name, dir } => self.unlink(node, name, dir).await?,
            Op::Rename { name, new_parent, new_name, flags } => {
                self.rename((node, name), (Node(new_parent), new_name), flags).await?
            }
            Op::Link { node: old, name } => self.link(Node(old), node, name).await?,
            Op::Open { flags, open_flags } => self.open(node, flags, open_flags).await?,
            Op::Create { name, flags, mode, umask } => self.create(node, name, flags, (mode, umask), caller).await?,
            Op::Tmpfile { flags, mode, umask } => self.tmpfile(node, flags, (mode, umask), caller).await?,
            Op::Read { file, offset, size, flags } => self.read(node, file, offset, size, flags).await?,
            Op::Write { file, offset, write_flags, flags, data } => {
                self.write(node, file, offset, (write_flags, flags), data).await?
            }
            Op::Statfs => self.statfs(node).await?,
            Op::Flush { file, owner } => self.flush(node, file, owner).await?,
            Op::Release { file, flags, owner } => self.release(node, file, flags, owner).await?,
            Op::Fsync { file, data_only } => self.fsync(node, Some(file), data_only).await?,
            Op::Fsyncdir { data_only } => self.fsync(node, None, data_only).await?,
            Op::Setxattr { name, flags, value } => self.setxattr(node, name, flags, value).await?,
            Op::Getxattr { name, size } => self.getxattr(node, name, size).await?,
            Op::Listxattr { size } => self.listxattr(node, size).await?,
            Op::Removexattr { name } => self.removexattr(node, name).await?,
            Op::Opendir => self.opendir(node).await?,
            Op::Readdir { file, offset, size, plus } => self.readdir(node, file, offset, size, plus).await?,
            Op::Releasedir { file } => self.releasedir(node, file),
            Op::Lock { file, lock, test, wait } => self.lock(node, request.unique, file, lock, test, wait).await?,
            Op::Access { mask } => self.access(node, mask).await?,
            Op::Interrupt { unique } => {
                self.interrupt(unique);
                return Ok(None);
            }
            Op::Fallocate { file, offset, len, mode } => self.fallocate(node, file, (offset, len), mode).await?,
            Op::Lseek { file, offset, whence } => self.seek(node, file, offset, whence).await?,
            Op::CopyFileRange { file, offset, to_node, to, to_offset, len } => {
                self.copy_range((node, file, offset), (Node(to_node), to, to_offset), len).await?
            }
            Op::Syncfs => {
                self.settle_all().await?;
                Answer::done()
            }
            Op::Init { .. } | Op::Destroy => return Err(Errno::PROTO),
            Op::Unknown => return Err(Errno::NOSYS),
        }))
    }

    /// Refuses what the user of the client may not do. Nothing to do where the kernel checks by itself.
    pub(super) async fn permit(self: &Arc<Self>, node: Node, wanted: u8) -> Result<(), Errno> {
        if self.options.default_permissions {
            return Ok(());
        }
        let known = self.with(|table| table.inode(node).map(|inode| inode.is_fresh().then_some(inode.attr.access)))?;
        let granted = match known {
            Some(granted) => granted,
            None => self.refresh(node, None).await?.access,
        };
        if granted & wanted == wanted { Ok(()) } else { Err(Errno::ACCESS) }
    }

    /// Refuses changes to a mount that is read-only.
    pub(super) fn permit_change(&self) -> Result<(), Errno> {
        if self.options.read_only { Err(Errno::ROFS) } else { Ok(()) }
    }

    /// access(2), chdir(2).
    async fn access(self: &Arc<Self>, node: Node, mask: u32) -> Result<Answer, Errno> {
        let wanted = (mask & 7) as u8;
        if wanted & access::WRITE != 0 {
            self.permit_change()?;
        }
        self.permit(node, wanted).await?;
        Ok(Answer::done())
    }
}

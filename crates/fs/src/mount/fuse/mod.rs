//! The kernel's side of the mount: requests off /dev/fuse, answers and invalidations onto it (linux/fuse.h, protocol 7.31 and
//! later). Knows bytes and numbers of the kernel only; what they mean for files is decided in the rooms above.

mod abi;
mod answer;
mod device;
mod request;

pub use abi::opcode_name;
pub(super) use abi::{attr_set, lock_type, open_flag};
pub(super) use answer::{Answer, DirBuffer, EntryOut};
pub(super) use device::Device;
pub use device::DeviceError;
pub(super) use request::{LockIn, Op, Request, SetattrIn};

//! How a stream is opened: the service that it asks for, and the class that it is scheduled in. Used by the mux and by
//! every service; says nothing of what a service then speaks.

/// What is asked for on a stream. A number that the other side does not serve is refused on that stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Service(pub u16);

impl Service {
    /// A command of the client, run on the host; see [`crate::exec`].
    pub const EXEC: Service = Service(1);
    /// One descriptor of such a command; see [`crate::exec::FdOpen`].
    pub const FD: Service = Service(2);
    /// Files of the client, mounted on the host; see [`crate::fs`].
    pub const FS: Service = Service(3);
    /// Functions of the program, called on the host; see [`crate::call`].
    pub const CALL: Service = Service(4);
    /// Files and trees copied from one side to the other; see [`crate::file`].
    pub const FILE: Service = Service(5);
    /// The network of one side, for the other; see [`crate::net`].
    pub const NET: Service = Service(6);
}

/// How the mux schedules the data of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Before everything else, and never held back by pacing: for little that is urgent.
    Control,
    /// Four bytes for each one of [`Class::Bulk`].
    Normal,
    /// What can wait: file data, prefetch.
    Bulk,
}

impl Class {
    /// All, in order of urgency.
    pub const ALL: [Class; 3] = [Class::Control, Class::Normal, Class::Bulk];

    /// The number of it in an open frame.
    pub fn code(self) -> u8 {
        match self {
            Class::Control => 0,
            Class::Normal => 1,
            Class::Bulk => 2,
        }
    }

    /// The reverse of [`code`](Self::code). A number of a later version is the least urgent.
    pub fn from_code(code: u8) -> Self {
        match code {
            0 => Class::Control,
            1 => Class::Normal,
            _ => Class::Bulk,
        }
    }
}

/// Longest body of an open frame in bytes. More belongs on the stream, which can be written to at once.
pub const BODY_MAX: usize = 4096;

/// Codes of a reset; services may use those from [`FIRST_FREE`](reset::FIRST_FREE) for their own purposes.
pub mod reset {
    /// The stream was dropped before its end.
    pub const CANCELLED: u32 = 1;
    /// Nobody there serves this, or wants this.
    pub const REFUSED: u32 = 2;
    /// There are too many streams.
    pub const LIMIT: u32 = 3;
    /// A frame on this stream is of a kind that the other side does not know.
    pub const UNSUPPORTED: u32 = 4;
    /// The body of the open was longer than [`BODY_MAX`](super::BODY_MAX).
    pub const TOO_LONG: u32 = 5;
    /// Codes from here on belong to the services.
    pub const FIRST_FREE: u32 = 256;
}

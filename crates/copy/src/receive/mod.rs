//! The receiver: does what a sender says, beneath a destination and nowhere else. One thread, started by the agent for a put
//! and by the client for a fetch. Waits for nothing but items, and room for its few answers.

mod attribute;
mod consult;
mod directory;
mod draft;
mod node;
mod place;
mod settle;
mod stream;
mod tree;

use std::{collections::HashMap, path::PathBuf, rc::Rc};

use bytes::Bytes;
use remotely_proto::{
    ByteVec,
    file::{Answer, Failure, Hash, Item, Operation, Reason, Receiving, Seat, Skipped},
};

pub(crate) use self::place::Destination;
use self::{
    attribute::Taken,
    consult::Kept,
    directory::{Directories, Folder, Found},
    draft::{Fault, Spot},
    place::Place,
    settle::{Settled, Settler},
    stream::Current,
};
use crate::{
    draft_name::is_draft_name,
    error::{Side, path_of},
    flow::{Cut, Inlet, InletError, Meter, Outlet},
    notes::Notes,
    seat::check_name,
};

/// Bytes of a name that are told when it is refused.
const NAME_SHOWN: usize = 255;

/// What a receiver is to do.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) destination: Destination,
    pub(crate) receiving: Receiving,
    pub(crate) side: Side,
    pub(crate) notes: Notes,
    pub(crate) meter: Meter,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// Path of the source, as the sender says.
    pub(crate) source: PathBuf,
    /// Absolute path of the destination; empty if there is none.
    pub(crate) path: PathBuf,
    /// Whether it is a directory.
    pub(crate) tree: bool,
    pub(crate) files: u64,
    pub(crate) unchanged: u64,
    pub(crate) bytes: u64,
    pub(crate) hash: Option<Hash>,
}

/// Why it came to no end.
#[derive(Debug)]
pub(crate) enum ReceiveError {
    /// The stream was cut.
    Cut,
    /// The sender is none.
    Protocol(String),
}

impl From<Cut> for ReceiveError {
    fn from(Cut: Cut) -> Self {
        Self::Cut
    }
}

impl From<InletError> for ReceiveError {
    fn from(error: InletError) -> Self {
        match error {
            InletError::Cut => Self::Cut,
            InletError::Message(why) => Self::Protocol(why),
        }
    }
}

/// Receives all that comes. What fails is in the notes, and told to the other side.
pub(crate) fn run(job: Job, inlet: Inlet, outlet: Outlet) -> Result<Received, ReceiveError> {
    let mut receiver = Receiver::new(job, inlet, outlet);
    let result = receiver.all();
    receiver.meter.tell();
    // Drafts that are still there leave their place, or stay to be continued.
    receiver.forget_all();
    result?;
    let received = receiver.received;
    let path = ByteVec::from(std::os::unix::ffi::OsStringExt::into_vec(received.path.clone().into_os_string()));
    let Received { files, unchanged, bytes, hash, .. } = received;
    // The sender may be gone; what was received is there all the same.
    let _ = receiver.outlet.send(&Answer::Done { path, files, unchanged, bytes, hash }, Bytes::new());
    Ok(received)
}

struct Receiver {
    inlet: Inlet,
    outlet: Outlet,
    /// Payload of the present message that is not taken yet.
    left: usize,
    destination: Destination,
    receiving: Receiving,
    taken: Taken,
    side: Side,
    notes: Notes,
    meter: Meter,
    received: Received,
    place: Option<Place>,
    /// Where the root is, or its content.
    root: Option<Spot>,
    directories: Directories,
    settler: Settler,
    current: Option<Current>,
    /// The greatest number of a streamed file so far.
    last_file: u32,
    kept: HashMap<u32, Kept>,
    /// Nothing can be received.
    over: bool,
    finished: bool,
}

impl Receiver {
    fn new(job: Job, inlet: Inlet, outlet: Outlet) -> Self {
        let root = rustix::process::geteuid().is_root();
        Self {
            inlet,
            outlet,
            left: 0,
            destination: job.destination,
            taken: Taken::new(&job.receiving, root),
            settler: Settler::new(job.receiving.sync, true),
            receiving: job.receiving,
            side: job.side,
            notes: job.notes,
            meter: job.meter,
            received: Received::default(),
            place: None,
            root: None,
            directories: Directories::default(),
            current: None,
            last_file: 0,
            kept: HashMap::new(),
            over: false,
            finished: false,
        }
    }

    fn all(&mut self) -> Result<(), ReceiveError> {
        while let Some((items, payload)) = self.inlet.message::<Vec<Item>>()? {
            self.left = payload;
            for item in items {
                if self.finished {
                    return protocol("something follows on the end");
                }
                self.item(item)?;
                if self.over {
                    return Ok(());
                }
            }
            if self.left > 0 {
                return protocol("content that belongs to nothing");
            }
        }
        if self.finished { Ok(()) } else { Err(ReceiveError::Cut) }
    }

    fn item(&mut self, item: Item) -> Result<(), ReceiveError> {
        match item {
            Item::Root { path, name, size } => self.begin(path, name, size),
            Item::Directory { id, seat, mode } => self.directory(id, &seat, mode),
            Item::DirectoryEnd { id, meta } => self.directory_end(id, &meta),
            Item::File { seat, meta, size, hash } => self.file(&seat, &meta, size as usize, &hash),
            Item::Begin { file, seat, ask, start, size } => self.begin_file(file, &seat, ask, start, size),
            Item::Data { offset, len } => self.data(offset, len as usize),
            Item::Copy { offset, from, len } => self.copy(offset, from, len),
            Item::End { meta, size, hash } => self.end_file(&meta, size, &hash),
            Item::Broken => self.broken(),
            Item::Ask { ask, seat, meta, size, unchanged, resume, blocks } => {
                let question = stream::Asked { meta, size, unchanged, resume, blocks };
                self.asked(ask, &seat, &question)
            }
            Item::Forget { ask } => {
                if let Some(Kept::Front(draft)) = self.kept.remove(&ask) {
                    draft.discard();
                }
                Ok(())
            }
            Item::Keep { seat, meta } => self.keep(&seat, &meta),
            Item::Symlink { seat, target, meta } => self.symlink(&seat, &target, &meta),
            Item::Special { seat, meta, device } => self.special(&seat, &meta, device),
            Item::Link { seat, target, size, mtime } => self.link(&seat, &target, size, mtime),
            Item::Failed(failure) => {
                self.notes.failed(self.side.other(), failure);
                Ok(())
            }
            Item::Skipped(skipped) => {
                self.notes.skipped(self.side.other(), skipped);
                Ok(())
            }
            Item::Finish => self.finish(),
        }
    }

    /// Finds the place for what comes.
    fn begin(&mut self, path: ByteVec, name: Option<ByteVec>, size: Option<u64>) -> Result<(), ReceiveError> {
        if self.place.is_some() {
            return protocol("a second root");
        }
        let tree = size.is_none();
        if !tree && name.is_none() {
            return protocol("a file without a name");
        }
        self.received.source = path_of(path.into());
        self.received.tree = tree;
        self.meter.progress.total = size;
        self.settler = Settler::new(self.receiving.sync, !tree);
        let name = name.as_ref().map(|name| name.as_slice());
        let place = match Place::find(&self.destination, name, tree, self.receiving.parents) {
            Ok(place) => place,
            Err((operation, path, errno)) => {
                self.over = true;
                return Ok(self.fail((operation, errno), &path, None)?);
            }
        };
        if self.receiving.owner && !self.taken.owner() {
            self.skip(Reason::Owner, &place.path)?;
        }
        self.received.path = path_of(place.path.clone());
        self.place = Some(place);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), ReceiveError> {
        if self.current.is_some() {
            return protocol("the end within a file");
        }
        self.finished = true;
        let settled = self.settler.flush();
        self.settled(settled)?;
        if let Err(errno) = self.settler.finish() {
            let path = self.root_path();
            self.fail((Operation::Sync, Some(errno)), &path, None)?;
        }
        if let Some(place) = self.place.take_if(|place| place.temporary && self.received.files == 0) {
            // Only if nothing is in it.
            let path = std::path::Path::new(&self.received.path).parent().map(std::path::Path::to_path_buf);
            drop(place);
            if path.is_some_and(|path| std::fs::remove_dir(path).is_ok()) {
                self.received.path = PathBuf::new();
            }
        }
        Ok(())
    }

    /// Counts what was placed, and names what was not.
    fn settled(&mut self, settled: Vec<Settled>) -> Result<(), Cut> {
        for settled in settled {
            match settled {
                Ok(bytes) => {
                    self.received.files += 1;
                    self.received.bytes += bytes;
                }
                Err((spot, fault)) => self.fail(fault, &spot.path, None)?,
            }
        }
        Ok(())
    }

    /// Where something goes; none if it must not or cannot go there, which is told, or was when its directory was not made.
    fn spot(&mut self, seat: &Seat) -> Result<Option<Spot>, ReceiveError> {
        if seat.directory == 0 {
            return self.root_spot(seat).map(Some);
        }
        let name = seat.name.as_slice();
        if check_name(name).is_err() || is_draft_name(name) {
            let shown = &name[..name.len().min(NAME_SHOWN)];
            let path = self.directories.path(&self.root_path(), seat.directory, shown);
            self.fail((Operation::Name, None), &path, None)?;
            return Ok(None);
        }
        let folder = match self.directories.find(seat.directory) {
            Found::Open(folder) => folder,
            Found::Dead => return Ok(None),
            Found::Unknown => return protocol("a directory that was not begun"),
            Found::Lost(errno) => {
                let path = self.directories.path(&self.root_path(), seat.directory, b"");
                self.fail((Operation::Enter, Some(errno)), &path, None)?;
                return Ok(None);
            }
        };
        let path = self.directories.path(&self.root_path(), seat.directory, name).into();
        Ok(Some(Spot { folder, name: name.to_vec(), path }))
    }

    /// The place of a root that is a file.
    fn root_spot(&mut self, seat: &Seat) -> Result<Spot, ReceiveError> {
        if let Some(root) = &self.root
            && !self.received.tree
        {
            return Ok(root.clone());
        }
        let Some(place) = self.place.as_ref().filter(|_| self.root.is_none() && seat.name.is_empty()) else {
            return protocol("a root that was not begun");
        };
        let Some(name) = place.name.clone() else { return protocol("a file without a name") };
        let Ok(folder) = rustix::io::fcntl_dupfd_cloexec(&place.directory, 3).and_then(Folder::new) else {
            return protocol("no descriptors are left");
        };
        let spot = Spot { folder: Rc::new(folder), name, path: place.path.as_slice().into() };
        self.root = Some(spot.clone());
        Ok(spot)
    }

    fn root_path(&self) -> Vec<u8> {
        self.place.as_ref().map(|place| place.path.clone()).unwrap_or_default()
    }

    /// Whether this is all there is.
    fn single(&self) -> bool {
        !self.received.tree
    }

    /// Names what failed, here and there.
    fn fail(&mut self, (operation, errno): Fault, path: &[u8], file: Option<u32>) -> Result<(), Cut> {
        let errno = errno.map_or(0, |errno| errno.raw_os_error().unsigned_abs());
        let failure = Failure { operation, path: path.to_vec().into(), errno };
        self.notes.failed(self.side, failure.clone());
        self.outlet.send(&Answer::Failed { failure, file }, Bytes::new())
    }

    fn skip(&mut self, reason: Reason, path: &[u8]) -> Result<(), Cut> {
        let skipped = Skipped { path: path.to_vec().into(), reason };
        self.notes.skipped(self.side, skipped.clone());
        self.outlet.send(&Answer::Skipped(skipped), Bytes::new())
    }

    fn forget_all(&mut self) {
        self.kept.clear();
        self.current = None;
        self.settler = Settler::new(false, true);
    }
}

fn protocol<T>(why: &str) -> Result<T, ReceiveError> {
    Err(ReceiveError::Protocol(why.to_owned()))
}

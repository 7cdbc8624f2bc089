//! The content of files: whole small ones, and large ones piece by piece.

use bytes::{Bytes, BytesMut};
use remotely_proto::file::{Answer, Hash, Meta, Operation, Seat, Unchanged, Way};
use rustix::io::Errno;

use super::{
    ReceiveError, Receiver,
    consult::{self, Basis, Consulted, Kept, Question},
    draft::{Draft, Fault, Spot, Wanted, clear_left},
    protocol,
};
use crate::send::{RESUME_MIN, ZEROS, read_at};

/// Beginnings and older states of files that are kept open for their content.
const KEPT_MAX: usize = 64;
/// Bytes copied at once.
const CHUNK: u64 = 256 << 10;

/// The file that is being received.
#[derive(Debug)]
pub(super) struct Current {
    file: u32,
    /// None if it cannot be received, which was told.
    draft: Option<Draft>,
    basis: Option<Basis>,
}

/// What is asked of a file.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) meta: Meta,
    pub(super) size: u64,
    pub(super) unchanged: Unchanged,
    pub(super) resume: bool,
    pub(super) blocks: u32,
}

impl Receiver {
    /// A file that came whole.
    pub(super) fn file(&mut self, seat: &Seat, meta: &Meta, size: usize, hash: &Hash) -> Result<(), ReceiveError> {
        if self.current.is_some() {
            return protocol("a file within a file");
        }
        let content = self.payload(size)?;
        let Some(spot) = self.spot(seat)? else { return Ok(()) };
        let path = spot.path.clone();
        let written = Draft::create(spot).and_then(|mut draft| {
            draft.write_whole(&content, hash)?;
            Ok(draft)
        });
        match written {
            Ok(draft) => {
                self.meter.add(1, size as u64);
                self.place(draft, meta, hash)
            }
            Err(fault) => Ok(self.fail(fault, &path, None)?),
        }
    }

    pub(super) fn begin_file(
        &mut self,
        file: u32,
        seat: &Seat,
        ask: Option<u32>,
        start: u64,
        size: u64,
    ) -> Result<(), ReceiveError> {
        if self.current.is_some() || file <= self.last_file {
            return protocol("a file within a file");
        }
        self.last_file = file;
        let kept = ask.and_then(|ask| self.kept.remove(&ask));
        let Some(spot) = self.spot(seat)? else {
            self.current = Some(Current { file, draft: None, basis: None });
            return Ok(());
        };
        let (path, mut basis) = (spot.path.clone(), None);
        let draft = match kept {
            Some(Kept::Front(draft)) if start > 0 => {
                if draft.at != start || draft.spot.name != spot.name || draft.spot.path != spot.path {
                    return protocol("a file goes on where it did not end");
                }
                Ok(draft)
            }
            _ if start > 0 => return protocol("a file goes on that was not begun"),
            Some(Kept::Front(mut draft)) => draft.clear().map(|()| draft),
            Some(Kept::Basis(found)) => {
                basis = Some(found);
                Draft::create(spot)
            }
            None => Draft::create(spot),
        };
        let draft = match draft {
            Ok(mut draft) => {
                let stays = self.receiving.resume && size >= RESUME_MIN;
                draft.stays = stays.then(|| Wanted::now(size));
                self.meter.add(0, start);
                Some(draft)
            }
            Err(fault) => {
                self.fail(fault, &path, Some(file))?;
                None
            }
        };
        self.current = Some(Current { file, draft, basis });
        Ok(())
    }

    pub(super) fn data(&mut self, mut offset: u64, len: usize) -> Result<(), ReceiveError> {
        if self.current.is_none() || len > self.left {
            return protocol("content of no file");
        }
        let mut left = len;
        while left > 0 {
            let piece = self.inlet.piece(left)?;
            (left, self.left) = (left - piece.len(), self.left - piece.len());
            let outlet = self.outlet.clone();
            self.onto_draft(|draft, _| draft.write(offset, &piece, &outlet))?;
            self.meter.add(0, piece.len() as u64);
            offset = offset.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    pub(super) fn copy(&mut self, offset: u64, from: u64, len: u64) -> Result<(), ReceiveError> {
        let Some(current) = &self.current else { return protocol("content of no file") };
        if current.draft.is_none() {
            return Ok(());
        }
        let there = current.basis.as_ref().map_or(0, |basis| basis.size);
        if from.checked_add(len).is_none_or(|end| end > there) {
            return protocol("content of what is not there");
        }
        let outlet = self.outlet.clone();
        self.onto_draft(|draft, basis| {
            let Some(basis) = basis else { return Ok(()) };
            let mut buffer = BytesMut::with_capacity(CHUNK as usize);
            let mut done = 0;
            while done < len {
                buffer.clear();
                let most = CHUNK.min(len - done) as usize;
                read_at(&basis.file, &mut buffer, from + done, most).map_err(|errno| (Operation::Read, Some(errno)))?;
                if buffer.is_empty() {
                    // Somebody has cut it meanwhile.
                    return Err((Operation::Compare, None));
                }
                let at = offset.checked_add(done).ok_or((Operation::Write, Some(Errno::FBIG)))?;
                if is_zero(&buffer) {
                    draft.skip(at.saturating_add(buffer.len() as u64), &outlet)?;
                } else {
                    draft.write(at, &buffer, &outlet)?;
                }
                done += buffer.len() as u64;
            }
            Ok(())
        })?;
        self.meter.add(0, len);
        Ok(())
    }

    /// Does something to the file that is being received. If that fails, it is told, and what follows of it is passed over.
    fn onto_draft(
        &mut self,
        act: impl FnOnce(&mut Draft, Option<&Basis>) -> Result<(), Fault>,
    ) -> Result<(), ReceiveError> {
        let Some(current) = &mut self.current else { return protocol("content of no file") };
        let Some(draft) = &mut current.draft else { return Ok(()) };
        let Err(fault) = act(draft, current.basis.as_ref()) else { return Ok(()) };
        let (file, path) = (current.file, draft.spot.path.clone());
        self.outlet.check()?;
        // Its room is needed for others.
        if let Some(draft) = current.draft.take() {
            draft.discard();
        }
        Ok(self.fail(fault, &path, Some(file))?)
    }

    pub(super) fn end_file(&mut self, meta: &Meta, size: u64, hash: &Hash) -> Result<(), ReceiveError> {
        let outlet = self.outlet.clone();
        self.onto_draft(|draft, _| draft.complete(size, hash, &outlet))?;
        let Some(current) = self.current.take() else { return protocol("the end of no file") };
        let Some(draft) = current.draft else { return Ok(()) };
        self.meter.add(1, 0);
        self.place(draft, meta, hash)
    }

    pub(super) fn broken(&mut self) -> Result<(), ReceiveError> {
        let Some(current) = self.current.take() else { return protocol("the end of no file") };
        if let Some(draft) = current.draft {
            draft.discard();
        }
        Ok(())
    }

    /// Gives a complete file its attributes and its name.
    fn place(&mut self, draft: Draft, meta: &Meta, hash: &Hash) -> Result<(), ReceiveError> {
        let single = self.single();
        let faults = self.taken.apply(&draft.file, meta, single);
        self.faults(faults, &draft.spot.path.clone())?;
        let settled = self.settler.place(draft);
        if single && settled.iter().all(Result::is_ok) {
            self.received.hash = Some(*hash);
        }
        Ok(self.settled(settled)?)
    }

    pub(super) fn asked(&mut self, ask: u32, seat: &Seat, asked: &Asked) -> Result<(), ReceiveError> {
        if self.current.is_some() || self.kept.contains_key(&ask) {
            return protocol("an ask within a file, or twice");
        }
        let Consulted { way, signature, kept } = match self.spot(seat)? {
            // Nothing can be received there, as was told.
            None => Consulted::plain(Way::Nothing),
            Some(spot) => self.consult(&spot, asked)?,
        };
        if let Some(kept) = kept {
            self.kept.insert(ask, kept);
        }
        Ok(self.outlet.send(&Answer::Want { ask, way }, signature)?)
    }

    fn consult(&mut self, spot: &Spot, asked: &Asked) -> Result<Consulted, ReceiveError> {
        let Asked { meta, size, unchanged, resume, blocks } = asked;
        let full = self.kept.len() >= KEPT_MAX;
        let (resume, blocks) = (*resume && self.receiving.resume && !full, if full { 0 } else { *blocks });
        let question = Question { spot, meta, size: *size, unchanged: *unchanged, resume, blocks };
        let consulted = consult::consult(&question, &self.outlet);
        if consulted.way == Way::Nothing {
            self.kept_as_is(spot, meta, *size)?;
        }
        Ok(consulted)
    }

    pub(super) fn keep(&mut self, seat: &Seat, meta: &Meta) -> Result<(), ReceiveError> {
        let Some(spot) = self.spot(seat)? else { return Ok(()) };
        match consult::regular(&spot) {
            Some(stat) => self.kept_as_is(&spot, meta, u64::try_from(stat.st_size).unwrap_or_default()),
            None => Ok(self.fail((Operation::Look, Some(Errno::NOENT)), &spot.path, None)?),
        }
    }

    fn kept_as_is(&mut self, spot: &Spot, meta: &Meta, size: u64) -> Result<(), ReceiveError> {
        self.received.unchanged += 1;
        if size >= RESUME_MIN {
            clear_left(spot);
        }
        self.meter.add(1, size);
        let faults = consult::keep(spot, meta, self.taken, self.single());
        self.faults(faults, &spot.path)
    }

    /// Content of the present message.
    fn payload(&mut self, len: usize) -> Result<Bytes, ReceiveError> {
        if len > self.left {
            return protocol("content that did not come");
        }
        self.left -= len;
        Ok(self.inlet.whole(len)?)
    }
}

fn is_zero(content: &[u8]) -> bool {
    content.chunks(ZEROS.len()).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

//! Which stream sends next. The mux puts streams in that have something to send, and takes one out for each frame.
//!
//! Control first; normal and bulk share by bytes, four to one; within a class each stream has its turn.

use std::collections::VecDeque;

use crate::open::Class;

/// Bytes of the normal class for each byte of the bulk class, when both have something to send.
const NORMAL_SHARE: u64 = 4;

#[derive(Debug, Default)]
pub(super) struct Schedule {
    control: VecDeque<u32>,
    normal: Ring,
    bulk: Ring,
}

/// The streams of a class and what they have had: bytes over share, so that the class with less is next.
#[derive(Debug, Default)]
struct Ring {
    streams: VecDeque<u32>,
    had: u64,
}

impl Schedule {
    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.normal.streams.is_empty() && self.bulk.streams.is_empty()
    }

    /// Whether a stream of the class that is not paced is in.
    pub(super) fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// Adds a stream that had nothing to send before, behind the others of its class.
    pub(super) fn push(&mut self, class: Class, stream: u32) {
        let (ring, other) = match class {
            Class::Control => return self.control.push_back(stream),
            Class::Normal => (&mut self.normal, &self.bulk),
            Class::Bulk => (&mut self.bulk, &self.normal),
        };
        if ring.streams.is_empty() {
            // A class that had nothing to send has not saved anything up.
            ring.had = ring.had.max(other.had);
        }
        ring.streams.push_back(stream);
    }

    /// The stream whose turn it is; the classes that are paced only if there is room for them.
    pub(super) fn pop(&mut self, room: bool) -> Option<(Class, u32)> {
        if let Some(stream) = self.control.pop_front() {
            return Some((Class::Control, stream));
        }
        if !room {
            return None;
        }
        let bulk = self.normal.streams.is_empty() || (!self.bulk.streams.is_empty() && self.bulk.had < self.normal.had);
        let (class, ring) = if bulk { (Class::Bulk, &mut self.bulk) } else { (Class::Normal, &mut self.normal) };
        ring.streams.pop_front().map(|stream| (class, stream))
    }

    /// The stream that was taken has sent so many bytes; if it has more, it goes behind the others.
    pub(super) fn done(&mut self, class: Class, stream: u32, bytes: u64, more: bool) {
        let ring = match class {
            Class::Control => &mut self.control,
            Class::Normal => {
                self.normal.had += bytes;
                &mut self.normal.streams
            }
            Class::Bulk => {
                self.bulk.had += bytes * NORMAL_SHARE;
                &mut self.bulk.streams
            }
        };
        if more {
            ring.push_back(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `frames` frames of 100 bytes from streams that always have more.
    fn run(schedule: &mut Schedule, frames: usize) -> Vec<u32> {
        (0..frames)
            .map(|_| {
                let (class, stream) = schedule.pop(true).unwrap();
                schedule.done(class, stream, 100, true);
                stream
            })
            .collect()
    }

    #[test]
    fn normal_gets_four_fifths_and_streams_take_turns() {
        let mut schedule = Schedule::default();
        schedule.push(Class::Bulk, 1);
        schedule.push(Class::Normal, 2);
        schedule.push(Class::Normal, 3);
        let seen = run(&mut schedule, 1000);
        let count = |id| seen.iter().filter(|&&stream| stream == id).count();
        assert_eq!((count(1), count(2), count(3)), (200, 400, 400));
    }

    #[test]
    fn a_class_alone_has_everything_and_saves_nothing_up() {
        let mut schedule = Schedule::default();
        schedule.push(Class::Bulk, 1);
        assert_eq!(run(&mut schedule, 100), [1; 100]);
        schedule.push(Class::Normal, 2);
        let seen = run(&mut schedule, 10);
        assert_eq!(seen.iter().filter(|&&stream| stream == 1).count(), 2, "{seen:?}");
    }

    #[test]
    fn control_is_first_and_needs_no_room() {
        let mut schedule = Schedule::default();
        schedule.push(Class::Normal, 1);
        schedule.push(Class::Control, 2);
        assert_eq!(schedule.pop(false), Some((Class::Control, 2)));
        assert_eq!(schedule.pop(false), None);
        assert_eq!(schedule.pop(true), Some((Class::Normal, 1)));
    }
}

//! What a command looked at: which directories and which parts of which files, in order of first use. Kept by the caller
//! from one run to the next, so that the next run can be given it before it asks.

use minicbor::{Decode, Encode};
use remotely_proto::ByteVec;

/// Data is remembered in blocks of this many bytes.
pub const BLOCK: u64 = remotely_proto::fs::PUSH_BLOCK;

/// What one command looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Profile {
    /// In order of first use.
    #[n(0)]
    pub items: Vec<Item>,
}

/// One directory or file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Item {
    /// Names from the root.
    #[n(0)]
    pub path: Vec<ByteVec>,
    /// What was wanted of it.
    #[n(1)]
    pub wanted: Wanted,
    /// Runs in a row in which it was pushed and then not used. A mount that was ended does not tell what it used, so it is
    /// dropped only after some.
    #[n(2)]
    pub age: u32,
}

/// What was wanted of a path.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Wanted {
    /// The listing of a directory.
    #[n(0)]
    Listing,
    /// Content of a regular file.
    #[n(1)]
    Content {
        /// Sorted, apart from each other.
        #[n(0)]
        blocks: Vec<Blocks>,
    },
}

/// A run of blocks of [`BLOCK`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Blocks {
    /// First one.
    #[n(0)]
    pub start: u64,
    /// Past the last one.
    #[n(1)]
    pub end: u64,
}

/// Adds a run to a sorted list of runs.
pub(super) fn add(list: &mut Vec<Blocks>, mut new: Blocks) {
    let first = list.partition_point(|run| run.end < new.start);
    let after = list.partition_point(|run| run.start <= new.end);
    if let Some(touching) = list.get(first..after).filter(|touching| !touching.is_empty()) {
        new.start = new.start.min(touching[0].start);
        new.end = new.end.max(touching[touching.len() - 1].end);
    }
    list.splice(first..after, [new]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_merge() {
        let mut list = Vec::new();
        for (start, end) in [(5, 6), (1, 2), (8, 9), (2, 3), (6, 8), (20, 30), (21, 22), (0, 40)] {
            add(&mut list, Blocks { start, end });
        }
        assert_eq!(list, [Blocks { start: 0, end: 40 }]);
        let mut list = vec![Blocks { start: 1, end: 2 }, Blocks { start: 4, end: 5 }];
        add(&mut list, Blocks { start: 3, end: 4 });
        assert_eq!(list, [Blocks { start: 1, end: 2 }, Blocks { start: 3, end: 5 }]);
    }

    #[test]
    fn survives_its_encoding() {
        let path = vec![b"a".to_vec().into(), b"\xff".to_vec().into()];
        let content = Wanted::Content { blocks: vec![Blocks { start: 1, end: 2 }] };
        let profile = Profile {
            items: vec![
                Item { path: path.clone(), wanted: Wanted::Listing, age: 0 },
                Item { path, wanted: content, age: 7 },
            ],
        };
        let bytes = minicbor::to_vec(&profile).unwrap();
        assert_eq!(minicbor::decode::<Profile>(&bytes).unwrap(), profile);
    }
}

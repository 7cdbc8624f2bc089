//! Who may hold record locks on a file, and through which open file: what must be freed when one is closed. Pure.

/// Owners of record locks on one file. As many as the kernel has processes and open files that took one.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// Owner and open file. An owner is a process (fcntl(2)) or an open file (F_OFD_SETLK): the kernel tells a number.
    pairs: Vec<(u64, u64)>,
    /// Closings that are freeing locks.
    freeing: u32,
    /// Those that have begun, so far.
    begun: u64,
}

impl Owners {
    /// Is about to take a lock.
    pub(super) fn add(&mut self, owner: u64, file: u64) {
        if !self.pairs.contains(&(owner, file)) {
            self.pairs.push((owner, file));
        }
    }

    /// A process closes a descriptor, which frees all its locks on the file. False if it never had one.
    pub(super) fn remove(&mut self, owner: u64) -> bool {
        let before = self.pairs.len();
        self.pairs.retain(|(other, _)| *other != owner);
        self.pairs.len() < before
    }

    /// An open file ends. The processes that locked through it have closed it before, so who is left is itself.
    pub(super) fn end(&mut self, file: u64) -> Vec<u64> {
        self.pairs.extract_if(.., |(_, other)| *other == file).map(|(owner, _)| owner).collect()
    }

    /// The end of an open file begins to free its locks; the kernel has told its closer already that it is done.
    pub(super) fn begin(&mut self) {
        self.freeing += 1;
        self.begun += 1;
    }

    /// They are free.
    pub(super) fn finish(&mut self) {
        self.freeing -= 1;
    }

    /// If none is being freed: how often that has begun, so that one can see whether it has again.
    pub(super) fn settled(&self) -> Option<u64> {
        (self.freeing == 0).then_some(self.begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_close_freed_is_left_at_the_end() {
        let mut owners = Owners::default();
        let (process, description) = (7, 0xffff);
        owners.add(process, 1);
        owners.add(process, 1);
        owners.add(description, 1);
        assert!(owners.remove(process) && !owners.remove(process));
        // The same process again, through another open file.
        owners.add(process, 2);
        assert_eq!(owners.end(1), [description]);
        assert!(owners.end(1).is_empty() && owners.remove(process));
    }
}

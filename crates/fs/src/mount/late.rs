//! Writes that failed after their caller had gone on, by file. As with `errseq_t` of the kernel every open file is told once
//! of what failed while it was open, however many there are. Pure.

use rustix::io::Errno;

/// Late errors of one file, numbered from 1.
#[derive(Debug, Default)]
pub(super) struct Late {
    last: Option<(u64, Errno)>,
    /// Somebody has been told of the last one.
    told: bool,
}

impl Late {
    /// A write failed.
    pub(super) fn fail(&mut self, errno: Errno) {
        self.last = Some((self.last() + 1, errno));
        self.told = false;
    }

    /// Number of the last one.
    pub(super) fn last(&self) -> u64 {
        self.last.map_or(0, |(number, _)| number)
    }

    /// Up to which one a file that is opened now needs not be told. If nobody has been told of the last one it is: who wrote
    /// has closed the file, and who opens it now to see that all is well must not be deceived.
    pub(super) fn told_before(&self) -> u64 {
        if self.told { self.last() } else { self.last().saturating_sub(1) }
    }

    /// What failed after `number`; somebody is told now.
    pub(super) fn since(&mut self, number: u64) -> Option<Errno> {
        let (last, errno) = self.last?;
        if last <= number {
            return None;
        }
        self.told = true;
        Some(errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_is_told_who_was_there() {
        let mut late = Late::default();
        assert_eq!((late.told_before(), late.since(0)), (0, None));
        let (one, two) = (late.told_before(), late.told_before());
        late.fail(Errno::NOSPC);
        let after = late.told_before();
        assert_eq!(late.since(one), Some(Errno::NOSPC));
        assert_eq!(late.since(two), Some(Errno::NOSPC));
        assert_eq!(late.since(after), Some(Errno::NOSPC), "nobody had been told when it was opened");
        assert_eq!(late.since(late.told_before()), None, "somebody had");
        let one = late.last();
        assert_eq!(late.since(one), None);
        late.fail(Errno::IO);
        assert_eq!(late.since(one), Some(Errno::IO));
    }
}

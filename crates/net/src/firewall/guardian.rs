//! A process that outlives a killed helper, and undoes what its journal says. Called by the elevated helper before it sets rules; does
//! nothing as long as the helper lives, nor once that has undone its rules itself.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};

use rustix::process::{Pid, WaitOptions};

use super::{signals, spawn};

/// Watches over the helper that has it. Without [`Guardian::dismiss`] it takes the helper's end for a death.
#[derive(Debug)]
pub(crate) struct Guardian {
    /// Nobody else has this end: it is closed when the helper ends, however that is.
    alive: PipeWriter,
    process: Pid,
}

impl Guardian {
    /// Starts one, that does `mend` after the death of this process. A lock that this process has taken before would outlive it.
    pub(crate) fn start(mend: impl FnOnce()) -> io::Result<Self> {
        let (ended, alive) = io::pipe()?;
        let process = spawn::fork(ended.into(), |ended| guard(ended.into(), mend))?;
        Ok(Self { alive, process })
    }

    /// Nothing is left to be undone.
    pub(crate) fn dismiss(mut self) {
        // One that was killed needs no telling.
        let _ = self.alive.write_all(&[0]);
        let _ = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(self.process), WaitOptions::empty()));
    }
}

fn guard(mut ended: PipeReader, mend: impl FnOnce()) {
    // Who kills the helper's group or session, or closes its terminal, means the helper.
    let _ = rustix::process::setsid();
    signals::ignore();
    if matches!(ended.read(&mut [0]), Ok(0)) {
        mend();
    }
}

//! The elevated helper of the whole-machine mode, and the client's side of it. The helper is the only privileged process, with the
//! smallest input language; the end of its input undoes everything.

mod apply;
mod conntrack;
mod held;
mod spawn;

pub use apply::{Applier, ApplyError, release, supports};
pub use conntrack::forget;

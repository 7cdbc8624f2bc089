//! The fs server, spoken to as the mount speaks to it, over a link; compared with what the same calls do here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod change;
mod contain;
mod hide;
mod lock;
mod notice;
mod order;
mod push;
mod question;
mod rig;

//! The fs server, spoken to as the mount speaks to it, over a link; compared with what the same calls do here.

mod change;
mod contain;
mod lock;
mod notice;
mod order;
mod push;
mod question;
mod rig;

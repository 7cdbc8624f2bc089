//! `remotely net`.

mod args;
mod expand;

//! Bytes of a socket, read into memory that is there only while bytes are: idle connections hold none. Used by `flow`.

use std::cell::RefCell;
use std::io;

use crate::connection::Connection;
use bytes::{Bytes, BytesMut};

/// Bytes read at once.
const READ_SIZE: usize = 256 << 10;
/// Room that has to be left for another read into the same memory.
const ROOM_MIN: usize = 64 << 10;
/// What is shorter is copied, so that it does not keep a buffer alive that is many times larger.
const COPY: usize = 16 << 10;

thread_local! {
    static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// What a socket has, without waiting; nothing at its end.
pub(crate) fn read(socket: &Connection) -> io::Result<Bytes> {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.capacity() < ROOM_MIN {
            buffer.reserve(READ_SIZE);
        }
        socket.try_read_buf(buffer)?;
        if buffer.len() <= COPY {
            let copy = Bytes::copy_from_slice(buffer);
            buffer.clear();
            return Ok(copy);
        }
        Ok(buffer.split().freeze())
    })
}

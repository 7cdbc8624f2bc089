//! `bench ask SERVER SECONDS`: questions about one name, a hundred at a time, from one socket: how many are answered in a second. Run by the
//! row `net` in the client's network.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// Questions under way.
const WINDOW: usize = 100;
/// A question that waits for so long is lost.
const LOST_AFTER: Duration = Duration::from_millis(500);
/// `web.inside.example`, type A.
const NAME: &[u8] = b"\x03web\x06inside\x07example\x00\x00\x01\x00\x01";

/// Prints answers per second, and the per cent that were lost.
pub(crate) fn main(server: &str, seconds: f64) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(LOST_AFTER))?;
    let (mut asked, mut answered, mut lost, mut under_way) = (0_u64, 0_u64, 0_u64, 0_usize);
    let began = Instant::now();
    let mut buffer = [0; 2048];
    while began.elapsed().as_secs_f64() < seconds {
        while under_way < WINDOW {
            let number = (asked % 65_536) as u16;
            let head = [&number.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
            socket.send(&[&head, NAME].concat())?;
            asked += 1;
            under_way += 1;
        }
        match socket.recv(&mut buffer) {
            // An answer without an error.
            Ok(bytes) if bytes > 12 && buffer[3] & 15 == 0 => {
                answered += 1;
                under_way -= 1;
            }
            Ok(_) => {
                lost += 1;
                under_way -= 1;
            }
            Err(_) => {
                lost += under_way as u64;
                under_way = 0;
            }
        }
    }
    let took = began.elapsed().as_secs_f64();
    println!("{:.0} {:.1}", answered as f64 / took, lost as f64 * 100.0 / asked as f64);
    Ok(())
}

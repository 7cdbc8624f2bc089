//! Follows a log on many hosts at once, until Ctrl-C. `{host}` in the path stands for the host's name.
//!
//! ```console
//! $ tail-logs /var/log/nginx/error.log 'web[1-20]'
//! web7: 2026/01/05 10:11:12 [error] upstream timed out
//! ```

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::time::Duration;

use remotely::{Group, Sender, channel, here, remote};

/// Runs on each host. The sender is an argument like any other: what is sent here comes out of the receiver over there. It
/// waits when the other side is slow, without keeping whatever else goes over the link.
#[remote]
async fn follow(path: String, lines: Sender<(String, String)>) -> io::Result<()> {
    let host = here::host();
    let mut file = BufReader::new(File::open(path.replace("{host}", &host))?);
    file.seek(SeekFrom::End(0))?;
    let mut line = Vec::new();
    loop {
        // What the end of the file has cut off is the beginning of the next line.
        if file.read_until(b'\n', &mut line)? == 0 || !line.ends_with(b"\n") {
            // The caller's Ctrl-C ends it here.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if lines.send((host.clone(), text)).await.is_err() {
            return Ok(());
        }
    }
}

#[remotely::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let path = words.next().ok_or("usage: tail-logs PATH HOSTS...")?;
    let group = Group::named(&words.collect::<Vec<_>>().join(" ")).await?;
    // A call that is to last takes a place of the window for good.
    let group = group.clone().call_window(group.len());

    let (sender, mut lines) = channel();
    let mut calls = group.call(follow, (path, sender));
    // One for all turns of the loop: a new one each time would miss what comes between two.
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Ok(Some((host, line))) => println!("{host}: {line}"),
                Ok(None) => break,
                // A link is lost. Its call tells which.
                Err(_) => {}
            },
            // They do not return by themselves, but they may fail.
            Some((_, result)) = calls.next() => if let Err(error) = result {
                eprintln!("{error}");
            },
            _ = &mut interrupted => break,
        }
    }
    // Dropped, the calls are cancelled; closed, the links take with them whatever else runs there.
    drop(calls);
    group.close().await;
    Ok(())
}

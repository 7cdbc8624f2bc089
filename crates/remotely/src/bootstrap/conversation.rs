//! The client's side of the talk with the bootstrap line, over the pipe of a transport, up to the moment when the agent
//! speaks frames. Called by [`super::connect`]; it waits for as long as the host takes, time limits are the caller's.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use remotely_proto::handshake::MAGIC;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use super::executable::Executable;
use super::progress::Progress;
use super::{ConnectError, Flight};
use crate::password::Password;
use crate::target::Hop;
use crate::transport::password::GO;
use crate::transport::spawn::Process;

/// How much a login shell may print before the bootstrap line speaks, in bytes.
const NOISE: usize = 64 << 20;
/// The longest bootstrap line that is believed, in bytes.
const LINE: usize = 16 << 10;
/// From when on it is said that the executable is being compressed.
const PATIENCE: Duration = Duration::from_secs(1);
/// More places than the bootstrap line knows.
const PLACES: usize = 8;

pub(super) struct Conversation {
    from_host: pipe::Receiver,
    to_host: pipe::Sender,
    /// Read and not yet understood.
    received: BytesMut,
    /// The beginning of what was printed that is not ours.
    noise: Vec<u8>,
    noise_len: usize,
}

/// What the host's side says.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    Ready,
    /// A hop that could have wanted a password lets us through, and has thrown the first flight away.
    Open,
    Need {
        os: String,
        arch: String,
        gzip: bool,
        place: String,
    },
    Retry {
        why: String,
    },
    Fail {
        why: String,
    },
}

/// How the host answers.
pub(super) enum Greeted {
    /// An agent speaks from here on. It is to have these bytes first, which the pipe has not taken yet.
    Ready {
        unsent: Bytes,
    },
    Needs(Need),
    /// A hop asks for a password. Nothing of the first flight is left on the way.
    Asked {
        hop: usize,
    },
    /// A hop that could ask for a password lets us through. It is to be greeted again: what was sent is gone.
    Opened,
}

/// What it took.
#[derive(Debug, Clone, Copy)]
pub struct Uploaded {
    /// Bytes on the wire.
    pub bytes: usize,
    /// From the host's asking until its agent answered.
    pub time: Duration,
}

/// How a conversation failed.
pub(super) enum Failure {
    /// The pipe ended; the process that it belongs to knows why.
    Ended,
    Error(ConnectError),
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Failure::Error(error)
    }
}

impl Conversation {
    pub(super) fn new(reader: OwnedFd, writer: OwnedFd) -> std::io::Result<Self> {
        Ok(Self {
            from_host: pipe::Receiver::from_owned_fd(reader)?,
            to_host: pipe::Sender::from_owned_fd(writer)?,
            received: BytesMut::new(),
            noise: Vec::new(),
            noise_len: 0,
        })
    }

    /// The pipe, with what has been read from it behind the last message.
    pub(super) fn into_pipe(self) -> std::io::Result<(OwnedFd, OwnedFd, Bytes)> {
        Ok((self.from_host.into_nonblocking_fd()?, self.to_host.into_nonblocking_fd()?, self.received.freeze()))
    }

    /// The beginning of what the host printed that was not for us.
    pub(super) fn noise(&self) -> String {
        String::from_utf8_lossy(&self.noise).trim().to_owned()
    }

    /// Sends the first flight as soon as it is there, and hears whether an agent has taken over, or what the host needs first.
    pub(super) async fn greet<F: Future<Output = Bytes>>(
        &mut self,
        flight: &mut Flight<F>,
        process: &mut Process,
    ) -> Result<Greeted, Failure> {
        let Self { from_host, to_host, received, noise, noise_len } = self;
        let mut unsent = None;
        let message = {
            // Both at once: a login shell may print more than a pipe holds before it reads.
            let listen = read_message(from_host, received, noise, noise_len);
            let send = async { to_host.write_all_buf(unsent.insert(announced(flight.bytes().await))).await };
            tokio::pin!(listen, send);
            tokio::select! {
                biased;
                message = &mut listen => message?,
                sent = &mut send => {
                    // Who asks has read all of it before.
                    let message = tokio::select! {
                        biased;
                        message = &mut listen => message?,
                        hop = process.asked() => return Ok(Greeted::Asked { hop }),
                    };
                    if sent.is_err() && message == Message::Ready {
                        return Err(Failure::Ended);
                    }
                    message
                }
            }
        };
        if message == Message::Open {
            return Ok(Greeted::Opened);
        }
        match self.understand(message)? {
            Some(need) => Ok(Greeted::Needs(need)),
            None => {
                let mut unsent = match unsent {
                    Some(unsent) => unsent,
                    None => announced(flight.bytes().await),
                };
                Ok(Greeted::Ready { unsent: unsent.copy_to_bytes(unsent.remaining()) })
            }
        }
    }

    /// Sends what a further pipe begins with, and hears whether the agent takes it.
    pub(super) async fn join(&mut self, ticket: Bytes) -> std::io::Result<()> {
        self.to_host.write_all_buf(&mut announced(ticket)).await?;
        match self.message().await {
            Ok(Message::Ready) => Ok(()),
            _ => Err(std::io::Error::other("the agent is not where it was")),
        }
    }

    /// Gives a password to the hop that asks for it, and hears whether it was right.
    pub(super) async fn answer(
        &mut self,
        hop: &Hop,
        password: &Password,
        process: &mut Process,
    ) -> Result<Greeted, Failure> {
        let mut lines = Vec::with_capacity(password.bytes().len() + 2);
        if matches!(hop, Hop::Su { .. }) {
            // Between two attempts its shell waits for a line, so that it hears the end of the pipe.
            lines.push(b'\n');
        }
        lines.extend_from_slice(password.bytes());
        lines.push(b'\n');
        let sent = self.send(&lines).await;
        lines.fill(0);
        std::hint::black_box(&lines);
        sent?;
        tokio::select! {
            biased;
            message = read_message(&mut self.from_host, &mut self.received, &mut self.noise, &mut self.noise_len) => {
                match message? {
                    Message::Open => Ok(Greeted::Opened),
                    other => Err(ConnectError::Strange { what: format!("it answered a password by {other:?}") }.into()),
                }
            }
            hop = process.asked() => Ok(Greeted::Asked { hop }),
        }
    }

    /// Goes through a hop that has opened: what comes next is for whoever is behind it.
    pub(super) async fn pass(&mut self) -> Result<(), Failure> {
        self.send(format!("{GO}\n").as_bytes()).await
    }

    /// Sends the agent wherever the host asks for it, until it answers; then sends the first flight again, which the
    /// host has thrown away.
    pub(super) async fn upload(
        &mut self,
        mut need: Need,
        executable: &Arc<Executable>,
        progress: bool,
        flight: Bytes,
    ) -> Result<Uploaded, Failure> {
        let began = Instant::now();
        let mut bytes = 0;
        let mut last = String::new();
        for attempt in 0..PLACES {
            tracing::info!(place = need.place, "sending the agent");
            let mut progress = Progress::new(progress);
            let payload = payload(executable.clone(), need.gzip, attempt > 0, &mut progress).await?;
            bytes += payload.len();
            self.send(format!("{}\n", payload.len()).as_bytes()).await?;
            self.send_shown(&payload, progress).await?;
            let mut message = self.message().await?;
            if let Message::Retry { why } = message {
                tracing::warn!("the agent could not be put there: {why}");
                last = why;
                self.send(b"\n").await?;
                message = self.message().await?;
            }
            match self.understand(message)? {
                None => {
                    self.to_host.write_all_buf(&mut announced(flight)).await.map_err(|_| Failure::Ended)?;
                    return Ok(Uploaded { bytes, time: began.elapsed() });
                }
                Some(next) => need = next,
            }
        }
        Err(ConnectError::NoPlace { tried: last }.into())
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.to_host.write_all(bytes).await.map_err(|_| Failure::Ended)
    }

    async fn send_shown(&mut self, payload: &[u8], mut progress: Progress) -> Result<(), Failure> {
        progress.sends(payload.len() as u64);
        for chunk in payload.chunks(64 << 10) {
            self.send(chunk).await?;
            progress.add(chunk.len() as u64);
        }
        Ok(())
    }

    async fn message(&mut self) -> Result<Message, Failure> {
        read_message(&mut self.from_host, &mut self.received, &mut self.noise, &mut self.noise_len).await
    }

    fn understand(&self, message: Message) -> Result<Option<Need>, Failure> {
        match message {
            Message::Ready => Ok(None),
            Message::Need { os, arch, gzip, place } => {
                if (os.as_str(), arch.as_str()) != ("Linux", std::env::consts::ARCH) {
                    return Err(ConnectError::Architecture { theirs: format!("{os} {arch}") }.into());
                }
                Ok(Some(Need { gzip, place }))
            }
            Message::Fail { why } => Err(ConnectError::NoPlace { tried: why }.into()),
            Message::Retry { .. } | Message::Open => {
                Err(ConnectError::Strange { what: "it spoke out of turn".into() }.into())
            }
        }
    }
}

/// The first flight behind its size, for a shell that has to throw it away.
fn announced(flight: Bytes) -> impl Buf {
    Bytes::from(format!("{}\n", flight.len())).chain(flight)
}

/// Compressing takes a while, during which signals must still be heard, and after a second somebody may ask what is going on.
async fn payload(
    executable: Arc<Executable>,
    gzip: bool,
    again: bool,
    progress: &mut Progress,
) -> Result<Arc<Vec<u8>>, ConnectError> {
    let make = move || if gzip { executable.packed(again) } else { executable.plain().map(Arc::new) };
    let mut made = tokio::task::spawn_blocking(make);
    let made = match tokio::time::timeout(PATIENCE, &mut made).await {
        Ok(made) => made,
        Err(_) => {
            tracing::info!("the executable is large, or not optimised: compressing it takes long, once");
            progress.packs();
            made.await
        }
    };
    made.unwrap_or_else(|error| Err(ConnectError::pipe(error.into())))
}

/// What the host needs.
pub(super) struct Need {
    gzip: bool,
    place: String,
}

async fn read_message(
    from: &mut pipe::Receiver,
    received: &mut BytesMut,
    noise: &mut Vec<u8>,
    noise_len: &mut usize,
) -> Result<Message, Failure> {
    loop {
        if let Some(found) = next_message(received, |skipped| {
            *noise_len += skipped.len();
            let room = 512_usize.saturating_sub(noise.len());
            noise.extend(skipped.iter().take(room));
        }) {
            return found.map_err(|what| ConnectError::Strange { what }.into());
        }
        if *noise_len > NOISE {
            let what = format!("its login shell printed more than {} MiB", NOISE >> 20);
            return Err(ConnectError::Strange { what }.into());
        }
        received.reserve(16 << 10);
        match from.read_buf(received).await {
            Ok(0) | Err(_) => {
                noise.extend(received.iter().take(512_usize.saturating_sub(noise.len())));
                return Err(Failure::Ended);
            }
            Ok(_) => {}
        }
    }
}

/// Takes the next message off the front of what was received, and hands out what stands before it. `None`: not all of
/// it is there.
fn next_message(received: &mut BytesMut, mut skip: impl FnMut(&[u8])) -> Option<Result<Message, String>> {
    let Some(at) = received.windows(MAGIC.len()).position(|window| window == MAGIC) else {
        // All but what could be the beginning of a magic.
        let noise = received.len().saturating_sub(MAGIC.len() - 1);
        skip(&received.split_to(noise));
        return None;
    };
    skip(&received.split_to(at));
    let end = received.iter().position(|byte| *byte == b'\n');
    match end {
        None if received.len() > LINE => {
            received.clear();
            Some(Err("it sent a line without an end".into()))
        }
        None => None,
        Some(end) => {
            let line = received.split_to(end + 1);
            Some(parse(&line[MAGIC.len()..end]))
        }
    }
}

fn parse(line: &[u8]) -> Result<Message, String> {
    // What the host says is shown to the user: no control characters.
    let text: String = String::from_utf8_lossy(line).chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let text = text.trim_start();
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match word {
        "ready" => Ok(Message::Ready),
        "open" => Ok(Message::Open),
        "retry" => Ok(Message::Retry { why: rest.into() }),
        "fail" => Ok(Message::Fail { why: rest.trim_end_matches([';', ' ']).into() }),
        "need" => {
            let mut words = rest.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some(os), Some(arch), Some(form @ ("gzip" | "plain")), Some(place)) => {
                    Ok(Message::Need { os: os.into(), arch: arch.into(), gzip: form == "gzip", place: place.into() })
                }
                _ => Err(format!("it answered {text:?}")),
            }
        }
        _ => Err(format!("it answered {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(pieces: &[&[u8]]) -> (Vec<Result<Message, String>>, usize, Vec<u8>) {
        let (mut received, mut noise, mut found) = (BytesMut::new(), 0, Vec::new());
        for piece in pieces {
            received.extend_from_slice(piece);
            while let Some(message) = next_message(&mut received, |skipped| noise += skipped.len()) {
                found.push(message);
            }
        }
        (found, noise, received.to_vec())
    }

    #[test]
    fn messages_are_found_in_noise_however_they_are_cut() {
        let text = b"Welcome\n\0remo\0remotely\x01 ready\nframes";
        let (whole, noise, rest) = feed(&[text]);
        assert_eq!((whole, noise, rest.as_slice()), (vec![Ok(Message::Ready)], 13, &b"frames"[..]));
        let bytes: Vec<&[u8]> = text.chunks(1).take(text.len() - 6).collect();
        assert_eq!(feed(&bytes).0, [Ok(Message::Ready)]);
    }

    #[test]
    fn lines_are_understood_or_refused() {
        let need = Message::Need { os: "Linux".into(), arch: "x86_64".into(), gzip: true, place: "/a b".into() };
        let table: &[(&[u8], Result<Message, String>)] = &[
            (b" ready", Ok(Message::Ready)),
            (b" open", Ok(Message::Open)),
            (b" need Linux x86_64 gzip /a b", Ok(need)),
            (b" fail /a: full; /b: \x1b[31m; ", Ok(Message::Fail { why: "/a: full; /b: ?[31m".into() })),
            (b" retry /a: full", Ok(Message::Retry { why: "/a: full".into() })),
            (b" need Linux x86_64 zip /a", Err("it answered \"need Linux x86_64 zip /a\"".into())),
            (b" need", Err("it answered \"need\"".into())),
            (b"", Err("it answered \"\"".into())),
        ];
        for (line, message) in table {
            assert_eq!(&parse(line), message);
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_kept_for_ever() {
        let mut text = MAGIC.to_vec();
        text.resize(LINE + 100, b'x');
        assert!(feed(&[&text]).0[0].is_err());
    }
}

//! `remotely forward`: what is forwarded, and the forwarding while the link comes and goes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use remotely_net::dial::Dialer;
use remotely_net::forward::{Entrance, Exit, ListenError, Towards};
use remotely_proto::net::Place;
use remotely_session::Link;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::interrupted::interrupted;
use super::line::Line;
use super::{NetError, preparing};
use crate::options::ConnectOptions;
use crate::report;
use crate::run::die;

/// What the command line says.
#[derive(Debug)]
pub(crate) struct ForwardOptions {
    /// The way to the host.
    pub(crate) connect: ConnectOptions,
    /// At least one.
    pub(crate) forwards: Vec<Forward>,
}

/// One port or path that stands for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forward {
    side: Side,
    at: At,
    to: Towards,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Connections are waited for on this machine.
    Here,
    /// On the host.
    There,
}

/// Where connections are waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    /// At these addresses: at the first for certain, at the others if they are to be had.
    Addresses(Vec<IpAddr>, u16),
    Name(String, u16),
    Path(String),
}

/// A text does not say what to forward.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ForwardError {
    #[error("{0} is wanted")]
    Shape(&'static str),
    #[error("{0:?} is no port")]
    Port(String),
}

const LOCAL: &str = "[BIND:]PORT:HOST:PORT, or a path with a slash instead of either";
const DYNAMIC: &str = "[BIND:]PORT";

impl Forward {
    /// `-L`.
    pub(crate) fn local(text: &str) -> Result<Self, ForwardError> {
        let (at, to) = parts(text, LOCAL)?;
        let to = to.ok_or(ForwardError::Shape(LOCAL))?;
        Ok(Self { side: Side::Here, at, to: Towards::Place(to) })
    }

    /// `-R`.
    pub(crate) fn remote(text: &str) -> Result<Self, ForwardError> {
        let (at, to) = parts(text, LOCAL)?;
        Ok(Self { side: Side::There, at, to: to.map_or(Towards::Anywhere, Towards::Place) })
    }

    /// `-D`.
    pub(crate) fn dynamic(text: &str) -> Result<Self, ForwardError> {
        match parts(text, DYNAMIC)? {
            (at, None) => Ok(Self { side: Side::Here, at, to: Towards::Anywhere }),
            (_, Some(_)) => Err(ForwardError::Shape(DYNAMIC)),
        }
    }
}

/// Where to listen, and what for.
fn parts(text: &str, shape: &'static str) -> Result<(At, Option<Place>), ForwardError> {
    let fields = fields(text).ok_or(ForwardError::Shape(shape))?;
    let (at, rest) = match &fields[..] {
        [path, rest @ ..] if path.contains('/') => (At::Path(path.clone()), rest),
        // A port comes first if what is left is a place: nothing, a path, or a name and a port.
        [port, rest @ ..] if port.parse::<u16>().is_ok() && is_place(rest) => {
            (At::Addresses(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], number(port)?), rest)
        }
        [bind, port, rest @ ..] if is_place(rest) => (bound(bind, number(port)?), rest),
        _ => return Err(ForwardError::Shape(shape)),
    };
    let to = match rest {
        [] => None,
        [path] => Some(Place::Path(path.clone().into_bytes().into())),
        [host, port] => Some(place(host, number(port)?)),
        _ => return Err(ForwardError::Shape(shape)),
    };
    Ok((at, to))
}

fn is_place(fields: &[String]) -> bool {
    match fields {
        [] => true,
        [path] => path.contains('/'),
        [host, _] => !host.is_empty() && !host.contains('/'),
        _ => false,
    }
}

/// What stands between colons; those in brackets do not count.
fn fields(text: &str) -> Option<Vec<String>> {
    let mut found = vec![String::new()];
    let mut inside = false;
    for c in text.chars() {
        match c {
            '[' if !inside && found.last().is_some_and(String::is_empty) => inside = true,
            ']' if inside => inside = false,
            ':' if !inside => found.push(String::new()),
            c => found.last_mut()?.push(c),
        }
    }
    (!inside && found.len() <= 4).then_some(found)
}

fn number(text: &str) -> Result<u16, ForwardError> {
    text.parse().map_err(|_| ForwardError::Port(text.to_owned()))
}

fn bound(bind: &str, port: u16) -> At {
    match (bind, bind.parse()) {
        (_, Ok(ip)) => At::Addresses(vec![ip], port),
        ("" | "*", _) => At::Addresses(vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()], port),
        ("localhost", _) => At::Addresses(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], port),
        _ => At::Name(bind.to_owned(), port),
    }
}

fn place(host: &str, port: u16) -> Place {
    match host.parse() {
        Ok(ip) => Place::Address(SocketAddr::new(ip, port)),
        Err(_) => Place::Name { name: host.to_owned(), port },
    }
}

impl At {
    /// The places: the first one is a must, the others take the port that it got.
    fn places(&self) -> Vec<Place> {
        match self {
            Self::Addresses(ips, port) => ips.iter().map(|ip| Place::Address(SocketAddr::new(*ip, *port))).collect(),
            Self::Name(name, port) => vec![Place::Name { name: name.clone(), port: *port }],
            Self::Path(path) => vec![Place::Path(path.clone().into_bytes().into())],
        }
    }
}

/// A place at the port that was chosen for the first of its kind.
fn with_port(place: Place, chosen: Option<SocketAddr>) -> Place {
    match (place, chosen) {
        (Place::Address(at), Some(chosen)) if at.port() == 0 => Place::Address(SocketAddr::new(at.ip(), chosen.port())),
        (place, _) => place,
    }
}

impl fmt::Display for At {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(ips, port) => {
                out.write_str(&ips.first().map(|ip| SocketAddr::new(*ip, *port).to_string()).unwrap_or_default())
            }
            Self::Name(name, port) => write!(out, "{name}:{port}"),
            Self::Path(path) => out.write_str(path),
        }
    }
}

/// Forwards until interrupted; the exit code is all that is left to do.
pub(crate) fn forward(options: ForwardOptions) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(live(options));
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(preparing("start threads")(error)),
    };
    match ended {
        Ok(signal) => {
            die(signal, false);
            ExitCode::from(128_u8.saturating_add(signal as u8))
        }
        Err(error) => error.report(),
    }
}

/// The signal that has ended it.
async fn live(options: ForwardOptions) -> Result<i32, NetError> {
    let ForwardOptions { mut connect, forwards } = options;
    let interrupted = interrupted()?;
    let mut serving = JoinSet::new();
    let forwarding = async {
        // What is to be listened at here can be told before anybody is connected to.
        let (here, there): (Vec<_>, Vec<_>) = forwards.into_iter().partition(|forward| forward.side == Side::Here);
        let mut entrances = Vec::new();
        for forward in here {
            entrances.extend(enter(forward)?);
        }
        let exit = Exit::new(Dialer::new()).map_err(preparing("make a link to myself"))?;
        connect.exit = Some(exit.clone());
        let line = Line::new(connect);
        let (reached, _) = line.connect().await.map_err(NetError::Link)?;
        let (links, link) = watch::channel(Some(reached.link().clone()));
        for (entrance, to) in entrances {
            serving.spawn(entrance.serve(to, link.clone()));
        }
        let leaving = leave(there, exit, link.clone());
        tokio::select! {
            failed = leaving => failed,
            () = line.keep(reached, links) => Ok(()),
        }
    };
    let ended = tokio::select! {
        signal = interrupted => Ok(signal),
        ended = forwarding => ended.map(|()| libc::SIGTERM),
    };
    // Paths that were listened at go with who has listened, and this process must not be gone before.
    serving.shutdown().await;
    ended
}

/// Listens on this machine.
fn enter(forward: Forward) -> Result<Vec<(Entrance, Towards)>, NetError> {
    let Forward { at, to, .. } = forward;
    let mut found: Vec<(Entrance, Towards)> = Vec::new();
    for place in at.places() {
        let place = with_port(place, found.first().and_then(|(entrance, _)| entrance.address()));
        match Entrance::at(&place) {
            Ok(entrance) => found.push((entrance, to.clone())),
            Err(source) if found.is_empty() => return Err(NetError::Listen { at: at.to_string(), source }),
            Err(error) => tracing::debug!(%error, ?place, "cannot listen there, too"),
        }
    }
    if let Some((entrance, _)) = found.first() {
        tell(&at, entrance.address(), "here");
    }
    Ok(found)
}

/// Has the host listen, again with each new link. Returns when it refuses to.
async fn leave(forwards: Vec<Forward>, exit: Exit, mut links: watch::Receiver<Option<Link>>) -> Result<(), NetError> {
    if forwards.is_empty() {
        return std::future::pending().await;
    }
    let mut told = false;
    loop {
        let link = links.wait_for(Option::is_some).await.ok().and_then(|link| link.clone());
        let Some(link) = link else { return std::future::pending().await };
        let mut held = Vec::new();
        for Forward { at, to, .. } in &forwards {
            let mut chosen = None;
            for (n, place) in at.places().into_iter().enumerate() {
                match exit.listen(&link, with_port(place, chosen), to.clone()).await {
                    Ok(listening) => {
                        if n == 0 {
                            chosen = listening.address;
                        }
                        held.push(listening);
                    }
                    Err(ListenError::Lost) if link.is_over() => {}
                    // After a cut the old agent may still have it for a moment, and who went before has been told.
                    Err(source) if n == 0 && !told => {
                        return Err(NetError::ListenThere { at: at.to_string(), source });
                    }
                    Err(error) => tracing::info!(%error, %at, "the host cannot listen"),
                }
            }
            if !told {
                tell(at, chosen, "on the host");
            }
        }
        told = true;
        link.ended().await;
        drop(held);
        // Until the next one.
        if links.wait_for(|now| now.as_ref().is_none_or(|now| !now.is_over())).await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn tell(at: &At, chosen: Option<SocketAddr>, side: &str) {
    let at = chosen.map_or_else(|| at.to_string(), |chosen| chosen.to_string());
    report::note(&format!("listening at {at} {side}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(parsed: Result<Forward, ForwardError>) -> String {
        match parsed {
            Ok(Forward { at, to, .. }) => format!("{at} {to:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_words_of_ssh() {
        let named = |name: &str, port| Towards::Place(Place::Name { name: name.to_owned(), port });
        let address = |text: &str| Towards::Place(Place::Address(text.parse().unwrap()));
        let path = |text: &str| Towards::Place(Place::Path(text.as_bytes().to_vec().into()));
        for (text, at, to) in [
            ("8080:web:80", "127.0.0.1:8080", named("web", 80)),
            ("8080:localhost:80", "127.0.0.1:8080", named("localhost", 80)),
            ("*:8080:10.0.0.1:80", "0.0.0.0:8080", address("10.0.0.1:80")),
            (":8080:web:80", "0.0.0.0:8080", named("web", 80)),
            ("[::1]:8080:[fd00::1]:80", "[::1]:8080", address("[fd00::1]:80")),
            ("192.168.1.1:8080:web:80", "192.168.1.1:8080", named("web", 80)),
            ("/tmp/s:web:80", "/tmp/s", named("web", 80)),
            ("./s:/run/docker.sock", "./s", path("/run/docker.sock")),
            ("2375:/run/docker.sock", "127.0.0.1:2375", path("/run/docker.sock")),
            ("lan:2375:/run/docker.sock", "lan:2375", path("/run/docker.sock")),
        ] {
            let forward = Forward::local(text).expect(text);
            assert_eq!((forward.at.to_string().as_str(), forward.to), (at, to), "{text}");
        }
        assert_eq!(shown(Forward::remote("9000")), "127.0.0.1:9000 Anywhere");
        assert_eq!(shown(Forward::remote("*:9000")), "0.0.0.0:9000 Anywhere");
        assert_eq!(shown(Forward::dynamic("1080")), "127.0.0.1:1080 Anywhere");
    }

    #[test]
    fn what_is_none() {
        for text in ["", "8080", "8080:web", "8080:web:http", "a:b:c:d:e", "[::1:80:web:80", "70000:web:80"] {
            assert!(Forward::local(text).is_err(), "{text}");
        }
        for text in ["", "x", "1080:web:80", "70000"] {
            assert!(Forward::dynamic(text).is_err(), "{text}");
        }
    }

    #[test]
    fn further_addresses_take_the_port_of_the_first() {
        let place = |text: &str| Place::Address(text.parse().unwrap());
        assert_eq!(with_port(place("[::1]:0"), Some("127.0.0.1:5000".parse().unwrap())), place("[::1]:5000"));
        assert_eq!(with_port(place("[::1]:80"), Some("127.0.0.1:5000".parse().unwrap())), place("[::1]:80"));
    }
}

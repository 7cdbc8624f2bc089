//! Makes what the other side of a link has captured: connections, datagrams, questions about names. Called for each stream of
//! the net service that is offered; one that fails says so on its stream and concerns no other.

mod connect;
mod datagrams;
mod echo;
mod hosts;
mod listen;
mod lookup;
mod names;
mod one_port;
pub(crate) mod question;
mod resolv;
mod surroundings;

use std::net::IpAddr;
use std::sync::Arc;

use remotely_proto::net::{NAME_MAX, Open, Place};
use remotely_session::{Incoming, Link, Offer, Stream, reset};

pub use self::one_port::OnePort;
use self::resolv::Resolvers;
use crate::socket;

/// Who dials. Clones are the same.
#[derive(Debug, Clone)]
pub struct Dialer {
    resolvers: Arc<Resolvers>,
    /// To who is served, for connections that arrive on this side.
    link: Option<Link>,
}

impl Dialer {
    /// One that asks whom /etc/resolv.conf names, at any time. Lets this process open as many descriptors as it may.
    pub fn new() -> Self {
        socket::allow_descriptors();
        Self { resolvers: Arc::new(Resolvers::of_system()), link: None }
    }

    /// One whose own questions about names come from this port: rules that capture questions leave those alone.
    #[must_use]
    pub fn asking_from(self, port: OnePort) -> Self {
        Self { resolvers: Arc::new(Resolvers::by_one_port(port)), ..self }
    }

    /// One that listens, too: what arrives goes to the other side of this link.
    #[must_use]
    pub fn listening(self, link: Link) -> Self {
        Self { link: Some(link), ..self }
    }

    /// The addresses of a name, as this machine would find them, in the order in which they are to be tried; none, if it does not
    /// know it. Cancel safe.
    pub async fn addresses(&self, name: &str) -> Vec<IpAddr> {
        lookup::addresses(name, &self.resolvers).await
    }

    /// Connects, and serves a stream of the net service with that to its end.
    pub(crate) async fn connect(self, to: Place, stream: Stream) {
        connect::serve(to, &self.resolvers, stream).await;
    }

    /// Serves a stream of the net service to its end.
    pub async fn serve(self, offer: Offer) {
        let open = match minicbor::decode(&offer.body) {
            Ok(Open::Connect { to: Place::Name { name, .. } }) if name.len() > NAME_MAX => None,
            Ok(open) => Some(open),
            Err(_) => None,
        };
        match open {
            Some(Open::Connect { to }) => connect::serve(to, &self.resolvers, offer.stream).await,
            // Elsewhere: there are thousands of connections, and each would have room for these too.
            Some(Open::Datagrams) => Box::pin(datagrams::serve(offer.stream)).await,
            Some(Open::Names { server }) => Box::pin(names::serve(server, self.resolvers, offer.stream)).await,
            Some(Open::Echo) => Box::pin(echo::serve(offer.stream)).await,
            Some(Open::Surroundings) => Box::pin(surroundings::serve(offer.stream)).await,
            Some(Open::Hosts { auto, seeds }) => {
                Box::pin(hosts::serve(auto, seeds, self.resolvers, offer.stream)).await;
            }
            Some(Open::Listen { at, number }) => match self.link {
                Some(link) => Box::pin(listen::serve(at, number, &self.resolvers, link, offer.stream)).await,
                None => offer.refuse(reset::REFUSED),
            },
            Some(Open::Arrived { .. }) | None => offer.refuse(reset::REFUSED),
        }
    }

    /// Serves all streams of a link that has no other service.
    pub async fn serve_all(self, mut incoming: Incoming) {
        while let Some(offer) = incoming.next().await {
            tokio::spawn(self.clone().serve(offer));
        }
    }
}

impl Default for Dialer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_has_no_room_for_what_others_need() {
        let (link, mut incoming) = crate::link_to_self().unwrap();
        let body = minicbor::to_vec(Open::Echo).unwrap();
        let _stream = link.open(remotely_session::Service::NET, remotely_session::Class::Normal, body.into()).unwrap();
        let serving = Dialer::new().serve(incoming.next().await.unwrap());
        assert!(size_of_val(&serving) <= 2048, "{} bytes for each connection", size_of_val(&serving));
    }
}

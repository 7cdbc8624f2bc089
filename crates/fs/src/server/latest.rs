//! Which file's content was last taken to be sent, for whoever shows what is going on. Kept by `read` and `push`; the name
//! is looked for when it is asked for, which is seldom.

use std::sync::Mutex;

use remotely_proto::fs::Node;

use super::{
    name::Name,
    service::{Hold, Service},
};

/// It.
#[derive(Debug, Default)]
pub(super) struct Latest(Mutex<Option<Content>>);

#[derive(Debug)]
enum Content {
    Asked(Node),
    Pushed(Name),
}

impl Latest {
    pub(super) fn asked(&self, node: Node) {
        *self.0.hold() = Some(Content::Asked(node));
    }

    pub(super) fn pushed(&self, name: &Name) {
        *self.0.hold() = Some(Content::Pushed(Name::clone(name)));
    }
}

impl Service {
    /// Its name in its directory; `None` if there was none yet, or it has no name any more.
    pub(super) fn latest_name(&self) -> Option<Name> {
        let node = match &*self.latest.0.hold() {
            None => return None,
            Some(Content::Pushed(name)) => return Some(Name::clone(name)),
            Some(Content::Asked(node)) => *node,
        };
        let nodes = self.nodes.hold();
        nodes.get(node)?.places.first().map(|place| Name::clone(&place.name))
    }
}

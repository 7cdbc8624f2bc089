//! Paths through what is known: for what the server pushes, and for what the host has mounted over names of the client.

use remotely_proto::ByteVec;
use remotely_proto::fs::Node;

use super::Table;

/// Symbolic links followed in one path, as in path_resolution(7).
const LINKS_MAX: usize = 40;

impl Table {
    /// What is known to be at a path from the root.
    pub(in super::super) fn find(&self, path: &[ByteVec]) -> Option<Node> {
        path.iter().try_fold(Node::ROOT, |dir, name| self.known_name(dir, name))
    }

    /// A name in a directory is where one of these absolute paths leads.
    pub(in super::super) fn is_at(&self, dir: Node, name: &[u8], paths: &[Vec<u8>]) -> bool {
        paths.iter().any(|path| self.resolve(path).is_some_and(|(parent, last)| parent == dir && last == name))
    }

    /// Directory and name that an absolute path leads to, symbolic links followed, as far as they are known.
    fn resolve(&self, path: &[u8]) -> Option<(Node, Vec<u8>)> {
        let mut rest: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
        let mut above = vec![Node::ROOT];
        let mut links = 0;
        while let Some(name) = rest.pop() {
            let dir = *above.last()?;
            if name == b".." {
                if above.len() > 1 {
                    above.pop();
                }
                continue;
            }
            let node = self.known_name(dir, &name);
            let target = node.and_then(|node| self.inodes.get(&node)?.target.as_ref());
            if let Some(target) = target {
                links += 1;
                if links > LINKS_MAX {
                    return None;
                }
                if target.starts_with(b"/") {
                    above.truncate(1);
                }
                rest.extend(components(target).rev().map(<[u8]>::to_vec));
            } else if rest.is_empty() {
                return Some((dir, name));
            } else {
                above.push(node?);
            }
        }
        None
    }
}

/// The names in a path.
fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

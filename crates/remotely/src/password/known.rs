//! Which passwords were right, for which ways. Kept by [`super::Passwords`]; asks nobody.

use std::collections::HashMap;

use super::Password;
use crate::target::{Hop, Ssh, Target};

#[derive(Default)]
pub(super) struct Known {
    of_way: HashMap<Target, Password>,
    /// What was right for ways of one kind, and for how many.
    of_kind: HashMap<Kind, Vec<(Password, u32)>>,
}

/// What ways have in common that differ in the names of machines: whoever asks at their ends asks for a password of the same user's.
#[derive(PartialEq, Eq, Hash)]
struct Kind(Vec<Hop>);

impl Known {
    pub(super) fn of(&self, way: &Target) -> Option<Password> {
        self.of_way.get(way).cloned()
    }

    /// What was right for the most ways that are like this one; of several, what came up last.
    pub(super) fn alike(&self, way: &Target) -> Option<Password> {
        let passwords = self.of_kind.get(&Kind::of(way))?;
        passwords.iter().max_by_key(|(_, ways)| ways).map(|(password, _)| password.clone())
    }

    pub(super) fn keep(&mut self, way: Target, password: Password) {
        if self.of_way.get(&way) == Some(&password) {
            return;
        }
        self.forget(&way);
        let passwords = self.of_kind.entry(Kind::of(&way)).or_default();
        match passwords.iter_mut().find(|(other, _)| *other == password) {
            Some((_, ways)) => *ways += 1,
            None => passwords.push((password.clone(), 1)),
        }
        self.of_way.insert(way, password);
    }

    pub(super) fn forget(&mut self, way: &Target) {
        let (Some(password), Some(passwords)) = (self.of_way.remove(way), self.of_kind.get_mut(&Kind::of(way))) else {
            return;
        };
        passwords.retain_mut(|(other, ways)| {
            *ways -= u32::from(*other == password);
            *ways > 0
        });
    }
}

impl Kind {
    fn of(way: &Target) -> Self {
        let nameless = |hop: &Hop| match hop.clone() {
            Hop::Ssh(Ssh { user, .. }) => Hop::Ssh(Ssh { user, host: String::new(), port: None }),
            Hop::Srun { .. } => Hop::Srun { job: None, node: String::new() },
            hop => hop,
        };
        Self(way.hops().iter().map(nameless).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn ways_are_alike_that_differ_in_machines_only() {
        let mut known = Known::default();
        known.keep(way("gw+ops@a:22+sudo"), Password::new("x"));
        for alike in ["gw+ops@b+sudo", "other:7+ops@[::1]+sudo"] {
            assert_eq!(known.alike(&way(alike)), Some(Password::new("x")), "{alike}");
            assert_eq!(known.of(&way(alike)), None);
        }
        for other in ["ops@b+sudo", "gw+b+sudo", "gw+ops@b+su", "gw+ops@b+sudo:web", "root@gw+ops@b+sudo", "gw+ops@b"] {
            assert_eq!(known.alike(&way(other)), None, "{other}");
        }
        known.keep(way("command:chroot+sudo"), Password::new("y"));
        assert_eq!(known.alike(&way("command:other+sudo")), None);
        known.keep(way("docker:a+su"), Password::new("z"));
        assert_eq!(known.alike(&way("docker:b+su")), None);
    }

    #[test]
    fn what_is_right_most_often_comes_first_and_what_is_wrong_never() {
        let mut known = Known::default();
        let alike = |known: &Known| known.alike(&way("z+sudo"));
        for (host, password) in [("a", "odd"), ("b", "usual"), ("c", "usual"), ("c", "usual"), ("d", "odd")] {
            known.keep(way(&format!("{host}+sudo")), Password::new(password));
        }
        assert_eq!(alike(&known), Some(Password::new("usual")), "of two with the same number the later one");
        known.keep(way("e+sudo"), Password::new("odd"));
        assert_eq!(alike(&known), Some(Password::new("odd")));
        for host in ["a", "d", "e", "e"] {
            known.forget(&way(&format!("{host}+sudo")));
        }
        assert_eq!(alike(&known), Some(Password::new("usual")));
        known.keep(way("b+sudo"), Password::new("new"));
        known.keep(way("c+sudo"), Password::new("new"));
        assert_eq!(alike(&known), Some(Password::new("new")));
        assert_eq!(known.of_kind.values().flatten().count(), 1, "nothing is left of what is not right any more");
    }
}

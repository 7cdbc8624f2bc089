//! Further from where a tunnel or a group ends: each step as [`Target`] has it, checked at once, and nothing done yet.

use super::{Settings, Tunnel, host_of};
use crate::Group;
use crate::target::{Target, TargetError};

impl Tunnel {
    /// And from there on by another way, as a chain of text goes on behind a `+`.
    #[must_use]
    pub fn then(&self, way: &Target) -> Self {
        self.changed(|Settings { host, connect, .. }| {
            let named = *host != host_of(&connect.target);
            connect.target = connect.target.clone().then(way);
            *host = if named { format!("{host}+{way}") } else { host_of(&connect.target) };
        })
    }
}

impl Group {
    /// And from each host on by another way, under the names that the hosts have.
    #[must_use]
    pub fn then(&self, way: &Target) -> Self {
        self.each_changed(|tunnel| tunnel.then(way).named(tunnel.host()))
    }
}

/// A method of [`Target`] for a tunnel, and for each tunnel of a group.
macro_rules! steps {
    ($($(#[$says:meta])* $step:ident $(<$life:lifetime>)? ($($name:ident: $type:ty),*);)*) => {
        /// One more step at the end of the way. What comes of it is a tunnel of its own, which does nothing yet, and has no link in common with
        /// this one: the step is some more words on the command line that goes there, and no more round trips.
        ///
        /// Its settings are those of this one. A tunnel that was [`named`](Self::named) passes its name on, with the step behind it.
        ///
        /// ```no_run
        /// # use remotely::{Tunnel, remote};
        /// # #[remote] fn vacuum() {}
        /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
        /// let web = Tunnel::to("ops@web1")?;
        /// let db = web.sudo("root")?.docker("db")?;
        /// assert_eq!(db.host(), "ops@web1+sudo:root+docker:db");
        /// db.call(vacuum, ()).await?;
        /// # Ok(()) }
        /// ```
        ///
        /// Each gives an error for a name that could be taken for something else.
        impl Tunnel {
            $(
                $(#[$says])*
                ///
                /// # Errors
                /// Those of the method of [`Target`].
                pub fn $step $(<$life>)? (&self, $($name: $type),*) -> Result<Self, TargetError> {
                    Ok(self.then(&Target::step(|way| way.$step($($name),*))?))
                }
            )*

            /// Into a transient unit of the service manager: that of the system, or that of the `user`.
            #[must_use]
            pub fn systemd(&self, user: bool) -> Self {
                self.then(&Target::of_systemd(user))
            }
        }

        /// One more step at the end of each host's way. The group that comes of it does nothing yet, has no link in common with this one,
        /// and calls the hosts what they are called here, with the windows and limits of here.
        ///
        /// ```no_run
        /// # use remotely::{Group, remote};
        /// # #[remote] fn restart() {}
        /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
        /// let web = Group::to(["ops@web1", "ops@web2"])?;
        /// let restarted = web.sudo("root")?.call(restart, ()).await;
        /// assert!(restarted.get("ops@web1").is_some());
        /// # Ok(()) }
        /// ```
        ///
        /// Each gives an error for a name that could be taken for something else.
        impl Group {
            $(
                $(#[$says])*
                ///
                /// # Errors
                /// Those of the method of [`Target`].
                pub fn $step $(<$life>)? (&self, $($name: $type),*) -> Result<Self, TargetError> {
                    Ok(self.then(&Target::step(|way| way.$step($($name),*))?))
                }
            )*

            /// Into a transient unit of the service manager: that of the system, or that of the `user`.
            #[must_use]
            pub fn systemd(&self, user: bool) -> Self {
                self.then(&Target::of_systemd(user))
            }
        }
    };
}

steps! {
    /// By ssh from there to `[user@]host[:port]`.
    and_ssh(host: &str);
    /// Another user of the same machine by sudo, its default one with `None`.
    sudo<'a>(user: impl Into<Option<&'a str>>);
    /// Another user of the same machine by su, root with `None`.
    su<'a>(user: impl Into<Option<&'a str>>);
    /// Into a container of docker that runs.
    docker(container: &str);
    /// Into a container of podman that runs.
    podman(container: &str);
    /// Into a new container of docker, which is removed at the end.
    docker_run(image: &str);
    /// Into a new container of podman, which is removed at the end.
    podman_run(image: &str);
    /// Into the namespaces, the root and the directory of a process.
    nsenter(pid: u32);
    /// Into a network namespace that ip-netns(8) knows.
    netns(name: &str);
    /// To a node of a Slurm cluster, inside the allocation `job` if one is named.
    srun(job: Option<&str>, node: &str);
    /// Into a container of a Kubernetes pod; `None` is what the configuration and the pod have as their default.
    kubectl(namespace: Option<&str>, pod: &str, container: Option<&str>);
    /// Into a machine of systemd-machined.
    machine(name: &str);
    /// By whatever runs the command that is put behind these words.
    command(words: impl IntoIterator<Item = impl Into<String>>);
}

#[cfg(test)]
mod tests {
    use super::*;

    type Step<T> = fn(&T) -> Result<T, TargetError>;

    /// Each step of a tunnel and of a group, and what it is as text.
    macro_rules! table {
        ($type:ty) => {{
            let table: Vec<(Step<$type>, &str)> = vec![
                (|way| way.and_ssh("dev@inner:22"), "dev@inner:22"),
                (|way| way.sudo("root"), "sudo:root"),
                (|way| way.sudo(None), "sudo"),
                (|way| way.sudo(Some("web")), "sudo:web"),
                (|way| way.su("web"), "su:web"),
                (|way| way.su(None), "su"),
                (|way| way.docker("db"), "docker:db"),
                (|way| way.podman("db"), "podman:db"),
                (|way| way.docker_run("alpine:3"), "docker-run:alpine:3"),
                (|way| way.podman_run("alpine:3"), "podman-run:alpine:3"),
                (|way| way.nsenter(71), "nsenter:71"),
                (|way| way.netns("blue"), "netns:blue"),
                (|way| way.srun(None, "n1"), "srun:n1"),
                (|way| way.srun(Some("7"), "n1"), "srun:7/n1"),
                (|way| way.kubectl(Some("prod"), "web-0", None), "kubectl:prod/web-0"),
                (|way| way.machine("box"), "machine:box"),
                (|way| Ok(way.systemd(true)), "systemd:user"),
                (|way| way.command(["chroot", "/a b"]), "command:chroot '/a b'"),
                (|way| Ok(way.then(&"sudo+docker:db".parse()?)), "sudo+docker:db"),
            ];
            table
        }};
    }

    #[test]
    fn each_step_of_a_tunnel_is_one_more_hop() {
        let web = Tunnel::to("ops@web1").unwrap();
        for (step, text) in table!(Tunnel) {
            let further = step(&web).unwrap();
            assert_eq!(further.target(), &format!("ops@web1+{text}").parse().unwrap());
            assert_eq!(further.host(), format!("ops@web1+{text}"));
            assert_eq!(step(&web.named("w")).unwrap().host(), format!("w+{text}"));
        }
        assert_eq!(web.target().to_string(), "ops@web1");
        assert_eq!(Tunnel::local().sudo("root").unwrap().host(), "local:+sudo:root");
    }

    #[test]
    fn each_step_of_a_group_is_one_more_hop_for_each_host_under_its_name() {
        let group = Group::of([Tunnel::to("a").unwrap(), Tunnel::to("ops@b").unwrap().named("bee")]);
        for (step, text) in table!(Group) {
            let further = step(&group).unwrap();
            let found: Vec<_> = further.tunnels().iter().map(|one| (one.host(), one.target().to_string())).collect();
            assert_eq!(found, [("a", format!("a+{text}")), ("bee", format!("ops@b+{text}"))]);
        }
    }

    #[test]
    fn names_that_could_be_something_else_are_refused_as_those_of_targets_are() {
        let (web, both) = (Tunnel::to("a").unwrap(), Group::to(["a", "b"]).unwrap());
        let refused: [(TargetError, TargetError); 4] = [
            (web.sudo("-s").unwrap_err(), both.sudo("-s").unwrap_err()),
            (web.docker("a+b").unwrap_err(), both.docker("a+b").unwrap_err()),
            (web.and_ssh("-oProxyCommand=id").unwrap_err(), both.and_ssh("-oProxyCommand=id").unwrap_err()),
            (web.nsenter(0).unwrap_err(), both.nsenter(0).unwrap_err()),
        ];
        for (of_tunnel, of_group) in refused {
            assert_eq!(of_tunnel, of_group);
        }
        assert_eq!(web.docker("-x").unwrap_err(), Target::ssh("a").unwrap().docker("-x").unwrap_err());
        // Also where nobody is.
        assert!(Group::default().docker("-x").is_err());
    }
}

//! Targets made by a program instead of from text: the same checks, one method per transport.

use super::parse::{checked, command};
use super::{Hop, Part, Target, TargetError};

/// The beginning of a way.
impl Target {
    /// This machine and user, as `local:` does.
    pub fn local() -> Self {
        Self { hops: vec![Hop::Local] }
    }

    /// By ssh to `[user@]host[:port]`.
    ///
    /// # Errors
    /// What [`FromStr`](std::str::FromStr) refuses as a hop of ssh.
    pub fn ssh(host: &str) -> Result<Self, TargetError> {
        Self { hops: Vec::new() }.and_ssh(host)
    }
}

/// One more hop at the end of the way. Each gives an error for a name that could be taken for something else, as parsing
/// does.
///
/// ```
/// use remotely::target::Target;
/// let db = Target::ssh("gw")?.sudo("root")?.docker("db")?;
/// assert_eq!(db.to_string(), "gw+sudo:root+docker:db");
/// assert_eq!(Target::ssh("gw")?.sudo(None)?.to_string(), "gw+sudo");
/// assert!(Target::ssh("-oProxyCommand=id").is_err());
/// # Ok::<(), remotely::target::TargetError>(())
/// ```
impl Target {
    /// By ssh from there to `[user@]host[:port]`.
    ///
    /// # Errors
    /// What [`FromStr`](std::str::FromStr) refuses as a hop of ssh.
    pub fn and_ssh(self, host: &str) -> Result<Self, TargetError> {
        self.parsed("ssh:", host)
    }

    /// Another user of the same machine by sudo, its default one without a name.
    ///
    /// # Errors
    /// The name cannot be one of a user.
    pub fn sudo<'a>(self, user: impl Into<Option<&'a str>>) -> Result<Self, TargetError> {
        let user = user.into().map(|user| checked(user, Part::User, &format!("sudo:{user}"))).transpose()?;
        Ok(self.with(Hop::Sudo { user }))
    }

    /// Another user of the same machine by su, root without a name.
    ///
    /// # Errors
    /// The name cannot be one of a user.
    pub fn su<'a>(self, user: impl Into<Option<&'a str>>) -> Result<Self, TargetError> {
        let user = user.into().map(|user| checked(user, Part::User, &format!("su:{user}"))).transpose()?;
        Ok(self.with(Hop::Su { user }))
    }

    /// Into a container of docker that runs.
    ///
    /// # Errors
    /// The name cannot be one of a container.
    pub fn docker(self, container: &str) -> Result<Self, TargetError> {
        self.parsed("docker:", container)
    }

    /// Into a container of podman that runs.
    ///
    /// # Errors
    /// The name cannot be one of a container.
    pub fn podman(self, container: &str) -> Result<Self, TargetError> {
        self.parsed("podman:", container)
    }

    /// Into a new container of docker, which is removed at the end.
    ///
    /// # Errors
    /// The name cannot be one of an image.
    pub fn docker_run(self, image: &str) -> Result<Self, TargetError> {
        self.parsed("docker-run:", image)
    }

    /// Into a new container of podman, which is removed at the end.
    ///
    /// # Errors
    /// The name cannot be one of an image.
    pub fn podman_run(self, image: &str) -> Result<Self, TargetError> {
        self.parsed("podman-run:", image)
    }

    /// Into the namespaces, the root and the directory of a process.
    ///
    /// # Errors
    /// No process has that number.
    pub fn nsenter(self, pid: u32) -> Result<Self, TargetError> {
        self.parsed("nsenter:", &pid.to_string())
    }

    /// Into a network namespace that ip-netns(8) knows.
    ///
    /// # Errors
    /// The name cannot be one of a namespace.
    pub fn netns(self, name: &str) -> Result<Self, TargetError> {
        self.parsed("netns:", name)
    }

    /// To a node of a Slurm cluster, inside the allocation `job` if one is named.
    ///
    /// # Errors
    /// The names cannot be those of a job and a node.
    pub fn srun(self, job: Option<&str>, node: &str) -> Result<Self, TargetError> {
        let hop = Hop::Srun { job: job.map(Into::into), node: node.into() }.to_string();
        let job = job.map(|job| checked(job, Part::Job, &hop)).transpose()?;
        let node = checked(node, Part::Node, &hop)?;
        Ok(self.with(Hop::Srun { job, node }))
    }

    /// Into a container of a Kubernetes pod; `None` is what the configuration and the pod have as their default.
    ///
    /// # Errors
    /// The names cannot be those of a namespace, a pod and a container.
    pub fn kubectl(self, namespace: Option<&str>, pod: &str, container: Option<&str>) -> Result<Self, TargetError> {
        let own = |name: Option<&str>| name.map(str::to_owned);
        let hop = Hop::Kubectl { namespace: own(namespace), pod: pod.into(), container: own(container) }.to_string();
        let namespace = namespace.map(|name| checked(name, Part::Namespace, &hop)).transpose()?;
        let pod = checked(pod, Part::Pod, &hop)?;
        let container = container.map(|name| checked(name, Part::Container, &hop)).transpose()?;
        Ok(self.with(Hop::Kubectl { namespace, pod, container }))
    }

    /// Into a machine of systemd-machined.
    ///
    /// # Errors
    /// The name cannot be one of a machine.
    pub fn machine(self, name: &str) -> Result<Self, TargetError> {
        self.parsed("machine:", name)
    }

    /// Into a transient unit of the service manager: that of the system, or that of the `user`.
    #[must_use]
    pub fn systemd(self, user: bool) -> Self {
        self.with(Hop::Systemd { user })
    }

    /// By whatever runs the command that is put behind these words.
    ///
    /// # Errors
    /// There is no word, the first is empty or begins with `-`, or one has a control character in it.
    pub fn command<W: Into<String>>(self, words: impl IntoIterator<Item = W>) -> Result<Self, TargetError> {
        let words: Vec<String> = words.into_iter().map(Into::into).collect();
        let hop = command(words.clone(), &Hop::Command { words }.to_string())?;
        Ok(self.with(hop))
    }

    /// And from there on by all hops of another way.
    #[must_use]
    pub fn then(mut self, way: &Self) -> Self {
        self.hops.extend_from_slice(way.hops());
        self
    }

    /// What goes on behind a way: it begins nowhere.
    pub(crate) fn step(make: impl FnOnce(Self) -> Result<Self, TargetError>) -> Result<Self, TargetError> {
        make(Self { hops: Vec::new() })
    }

    /// The same for the step that cannot be wrong.
    pub(crate) fn of_systemd(user: bool) -> Self {
        Self { hops: vec![Hop::Systemd { user }] }
    }

    /// What parsing makes of the text of one hop, which must be one.
    fn parsed(mut self, scheme: &str, rest: &str) -> Result<Self, TargetError> {
        let hop = super::parse::hop(&format!("{scheme}{rest}"))?;
        self.hops.push(hop);
        Ok(self)
    }
}

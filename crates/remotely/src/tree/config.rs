//! What the configuration of ssh on this machine makes of a host, for an ssh that runs elsewhere. It is asked of ssh itself
//! (`ssh -G`), so that includes, matches and aliases all count.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::target::Ssh;
use crate::transport::{spawn, ssh};

/// Settings that mean the same elsewhere.
const PASSED_ON: &[&str] = &[
    "hostname",
    "port",
    "user",
    "hostkeyalias",
    "addressfamily",
    "compression",
    "connecttimeout",
    "serveraliveinterval",
    "serveralivecountmax",
];

/// The way to a host, as ssh would go it from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SshWay {
    /// Arguments with which an ssh that has no configuration goes the same way.
    pub(super) opts: Vec<OsString>,
    /// As known_hosts files have it.
    pub(super) name: String,
    /// As whom.
    pub(super) user: String,
    /// Files of keys that would be tried.
    pub(super) identities: Vec<PathBuf>,
    /// Whether keys of an agent are tried that are in none of these files.
    pub(super) any_identity: bool,
    /// The agent whose keys may be tried.
    pub(super) agent: Agent,
    /// Files that may know the host.
    pub(super) known_hosts: Vec<PathBuf>,
}

/// IdentityAgent of ssh_config(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Agent {
    /// That of the environment.
    Environment,
    /// None at all.
    Nobody,
    /// Who listens there.
    At(PathBuf),
}

impl SshWay {
    /// `None` if it can only be gone from here: it has a jump host or a command of its own, or ssh does not say.
    pub(super) async fn ask(place: &Ssh, opts: &[OsString]) -> Option<Self> {
        let finished = spawn::finished(&ssh::question(place, opts)).await.ok()?;
        let said = finished.status.success().then(|| String::from_utf8_lossy(&finished.output).into_owned())?;
        Self::read(&said, &std::env::home_dir()?)
    }

    /// Of what `ssh -G` has said.
    fn read(said: &str, home: &std::path::Path) -> Option<Self> {
        let values = |wanted: &'static str| {
            said.lines()
                .filter_map(move |line| line.split_once(' ').filter(|(name, _)| *name == wanted))
                .map(|(_, v)| v)
        };
        let value = |wanted: &'static str| values(wanted).next();
        let files = |wanted: &'static str| {
            let words = values(wanted).flat_map(str::split_whitespace);
            let path = |word: &str| match word.strip_prefix("~/") {
                Some(rest) => home.join(rest),
                None => PathBuf::from(word.replace("%d", &home.to_string_lossy())),
            };
            words.map(path).filter(|path| path.is_absolute()).collect()
        };
        let is_set = |name: &'static str| value(name).is_some_and(|value| value != "none");
        if is_set("proxyjump") || is_set("proxycommand") {
            return None;
        }
        let (host, port) = (value("hostname")?, value("port")?);
        let name = match (value("hostkeyalias"), port) {
            (Some(alias), _) => alias.to_owned(),
            (None, "22") => host.to_owned(),
            (None, port) => format!("[{host}]:{port}"),
        };
        let settings = ["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"];
        let settings = settings.into_iter().chain(["-o", "GlobalKnownHostsFile=none"]);
        let mut opts: Vec<OsString> = settings.map(Into::into).collect();
        for name in PASSED_ON {
            if let Some(value) = value(name).filter(|value| *value != "none") {
                opts.extend(["-o".into(), format!("{name}={value}").into()]);
            }
        }
        if value("connecttimeout").is_none_or(|value| value == "none") {
            // So that it is ssh that gives up, who can say that nothing was begun.
            opts.extend(["-o", "ConnectTimeout=15"].map(Into::into));
        }
        Some(Self {
            opts,
            name,
            user: value("user")?.to_owned(),
            identities: files("identityfile"),
            any_identity: value("identitiesonly") != Some("yes"),
            agent: match value("identityagent") {
                None | Some("SSH_AUTH_SOCK") => Agent::Environment,
                Some(_) => files("identityagent").pop().map_or(Agent::Nobody, Agent::At),
            },
            known_hosts: ["userknownhostsfile", "globalknownhostsfile"].into_iter().flat_map(files).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
host web1
user ops
hostname 10.0.0.7
port 2222
identitiesonly no
stricthostkeychecking ask
identityagent SSH_AUTH_SOCK
identityfile ~/.ssh/id_ed25519
identityfile %d/keys/web
globalknownhostsfile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2
userknownhostsfile /home/me/.ssh/known_hosts
connecttimeout none
ciphers aes128-ctr
";

    #[test]
    fn what_ssh_says_is_read() {
        let way = SshWay::read(SAID, "/home/me".as_ref()).unwrap();
        assert_eq!((way.name.as_str(), way.user.as_str()), ("[10.0.0.7]:2222", "ops"));
        assert_eq!(way.identities, ["/home/me/.ssh/id_ed25519", "/home/me/keys/web"].map(PathBuf::from));
        assert!(way.any_identity && way.agent == Agent::Environment);
        let files = ["/home/me/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"];
        assert_eq!(way.known_hosts, files.map(PathBuf::from));
        let opts: Vec<_> = way.opts.iter().map(|word| word.to_str().unwrap()).collect();
        for set in ["hostname=10.0.0.7", "port=2222", "user=ops", "StrictHostKeyChecking=yes", "BatchMode=yes"] {
            assert!(opts.contains(&set), "{opts:?}");
        }
        assert!(!opts.iter().any(|word| word.contains("ciphers")), "{opts:?}");
        for (line, agent) in
            [("none", Agent::Nobody), ("/run/a", Agent::At("/run/a".into())), ("$OTHER", Agent::Nobody)]
        {
            let said = SAID.replace("identityagent SSH_AUTH_SOCK", &format!("identityagent {line}"));
            assert_eq!(SshWay::read(&said, "/".as_ref()).unwrap().agent, agent);
        }
    }

    #[test]
    fn names_of_known_hosts() {
        let name = |said: &str| SshWay::read(said, "/".as_ref()).unwrap().name;
        assert_eq!(name("user a\nhostname h\nport 22\n"), "h");
        assert_eq!(name("user a\nhostname h\nport 2222\nhostkeyalias web\n"), "web");
    }

    #[test]
    fn a_way_of_its_own_is_not_gone_from_elsewhere() {
        for line in ["proxyjump gw", "proxycommand nc %h %p"] {
            assert_eq!(SshWay::read(&format!("{SAID}{line}\n"), "/".as_ref()), None);
        }
        assert!(SshWay::read(&format!("{SAID}proxyjump none\n"), "/".as_ref()).is_some());
    }
}

//! The options of `remotely net`: sshuttle's, under their own names, and ours. [`Args::asked`] makes of them what is meant; nothing is
//! resolved, opened or started here.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use remotely_net::capture::Domain;

use super::super::way::{Way, Words, words};
use crate::net::{Background, WholeOptions, Wishes};
use crate::options::ConnectOptions;
use crate::report;
use crate::target::{Target, TargetError};

/// Reach the host's network: one command, or this whole machine.
///
/// With a command behind `--`, that command alone has the host's network: it needs no root on either side, and no rule of this machine is
/// touched. With subnets and no command, this machine reaches those through the host, as sshuttle does: `sudo` or `doas` is asked for
/// the rules. With neither, a shell has the host's network.
#[derive(Debug, clap::Args)]
#[command(
    version,
    disable_version_flag = true,
    override_usage = "remotely net [OPTIONS] TARGET [SUBNET]... -- COMMAND [ARGS]...\n       \
                      remotely net [OPTIONS] TARGET SUBNET...\n       \
                      remotely net [OPTIONS] -r TARGET SUBNET...\n       \
                      remotely net --join NAME [-- COMMAND [ARGS]...]",
    after_help = AFTER
)]
pub(crate) struct Args {
    /// The host, then what is reached through it: IP[/WIDTH][:PORT[-PORT]] or a name instead of the IP.
    #[arg(value_name = "TARGET] [SUBNET")]
    words: Vec<String>,
    /// The host; all other words are subnets then.
    #[arg(short, long, value_name = "TARGET", allow_hyphen_values = true)]
    remote: Option<String>,
    /// Read subnets from this file, one a line. May be given several times.
    #[arg(short = 's', long = "subnets", value_name = "FILE")]
    subnets_from: Vec<PathBuf>,
    /// Leave this subnet out. May be given several times.
    #[arg(short = 'x', long, value_name = "SUBNET")]
    exclude: Vec<String>,
    /// Leave the subnets of this file out. May be given several times.
    #[arg(short = 'X', long, value_name = "FILE")]
    exclude_from: Vec<PathBuf>,
    /// Also what the host has routes to.
    #[arg(short = 'N', long)]
    auto_nets: bool,
    /// Look for names on the host, and keep them in /etc/hosts here.
    #[arg(short = 'H', long)]
    auto_hosts: bool,
    /// Names to look for first.
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',')]
    seed_hosts: Vec<String>,
    /// Have the host answer questions about names.
    #[arg(long)]
    dns: bool,
    /// Have the host answer questions about names in this domain, and this machine all others.
    #[arg(long = "dns-domain", value_name = "DOMAIN[,DOMAIN]", value_delimiter = ',')]
    dns_domains: Vec<Domain>,
    /// Only questions to these nameservers.
    #[arg(long, value_name = "IP[,IP]", value_delimiter = ',')]
    ns_hosts: Vec<IpAddr>,
    /// Whom the host asks: the servers of its resolv.conf, if not given.
    #[arg(long, value_name = "IP[:PORT]", value_parser = server)]
    to_ns: Option<SocketAddr>,
    /// How connections are intercepted: auto, nft, nat, tproxy.
    #[arg(long, value_name = "METHOD", default_value = "auto")]
    method: String,
    /// Where to listen; 0.0.0.0:PORT serves others, too.
    #[arg(short, long, value_name = "[IP:]PORT[,[IPv6]:PORT]", value_parser = listen)]
    listen: Option<Listen>,
    /// IPv4 only.
    #[arg(long)]
    disable_ipv6: bool,
    /// Only what this user of this machine sends.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only what this group of this machine sends.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// The mark of packets of method tproxy, hexadecimal.
    #[arg(short, long, value_name = "MARK", value_parser = mark)]
    tmark: Option<u32>,
    /// When this ends other than by Ctrl-C or SIGTERM, drop what was captured instead of sending it in clear, until the next one is connected.
    #[arg(long)]
    kill_switch: bool,
    /// Go to the background once connected.
    #[arg(short = 'D', long)]
    daemon: bool,
    /// The file for the process id of --daemon.
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Log to syslog.
    #[arg(long)]
    syslog: bool,
    /// Capture in this network namespace, by its name for ip-netns(8). Needs root.
    #[arg(long, value_name = "NAME", conflicts_with = "namespace_pid")]
    namespace: Option<String>,
    /// Capture in the network namespace of this process. Needs root.
    #[arg(long, value_name = "PID")]
    namespace_pid: Option<u32>,
    /// Lift the kill switch of one that has gone, without connecting again.
    #[arg(long, conflicts_with_all = ["remote", "words", "join"])]
    release: bool,
    /// Print what lets a user run this without a password of sudo.
    #[arg(long)]
    sudoers_no_modify: bool,
    /// For this user, or %group.
    #[arg(long, value_name = "USER", requires = "sudoers_no_modify")]
    sudoers_user: Option<String>,
    /// The command that is ssh, with options.
    #[arg(short = 'e', long, value_name = "COMMAND", value_parser = OsStringValueParser::new().try_map(words))]
    ssh_cmd: Option<Words>,
    #[command(flatten)]
    pub(super) way: Way,
    /// A name for the network that a command is given, by which others enter it.
    #[arg(long, value_name = "NAME", conflicts_with = "join")]
    name: Option<String>,
    /// Run the command in the network of that name.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["remote", "listen", "dns"])]
    join: Option<String>,
    /// Print the version.
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(flatten)]
    idle: Idle,
    /// The command that has the host's network.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What sshuttle's users write and what means nothing here.
#[derive(Debug, clap::Args)]
struct Idle {
    /// Means nothing here: pacing keeps both the delay low and the link full.
    #[arg(long, hide_short_help = true)]
    no_latency_control: bool,
    /// Means nothing here, for the same reason.
    #[arg(long, value_name = "SIZE", hide_short_help = true)]
    latency_buffer_size: Option<u64>,
    /// Means nothing here: nothing of the host's is needed.
    #[arg(long, value_name = "PATH", hide = true)]
    python: Option<PathBuf>,
    #[arg(long, hide = true)]
    no_cmd_delimiter: bool,
    #[arg(long, value_name = "SHELL", hide = true)]
    remote_shell: Option<String>,
    #[arg(long, hide = true)]
    no_sudo_pythonpath: bool,
    #[arg(long, value_name = "N", hide = true)]
    wrap: Option<u16>,
}

/// Those of this system.
const METHODS: [&str; 4] = ["auto", "nft", "nat", "tproxy"];

const AFTER: &str = "\
An executable called `sshuttle` that is a link to this one takes the same options, with -r.
@FILE stands for the arguments in a file, one a line; SSHUTTLE_ARGS for more in front.

What one command connects to, sends to, looks up and pings goes through the link; with subnets only those addresses, and all others are
reached from here. Its localhost is its own. When the link is lost, connections are reset, and it is made again.

Exit status: that of the command, or
  255  the link could not be had
  125  something of our own failed
  126  the command could not be executed
  127  the command was not found
  99   of the whole machine: what would be 255 or 125, for scripts that know sshuttle
  5    --daemon: it runs already

Examples:
  remotely net user@host -- curl http://intranet/
  remotely net user@host 10.0.0.0/8 -- bash
  remotely net --dns user@host 0/0 -x 192.168.0.0/16
  remotely net -r user@host 10.1.0.0/16:443 -D --pidfile /run/vpn.pid";

/// Where the whole machine's connections come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen {
    /// For IPv4; `None` if only one for IPv6 was named.
    pub(crate) v4: Option<SocketAddr>,
    /// For IPv6.
    pub(crate) v6: Option<SocketAddr>,
}

/// What is meant.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    /// A command in a network of its own; a shell, if none is named.
    Private { target: String, subnets: Vec<String>, command: Vec<OsString>, name: Option<String> },
    /// A command in the network of another one.
    Join { name: String, command: Vec<OsString> },
    /// The whole machine.
    Whole { target: String, subnets: Vec<String> },
    /// No kill switch is left.
    Release,
    /// Text for sudoers(5).
    Sudoers { user: Option<String> },
}

/// The words do not say what is to be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskedError {
    #[error(transparent)]
    Target(TargetError),
    #[error("there is no {what} {name:?} here")]
    Nobody { what: &'static str, name: String },
    #[error("{0:?}: a command that is ssh is wanted: ssh, or ssh with options")]
    NotSsh(OsString),
    #[error("-l {0}: a loopback address is wanted, or 0.0.0.0 and [::] to serve others, too")]
    ListenAt(SocketAddr),
    #[error("there is no method {0}: it is auto, nft, nat or tproxy")]
    Method(String),
    #[error("which host? remotely net TARGET SUBNET..., or -r TARGET")]
    NoTarget,
    #[error("-r {0:?} is this machine: remotely net has nothing to do then")]
    Nowhere(String),
    #[error("which subnets? name some, or -N for those that the host has routes to, or -s FILE; 0/0 is everything")]
    NoSubnets,
    #[error("{0} is for the whole machine: it means nothing for one command")]
    WholeOnly(&'static str),
}

impl Args {
    /// What is meant. As sshuttle, all words are subnets.
    pub(crate) fn asked(&self, sshuttle: bool) -> Result<Asked, AskedError> {
        let command = self.command.clone();
        if self.sudoers_no_modify {
            return Ok(Asked::Sudoers { user: self.sudoers_user.clone() });
        }
        if self.release {
            return Ok(Asked::Release);
        }
        if let Some(name) = self.join.clone() {
            return Ok(Asked::Join { name, command });
        }
        let (target, subnets) = match (&self.remote, &self.words[..]) {
            (Some(target), words) => (target.clone(), words.to_vec()),
            (None, words) if sshuttle || words.is_empty() => return Err(AskedError::NoTarget),
            (None, words) => (words[0].clone(), words[1..].to_vec()),
        };
        if target.is_empty() || target == "-" {
            return Err(AskedError::Nowhere(target));
        }
        let named = !subnets.is_empty() || self.auto_nets || !self.subnets_from.is_empty();
        if !command.is_empty() || (!named && !sshuttle && !self.is_of_whole_machine()) {
            return match self.whole_only() {
                Some(option) => Err(AskedError::WholeOnly(option)),
                None => Ok(Asked::Private { target, subnets, command, name: self.name.clone() }),
            };
        }
        if !named {
            return Err(AskedError::NoSubnets);
        }
        Ok(Asked::Whole { target, subnets })
    }

    /// What is captured, with these subnets.
    pub(crate) fn wishes(&self, subnets: Vec<String>) -> Wishes {
        Wishes {
            include: subnets,
            include_from: self.subnets_from.clone(),
            exclude: self.exclude.clone(),
            exclude_from: self.exclude_from.clone(),
        }
    }

    /// Which names are asked for there.
    pub(super) fn domains(&self) -> Vec<Domain> {
        self.dns_domains.clone()
    }

    /// The way to the host: with `-e`, by that ssh.
    pub(crate) fn connect(&self, target: Target) -> Result<ConnectOptions, AskedError> {
        let mut connect = self.way.clone().options(target);
        if let Some(Words(words)) = &self.ssh_cmd {
            let (first, options) = words.split_first().ok_or_else(|| AskedError::NotSsh(OsString::new()))?;
            if first != "ssh" {
                return Err(AskedError::NotSsh(first.clone()));
            }
            connect.ssh_opts.splice(..0, options.iter().cloned());
        }
        Ok(connect)
    }

    /// The whole machine, with these subnets.
    pub(crate) fn whole(&self, subnets: Vec<String>, target: Target) -> Result<(WholeOptions, Background), AskedError> {
        let idle = self.idle();
        if !idle.is_empty() {
            report::note(&format!("{} has no meaning here, and needs none", idle.join(", ")));
        }
        if !METHODS.contains(&&*self.method) {
            return Err(AskedError::Method(self.method.clone()));
        }
        let listen = self.listen.map(|listen| [listen.v4, listen.v6]).unwrap_or_default();
        // What is redirected on this machine comes to its loopback address.
        if let Some(at) = listen.into_iter().flatten().find(|at| !at.ip().is_loopback() && !at.ip().is_unspecified()) {
            return Err(AskedError::ListenAt(at));
        }
        let user = self.user.as_deref().map(|name| number("user", "/etc/passwd", name)).transpose()?;
        let group = self.group.as_deref().map(|name| number("group", "/etc/group", name)).transpose()?;
        let options = WholeOptions {
            connect: self.connect(target)?,
            wishes: self.wishes(subnets),
            auto_nets: self.auto_nets,
            auto_hosts: self.auto_hosts,
            seed_hosts: self.seed_hosts.clone(),
            method: self.method.clone(),
            v4: self.listen.and_then(|listen| listen.v4),
            v6: self.listen.and_then(|listen| listen.v6),
            no_v6: self.disable_ipv6,
            dns: self.dns,
            nameservers: self.ns_hosts.clone(),
            domains: self.dns_domains.clone(),
            asked: self.to_ns,
            user,
            group,
            mark: self.tmark,
            kill_switch: self.kill_switch,
        };
        let pidfile = self.pidfile.clone().unwrap_or_else(|| "remotely.pid".into());
        Ok((options, Background { daemon: self.daemon, pidfile, syslog: self.syslog }))
    }

    /// The network namespace in which everything is captured, if it is not this one.
    pub(super) fn inside(&self) -> Option<PathBuf> {
        let named = self.namespace.as_ref().map(|name| Path::new("/run/netns").join(name));
        named.or_else(|| self.namespace_pid.map(|pid| format!("/proc/{pid}/ns/net").into()))
    }

    fn is_of_whole_machine(&self) -> bool {
        self.dns || self.whole_only().is_some()
    }

    /// An option that only the whole machine has.
    fn whole_only(&self) -> Option<&'static str> {
        let given = [
            (self.listen.is_some(), "--listen"),
            (self.method != "auto", "--method"),
            (self.user.is_some(), "--user"),
            (self.group.is_some(), "--group"),
            (self.tmark.is_some(), "--tmark"),
            (self.kill_switch, "--kill-switch"),
            (self.daemon, "--daemon"),
            (self.pidfile.is_some(), "--pidfile"),
            (self.syslog, "--syslog"),
            (self.auto_nets, "--auto-nets"),
            (self.disable_ipv6, "--disable-ipv6"),
            (!self.ns_hosts.is_empty(), "--ns-hosts"),
            (self.auto_hosts, "--auto-hosts"),
            (!self.seed_hosts.is_empty(), "--seed-hosts"),
            (self.namespace.is_some() || self.namespace_pid.is_some(), "--namespace"),
        ];
        given.into_iter().find_map(|(given, name)| given.then_some(name))
    }

    /// Options that were given and mean nothing here, for a note.
    pub(crate) fn idle(&self) -> Vec<&'static str> {
        let Idle { no_latency_control, latency_buffer_size, python, no_cmd_delimiter, remote_shell, .. } = &self.idle;
        let given = [
            (*no_latency_control, "--no-latency-control"),
            (latency_buffer_size.is_some(), "--latency-buffer-size"),
            (python.is_some(), "--python"),
            (*no_cmd_delimiter, "--no-cmd-delimiter"),
            (remote_shell.is_some(), "--remote-shell"),
            (self.idle.no_sudo_pythonpath, "--no-sudo-pythonpath"),
            (self.idle.wrap.is_some(), "--wrap"),
        ];
        given.into_iter().filter_map(|(given, name)| given.then_some(name)).collect()
    }
}

/// The number of a user or group: the third field of the line in this file that begins with its name.
fn number(what: &'static str, file: &str, name: &str) -> Result<u32, AskedError> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let found = text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name);
    let found = found.and_then(|fields| fields.get(2)?.parse().ok()).or_else(|| name.parse().ok());
    found.ok_or_else(|| AskedError::Nobody { what, name: name.to_owned() })
}

/// `IP[:PORT]`, of a nameserver.
fn server(text: &str) -> Result<SocketAddr, String> {
    address(text, 53)
}

fn address(text: &str, port: u16) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port));
    ip.or_else(|_| text.parse()).map_err(|_| "IP or IP:PORT is wanted, [IPv6]:PORT for IPv6".to_owned())
}

/// `[IP:]PORT`, for each family once, with a comma between.
fn listen(text: &str) -> Result<Listen, String> {
    let mut listen = Listen { v4: None, v6: None };
    for one in text.split(',') {
        let at = match one.parse::<u16>() {
            Ok(port) => SocketAddr::from(([127, 0, 0, 1], port)),
            Err(_) => address(one, 0)?,
        };
        let slot = if at.is_ipv4() { &mut listen.v4 } else { &mut listen.v6 };
        if slot.replace(at).is_some() {
            return Err("one address of each family".into());
        }
    }
    Ok(listen)
}

fn mark(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    match u32::from_str_radix(digits, 16) {
        Ok(mark) if mark != 0 => Ok(mark),
        _ => Err("a hexadecimal number above 0 is wanted".into()),
    }
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;

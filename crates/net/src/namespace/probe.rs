//! Why a namespace could not be made, and what the user can do about it: the kernel says no more than a number, what forbids it
//! stands in its settings.

use std::fs;
use std::io;

use rustix::process::Pid;
use thiserror::Error;

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    User,
    Map,
    Network,
    Mounts,
    Interface,
    Routes,
    Sockets,
    FindNft,
    Rules,
    HandOut,
    Lost,
}

impl Step {
    const ALL: [(Self, &'static str); 11] = [
        (Self::User, "make a user namespace"),
        (Self::Map, "keep the user's own id in a user namespace"),
        (Self::Network, "make a network namespace"),
        (Self::Mounts, "make a mount and pid namespace"),
        (Self::Interface, "make a network interface in a namespace"),
        (Self::Routes, "make routes in a namespace"),
        (Self::Sockets, "open sockets in a namespace"),
        (Self::FindNft, "find the program nft"),
        (Self::Rules, "load the rules of a namespace"),
        (Self::HandOut, "hand out the sockets of a namespace"),
        (Self::Lost, "make a namespace: its process has ended"),
    ];

    fn text(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// No namespace could be made.
#[derive(Debug, Error)]
#[error("could not {}", .step.text())]
pub struct NamespaceError {
    step: Step,
    source: io::Error,
}

impl NamespaceError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        let read = |path: &str| fs::read_to_string(format!("/proc/sys/{path}")).ok();
        hint(self.step, &read).map(Into::into)
    }
}

fn hint(step: Step, setting: &dyn Fn(&str) -> Option<String>) -> Option<&'static str> {
    let is = |path: &str, value: &str| setting(path).is_some_and(|found| found.trim() == value);
    let makes = matches!(step, Step::User | Step::Map | Step::Network | Step::Mounts | Step::Interface);
    match step {
        // With it, such a namespace can be made and nothing be done in it.
        _ if makes && is("kernel/apparmor_restrict_unprivileged_userns", "1") => Some(
            "AppArmor lets no unprivileged program make namespaces here: 'sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0' \
             allows it to all, a profile with 'userns,' for the remotely executable in /etc/apparmor.d to this one",
        ),
        _ if makes && is("kernel/unprivileged_userns_clone", "0") => {
            Some("'sudo sysctl kernel.unprivileged_userns_clone=1' allows it")
        }
        _ if makes && is("user/max_user_namespaces", "0") => {
            Some("'sudo sysctl user.max_user_namespaces=10000' allows it")
        }
        Step::Network if is("user/max_net_namespaces", "0") => {
            Some("'sudo sysctl user.max_net_namespaces=1000' allows it")
        }
        _ if makes => {
            Some("where a container forbids it, it has to be started with more privileges, or remotely outside of it")
        }
        Step::FindNft => Some("install it: it is in the package nftables"),
        Step::Rules => Some(
            "the kernel needs nf_tables with nft_redir, nft_tproxy and nft_fib_inet; 'sudo modprobe -a' loads them",
        ),
        _ => None,
    }
}

pub(super) fn encode(step: Step, error: &io::Error) -> Vec<u8> {
    let errno = error.raw_os_error().unwrap_or(0);
    let text = if errno == 0 { error.to_string() } else { String::new() };
    let text: String = text.chars().take(500).collect();
    let mut out = vec![step as u8];
    out.extend(errno.to_le_bytes());
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
    out
}

/// `None` while a part is missing.
pub(super) fn decode(bytes: &[u8]) -> Option<NamespaceError> {
    let &[step, a, b, c, d, l1, l2] = bytes.first_chunk()?;
    let text = bytes.get(7..7 + usize::from(u16::from_le_bytes([l1, l2])))?;
    let source = match i32::from_le_bytes([a, b, c, d]) {
        0 => io::Error::other(String::from_utf8_lossy(text).into_owned()),
        errno => io::Error::from_raw_os_error(errno),
    };
    let step = Step::ALL.get(usize::from(step)).map_or(Step::Lost, |(step, _)| *step);
    Some(NamespaceError { step, source })
}

/// The process that was making it is gone.
pub(super) fn lost(holder: Pid) -> NamespaceError {
    NamespaceError { step: Step::Lost, source: io::Error::other(format!("process {}", holder.as_raw_nonzero())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_comes_back_as_it_was_said() {
        for (n, (step, _)) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, n);
            let bytes = encode(step, &io::Error::from_raw_os_error(libc::EPERM));
            let error = decode(&bytes).unwrap();
            assert_eq!((error.step, error.source.raw_os_error()), (step, Some(libc::EPERM)));
            assert!((0..bytes.len()).all(|end| decode(&bytes[..end]).is_none()));
        }
        let error = decode(&encode(Step::Rules, &io::Error::other("no such thing"))).unwrap();
        assert_eq!(error.source.to_string(), "no such thing");
    }

    #[test]
    fn what_forbids_it_is_named() {
        let set =
            |name: &'static str, value: &'static str| move |path: &str| (path == name).then(|| format!("{value}\n"));
        let apparmor = hint(Step::Interface, &set("kernel/apparmor_restrict_unprivileged_userns", "1"));
        assert!(apparmor.unwrap().contains("AppArmor"));
        assert!(hint(Step::User, &set("user/max_user_namespaces", "0")).unwrap().contains("max_user_namespaces"));
        assert!(hint(Step::User, &|_| None).unwrap().contains("container"));
        assert!(hint(Step::FindNft, &|_| None).unwrap().contains("nftables"));
    }
}

//! `remotely net`: the host's network for one command, or for this whole machine. The work is done by [`crate::net`].

mod args;
mod expand;

use std::ffi::OsString;
use std::process::ExitCode;

pub(super) use self::args::Args;
use self::args::{Asked, AskedError};
pub(super) use self::expand::{ExpandError, expand, is_sshuttle};
use super::{firewall, log};
use crate::net::{self, NetOptions};
use crate::report::{self, Failure, exit_code};
use crate::target::Target;

pub(super) fn main(args: Args) -> ExitCode {
    log::start(args.way.verbose);
    let sshuttle = std::env::args_os().next().is_some_and(|argv0| is_sshuttle(&argv0));
    let asked = args.asked(sshuttle);
    let asked = asked.and_then(|asked| match &asked {
        Asked::Private { target, .. } | Asked::Whole { target, .. } => {
            let target = target.parse::<Target>().map_err(AskedError::Target)?;
            Ok((asked, Some(target)))
        }
        _ => Ok((asked, None)),
    });
    match asked {
        Ok((Asked::Private { subnets, command, name, .. }, Some(target))) => {
            let subnets = args.wishes(subnets);
            match args.connect(target) {
                Ok(connect) => {
                    net::run(NetOptions { connect, subnets, domains: args.domains(), name, command: or_shell(command) })
                }
                Err(error) => refuse(&error),
            }
        }
        Ok((Asked::Whole { subnets, .. }, Some(target))) => match args.whole(subnets, target) {
            Ok((options, background)) => net::whole(options, background, args.inside().as_deref()),
            Err(error) => refuse(&error),
        },
        Ok((Asked::Join { name, command }, _)) => net::join(&name, &or_shell(command)),
        Ok((Asked::Release, _)) => net::release(firewall::RELEASE),
        Ok((Asked::Sudoers { user }, _)) => sudoers(user.as_deref()),
        Ok(_) => refuse(&AskedError::NoTarget),
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &dyn std::error::Error) -> ExitCode {
    report::error(error, None);
    exit_code(Failure::Setup)
}

fn or_shell(command: Vec<OsString>) -> Vec<OsString> {
    if !command.is_empty() {
        return command;
    }
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    vec![shell.unwrap_or_else(|| "/bin/sh".into())]
}

/// Prints what lets a user run the helper without a password, for sudoers(5).
fn sudoers(user: Option<&str>) -> ExitCode {
    let user = user.map(str::to_owned).or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "%sudo".to_owned());
    let Ok(executable) = std::env::current_exe() else { return exit_code(Failure::Setup) };
    println!("# For a file in /etc/sudoers.d; see visudo(8). Who may write to the executable may become root by it.");
    let path = escaped(&executable.to_string_lossy());
    let commands = firewall::WORDS.map(|word| format!("{path} firewall {word}"));
    println!("Cmnd_Alias REMOTELY_FIREWALL = {}", commands.join(", \\\n    "));
    println!("{user} ALL=NOPASSWD: REMOTELY_FIREWALL");
    ExitCode::SUCCESS
}

/// As sudoers(5) wants it in a command.
fn escaped(path: &str) -> String {
    path.chars().fold(String::new(), |mut out, c| {
        if matches!(c, ' ' | ',' | ':' | '=' | '\\' | '*' | '?' | '[' | ']' | '!' | '#' | '"' | '(' | ')') {
            out.push('\\');
        }
        out.push(c);
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_means_itself_to_sudo() {
        assert_eq!(escaped("/opt/my tools/r*=1"), "/opt/my\\ tools/r\\*\\=1");
    }
}

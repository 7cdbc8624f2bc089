//! ansible's inventories in the style of an INI file: `[group]`, `[group:children]`, `[group:vars]`, hosts with variables.
//! Called by [`Sources::add`](super::Sources::add).

use std::ffi::OsStr;

use super::ansible::{Ansible, Variables};
use super::inventory::{FormatError, Inventory};
use crate::nodes::parse::address;
use crate::transport::shell;

enum Section {
    Hosts,
    Children,
    Variables,
}

pub(super) fn parse(text: &str, inventory: Inventory) -> Result<Inventory, FormatError> {
    let mut ansible = Ansible::default();
    let mut group = String::from("ungrouped");
    let mut section = Section::Hosts;
    for (line, text) in (1..).zip(text.lines()) {
        if line == 1 && text.starts_with("#!") {
            return Err(FormatError::at(line, "this is a program; give what it prints as a file instead"));
        }
        let text = text.trim();
        if text.is_empty() || text.starts_with(['#', ';']) {
            continue;
        }
        if let Some(title) = header(text) {
            let (name, kind) = title.split_once(':').unwrap_or((title, "hosts"));
            section = match kind {
                "hosts" => Section::Hosts,
                "children" => Section::Children,
                "vars" => Section::Variables,
                _ => {
                    let why = format!("[{title}] was expected to end in :children or :vars, or to have no colon");
                    return Err(FormatError::at(line, why));
                }
            };
            group = name.into();
            ansible.group(&group, line)?;
            continue;
        }
        match section {
            Section::Hosts => host(&mut ansible, &group, text, line)?,
            Section::Children => {
                let child = text.split_once('#').map_or(text, |(child, _)| child).trim();
                ansible.child(&group, child, line)?;
            }
            Section::Variables => {
                let Some((name, value)) = text.split_once('=') else {
                    return Err(FormatError::at(line, "NAME=VALUE was expected"));
                };
                ansible.variable(&group, name.trim(), unquoted(value.trim()));
            }
        }
    }
    ansible.finish(inventory)
}

/// What is between the brackets of a line that is a section's; a host may begin with a range, but has more behind it.
fn header(text: &str) -> Option<&str> {
    let text = text.split_once('#').map_or(text, |(text, _)| text).trim_end();
    let title = text.strip_prefix('[')?.strip_suffix(']')?;
    let plain = !title.contains(['[', ']']) && !title.starts_with(|c: char| c.is_ascii_digit() || c == ':');
    (plain && address(text).is_none()).then_some(title)
}

/// `web[01:50]:2222 ansible_user=ops ansible_host="10.0.0.1"  # comment`
fn host(ansible: &mut Ansible, group: &str, text: &str, line: usize) -> Result<(), FormatError> {
    let text = text.split_once(" #").map_or(text, |(text, _)| text);
    let words = shell::split(OsStr::new(text)).map_err(|error| FormatError::at(line, error.to_string()))?;
    let mut words = words.into_iter().filter_map(|word| word.into_string().ok());
    let pattern = words.next().unwrap_or_default();
    let mut variables = Variables::default();
    let pattern = match pattern.rsplit_once(':') {
        Some((name, port)) if is_port(name, port) => {
            variables.set("ansible_port", port);
            name
        }
        _ => &pattern,
    };
    // `[::1]` is the address in brackets; the name of the host has none.
    let bare = address(pattern).filter(|address| *address == pattern);
    let pattern = bare.and_then(|address| address.strip_prefix('[')?.strip_suffix(']')).unwrap_or(pattern);
    for word in words {
        match word.split_once('=') {
            Some((name, value)) => variables.set(name, value),
            None => {
                return Err(FormatError::at(line, format!("NAME=VALUE was expected behind the host, not {word:?}")));
            }
        }
    }
    ansible.host(group, pattern, &variables, line)
}

/// Whether what is behind the last colon is a port: not inside of a range, nor the end of an IPv6 address.
fn is_port(name: &str, port: &str) -> bool {
    let outside = name.matches('[').count() == name.matches(']').count();
    let bare = name.split('[').next().unwrap_or_default();
    outside && !bare.contains(':') && !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit())
}

fn unquoted(value: &str) -> &str {
    let quoted = |quote| value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote));
    quoted('"').or_else(|| quoted('\'')).unwrap_or(value)
}

//! Rules for pf of macOS and FreeBSD, in an anchor of our own. Compared as text only: never tried on a real system.

use std::fmt::Write as _;

use super::{Abilities, Desired, Method, Own, Plan, PlanError, Step};
use crate::subnet::{Family, Rule};

/// TCP is sent to the loopback interface and redirected there; who asks for the original destination needs `DIOCNATLOOK`.
#[derive(Debug, Clone, Copy)]
pub struct Pf;

impl Method for Pf {
    fn name(&self) -> &'static str {
        "pf"
    }

    fn abilities(&self) -> Abilities {
        Abilities { udp: false, user: false, transparent: false, kill_switch: false, programs: &["pfctl"] }
    }

    fn plan(&self, desired: &Desired) -> Result<Plan, PlanError> {
        desired.within(self)?;
        // pf takes all translations before all filters, each in order.
        let (mut translated, mut filtered) = (String::new(), String::new());
        for family in Family::ALL {
            one(desired, family, &mut translated, &mut filtered);
        }
        let anchor = format!("remotely-{}", desired.instance);
        let argv = format!("pfctl -a {anchor} -f -").split(' ').map(str::to_owned).collect();
        let apply = vec![Step::Run { argv, input: translated + &filtered }];
        Ok(Plan { apply, undo: vec![Step::run(&format!("pfctl -a {anchor} -F all"))], release: Vec::new() })
    }
}

fn one(desired: &Desired, family: Family, translated: &mut String, filtered: &mut String) {
    let (inet, lo) = match family {
        Family::V4 => ("inet", "127.0.0.1"),
        Family::V6 => ("inet6", "::1"),
    };
    // Writing to a string does not fail.
    for own in desired.own(family) {
        let _ = writeln!(filtered, "pass out quick {inet} proto {}", spoken(own));
    }
    if let Some(port) = desired.dns(family) {
        for server in desired.nameservers(family) {
            for protocol in ["udp", "tcp"] {
                let to = format!("proto {protocol} to {server} port 53");
                let _ = writeln!(translated, "rdr pass on lo0 {inet} {to} -> {lo} port {port}");
                let _ = writeln!(filtered, "pass out quick route-to lo0 {inet} {to} keep state");
            }
        }
    }
    let Some(port) = desired.tcp.of(family) else { return };
    for rule in desired.table.of(family) {
        let to = format!("to {}", destination(rule));
        if rule.exclude {
            let _ = writeln!(filtered, "pass out quick {inet} proto tcp {to}");
        } else {
            let _ = writeln!(translated, "rdr pass on lo0 {inet} proto tcp from ! {lo} {to} -> {lo} port {port}");
            let _ = writeln!(filtered, "pass out quick route-to lo0 {inet} proto tcp {to} keep state");
        }
    }
}

fn destination(rule: &Rule) -> String {
    let subnet = format!("{}/{}", rule.subnet.network(), rule.subnet.width());
    match rule.subnet.ports() {
        None => subnet,
        Some(ports) => format!("{subnet} port {}:{}", ports.first(), ports.last()),
    }
}

fn spoken(own: &Own) -> String {
    let mut text = own.protocol.name().to_owned();
    for (end, word) in [(own.local, "from"), (own.remote, "to")] {
        let Some(end) = end else { continue };
        let any = end.ip().is_unspecified();
        let address = if any { "any".to_owned() } else { end.ip().to_string() };
        let _ = write!(text, " {word} {address} port {}", end.port());
    }
    text
}

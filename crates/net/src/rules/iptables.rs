//! Rules for iptables, where nft is not there: a chain of our own in the table `nat`, filled in one transaction per family and then jumped to.
//! Pure text; who applies it is elsewhere.

use std::fmt::Write as _;

use super::{Abilities, Desired, Method, Own, Plan, PlanError, Protocol, Step};
use crate::subnet::Family;

/// TCP is redirected; the listener asks for `SO_ORIGINAL_DST`.
#[derive(Debug, Clone, Copy)]
pub struct Nat;

impl Method for Nat {
    fn name(&self) -> &'static str {
        "nat"
    }

    fn abilities(&self) -> Abilities {
        let programs = &["iptables", "iptables-restore", "ip6tables", "ip6tables-restore"];
        Abilities { udp: false, user: true, transparent: false, kill_switch: true, programs }
    }

    fn plan(&self, desired: &Desired) -> Result<Plan, PlanError> {
        desired.within(self)?;
        let mut plan = Plan::default();
        for family in Family::ALL {
            let captured = desired.table.captures_any(family) && desired.tcp.of(family).is_some();
            if captured || desired.dns(family).is_some() {
                one(desired, family, &mut plan);
            }
        }
        Ok(plan)
    }
}

fn one(desired: &Desired, family: Family, plan: &mut Plan) {
    let (iptables, restore) = match family {
        Family::V4 => ("iptables", "iptables-restore"),
        Family::V6 => ("ip6tables", "ip6tables-restore"),
    };
    let chain = format!("remotely-{}", desired.instance);
    let hooks = hooks(desired, "PREROUTING");
    let mut input = String::new();
    let mut jumps = Vec::new();
    if desired.kill_switch {
        let keep = format!("remotely-keep-{}", desired.instance);
        let hooks = self::hooks(desired, "FORWARD");
        table(&mut input, "filter", &keep, &dropped(desired, family));
        jumps.extend(enter(iptables, "filter", &keep, &hooks));
        plan.release.extend(leave(iptables, "filter", &keep, &hooks));
    }
    table(&mut input, "nat", &chain, &redirected(desired, family));
    jumps.extend(enter(iptables, "nat", &chain, &hooks));
    plan.undo.extend(leave(iptables, "nat", &chain, &hooks));
    let argv = [restore, "-w", "--noflush"].map(str::to_owned).to_vec();
    plan.apply.push(Step::Run { argv, input });
    plan.apply.extend(jumps);
}

/// From where the chain is jumped to, and for whom.
fn hooks(desired: &Desired, others: &str) -> Vec<String> {
    let mut owner = String::new();
    for (option, id) in [("--uid-owner", desired.user), ("--gid-owner", desired.group)] {
        if let Some(id) = id {
            let _ = write!(owner, " {option} {id}");
        }
    }
    if owner.is_empty() {
        let mut hooks = vec!["OUTPUT".to_owned()];
        // Listeners that are not open to others would refuse them.
        hooks.extend(desired.router.then(|| others.to_owned()));
        return hooks;
    }
    vec![format!("OUTPUT -m owner{owner}")]
}

/// A chain that is emptied if it is there. Its jumps are left alone, so that there is no moment without rules.
fn table(input: &mut String, table: &str, chain: &str, rules: &[String]) {
    let _ = writeln!(input, "*{table}\n:{chain} - [0:0]");
    for rule in rules {
        let _ = writeln!(input, "-A {chain} {rule}");
    }
    input.push_str("COMMIT\n");
}

/// Jumps to a chain before all else, so that the newest capture decides.
fn enter(iptables: &str, table: &str, chain: &str, hooks: &[String]) -> impl Iterator<Item = Step> {
    hooks.iter().map(move |hook| {
        let (name, owner) = hook.split_once(' ').map_or((hook.as_str(), String::new()), |(a, b)| (a, format!("{b} ")));
        let jump = |place: &str| format!("{iptables} -w -t {table} {place} {owner}-j {chain}");
        Step::unless(&jump(&format!("-C {name}")), &jump(&format!("-I {name} 1")))
    })
}

fn leave(iptables: &str, table: &str, chain: &str, hooks: &[String]) -> Vec<Step> {
    let run = |words: String| Step::run(&format!("{iptables} -w -t {table} {words}"));
    let mut steps: Vec<Step> = hooks.iter().map(|hook| run(format!("-D {hook} -j {chain}"))).collect();
    steps.extend([run(format!("-F {chain}")), run(format!("-X {chain}"))]);
    steps
}

fn redirected(desired: &Desired, family: Family) -> Vec<String> {
    let mut rules: Vec<String> = desired.own(family).map(|own| format!("{} -j RETURN", spoken(own))).collect();
    if let Some(port) = desired.dns(family) {
        for server in desired.nameservers(family) {
            for protocol in ["udp", "tcp"] {
                rules.push(format!("-d {server} -p {protocol} --dport 53 -j REDIRECT --to-ports {port}"));
            }
        }
    }
    rules.push(HERE.to_owned());
    let Some(port) = desired.tcp.of(family) else { return rules };
    rules.extend(subnets(desired, family, &format!("REDIRECT --to-ports {port}")));
    rules
}

fn dropped(desired: &Desired, family: Family) -> Vec<String> {
    let mut rules: Vec<String> = desired.own(family).map(|own| format!("{} -j RETURN", spoken(own))).collect();
    // What is captured has another destination here.
    rules.push(HERE.to_owned());
    if desired.dns(family).is_some() {
        for server in desired.nameservers(family) {
            rules.extend(["udp", "tcp"].map(|protocol| format!("-d {server} -p {protocol} --dport 53 -j DROP")));
        }
    }
    if desired.tcp.of(family).is_some() {
        rules.extend(subnets(desired, family, "DROP"));
    }
    rules
}

const HERE: &str = "-m addrtype --dst-type LOCAL -j RETURN";

fn subnets(desired: &Desired, family: Family, target: &str) -> Vec<String> {
    let rules = desired.table.of(family).map(|rule| {
        let (network, width) = (rule.subnet.network(), rule.subnet.width());
        let ports = rule.subnet.ports().map(|ports| format!(" --dport {}:{}", ports.first(), ports.last()));
        let target = if rule.exclude { "RETURN" } else { target };
        format!("-d {network}/{width} -p tcp{} -j {target}", ports.unwrap_or_default())
    });
    rules.collect()
}

fn spoken(own: &Own) -> String {
    let protocol = match own.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let mut text = format!("-p {protocol}");
    for (end, address, port) in [(own.local, "-s", "--sport"), (own.remote, "-d", "--dport")] {
        let Some(end) = end else { continue };
        if !end.ip().is_unspecified() {
            let _ = write!(text, " {address} {}", end.ip());
        }
        let _ = write!(text, " {port} {}", end.port());
    }
    text
}

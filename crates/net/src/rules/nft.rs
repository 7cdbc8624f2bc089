//! Rules for nftables: one table, one transaction. TCP is redirected (`nft`) or taken transparently (`tproxy`), UDP is always taken
//! transparently, DNS is redirected. Pure text; who applies it is elsewhere.

use std::fmt::Write as _;

use super::{Abilities, Desired, Method, Own, Plan, PlanError, Protocol, Step};
use crate::subnet::{Family, Layer};

/// TCP is redirected; the listener asks for `SO_ORIGINAL_DST`.
#[derive(Debug, Clone, Copy)]
pub struct Nft;

/// TCP comes to a transparent listener, whose connections have the original destination as their own address.
#[derive(Debug, Clone, Copy)]
pub struct Tproxy;

impl Method for Nft {
    fn name(&self) -> &'static str {
        "nft"
    }

    fn abilities(&self) -> Abilities {
        Abilities { udp: true, user: true, transparent: false, kill_switch: true, programs: &["nft"] }
    }

    fn plan(&self, desired: &Desired) -> Result<Plan, PlanError> {
        desired.within(self)?;
        Ok(Text::new(desired, false).plan())
    }
}

impl Method for Tproxy {
    fn name(&self) -> &'static str {
        "tproxy"
    }

    fn abilities(&self) -> Abilities {
        Abilities { udp: true, user: true, transparent: true, kill_switch: true, programs: &["nft", "ip"] }
    }

    fn plan(&self, desired: &Desired) -> Result<Plan, PlanError> {
        desired.within(self)?;
        Ok(Text::new(desired, true).plan())
    }
}

/// Kinds of addresses that nobody else can answer for. Multicast and broadcast stay on their link.
const HERE: &str = "fib daddr type { local, broadcast, anycast, multicast } return";

struct Text<'a> {
    desired: &'a Desired,
    /// TCP too is taken transparently.
    transparent: bool,
    layers: Vec<(Family, Vec<Layer>)>,
    out: String,
}

impl<'a> Text<'a> {
    fn new(desired: &'a Desired, transparent: bool) -> Self {
        let families = Family::ALL.into_iter().filter(|family| desired.table.captures_any(*family));
        let layers = families.map(|family| (family, desired.table.layers(family))).collect();
        Self { desired, transparent, layers, out: String::new() }
    }

    fn plan(mut self) -> Plan {
        let desired = self.desired;
        let name = format!("remotely-{}", desired.instance);
        let keep = format!("remotely-keep-{}", desired.instance);
        let marks = self.marks();
        let mut plan = Plan::default();
        if desired.kill_switch {
            self.begin(&keep, false);
            self.sets();
            self.keep();
            self.out.push_str("}\n");
            plan.release.push(delete(&keep));
        }
        self.begin(&name, desired.owned);
        self.sets();
        if !self.transparent || Family::ALL.into_iter().any(|family| desired.dns(family).is_some()) {
            self.redirect();
        }
        if marks {
            self.mark();
            self.take();
        }
        self.out.push_str("}\n");
        if marks {
            self.routes(&mut plan);
        }
        plan.apply.push(Step::Nft { text: self.out, held: desired.owned });
        if !desired.owned {
            plan.undo.push(delete(&name));
        }
        plan
    }

    /// Whether something comes to a transparent listener.
    fn marks(&self) -> bool {
        self.desired.udp.any() || self.transparent && self.desired.tcp.any()
    }

    fn rule(&mut self, rule: &str) {
        let _ = writeln!(self.out, "    {rule}");
    }

    /// Opens a table that is empty, whatever was there before.
    fn begin(&mut self, name: &str, owned: bool) {
        let flags = if owned { " { flags owner; }" } else { "" };
        let _ = writeln!(self.out, "add table inet {name}{flags}\ndelete table inet {name}");
        let _ = writeln!(self.out, "table inet {name} {{");
        if owned {
            let _ = writeln!(self.out, "  flags owner");
        }
    }

    fn end(&mut self) {
        self.out.push_str("  }\n");
    }

    /// The addresses of each layer: those that are captured, and those that are excepted where a later layer would capture them.
    fn sets(&mut self) {
        for (family, layers) in &self.layers {
            for (index, layer) in layers.iter().enumerate() {
                for exclude in [true, false] {
                    if !has(layers, index, exclude) {
                        continue;
                    }
                    let kind = if *family == Family::V4 { "ipv4_addr" } else { "ipv6_addr" };
                    let spans = layer.spans.iter().filter(|span| span.exclude == exclude);
                    let elements: Vec<String> = spans
                        .map(|span| {
                            let (first, last) = (family.address(span.first), family.address(span.last));
                            if first == last { first.to_string() } else { format!("{first}-{last}") }
                        })
                        .collect();
                    let name = set(*family, index, exclude);
                    let elements = elements.join(", ");
                    let _ = writeln!(
                        self.out,
                        "  set {name} {{ type {kind}; flags interval; elements = {{ {elements} }} }}"
                    );
                }
            }
        }
    }

    /// TCP and DNS, by translation of their destination.
    fn redirect(&mut self) {
        let mut hooks = vec!["output"];
        // What comes in from others has no user.
        if self.desired.router && !self.one_sender() {
            hooks.push("prerouting");
        }
        for hook in hooks {
            let _ = writeln!(self.out, "  chain {hook} {{\n    type nat hook {hook} priority -100; policy accept;");
            if hook == "output" {
                self.sender();
                self.own();
            }
            for family in Family::ALL {
                let Some(port) = self.desired.dns(family) else { continue };
                let servers = self.desired.nameservers(family).join(", ");
                let daddr = daddr(family);
                self.rule(&format!(
                    "{daddr} {{ {servers} }} meta l4proto {{ tcp, udp }} th dport 53 redirect to :{port}"
                ));
            }
            if !self.transparent {
                self.rule(HERE);
                self.each_layer((true, false), |desired, family| {
                    let port = desired.tcp.of(family)?;
                    Some(format!("redirect to :{port}"))
                });
            }
            self.end();
        }
    }

    /// Marks what leaves this machine, so that it is routed back to it.
    fn mark(&mut self) {
        let _ = writeln!(self.out, "  chain leaving {{\n    type route hook output priority -150; policy accept;");
        // What a transparent listener answers has a foreign source, and perhaps a destination that is captured.
        self.rule("ct direction reply return");
        self.sender();
        self.own();
        self.names("return");
        self.rule(HERE);
        let mark = self.desired.mark();
        self.each_layer((self.transparent, true), |_, _| Some(format!("meta mark set {mark:#x} return")));
        self.end();
    }

    /// Gives what was marked, or comes in from others, to the transparent listeners.
    fn take(&mut self) {
        let mark = self.desired.mark();
        let _ =
            writeln!(self.out, "  chain arriving {{\n    type filter hook prerouting priority -150; policy accept;");
        if self.transparent {
            self.rule(&format!("meta l4proto tcp socket transparent 1 meta mark set {mark:#x} accept"));
        }
        if self.desired.router && !self.one_sender() {
            self.rule(&format!("meta mark {mark:#x} goto give"));
            self.names("return");
            self.rule(HERE);
            self.each_layer((self.transparent, true), |_, _| Some(format!("meta mark set {mark:#x} goto give")));
        } else {
            self.rule(&format!("meta mark {mark:#x} goto give"));
        }
        self.end();
        let _ = writeln!(self.out, "  chain give {{");
        for family in Family::ALL {
            let (name, ip) = if family == Family::V4 { ("ipv4", "ip") } else { ("ipv6", "ip6") };
            let tcp = self.desired.tcp.of(family).filter(|_| self.transparent);
            for (protocol, port) in [(Protocol::Tcp, tcp), (Protocol::Udp, self.desired.udp.of(family))] {
                if let Some(port) = port {
                    let protocol = protocol.name();
                    self.rule(&format!("meta nfproto {name} meta l4proto {protocol} tproxy {ip} to :{port} accept"));
                }
            }
        }
        self.end();
    }

    /// Drops what would be captured. What is captured has another destination here, or a mark.
    fn keep(&mut self) {
        let mut hooks = vec!["output"];
        if self.desired.router && !self.one_sender() {
            hooks.push("forward");
        }
        for hook in hooks {
            let _ = writeln!(self.out, "  chain {hook} {{\n    type filter hook {hook} priority 0; policy accept;");
            if hook == "output" {
                self.sender();
                self.own();
            }
            if self.marks() {
                let mark = self.desired.mark();
                self.rule(&format!("meta mark {mark:#x} return"));
                self.rule("ct direction reply return");
            }
            self.rule(HERE);
            self.names("drop");
            self.each_layer((true, true), |_, _| Some("drop".into()));
            self.end();
        }
    }

    fn one_sender(&self) -> bool {
        self.desired.user.is_some() || self.desired.group.is_some()
    }

    fn sender(&mut self) {
        for (key, id) in [("skuid", self.desired.user), ("skgid", self.desired.group)] {
            if let Some(id) = id {
                self.rule(&format!("meta {key} != {id} return"));
            }
        }
    }

    fn own(&mut self) {
        let desired = self.desired;
        for own in &desired.own {
            let text = spoken(own);
            self.rule(&format!("{text} return"));
        }
    }

    /// What is done with questions about names, which another chain redirects.
    fn names(&mut self, verdict: &str) {
        for family in Family::ALL {
            if self.desired.dns(family).is_some() {
                let servers = self.desired.nameservers(family).join(", ");
                let daddr = daddr(family);
                self.rule(&format!("{daddr} {{ {servers} }} meta l4proto {{ tcp, udp }} th dport 53 {verdict}"));
            }
        }
    }

    /// A rule for each set, for those of TCP and UDP that are `wanted` and have a listener. The protocol stands in each rule: a
    /// translation of ports wants it there.
    fn each_layer(&mut self, wanted: (bool, bool), verdict: impl Fn(&Desired, Family) -> Option<String>) {
        let mut lines = Vec::new();
        for (family, layers) in &self.layers {
            let tcp = wanted.0 && self.desired.tcp.of(*family).is_some();
            let udp = wanted.1 && self.desired.udp.of(*family).is_some();
            let protocols = match (tcp, udp) {
                (true, true) => "{ tcp, udp }",
                (true, false) => "tcp",
                (false, true) => "udp",
                (false, false) => continue,
            };
            let Some(verdict) = verdict(self.desired, *family) else { continue };
            for (index, layer) in layers.iter().enumerate() {
                let ports = layer.ports.map(|ports| format!("th dport {ports} ")).unwrap_or_default();
                let daddr = daddr(*family);
                for (exclude, verdict) in [(true, "return"), (false, verdict.as_str())] {
                    if has(layers, index, exclude) {
                        let set = set(*family, index, exclude);
                        lines.push(format!("meta l4proto {protocols} {ports}{daddr} @{set} {verdict}"));
                    }
                }
            }
        }
        for line in lines {
            self.rule(&line);
        }
    }

    /// Marked packets are routed to this machine, whatever their destination.
    fn routes(&self, plan: &mut Plan) {
        let (mark, table) = (self.desired.mark(), self.desired.routes());
        for (family, version) in [(Family::V4, "-4"), (Family::V6, "-6")] {
            let tcp = self.transparent && self.desired.tcp.of(family).is_some();
            if tcp || self.desired.udp.of(family).is_some() {
                let rule = format!("fwmark {mark:#x} lookup {table}");
                plan.apply.push(Step::run(&format!("ip {version} route replace local default dev lo table {table}")));
                plan.apply.push(Step::run(&format!("ip {version} rule add {rule}")));
                plan.undo.push(Step::run(&format!("ip {version} rule del {rule}")));
                plan.undo.push(Step::run(&format!("ip {version} route flush table {table}")));
            }
        }
    }
}

/// Whether a layer has a set for this verdict. Those excepted in the last layer are simply not captured.
fn has(layers: &[Layer], index: usize, exclude: bool) -> bool {
    (!exclude || index + 1 < layers.len()) && layers[index].spans.iter().any(|span| span.exclude == exclude)
}

fn set(family: Family, index: usize, exclude: bool) -> String {
    let family = if family == Family::V4 { "v4" } else { "v6" };
    format!("{family}-{index}{}", if exclude { "-not" } else { "" })
}

fn daddr(family: Family) -> &'static str {
    if family == Family::V4 { "ip daddr" } else { "ip6 daddr" }
}

fn spoken(own: &Own) -> String {
    let mut text = String::new();
    let protocol = own.protocol.name();
    for (end, address, port) in [(own.local, "saddr", "sport"), (own.remote, "daddr", "dport")] {
        let Some(end) = end else { continue };
        if !end.ip().is_unspecified() {
            let ip = if end.is_ipv4() { "ip" } else { "ip6" };
            let _ = write!(text, "{ip} {address} {} ", end.ip());
        }
        let _ = write!(text, "{protocol} {port} {} ", end.port());
    }
    text.trim_end().to_owned()
}

/// Removes a table, and does not mind when there is none.
fn delete(name: &str) -> Step {
    Step::Nft { text: format!("add table inet {name}\ndelete table inet {name}\n"), held: false }
}

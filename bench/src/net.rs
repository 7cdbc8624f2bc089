//! The network behind a host: bulk, requests, both together on a narrow link, names, datagrams, and how long it takes to begin. Client, host
//! and that network are namespaces of their own, with wires between; against `ssh -L` and sshuttle in the same run.

use std::time::Duration;

use testbed::{Client, HostOptions, Lan, OwnNetwork, Pair, Wire, executable};

use crate::Plan;
use crate::site::{Way, in_turn, modules, numbers};
use crate::table::{Cell, Table};

/// Seconds of one measurement.
const SECONDS: u64 = 4;
/// The narrow link: 100 Mbit/s with the buffer of a router.
const NARROW: Wire = Wire { delay: Duration::from_millis(10), rate: 12_500_000, buffer: 256 << 10, cut_after: 0 };

/// `THEN` is run with the address `$A`, the port `$W` of the web server and `$I` of iperf3. What stands before and behind it makes the
/// way and ends it.
const WAYS: [Way; 5] = [
    Way {
        name: "ssh -L",
        peer: "ssh",
        script: "A=127.0.0.1 W=8080 I=8081; ssh -N -o ExitOnForwardFailure=yes -L 8080:10.66.0.2:80 -L 8081:10.66.0.2:5201 dev@HOST & UP; THEN; DOWN",
    },
    Way {
        name: "remotely forward -L",
        peer: "remotely",
        script: "A=127.0.0.1 W=8080 I=8081; remotely forward dev@HOST -L 8080:10.66.0.2:80 -L 8081:10.66.0.2:5201 2>/dev/null & UP; THEN; DOWN",
    },
    Way {
        name: "remotely net, one command",
        peer: "remotely",
        script: "export A=10.66.0.2 W=80 I=5201; exec remotely net dev@HOST -- bash -c 'UP; THEN'",
    },
    Way {
        name: "remotely net, nft",
        peer: "remotely",
        script: "A=10.66.0.2 W=80 I=5201 N=10.66.0.9; remotely net -r dev@HOST 10.66.0.0/16 --dns --ns-hosts 10.66.0.9 2>/dev/null & UP; THEN; DOWN",
    },
    Way {
        name: "sshuttle, nft",
        peer: "sshuttle",
        script: "A=10.66.0.2 W=80 I=5201 N=10.66.0.9; sshuttle -r dev@HOST 10.66.0.0/16 --method nft --dns --ns-hosts 10.66.0.9 >/dev/null 2>&1 & UP; THEN; DOWN",
    },
];

const UP: &str = "until curl -s -o /dev/null --max-time 2 http://$A:$W/; do sleep 0.01; done";
const DOWN: &str = "kill %1; wait; true";

/// All tables.
pub(crate) fn run(plan: &Plan) -> Vec<Table> {
    let rtts = plan.rtts.as_deref().unwrap_or(&[0, 20, 50]);
    let site = Site::start(rtts);
    vec![
        bulk(plan, &site, rtts),
        requests(plan, &site),
        narrow(plan, &site),
        beginning(plan, &site),
        datagrams(plan, &site),
    ]
}

struct Site {
    pair: Pair,
    _lan: Lan,
    _network: OwnNetwork,
    _relays: Vec<testbed::Relay>,
}

impl Site {
    /// With names `rtt0`, `rtt20` ... for the host, and `narrow`.
    fn start(rtts: &[u64]) -> Self {
        let packages = vec!["python3".to_owned()];
        let mut pair =
            Pair::of(Client::start_with_sudo(), HostOptions { packages, ..HostOptions::default() }, Wire::default());
        let lan = Lan::behind(&pair.host);
        let network = OwnNetwork::of_client(&mut pair);
        let mut relays = Vec::new();
        let wires = rtts.iter().map(|rtt| (format!("rtt{rtt}"), (*rtt > 0).then(|| Wire::rtt(*rtt))));
        for (name, wire) in wires.chain([("narrow".to_owned(), Some(NARROW))]) {
            let address = match wire {
                Some(wire) => {
                    relays.push(network.relay(wire));
                    relays[relays.len() - 1].address()
                }
                None => network.host(),
            };
            pair.client.reach(&name, address);
        }
        let ours = executable::built(&["bench"], "bench");
        let ours = std::fs::read(&ours).unwrap_or_else(|e| panic!("read {}: {e}", ours.display()));
        pair.client.program("ask", ours);
        let sshuttle = match modules("sshuttle==2.0.0") {
            Ok(place) => format!(
                "#!/usr/bin/python3\nimport sys\nsys.path.insert(0, '{}')\nfrom sshuttle.cmdline import main\nsys.exit(main())\n",
                place.display()
            ),
            Err(why) => format!("#!/bin/sh\necho '{}' >&2\nexit 1\n", why.replace('\'', " ")),
        };
        pair.client.program("sshuttle", sshuttle);
        Self { pair, _lan: lan, _network: network, _relays: relays }
    }

    /// What a way says when it has done that.
    fn run(&self, plan: &Plan, way: &Way, host: &str, then: &str) -> Result<Vec<f64>, Cell> {
        let script = way.script.replace("HOST", host).replace("UP", UP).replace("THEN", then).replace("DOWN", DOWN);
        let script = format!("began=$EPOCHREALTIME; {script}");
        let outcome = crate::peer::time(plan, &mut self.pair.client.bash(&script, ""))?;
        let found = numbers(&outcome.text());
        if found.is_empty() { Err(Cell::Failed(outcome.text().chars().take(80).collect())) } else { Ok(found) }
    }

    /// A table of what `rows` say, each a host and what is run; the columns of one row after those of the one before.
    fn table(
        &self,
        plan: &Plan,
        title: &str,
        columns: &[String],
        rows: &[(String, String)],
        leave_out: &[&str],
    ) -> Table {
        let mut table = Table::new(title, columns.iter().cloned());
        let ways: Vec<Way> = plan.chosen(WAYS).into_iter().filter(|way| !leave_out.contains(&way.name)).collect();
        let mut lines: Vec<Vec<Cell>> = ways.iter().map(|_| Vec::new()).collect();
        for (host, then) in rows {
            let measured = in_turn(plan, &ways, |way, _| self.run(plan, way, host, then));
            for (line, cells) in lines.iter_mut().zip(measured) {
                line.extend(cells);
            }
        }
        for (way, cells) in ways.iter().zip(lines) {
            table.line(way.name, cells);
        }
        table
    }
}

/// iperf3's word for what has arrived, in Mbit/s.
fn iperf(options: &str) -> String {
    format!("$(iperf3 -c $A -p $I -t {SECONDS} -f m {options} | awk \"/receiver/{{print \\$7}}\")")
}

fn wrk(options: &str, print: &str) -> String {
    format!("$(wrk -d {SECONDS} --latency {options} http://$A:$W/ | awk \"{print}\")")
}

fn bulk(plan: &Plan, site: &Site, rtts: &[u64]) -> Table {
    let columns: Vec<String> =
        rtts.iter().flat_map(|rtt| [format!("RTT {rtt} up"), format!("RTT {rtt} down")]).collect();
    let then = format!("echo {} {}", iperf(""), iperf("-R"));
    let rows: Vec<_> = rtts.iter().map(|rtt| (format!("rtt{rtt}"), then.clone())).collect();
    site.table(plan, "one stream, Mbit/s", &columns, &rows, &[])
}

/// As awk reads a time of wrk, in milliseconds.
const MS: &str = "function ms(v) {return v ~ /us/ ? v/1000 : v ~ /ms/ ? v+0 : v*1000}";

fn requests(plan: &Plan, site: &Site) -> Table {
    let columns = ["new connections/s", "p99, ms", "requests/s on 32 that stay", "p99, ms"].map(str::to_owned);
    let print = format!("{MS} /99%/{{p=ms(\\$2)}} /Requests.sec/{{print \\$2, p}}");
    let then = format!("echo {} {}", wrk("-t 2 -c 32 -H \"Connection: close\"", &print), wrk("-t 2 -c 32", &print));
    site.table(plan, "32 clients at once, RTT 0", &columns, &[("rtt0".to_owned(), then)], &[])
}

fn narrow(plan: &Plan, site: &Site) -> Table {
    let columns = ["bulk, Mbit/s", "request p50, ms", "p99, ms"].map(str::to_owned);
    let print = format!("{MS} /50%/{{a=ms(\\$2)}} /99%/{{b=ms(\\$2)}} END{{print a, b}}");
    let then = format!(
        "iperf3 -c $A -p $I -t {} -f m -R >bulk.txt & sleep 1; s=\"{}\"; wait $!; echo $(awk \"/receiver/{{print \\$7}}\" bulk.txt) $s",
        SECONDS + 2,
        wrk("-t 1 -c 1", &print)
    );
    site.table(
        plan,
        "100 Mbit/s, RTT 20 ms: bulk down and a small request together",
        &columns,
        &[("narrow".to_owned(), then)],
        &[],
    )
}

fn beginning(plan: &Plan, site: &Site) -> Table {
    let columns = ["RTT 0", "RTT 50 ms"].map(str::to_owned);
    let then = "echo $EPOCHREALTIME $began | awk \"{print \\$1 - \\$2}\"";
    let rows = ["rtt0", "rtt50"].map(|host| (host.to_owned(), then.to_owned()));
    // That begins to count when the way is there.
    site.table(plan, "from the start to the first byte, s", &columns, &rows, &["remotely net, one command"])
}

fn datagrams(plan: &Plan, site: &Site) -> Table {
    let columns = ["answers about names/s", "lost, %"].map(str::to_owned);
    // In a network of its own a command has a nameserver of its own.
    let own = "$(awk \"/nameserver/{print \\$2; exit}\" /etc/resolv.conf)";
    let then = format!("ask ask ${{N:-{own}}}:53 {SECONDS}");
    site.table(
        plan,
        "questions about names",
        &columns,
        &[("rtt0".to_owned(), then)],
        &["ssh -L", "remotely forward -L"],
    )
}

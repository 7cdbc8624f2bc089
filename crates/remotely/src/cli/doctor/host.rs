//! What doctor finds on the host, by a small shell script over the same transport (`host.sh`): it also works where the
//! agent does not.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Finding;
use crate::bootstrap;
use crate::options::ConnectOptions;

/// What the host said, by name.
type Answers = HashMap<String, String>;

/// How long the script may take, where the user set no limit: sudo may wait for a name server.
const LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn examine(options: &ConnectOptions) -> Vec<Finding> {
    let script = bootstrap::one_line(include_str!("host.sh"));
    let before = now();
    let answers =
        match tokio::time::timeout(options.timeout.unwrap_or(LIMIT), bootstrap::output(options, &script)).await {
            Ok(Ok(output)) => parse(&output),
            Ok(Err(error)) => return vec![Finding::fail(crate::report::chain(&error), "see above")],
            Err(_) => Answers::new(),
        };
    if !answers.contains_key("end") {
        let mend = "is there a /bin/sh, and a login shell that may run commands?";
        return vec![Finding::fail("a POSIX shell there did not answer", mend)];
    }
    judge(&answers, before, now())
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn parse(output: &[u8]) -> Answers {
    let text = String::from_utf8_lossy(output);
    let answers = text.lines().filter_map(|line| line.strip_prefix("remotely-doctor "));
    let pairs = answers.map(|line| line.split_once(' ').unwrap_or((line, "")));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().chars().filter(|c| !c.is_control()).collect())).collect()
}

fn judge(answers: &Answers, before: Duration, after: Duration) -> Vec<Finding> {
    let get = |name: &str| answers.get(name).map_or("", String::as_str);
    let is_root = get("user").starts_with("0 ");
    let mut found =
        vec![machine(get("machine")), Finding::ok(format!("Linux {}, user {}", get("kernel"), get("user")))];
    found.push(fuse(get("fuse")));
    if !is_root {
        found.extend(namespaces(answers));
        found.push(if answers.contains_key("subuid") {
            Finding::ok("the user has a range of subordinate ids")
        } else {
            Finding::warn(
                "without a range of subordinate ids, files of other users show as the user's own",
                "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER, and the package uidmap",
            )
        });
    }
    found.push(clock(get("time"), before, after));
    if !answers.contains_key("gzip") {
        found.push(Finding::warn("there is no gzip: the agent travels uncompressed", "install gzip"));
    }
    found
}

fn machine(machine: &str) -> Finding {
    let own = format!("Linux {}", std::env::consts::ARCH);
    if machine == own {
        Finding::ok(format!("the machine is {machine}"))
    } else {
        Finding::fail(format!("the machine is {machine}, this one is {own}"), "use a host of the same kind")
    }
}

fn fuse(state: &str) -> Finding {
    match state {
        "usable" => Finding::ok("/dev/fuse is usable"),
        "forbidden" => Finding::fail(
            "/dev/fuse is not readable and writable",
            "chmod 666 /dev/fuse (it is safe: mounting has its own rules)",
        ),
        _ => Finding::fail("there is no /dev/fuse", "modprobe fuse; in a container: --device /dev/fuse"),
    }
}

/// Without them an ordinary user cannot mount; sudo is the other way.
fn namespaces(answers: &Answers) -> Option<Finding> {
    let get = |name: &str| answers.get(name).map_or("", String::as_str);
    let (why, mend) = if get("max-namespaces") == "0" {
        ("user.max_user_namespaces is 0", "sysctl user.max_user_namespaces=15000")
    } else if get("userns-clone") == "0" {
        ("kernel.unprivileged_userns_clone is 0", "sysctl kernel.unprivileged_userns_clone=1")
    } else if get("unshare") == "no" && get("apparmor-userns") == "1" {
        ("AppArmor forbids them", "sysctl kernel.apparmor_restrict_unprivileged_userns=0")
    } else if get("unshare") == "no" {
        ("something forbids them: in a container, its seccomp profile", "allow unshare(2) and mount(2) there")
    } else if get("unshare") == "yes" {
        return Some(Finding::ok("user namespaces are usable"));
    } else {
        return Some(Finding::ok("nothing is known to forbid user namespaces"));
    };
    Some(if answers.contains_key("sudo") {
        Finding::warn(format!("user namespaces are not usable ({why}): the agent will run through sudo"), mend)
    } else {
        let mend = format!("{mend}; or let sudo work without a password");
        Finding::fail(format!("user namespaces are not usable ({why}), and sudo asks for a password"), mend)
    })
}

fn clock(time: &str, before: Duration, after: Duration) -> Finding {
    let Some(there) = time.parse::<f64>().ok().filter(|time| time.is_finite()) else {
        return Finding::warn("the host's clock could not be read", "is date(1) there?");
    };
    // The answer was made between the two moments; within them no offset can be seen.
    let (before, after) = (before.as_secs_f64(), after.as_secs_f64());
    let offset = if there < before { there - before } else { (there - after).max(0.0) };
    if offset.abs() < 1.0 {
        Finding::ok("the clocks agree")
    } else {
        Finding::warn(
            format!("the host's clock is {:.1} s {}", offset.abs(), if offset > 0.0 { "ahead" } else { "behind" }),
            "file times stay those of here; let NTP set both clocks",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn answers(text: &str) -> Answers {
        let lines: String = text.split("; ").map(|line| format!("remotely-doctor {line}\n")).collect();
        parse(format!("noise\n{lines}").as_bytes())
    }

    fn verdicts(text: &str) -> Vec<Verdict> {
        let found = judge(&answers(text), Duration::from_secs(1000), Duration::from_secs(1002));
        found.into_iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn a_good_host_is_good_and_a_bad_one_says_what_is_bad() {
        use Verdict::{Fail, Ok, Warn};
        let own = std::env::consts::ARCH;
        let good = format!("machine Linux {own}; kernel 6.1; time 1001.5; user 0 root; fuse usable; gzip yes; end");
        assert_eq!(verdicts(&good), [Ok, Ok, Ok, Ok]);
        let user = format!(
            "machine Linux {own}; kernel 6.1; time 1001; user 9 dev; fuse usable; unshare yes; subuid yes; gzip yes; end"
        );
        assert_eq!(verdicts(&user), [Ok, Ok, Ok, Ok, Ok, Ok]);
        let bad = "machine Linux riscv64; kernel 6.1; time 1900; user 9 dev; fuse missing; max-namespaces 0; end";
        assert_eq!(verdicts(bad), [Fail, Ok, Fail, Fail, Warn, Warn, Warn]);
        assert_eq!(namespaces(&answers("userns-clone 0; sudo yes")).map(|finding| finding.verdict), Some(Warn));
    }

    #[test]
    fn the_clock_is_judged_by_what_can_be_known() {
        let offset = |time: &str| clock(time, Duration::from_secs(1000), Duration::from_secs(1002)).what;
        assert_eq!(offset("1001.9"), "the clocks agree");
        assert_eq!(offset("990"), "the host's clock is 10.0 s behind");
        assert_eq!(offset("1102.5"), "the host's clock is 100.5 s ahead");
        assert_eq!(offset("N"), "the host's clock could not be read");
    }
}

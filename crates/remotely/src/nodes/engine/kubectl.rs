//! `kubectl:-l app=web`: the running pods that a selector names, by `kubectl get pods`, to be reached through `kubectl exec`.
//! Called by [`super::Query::ask`].

use std::ffi::{OsStr, OsString};

use super::{EngineError, Found};
use crate::transport::shell;

/// Which pods.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(in crate::nodes) struct Pods {
    /// Arguments of `kubectl get pods`.
    arguments: Vec<String>,
    /// The container in each pod; the first one if none is named.
    container: Option<String>,
    /// Whether the names of the pods need that of their namespace to tell them apart.
    namespaces: bool,
}

/// The options whose value may be the next word.
pub(super) const VALUED: [&str; 7] = ["-l", "--selector", "-n", "--namespace", "-c", "--container", "--field-selector"];

const ALL: [&str; 2] = ["-A", "--all-namespaces"];

impl Pods {
    /// Reads the options that select pods. The others of kubectl are refused: how the cluster is reached must be the
    /// same for `kubectl exec` later (its configuration and KUBECONFIG say it).
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const KNOWN: &str = "-l SELECTOR, -n NAMESPACE, -A, -c CONTAINER or --field-selector FIELDS";
        let words = shell::split(OsStr::new(text)).map_err(|_| "quotes that close")?;
        let mut words = words.into_iter().filter_map(|word| word.into_string().ok());
        let mut pods = Self::default();
        while let Some(word) = words.next() {
            if ALL.contains(&word.as_str()) {
                pods.namespaces = true;
                pods.arguments.push(word);
                continue;
            }
            let (option, value) = match word.split_once('=').filter(|_| word.starts_with("--")) {
                Some((option, value)) => (option.to_owned(), value.to_owned()),
                None if VALUED.contains(&word.as_str()) => match words.next() {
                    Some(value) => (word, value),
                    None => return Err("a value for the last option (in a shell all of it stands in quotes)"),
                },
                None => match word.split_at_checked(2) {
                    Some((option, value)) if !value.is_empty() => (option.to_owned(), value.to_owned()),
                    _ => return Err(KNOWN),
                },
            };
            match option.as_str() {
                _ if value.is_empty() || value.starts_with('-') => return Err("a value for each option"),
                "-c" | "--container" => pods.container = Some(value),
                "-n" | "--namespace" => {
                    pods.namespaces = true;
                    pods.arguments.extend(["--namespace".into(), value]);
                }
                option if VALUED.contains(&option) => pods.arguments.extend([option.to_owned(), value]),
                _ => return Err(KNOWN),
            }
        }
        Ok(pods)
    }

    fn argv(&self) -> Vec<OsString> {
        let mut argv: Vec<OsString> = ["kubectl", "get", "pods"].map(Into::into).into();
        argv.extend(self.arguments.iter().map(Into::into));
        argv.extend(["--output".into(), format!("jsonpath={ANSWER}").into()]);
        argv
    }

    /// The pods in the answer. What does not run has nothing to run a command in.
    fn read(&self, answer: &str) -> Result<Vec<Found>, EngineError> {
        let mut found = Vec::new();
        for line in answer.lines().filter(|line| !line.is_empty()) {
            let fields: Vec<&str> = line.split('\t').collect();
            let [namespace, pod, phase] = fields[..] else {
                let why = format!("{line:?} is not a namespace, a pod and a phase");
                return Err(EngineError::Answer { program: "kubectl".into(), why });
            };
            if phase == "Running" {
                let name = if self.namespaces { format!("{namespace}/{pod}") } else { pod.to_owned() };
                let container = self.container.as_ref().map(|container| format!("/{container}")).unwrap_or_default();
                found.push(Found { name, target: format!("kubectl:{namespace}/{pod}{container}") });
            }
        }
        Ok(found)
    }
}

/// A line for each pod: namespace, name, phase. (`kubectl get --help`, the JSONPath of Kubernetes.)
const ANSWER: &str = r#"{range .items[*]}{.metadata.namespace}{"\t"}{.metadata.name}{"\t"}{.status.phase}{"\n"}{end}"#;

pub(super) async fn ask(pods: &Pods) -> Result<Vec<Found>, EngineError> {
    pods.read(&super::answer(pods.argv()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_select_and_nothing_else_passes() {
        let argv = |text| {
            Pods::parse(text)
                .map(|pods| pods.argv().into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>())
        };
        let all = argv("-l app=web --namespace=prod -A -c main --field-selector 'spec.nodeName=n1,a!=b'").unwrap();
        assert_eq!(
            all[3..all.len() - 2],
            ["-l", "app=web", "--namespace", "prod", "-A", "--field-selector", "spec.nodeName=n1,a!=b"]
        );
        assert_eq!(argv("-lapp=web").unwrap()[3..5], ["-l", "app=web"]);
        assert_eq!(all[all.len() - 2], "--output");
        for refused in
            ["--kubeconfig=x", "--server=http://x", "-l", "-l -x", "-w", "pod", "-l 'a", "--", "--namespace="]
        {
            assert!(Pods::parse(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn pods_that_run_are_named_as_they_were_asked_for() {
        let answer = "prod\tweb-0\tRunning\nprod\tweb-1\tPending\ntest\tweb-0\tRunning\n";
        let read = |text: &str| {
            let found = Pods::parse(text).unwrap().read(answer).unwrap();
            found.into_iter().map(|found| format!("{}={}", found.name, found.target)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(read("-l a=b"), "web-0=kubectl:prod/web-0 web-0=kubectl:test/web-0");
        assert_eq!(read("-A"), "prod/web-0=kubectl:prod/web-0 test/web-0=kubectl:test/web-0");
        assert_eq!(read("-n x -c main"), "prod/web-0=kubectl:prod/web-0/main test/web-0=kubectl:test/web-0/main");
        assert!(Pods::default().read("a b c").is_err());
    }
}

//! What is done with the bytes of a fuzzer, by target. Used by the fuzz targets, and by the test that replays their corpus;
//! a panic is a finding.

use remotely::nodes::{Format, NodeSet, Sources};

/// A target: takes any bytes.
pub(crate) type Target = fn(&[u8]);

/// All of them, by the name of their binary and of their corpus.
pub(crate) const TARGETS: [(&str, Target); 2] = [("node_set", node_set), ("inventory", inventory)];

/// Runs the target of this name.
pub(crate) fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.0 == name);
    target.unwrap_or_else(|| panic!("no fuzz target {name}")).1(data);
}

/// An expression is refused, or its nodes are targets and fold to a text that is read as the same nodes.
fn node_set(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(nodes) = text.parse::<NodeSet>() else { return };
    let folded = nodes.fold();
    match folded.parse::<NodeSet>() {
        Ok(again) => assert!(again == nodes && again.fold() == folded, "{text:?} folds to {folded:?}"),
        Err(error) => panic!("{text:?} folds to {folded:?}: {error}"),
    }
    for node in &nodes {
        assert_eq!(node.target().to_string(), node.name());
    }
}

/// The first byte is the format. Whatever is in the file, its groups and hosts can be asked for.
fn inventory(data: &[u8]) {
    const FORMATS: [Format; 4] = [Format::Toml, Format::Groups, Format::AnsibleIni, Format::Yaml];
    let Some((format, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let mut sources = Sources::new();
    if sources.add("file", "file", FORMATS[usize::from(*format) % FORMATS.len()], text).is_err() {
        return;
    }
    let groups: Vec<String> = sources.groups().take(20).map(|group| group.to_string()).collect();
    for asked in ["@*", "*", "@all", "a* ! @*"].into_iter().chain(groups.iter().map(String::as_str)) {
        if let Ok(nodes) = NodeSet::look_up(asked, &sources) {
            nodes.iter().for_each(|node| drop(node.target()));
            assert!(!nodes.fold().is_empty() || nodes.is_empty());
        }
    }
}

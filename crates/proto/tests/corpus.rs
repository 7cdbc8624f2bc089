//! Replays the corpus of every fuzz target, as it lies in `fuzz/corpus`.

mod fuzz_bodies;

use std::{fs, path::Path};

#[test]
fn every_target_takes_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, target) in fuzz_bodies::TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")) {
            let data = fs::read(entry.unwrap().path()).unwrap();
            target(&data);
            // What is cut short or has a bit wrong is taken as well.
            for end in 0..data.len().min(400) {
                target(&data[..end]);
                let mut wrong = data.clone();
                wrong[end] ^= 1 << (end % 8);
                target(&wrong);
            }
            count += 1;
        }
        assert!(count > 0, "{name} has no corpus");
    }
}

#[test]
fn every_target_has_its_binary() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    for (name, _) in fuzz_bodies::TARGETS {
        let source = fs::read_to_string(targets.join(name).with_extension("rs")).unwrap();
        assert!(source.contains(&format!("run(\"{name}\"")), "{name}");
        fuzz_bodies::run(name, b"");
    }
}

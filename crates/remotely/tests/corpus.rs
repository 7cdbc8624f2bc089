//! Replays the corpus of the fuzz targets of this crate, as it lies in `fuzz/corpus`, whole, cut and changed.

mod fuzz_bodies;

use std::{fs, path::Path};

#[test]
fn every_target_takes_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or_default() % below.max(1)
    };
    for (name, target) in fuzz_bodies::TARGETS {
        let mut seeds = Vec::new();
        for entry in fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")) {
            seeds.push(entry.and_then(|entry| fs::read(entry.path())).expect("a seed"));
        }
        assert!(seeds.len() > 3, "{name} has no corpus");
        for data in &seeds {
            target(data);
            for end in 0..data.len().min(400) {
                target(&data[..end]);
                let mut wrong = data.clone();
                wrong[end] ^= 1 << (end % 8);
                target(&wrong);
            }
            // Pieces of other seeds, and what means something, in places where it does not belong.
            for _ in 0..200 {
                let mut spliced = data.clone();
                for _ in 0..=random(3) {
                    let other = &seeds[random(seeds.len())];
                    let start = random(other.len());
                    let piece = &other[start..(start + random(12)).min(other.len())];
                    let place = random(spliced.len());
                    spliced.splice(place..(place + random(4)).min(spliced.len()), piece.iter().copied());
                }
                target(&spliced);
            }
        }
    }
}

#[test]
fn every_target_has_its_binary() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    for (name, _) in fuzz_bodies::TARGETS {
        let source = fs::read_to_string(targets.join(name).with_extension("rs")).expect("a fuzz target");
        assert!(source.contains(&format!("run(\"{name}\"")), "{name}");
        fuzz_bodies::run(name, b"");
    }
}

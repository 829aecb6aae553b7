//! What the targets share: bytes become a file, and the file is read to its end or to its error.
//!
//! With `cargo install cargo-fuzz` and a nightly compiler, from the crate's root, for ten minutes:
//!
//! ```sh
//! mkdir -p fuzz/corpus/npz
//! cargo +nightly fuzz run npz fuzz/corpus/npz fuzz/seeds/npz -- -max_total_time=600
//! ```
//!
//! What it finds goes to the first folder, which git ignores; the seeds are one small file of every kind.

use std::io::Write;
use std::path::Path;

use cigl::calibration::predictions::{Labels, Predictions};
use cigl::calibration::{Evaluator, Options};

/// Reads `data` as a file of predictions whose name ends in `ending`, with and without labels inside, and as labels of others.
pub fn read(ending: &str, data: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder for a file");
    let path = folder.path().join(format!("a.{ending}"));
    std::fs::File::create(&path).and_then(|mut file| file.write_all(data)).expect("room for a file");
    evaluate(&path, Labels::Inside);
    evaluate(&path, Labels::File(&path));
    if let Ok(file) = Predictions::open(&path, Labels::Unneeded { classes: 3 }, None) {
        let _ = file.confidences();
    }
    // Four rows of three classes, whose labels may be in the file.
    let scores = folder.path().join("scores.csv");
    std::fs::write(&scores, "0.5,0.25,0.25\n".repeat(4)).expect("room for a file");
    evaluate(&scores, Labels::File(&path));
}

fn evaluate(path: &Path, labels: Labels) {
    let Ok(file) = Predictions::open(path, labels, None) else { return };
    // Tables of a million classes would only measure the allocator.
    if file.classes() > 1000 {
        return;
    }
    let mut evaluator = Evaluator::new(file.classes(), Options::default());
    if file.evaluate(&mut evaluator).is_ok() {
        let metrics = evaluator.finish().expect("a file that was read has samples").metrics;
        assert!((0.0..=1.0).contains(&metrics.accuracy) && metrics.ece >= 0.0 && !metrics.nll.is_nan());
        assert!(metrics.ece <= metrics.mce + 1e-9 && metrics.mce <= 1.0 + 1e-6);
    }
}

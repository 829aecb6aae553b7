//! Calibration of predictions from anywhere, no network needed: `cargo run --release --example calibrate_predictions`
//!
//! The classifier here is made up, so that the truth is known: it draws each label from softmax(z) but reports the logits 2 z,
//! twice as sure as it may be. A temperature of 2 mends that exactly.

use cigl::calibration::{self, Options, Scores, softmax, temperature};
use cigl::error::Result;
use cigl::rng::{Domain, Stream};

const CLASSES: usize = 5;

/// Logits (n, CLASSES) that are twice too large, and labels (n).
fn predictions(n: usize, seed: u64) -> (Vec<f32>, Vec<u32>) {
    let mut random = Stream::new(seed, Domain::Bootstrap, 0, 0);
    let (mut logits, mut labels) = (vec![], vec![]);
    for _ in 0..n {
        let z: [f32; CLASSES] = std::array::from_fn(|_| 2.0 * random.normal() as f32);
        let mut truth = [0.0; CLASSES];
        softmax::softmax(&z, &mut truth);
        let mut left = random.uniform() as f32;
        let drawn = truth.iter().position(|p| {
            left -= p;
            left < 0.0
        });
        logits.extend(z.map(|z| 2.0 * z));
        labels.push(drawn.unwrap_or(CLASSES - 1) as u32);
    }
    (logits, labels)
}

fn main() -> Result<()> {
    let (validation, validation_labels) = predictions(5_000, 1);
    let (mut test, labels) = predictions(5_000, 2);
    let options = Options { intervals: true, seed: 0, ..Options::default() };

    let before = calibration::evaluate(Scores::Logits(&test), &labels, CLASSES, &options)?.metrics;
    let fitted = temperature::fit(&validation, &validation_labels, CLASSES)?;
    temperature::apply(&mut test, fitted);
    let after = calibration::evaluate(Scores::Logits(&test), &labels, CLASSES, &options)?.metrics;

    println!("temperature {fitted:.3}, the true one is 2");
    for (name, metrics) in [("before", before), ("after", after)] {
        println!("{name:6}  accuracy {:.4}  NLL {:.4}  ECE {:.4}", metrics.accuracy, metrics.nll, metrics.ece);
    }
    Ok(())
}

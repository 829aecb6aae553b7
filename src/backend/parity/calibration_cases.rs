//! The reliability histogram, which is integers: every device must give those of its definition.

use super::arena::{Arena, Output};
use super::{devices, values};
use crate::calibration::Histogram;
use crate::shape::Shape;

/// Checks every device against [`Histogram::of`], whose own tests hold it to f64.
fn check(logits: &[f32], labels: &[u32], classes: usize) {
    let s = Shape::features(labels.len(), classes);
    let expected = Histogram::of(logits, labels, classes).unwrap();
    for device in devices() {
        let case = |arena: &mut Arena| {
            let x = arena.exact(s, 1, logits);
            arena.run(&[Output::Value(x)], |on| {
                assert_eq!(on.calibration_histogram(x, labels)?, expected, "{s}, {}", device.name);
                Ok(())
            });
        };
        device.run(|on| Arena::play(on, 0, &case));
    }
}

#[test]
fn equal_logits_give_equal_histograms_on_every_device() {
    for (n, classes) in [(1, 1), (15, 2), (17, 10), (33, 31), (9, 33), (16, 100), (3, 1000)] {
        // From undecided to certain rows, whose losses under- and overflow.
        for scale in [0.01, 3.0, 60.0, 1e5] {
            let mut logits: Vec<f32> = values(n * classes, 1).iter().map(|x| x * scale).collect();
            // Ties for the largest, and a class ruled out.
            logits[..classes.min(3)].fill(2.0 * scale);
            if classes > 2 {
                logits[classes - 1] = f32::NEG_INFINITY;
            }
            let labels: Vec<u32> = (0..n).map(|row| ((row * row + classes - 1) % classes) as u32).collect();
            check(&logits, &labels, classes);
        }
    }
}

// ln(k / (15 - k)) makes a confidence of two classes next to the edge k / 15, on one side or the other.
#[test]
fn confidences_at_the_edges_of_bins_fall_on_the_same_side_everywhere() {
    let edges = (8..15).map(|k| (f64::from(k) / f64::from(15 - k)).ln() as f32);
    let near = edges.flat_map(|x| [x.next_down().next_down(), x.next_down(), x, x.next_up(), x.next_up().next_up()]);
    let logits: Vec<f32> = near.flat_map(|x| [0.0, x]).collect();
    let labels: Vec<u32> = (0..logits.len() as u32 / 2).map(|row| row % 2).collect();
    check(&logits, &labels, 2);
}

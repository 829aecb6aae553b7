//! Every method on predictions whose flaw is known.

use super::*;
use crate::calibration::{Accumulator, Evaluator, Options};
use crate::rng::{Domain, Stream};

const CLASSES: usize = 4;
const METHODS: [(Method, bool); 6] = [
    (Method::Temperature, false),
    (Method::Vector, false),
    (Method::Histogram, false),
    (Method::Histogram, true),
    (Method::Isotonic, false),
    (Method::Isotonic, true),
];

/// Logits that claim `sharpness` times what the labels were drawn from, with class 1 pushed up by `push`.
fn drawn(n: usize, seed: u64, sharpness: f64, push: f64) -> (Vec<f64>, Vec<u32>) {
    let mut random = Stream::new(seed, Domain::Bootstrap, 0, 7);
    let (mut logits, mut labels) = (vec![], vec![]);
    for _ in 0..n {
        let z: [f64; CLASSES] = std::array::from_fn(|_| 1.5 * random.normal());
        let sum: f64 = z.iter().map(|z| z.exp()).sum();
        let mut left = random.uniform() * sum;
        let label = z.iter().position(|z| {
            left -= z.exp();
            left < 0.0
        });
        labels.push(label.unwrap_or(CLASSES - 1) as u32);
        logits.extend(z.iter().enumerate().map(|(k, z)| sharpness * z + if k == 1 { push } else { 0.0 }));
    }
    (logits, labels)
}

fn metrics(recalibrator: Option<&Recalibrator>, logits: &[f64], labels: &[u32]) -> crate::calibration::Metrics {
    let mut evaluator = match recalibrator {
        Some(recalibrator) => Evaluator::recalibrated(recalibrator.clone(), Options::default()),
        None => Evaluator::new(CLASSES, Options::default()),
    };
    evaluator.add(Scores::Logits(logits), labels).unwrap();
    evaluator.finish().unwrap().metrics
}

#[test]
fn every_method_mends_an_over_confident_model() {
    let (validation, validation_labels) = drawn(8000, 1, 2.0, 0.0);
    let (test, labels) = drawn(8000, 2, 2.0, 0.0);
    let before = metrics(None, &test, &labels);
    assert!(before.ece > 0.08, "{}", before.ece);
    for (method, top_label) in METHODS {
        let fitted =
            Recalibrator::fit(method, top_label, Scores::Logits(&validation), &validation_labels, CLASSES).unwrap();
        let after = metrics(Some(&fitted), &test, &labels);
        assert!(after.ece < 0.03 && after.nll < before.nll, "{method:?} {top_label}: {} {}", after.ece, after.nll);
        if fitted.keeps_predictions() {
            assert_eq!(after.accuracy, before.accuracy, "{method:?} {top_label}");
        }
    }
}

// The truth is z / 2 with class 1 moved back by half its push: w = 1/2, b_1 - b_k = -push / 2.
#[test]
fn vector_scaling_finds_the_factors_and_shifts_that_were_applied() {
    let (validation, labels) = drawn(40_000, 3, 2.0, 3.0);
    let fitted = Recalibrator::fit(Method::Vector, false, Scores::Logits(&validation), &labels, CLASSES).unwrap();
    let Map::Vector { scale, shift, .. } = fitted.map() else { panic!() };
    for k in 0..CLASSES {
        // Standard errors are about .01 and .02.
        assert!((scale[k] - 0.5).abs() < 0.04, "{scale:?}");
        let expected = if k == 1 { -1.5 } else { 0.0 };
        assert!((shift[k] - shift[0] - expected).abs() < 0.08, "{shift:?}");
    }
}

#[test]
fn vector_scaling_is_never_worse_than_temperature_on_what_both_were_fitted_on() {
    for seed in 0..5 {
        let (logits, labels) = drawn(60, seed, 1.7, 0.5);
        let nll = |method| {
            let fitted = Recalibrator::fit(method, false, Scores::Logits(&logits), &labels, CLASSES).unwrap();
            metrics(Some(&fitted), &logits, &labels).nll
        };
        let (scalar, vector) = (nll(Method::Temperature), nll(Method::Vector));
        let before = metrics(None, &logits, &labels).nll;
        assert!(scalar <= before + 1e-9 && vector <= scalar + 1e-9, "{before} {scalar} {vector}");
    }
}

#[test]
fn probabilities_are_recalibrated_as_the_logits_they_came_from() {
    let (logits, labels) = drawn(2000, 4, 2.0, 1.0);
    let probs: Vec<f64> = (logits.chunks(CLASSES))
        .flat_map(|row| {
            let sum: f64 = row.iter().map(|z| z.exp()).sum();
            row.iter().map(move |z| z.exp() / sum).collect::<Vec<_>>()
        })
        .collect();
    // Not vector scaling: a row's logarithms differ from its logits by a number that each class multiplies by its own factor.
    for (method, top_label) in METHODS.into_iter().filter(|(method, _)| *method != Method::Vector) {
        let a = Recalibrator::fit(method, top_label, Scores::Logits(&logits), &labels, CLASSES).unwrap();
        let b = Recalibrator::fit(method, top_label, Scores::Probs(&probs), &labels, CLASSES).unwrap();
        let mut other = Evaluator::recalibrated(b, Options::default());
        other.add(Scores::Probs(&probs), &labels).unwrap();
        let (a, b) = (metrics(Some(&a), &logits, &labels), other.finish().unwrap().metrics);
        assert!((a.nll - b.nll).abs() < 2e-3 && (a.accuracy - b.accuracy).abs() < 2e-3, "{method:?} {top_label}");
    }
}

#[test]
fn a_saved_recalibration_reads_back_as_itself() {
    let (logits, labels) = drawn(300, 5, 2.0, 1.0);
    for (method, top_label) in METHODS {
        let fitted = Recalibrator::fit(method, top_label, Scores::Logits(&logits), &labels, CLASSES).unwrap();
        assert_eq!(Recalibrator::from_json(&fitted.to_json()).unwrap(), fitted);
    }
}

#[test]
fn files_that_are_no_recalibration_are_errors() {
    for (text, part) in [
        ("", "not a saved recalibration"),
        ("[1, 2]", "not a saved recalibration"),
        (r#"{"classes": 3, "method": "magic"}"#, "magic"),
        (r#"{"classes": 0, "method": "temperature", "temperature": 2.0}"#, "0 classes"),
        (r#"{"classes": 3, "method": "temperature", "temperature": -1.0}"#, "temperature of -1"),
        (
            r#"{"classes": 3, "method": "vector", "scale": [1.0], "shift": [0.0], "kind": "logits"}"#,
            "1 factors for 3 classes",
        ),
        (r#"{"classes": 2, "method": "isotonic", "top_label": false, "curves": []}"#, "0 curves for 2 classes"),
        (r#"{"classes": 2, "method": "isotonic", "top_label": true, "curves": [[[0.2, 0.9], [0.3, 0.1]]]}"#, "rise"),
        (r#"{"classes": 2, "method": "isotonic", "top_label": true, "curves": [[[0.2, 1.5]]]}"#, "1.5"),
        (r#"{"classes": 2, "method": "histogram", "top_label": true, "curves": [[]]}"#, "without"),
    ] {
        let message = Recalibrator::from_json(text).unwrap_err().to_string();
        assert!(message.contains(part), "{text}: {message}");
    }
}

#[test]
fn the_top_label_alone_has_no_temperature() {
    let error = Recalibrator::fit(Method::Temperature, true, Scores::Logits(&[1.0f32, 0.0]), &[0], 2).unwrap_err();
    assert!(matches!(error, Error::Usage(_)), "{error}");
}

// One bin, .5 to 1, with one hit of four: .8 becomes .25 for whoever is predicted, and the others share .75 as 1 : 3.
#[test]
fn a_mapped_confidence_leaves_the_prediction_and_the_others_proportions() {
    let rates = Curve::Bins(vec![None, Some(0.25)]);
    let fitted = Recalibrator::new(3, Map::Histogram { top_label: true, curves: vec![rates] }).unwrap();
    let (kind, row) = fitted.apply(Scores::Probs(&[0.05, 0.8, 0.15])).unwrap();
    assert_eq!(kind, Kind::Probs);
    assert!(row.iter().zip([0.1875, 0.25, 0.5625]).all(|(a, b)| (a - b).abs() < 1e-12), "{row:?}");
    let mut scratch = Scratch::new(3);
    let (outcome, changed) = fitted.outcome(&[0.05, 0.8, 0.15], Kind::Probs, 1, &mut scratch).unwrap();
    assert!(outcome.correct && !changed && outcome.confidence == 0.25, "{outcome:?}");
}

#[test]
fn a_row_of_zeros_becomes_uniform_and_its_loss_finite() {
    let zero = Curve::Bins(vec![Some(0.0)]);
    let map = Map::Histogram { top_label: false, curves: vec![zero.clone(), zero.clone()] };
    let fitted = Recalibrator::new(2, map).unwrap();
    assert_eq!(fitted.apply(Scores::Probs(&[0.9, 0.1])).unwrap().1, [0.5, 0.5]);
    let map = Map::Histogram { top_label: false, curves: vec![Curve::Bins(vec![Some(1.0)]), zero] };
    let fitted = Recalibrator::new(2, map).unwrap();
    let mut scratch = Scratch::new(2);
    let (outcome, _) = fitted.outcome(&[0.9, 0.1], Kind::Probs, 1, &mut scratch).unwrap();
    assert!((outcome.nll + FLOOR.ln()).abs() < 1e-9, "{}", outcome.nll);
}

#[test]
fn changed_predictions_are_counted() {
    let map = Map::Vector { scale: vec![1.0, 1.0], shift: vec![0.0, 3.0], kind: Kind::Logits };
    let mut evaluator = Evaluator::recalibrated(Recalibrator::new(2, map).unwrap(), Options::default());
    evaluator.add(Scores::Logits(&[2.0f32, 0.0, 5.0, 0.0, 0.0, 1.0]), &[0, 0, 1]).unwrap();
    assert_eq!(evaluator.changed_predictions(), 1);
    let message = evaluator.clone().add(Scores::Probs(&[0.5, 0.5]), &[0]).unwrap_err().to_string();
    assert!(message.contains("fitted on logits"), "{message}");
    let metrics = evaluator.finish().unwrap().metrics;
    let mut expected = Accumulator::new(2);
    expected.add_logits(&[2.0, 3.0, 5.0, 3.0, 0.0, 4.0], &[0, 0, 1]).unwrap();
    let expected = expected.metrics().unwrap();
    assert!((metrics.ece - expected.ece).abs() < 1e-7 && metrics.accuracy == expected.accuracy);
}

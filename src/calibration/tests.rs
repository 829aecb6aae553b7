//! The toolkit as a whole: hand-computed cases, simulations with a known answer, and other tools' results.

use proptest::prelude::*;

use super::*;
use crate::rng::{Domain, Stream};

fn metrics(probs: &[f32], labels: &[u32], classes: usize) -> Metrics {
    evaluate(Scores::Probs(probs), labels, classes, &Options::default()).unwrap().metrics
}

/// n samples whose confidence is uniform in [0, 1] and that are right with exactly that probability.
fn calibrated(n: usize, seed: u64) -> Metrics {
    let mut stream = Stream::new(seed, Domain::Bootstrap, 0, 1);
    /// One class, filled up.
    const CERTAIN: [f32; 16] = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let mut accumulator = Accumulator::new(1);
    for _ in 0..n {
        let confidence = stream.uniform() as f32;
        let correct = stream.uniform() < f64::from(confidence);
        accumulator.add_row(&CERTAIN, 0, &Outcome { confidence, correct, top5: true, nll: 0.0, brier: 0.0 });
    }
    accumulator.metrics().unwrap()
}

/// n samples of ten classes by a formula that any language can repeat: integer arithmetic, exact quarters.
fn reproducible(n: u32) -> (Vec<f32>, Vec<u32>) {
    let logit = |i: u32, k: u32| ((i * 7919 + k * 10_007 + i * k * 31) % 41) as f32 / 4.0;
    let logits: Vec<f32> = (0..n).flat_map(|i| (0..10).map(move |k| logit(i, k))).collect();
    let top = |i: u32| softmax::argmax(&logits[10 * i as usize..][..10]) as u32;
    let labels = (0..n).map(|i| if i * 37 % 10 < 7 { top(i) } else { i * 13 % 10 }).collect();
    (logits, labels)
}

// torchmetrics 1.9 gives another value (its issue 3510): it puts 1.0 into a bin of its own.
#[test]
fn a_confidence_of_one_shares_the_last_bin() {
    let metrics = metrics(&[0.95, 0.05, 1.0, 0.0], &[0, 1], 2);
    assert!((metrics.ece_10 - 0.475).abs() < 1e-7 && (metrics.ece - 0.475).abs() < 1e-7);
}

// 500 samples of `reproducible`. scikit-learn 1.9.1: accuracy, nll, brier (f64 softmax), top5 (columns
// reversed, since it puts the higher index first among ties). torchmetrics 1.9.0: ECE, RMSCE
// and MCE, 15 and 10 bins. uncertainty-calibration 0.1.4 (Kumar's own): ECE, the debiased square. The rest from numpy 2.4.6
// by the definitions in spec order; aurc as the mean of 4,000 random orders of the ties, hence its tolerance.
#[test]
fn metrics_agree_with_other_tools() {
    let (logits, labels) = reproducible(500);
    let m = evaluate(Scores::Logits(&logits), &labels, 10, &Options::default()).unwrap().metrics;
    let cases = [
        ("accuracy", m.accuracy, 0.72, 1e-12),
        ("top5", m.top5.unwrap(), 0.86, 1e-12),
        ("nll", m.nll, 1.878265017584716, 1e-9),
        ("brier", m.brier, 0.5914983223182576, 1e-6),
        ("brier_reliability", m.brier_reliability, 0.09954448938053571, 1e-6),
        ("brier_resolution", m.brier_resolution, 0.3890283541004418, 1e-6),
        ("brier_uncertainty", m.brier_uncertainty, 0.879104, 1e-6),
        ("brier_within_bin", m.brier_within_bin, 0.0018781877529103974, 1e-6),
        ("ece", m.ece, 0.19127411884069445, 1e-6),
        ("ece_10", m.ece_10, 0.1860998863577843, 1e-6),
        ("rmsce", m.rmsce, 0.23237991799843713, 1e-6),
        ("mce", m.mce, 0.6499999985098839, 1e-6),
        ("ace", m.ace.unwrap(), 0.19041033047437667, 1e-6),
        ("class_ece", m.class_ece, 0.06589008166931817, 1e-6),
        ("tace", m.tace.unwrap(), 0.05342298085149379, 1e-6),
        ("l2_debiased_sq", m.l2_debiased_sq.unwrap(), 0.049384712831684205, 1e-6),
        ("aurc", m.aurc.unwrap(), 0.27597446442810847, 2.5e-4),
    ];
    for (key, found, expected, tolerance) in cases {
        assert!((found - expected).abs() <= tolerance, "{key} is {found}, expected {expected}");
    }
}

#[test]
fn ties_are_predicted_as_the_lowest_class() {
    assert_eq!(metrics(&[0.5, 0.5, 0.5, 0.5], &[0, 1], 2).accuracy, 0.5);
}

#[test]
fn a_zero_probability_is_an_infinite_loss_written_as_null_and_counted() {
    let found = metrics(&[0.0, 1.0, 0.5, 0.5], &[0, 0], 2);
    assert_eq!((found.nll, found.nll_infinite), (f64::INFINITY, 1));
    let json = serde_json::to_string(&found).unwrap();
    assert!(json.contains(r#""nll":null,"nll_infinite":1"#), "{json}");
    assert_eq!(serde_json::from_str::<Metrics>(&json).unwrap(), found);
}

#[test]
fn certain_and_right_predictions_have_no_error_at_all() {
    let found = metrics(&[1.0, 0.0, 0.0, 1.0], &[0, 1], 2);
    let errors = [found.nll, found.brier, found.ece, found.mce, found.rmsce, found.class_ece, found.aurc.unwrap()];
    assert_eq!(errors, [0.0; 7]);
}

#[test]
fn keys_come_in_the_specified_order_and_only_where_they_exist() {
    let keys = |classes: usize, intervals: bool| {
        let scores = vec![1.0 / classes as f32; 2 * classes];
        let options = Options { intervals, seed: 1, ..Options::default() };
        let found = evaluate(Scores::Probs(&scores), &[0, 1], classes, &options).unwrap().metrics;
        let serde_json::Value::Object(map) = serde_json::to_value(found).unwrap() else { panic!("not an object") };
        map.keys().cloned().collect::<Vec<_>>().join(" ")
    };
    let all = "n accuracy top5 nll brier brier_reliability brier_resolution brier_uncertainty brier_within_bin \
               ece ece_10 rmsce mce ace class_ece tace l2_debiased_sq aurc binning";
    assert_eq!(keys(5, false), all);
    assert_eq!(keys(3, false), all.replace("top5 ", ""));
    // An infinite or missing metric has no interval; the predictions are all alike, so nothing else is missing.
    let intervals: Vec<String> =
        all.split(' ').filter(|key| !matches!(*key, "n" | "binning")).map(|key| format!("{key}_ci95")).collect();
    assert_eq!(keys(5, true), format!("{all} {} ci95_method", intervals.join(" ")));
}

// The wording of calibration.md: number of bins, scheme, edges and norm of every calibration error.
#[test]
fn every_calibration_error_states_its_bins_and_norm() {
    // .85 and .86 share a bin of two, so that an error can be debiased.
    let found = metrics(&[0.9, 0.1, 0.85, 0.15, 0.86, 0.14], &[0, 1, 0], 2);
    let stated: Vec<(&str, &str)> = found.binning.iter().map(|(key, bins)| (key.as_str(), bins.as_str())).collect();
    let expected = [
        ("ace", "15 equal-mass bins, l1"),
        ("class_ece", "15 equal-width bins (lo, hi] of each class's probability, l1"),
        ("ece", "15 equal-width bins (lo, hi], l1"),
        ("ece_10", "10 equal-width bins [lo, hi), l1"),
        ("l2_debiased_sq", "15 equal-width bins (lo, hi], l2 squared"),
        ("mce", "15 equal-width bins (lo, hi], max"),
        ("rmsce", "15 equal-width bins (lo, hi], l2"),
        ("tace", "15 equal-mass bins of each class's probabilities above 0.01, l1"),
    ];
    assert_eq!(stated, expected);
    assert!(!metrics(&[0.9, 0.1], &[0], 2).binning.contains_key("l2_debiased_sq"), "an error that is left out");
}

#[test]
fn metrics_written_before_the_binning_was_stated_still_read() {
    let mut found = metrics(&[0.9, 0.1, 0.8, 0.2], &[0, 1], 2);
    let mut value = serde_json::to_value(&found).unwrap();
    assert!(value.as_object_mut().unwrap().remove("binning").is_some());
    found.binning.clear();
    assert_eq!(serde_json::from_value::<Metrics>(value).unwrap(), found);
}

#[test]
fn metrics_with_intervals_survive_json() {
    let (logits, labels) = reproducible(50);
    let evaluation =
        evaluate(Scores::Logits(&logits), &labels, 10, &Options { intervals: true, seed: 3, ..Options::default() })
            .unwrap();
    let json = serde_json::to_string(&evaluation).unwrap();
    assert_eq!(serde_json::from_str::<Evaluation>(&json).unwrap(), evaluation);
}

// The bias of ECE on a perfectly calibrated model, 15 bins: .125 at n = 100, .027 at 2,000, .012 at 10,000 (simulated
// independently, spec/calibration.md). The mean of the runs has a standard error of about a hundredth of it.
#[test]
fn a_perfectly_calibrated_model_shows_the_known_bias_of_ece() {
    for (n, runs, expected) in [(100, 1000, 0.125), (2_000, 200, 0.027), (10_000, 100, 0.012)] {
        let mean = (0..runs).map(|seed| calibrated(n, seed).ece).sum::<f64>() / runs as f64;
        assert!((mean / expected - 1.0).abs() < 0.05, "n = {n}: {mean}");
    }
}

#[test]
fn the_debiased_error_of_a_calibrated_model_averages_zero() {
    let runs: Vec<f64> = (0..400).map(|seed| calibrated(1000, seed).l2_debiased_sq.unwrap()).collect();
    let mean = runs.iter().sum::<f64>() / 400.0;
    let sd = (runs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 399.0).sqrt();
    let plain: f64 = (0..400).map(|seed| calibrated(1000, seed).rmsce.powi(2)).sum::<f64>() / 400.0;
    assert!(mean.abs() < 4.0 * sd / 20.0, "{mean}, standard error {}", sd / 20.0);
    assert!(plain > 10.0 * sd / 20.0, "the plain square should be biased: {plain}");
}

#[test]
fn accuracy_intervals_have_the_binomials_width() {
    let (logits, labels) = reproducible(2000);
    let options = Options { intervals: true, seed: 5, ..Options::default() };
    let found = evaluate(Scores::Logits(&logits), &labels, 10, &options).unwrap().metrics;
    let intervals = found.intervals;
    let [low, high] = intervals.accuracy_ci95.unwrap();
    let width = 2.0 * 1.96 * (found.accuracy * (1.0 - found.accuracy) / 2000.0).sqrt();
    assert!(((high - low) / width - 1.0).abs() < 0.1, "{} against {width}", high - low);
    assert!(low < found.accuracy && found.accuracy < high);
    assert_eq!(intervals.ci95_method, Some(Method::Samples));
}

// 40 sets of a model that claims .9 and holds .8, so that its ECE is .1: nineteen in twenty intervals should hold that, and
// below 32 of 40 has a chance of one in 7,000.
#[test]
fn intervals_of_ece_hold_the_true_value() {
    let holds = |seed: &u32| {
        let mut stream = Stream::new(u64::from(*seed), Domain::Bootstrap, 0, 5);
        let labels: Vec<u32> = (0..400).map(|_| u32::from(stream.uniform() > 0.8)).collect();
        let options = Options { intervals: true, seed: 1, ..Options::default() };
        let found = evaluate(Scores::Probs(&[0.9, 0.1].repeat(400)), &labels, 2, &options).unwrap().metrics;
        let [low, high] = found.intervals.ece_ci95.unwrap();
        low < 0.1 && 0.1 < high && low < found.ece && found.ece < high
    };
    assert!((0..40).filter(holds).count() >= 32);
}

/// `n` samples of two classes whose first has a probability uniform in [.6, .99), a multiple of 2^-12, and is right by .2 less
/// often than that says.
fn overconfident(n: usize, seed: u32) -> Metrics {
    let mut stream = Stream::new(u64::from(seed), Domain::Bootstrap, 0, 14);
    let (mut probs, mut labels) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let p = (4096.0 * (0.6 + 0.39 * stream.uniform())).floor() / 4096.0;
        probs.extend([p as f32, 1.0 - p as f32]);
        labels.push(u32::from(stream.uniform() > p - 0.2));
    }
    let options = Options { intervals: true, seed: 1, ..Options::default() };
    evaluate(Scores::Probs(&probs), &labels, 2, &options).unwrap().metrics
}

// The second class mirrors the first, so its errors are the same in every resample: were classes drawn one by one, the
// intervals would be narrower by the square root of two.
#[test]
fn of_two_classes_the_class_wise_intervals_are_those_of_the_top_label() {
    let found = overconfident(300, 1).intervals;
    for (classes, top) in [(found.class_ece_ci95, found.ece_ci95), (found.tace_ci95, found.ace_ci95)] {
        let (classes, top) = (classes.unwrap(), top.unwrap());
        assert!((0..2).all(|end| (classes[end] - top[end]).abs() < 1e-7), "{classes:?} is not {top:?}");
        assert!(top[1] - top[0] > 0.02);
    }
}

// The mean of y is p - .2 in every bin: class-wise errors .2, reliability 2 x .04, uncertainty 2 x .595 x .405. Below 32 of 40
// has a chance of one in 7,000.
#[test]
fn class_wise_intervals_hold_the_true_values() {
    let all: Vec<Intervals> = (0..40).map(|seed| overconfident(600, seed).intervals).collect();
    let holds = |interval: fn(&Intervals) -> Option<[f64; 2]>, truth: f64| {
        all.iter().filter_map(interval).filter(|[low, high]| *low < truth && truth < *high).count()
    };
    assert!(holds(|found| found.class_ece_ci95, 0.2) >= 32);
    assert!(holds(|found| found.tace_ci95, 0.2) >= 32);
    assert!(holds(|found| found.brier_reliability_ci95, 0.08) >= 32);
    assert!(holds(|found| found.brier_uncertainty_ci95, 2.0 * 0.595 * 0.405) >= 32);
}

// 2 q (1 - q) of a binomial q has the standard deviation 2 |1 - 2 q| sqrt(q (1 - q) / n) (delta method).
#[test]
fn uncertainty_intervals_have_the_width_of_the_delta_method() {
    let found = overconfident(4000, 3);
    let [low, high] = found.intervals.brier_uncertainty_ci95.unwrap();
    let q = found.accuracy;
    let width = 2.0 * 1.96 * 2.0 * (1.0 - 2.0 * q).abs() * (q * (1.0 - q) / 4000.0).sqrt();
    assert!(((high - low) / width - 1.0).abs() < 0.12, "{} against {width}", high - low);
}

#[test]
fn intervals_of_certain_and_right_predictions_of_one_class_have_no_width() {
    let options = Options { intervals: true, ..Options::default() };
    let of = evaluate(Scores::Probs(&[1.0, 0.0].repeat(50)), &[0; 50], 2, &options).unwrap().metrics.intervals;
    let brier = [of.brier_reliability_ci95, of.brier_resolution_ci95, of.brier_uncertainty_ci95];
    assert_eq!(brier, [Some([0.0; 2]); 3]);
    assert_eq!([of.class_ece_ci95, of.tace_ci95, of.brier_within_bin_ci95], [Some([0.0; 2]); 3]);
}

#[test]
fn class_wise_intervals_depend_on_the_seed() {
    let (logits, labels) = reproducible(100);
    let of = |seed| {
        let options = Options { intervals: true, seed, ..Options::default() };
        evaluate(Scores::Logits(&logits), &labels, 10, &options).unwrap().metrics.intervals
    };
    assert_eq!(of(1), of(1));
    assert_ne!(of(1).class_ece_ci95, of(2).class_ece_ci95);
    assert_ne!(of(1).tace_ci95, of(2).tace_ci95);
    assert_ne!(of(1).brier_resolution_ci95, of(2).brier_resolution_ci95);
}

#[test]
fn large_sets_are_resampled_by_cell_and_say_so() {
    let n = LARGE_N + 1;
    let mut stream = Stream::new(9, Domain::Bootstrap, 0, 2);
    let (mut probs, mut labels) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let p = (0.5 + 0.5 * stream.uniform()) as f32;
        probs.extend([p, 1.0 - p]);
        // Over-confident by .05.
        labels.push(u32::from(stream.uniform() > f64::from(p) - 0.05));
    }
    let found =
        evaluate(Scores::Probs(&probs), &labels, 2, &Options { intervals: true, seed: 2, ..Options::default() })
            .unwrap()
            .metrics;
    let intervals = found.intervals;
    let [low, high] = intervals.accuracy_ci95.unwrap();
    let width = 2.0 * 1.96 * (found.accuracy * (1.0 - found.accuracy) / n as f64).sqrt();
    assert!(((high - low) / width - 1.0).abs() < 0.1, "{} against {width}", high - low);
    let [low, high] = intervals.ece_ci95.unwrap();
    assert!(low < 0.05 && 0.05 < high && high - low < 0.01, "{low}..{high}");
    assert_eq!((intervals.ci95_method, intervals.nll_ci95), (Some(Method::Multinomial), None));
    assert_eq!((intervals.class_ece_ci95, intervals.tace_ci95, intervals.brier_within_bin_ci95), (None, None, None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_order_of_the_samples_does_not_change_a_bit(seed in 0u64..1000, n in 1u32..80) {
        let (logits, labels) = reproducible(n);
        let mut order: Vec<usize> = (0..n as usize).collect();
        Stream::new(seed, Domain::Shuffle, 0, 0).shuffle(&mut order);
        let shuffled: Vec<f32> = order.iter().flat_map(|&i| logits[10 * i..][..10].to_vec()).collect();
        let shuffled_labels: Vec<u32> = order.iter().map(|&i| labels[i]).collect();
        let options = Options { intervals: true, seed: 1, ..Options::default() };
        let given = evaluate(Scores::Logits(&logits), &labels, 10, &options).unwrap();
        let again = evaluate(Scores::Logits(&shuffled), &shuffled_labels, 10, &options).unwrap();
        prop_assert_eq!(serde_json::to_string(&given).unwrap(), serde_json::to_string(&again).unwrap());
    }
}

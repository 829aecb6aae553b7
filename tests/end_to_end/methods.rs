//! Every method trains, counts its weights exactly and reports all that is promised.

use std::collections::BTreeMap;
use std::path::Path;

use cigl::config::Method;
use cigl::sparse::density::{Distribution, layer_densities};
use serde_json::Value;

use crate::program::{cigl, fail, succeed, train, trained};
use crate::run_files::{Tensors, files, log, model, summary};

/// The masked tensors of the small convnet for one-channel images of ten classes, spec/method.md section 10.
const LAYERS: [(&str, [usize; 4]); 6] = [
    ("conv1.weight", [16, 1, 3, 3]),
    ("conv2.weight", [32, 16, 3, 3]),
    ("conv3.weight", [32, 32, 3, 3]),
    ("conv4.weight", [64, 32, 3, 3]),
    ("conv5.weight", [64, 64, 3, 3]),
    ("fc.weight", [10, 64, 1, 1]),
];
const PARAMETERS: usize = 70_330;
const MASKABLE: usize = 144 + 4_608 + 9_216 + 18_432 + 36_864 + 640;

/// What the specification wants active in each layer.
fn erk_counts(density: f64) -> BTreeMap<String, (usize, usize)> {
    let shapes = LAYERS.map(|(name, shape)| if name == "fc.weight" { shape[..2].to_vec() } else { shape.to_vec() });
    let densities = layer_densities(Distribution::Erk, density, &shapes, false).unwrap();
    let counts = LAYERS
        .iter()
        .zip(densities)
        .map(|((name, shape), density)| (name.to_string(), (density.n_active, shape.iter().product::<usize>())));
    counts.collect()
}

fn assert_nothing_outside_the_masks(model: &Tensors, what: &str) {
    for weight in model.masked() {
        let inside = model.mask(&weight);
        let outside = model.floats(&weight).into_iter().zip(inside).filter(|(x, inside)| !inside && *x != 0.0).count();
        assert_eq!(outside, 0, "{what}: {weight}");
    }
}

const SUMMARY: [&str; 22] = [
    "method",
    "dataset",
    "network",
    "sparsity_target",
    "sparsity",
    "density_by_layer",
    "params",
    "params_active",
    "train_flops_ratio",
    "inference_flops_ratio",
    "epochs",
    "steps",
    "mask_updates",
    "first_mask_overlap",
    "ever_active",
    "dead_channels",
    "snapshots",
    "seed",
    "device",
    "seconds",
    "images_per_second",
    "test",
];
const METRICS: [&str; 10] = ["n", "accuracy", "top5", "nll", "brier", "ece", "ece_10", "mce", "ace", "class_ece"];

#[test]
fn every_method_trains_learns_and_reports_every_key() {
    let folder = tempfile::tempdir().unwrap();
    let source = trained(folder.path(), "source", "rigl", &[]);
    for method in Method::ALL {
        let mask_from = format!("sparse.mask_from={}", source.display());
        let run = trained(folder.path(), method.name(), method.name(), &["data.validation=64", &mask_from]);
        let text = std::fs::read_to_string(run.join("summary.json")).unwrap();
        let said: Value = serde_json::from_str(&text).unwrap();
        for key in SUMMARY {
            assert!(!said[key].is_null(), "{method}: summary.json has no {key}");
        }
        for (split, n) in [("test", 200), ("val", 64)] {
            for key in METRICS {
                assert!(said[split][key].is_number(), "{method}: {split} has no {key}");
            }
            assert_eq!(said[split]["n"], n, "{method}");
            assert_eq!(said[split]["ece_ci95"].as_array().map(Vec::len), Some(2), "{method}");
        }
        // Nine steps an epoch, since 64 of the 640 images are set apart; guessing would be right in a tenth.
        assert_eq!((&said["steps"], &said["epochs"]), (&54.into(), &6.into()), "{method}");
        assert!(said["test"]["accuracy"].as_f64().unwrap() > 0.4, "{method} learned nothing: {}", said["test"]);
        let parts = method.ingredients();
        let updates = if ["dense", "small-dense", "static", "lottery"].contains(&method.name()) { 0 } else { 8 };
        assert_eq!(said["mask_updates"], updates, "{method}");
        assert_eq!(said["snapshots"], if parts.averaging || parts.ensemble { 2 } else { 0 }, "{method}");
        assert_eq!(said["temperature"].is_number(), parts.temperature, "{method}");

        let model = model(&run);
        assert_nothing_outside_the_masks(&model, method.name());
        let active = model.active();
        if method != Method::SmallDense {
            assert_eq!(said["params"], PARAMETERS, "{method}");
            assert_eq!(said["params_active"], PARAMETERS - MASKABLE + active, "{method}");
            let sparsity = 1.0 - active as f64 / MASKABLE as f64;
            assert!((said["sparsity"].as_f64().unwrap() - sparsity).abs() < 1e-12, "{method}");
        }
        for (weight, (active, all)) in model.counts() {
            assert_eq!(said["density_by_layer"][&weight], active as f64 / all as f64, "{method}: {weight}");
        }
        for plot in ["reliability", "confidence", "training", "density"] {
            for ending in ["svg", "png"] {
                assert!(run.join(format!("plots/{plot}.{ending}")).is_file(), "{method}: {plot}.{ending}");
            }
        }
        assert_eq!(run.join("plots/evolution.png").is_file(), updates > 0, "{method}");
        assert_eq!(evaluated(&run), said["test"], "{method}: eval does not repeat the run's own measurement");
    }
}

/// The metrics that `cigl eval` prints.
fn evaluated(run: &Path) -> Value {
    let mut command = cigl();
    command.args(["eval", "--json"]).arg(run);
    serde_json::from_slice(&succeed(command).stdout).unwrap()
}

#[test]
fn methods_with_a_fixed_budget_keep_the_exact_count_of_every_layer() {
    let folder = tempfile::tempdir().unwrap();
    for (method, sparsity) in [
        ("static", "0.9"),
        ("set", "0.9"),
        ("rigl", "0.9"),
        ("cigl", "0.9"),
        ("cigl-no-rm", "0.95"),
        ("cigl-no-wma", "0.8"),
        ("rigl+wdp", "0.5"),
        ("rigl+mcdp", "0.99"),
    ] {
        let name = format!("{method}-{sparsity}");
        let run = trained(folder.path(), &name, method, &[&format!("sparsity={sparsity}")]);
        let density = ((1.0 - sparsity.parse::<f64>().unwrap()) * 100.0).round() / 100.0;
        assert_eq!(model(&run).counts(), erk_counts(density), "{name}");
        let last = Tensors::read(&run.join("checkpoint/last.safetensors"));
        assert_eq!(last.counts(), erk_counts(density), "{name}: last checkpoint");
        for point in log(&run).iter().filter(|point| !point["density"].is_null()) {
            let active: usize = erk_counts(density).values().map(|(active, _)| active).sum();
            assert_eq!(point["density"], active as f64 / MASKABLE as f64, "{name}: {point}");
        }
    }
}

#[test]
fn snfs_moves_weights_between_layers_and_keeps_the_total() {
    let folder = tempfile::tempdir().unwrap();
    let counts = model(&trained(folder.path(), "snfs", "snfs", &[])).counts();
    let start = erk_counts(0.1);
    let total = |counts: &BTreeMap<String, (usize, usize)>| counts.values().map(|(active, _)| active).sum::<usize>();
    assert_eq!(total(&counts), total(&start));
    assert_ne!(counts, start);
}

#[test]
fn gradual_pruning_reaches_its_target_exactly_from_a_dense_start() {
    let folder = tempfile::tempdir().unwrap();
    for sparsity in [0.9, 0.5] {
        let name = format!("gmp-{sparsity}");
        let run = trained(folder.path(), &name, "gmp", &[&format!("sparsity={sparsity}")]);
        let target = ((1.0 - sparsity) * MASKABLE as f64 + 0.5) as usize;
        assert_eq!(model(&run).active(), target);
        // Zhu and Gupta's cubic over the nine updates.
        let densities: Vec<f64> = log(&run).iter().filter_map(|point| point["density"].as_f64()).collect();
        assert_eq!((densities.len(), densities[0]), (10, 1.0));
        for (done, density) in densities.iter().enumerate() {
            let progress = done as f64 / 9.0;
            let expected = 1.0 - sparsity * (1.0 - (1.0 - progress).powi(3));
            assert!((density - expected).abs() <= 0.5 / MASKABLE as f64 + 1e-12, "{density} after update {done}");
        }
    }
    let start = model(&trained(folder.path(), "start", "gmp", &["train.steps=0"]));
    assert_eq!(start.active(), MASKABLE);
}

#[test]
fn a_small_dense_network_has_about_as_many_weights_as_the_sparse_one() {
    let folder = tempfile::tempdir().unwrap();
    for sparsity in [0.9, 0.8, 0.5] {
        let run = trained(
            folder.path(),
            &sparsity.to_string(),
            "small-dense",
            &["train.steps=2", &format!("sparsity={sparsity}")],
        );
        let said = summary(&run);
        let expected = (1.0 - sparsity) * PARAMETERS as f64;
        let ratio = said["params"].as_f64().unwrap() / expected;
        assert!((0.9..1.15).contains(&ratio), "{sparsity}: {ratio} times the weights");
        assert_eq!((&said["params"], &said["sparsity"]), (&said["params_active"], &0.0.into()));
    }
}

#[test]
fn a_lottery_ticket_has_the_masks_of_its_source_and_its_first_weights() {
    let folder = tempfile::tempdir().unwrap();
    let source = trained(folder.path(), "source", "gmp", &["seed=5"]);
    let dense_start = model(&trained(folder.path(), "start", "gmp", &["seed=5", "train.steps=0"]));
    let found = model(&source);
    let mask_from = format!("sparse.mask_from={}", source.display());
    let ticket = |name, steps| model(&trained(folder.path(), name, "lottery", &["seed=6", &mask_from, steps]));
    let (rewound, trained) = (ticket("rewound", "train.steps=0"), ticket("trained", "train.steps=30"));
    for weight in found.masked() {
        assert_eq!(rewound.mask(&weight), found.mask(&weight), "{weight}");
        assert_eq!(trained.mask(&weight), found.mask(&weight), "{weight}");
        let masked = dense_start.floats(&weight).into_iter().zip(found.mask(&weight));
        let expected: Vec<f32> = masked.map(|(x, inside)| if inside { x } else { 0.0 }).collect();
        assert_eq!(rewound.floats(&weight), expected, "{weight}");
    }
    // Other methods of the same command start as ever.
    let other = |name, settings: &[&str]| model(&crate::program::trained(folder.path(), name, "rigl", settings));
    assert_eq!(other("with", &["train.steps=0", &mask_from]).all, other("without", &["train.steps=0"]).all);
}

#[test]
fn the_result_of_cigl_lies_inside_the_last_mask() {
    let folder = tempfile::tempdir().unwrap();
    for semantics in ["paper", "official"] {
        let setting = format!("random_mask.semantics={semantics}");
        let run = trained(folder.path(), semantics, "cigl", &[&setting, "random_mask.keep=0.7"]);
        let (result, last) = (model(&run), Tensors::read(&run.join("checkpoint/last.safetensors")));
        for weight in result.masked() {
            assert_eq!(result.mask(&weight), last.mask(&weight), "{semantics}: {weight}");
        }
        assert_nothing_outside_the_masks(&result, semantics);
        assert_eq!(result.counts(), erk_counts(0.1), "{semantics}");
    }
}

#[test]
fn no_steps_write_the_initial_model_and_starting_from_it_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for method in ["rigl", "cigl", "dense"] {
        let start = trained(folder.path(), &format!("{method}-start"), method, &["train.steps=0"]);
        let said = summary(&start);
        assert_eq!((&said["steps"], &said["epochs"], &said["snapshots"]), (&0.into(), &0.into(), &0.into()));
        assert!(said["test"]["accuracy"].is_number());
        let file = start.join("checkpoint/model.safetensors");
        let init = format!("train.init={}", file.display());
        let again = trained(folder.path(), &format!("{method}-again"), method, &["train.steps=0", &init]);
        assert_eq!(model(&again).all, model(&start).all, "{method}");
        let plain = trained(folder.path(), &format!("{method}-plain"), method, &[]);
        let given = trained(folder.path(), &format!("{method}-given"), method, &[&init]);
        assert_eq!(model(&given).all, model(&plain).all, "{method}: the run from its own start");
        assert_eq!(log(&given), log(&plain), "{method}");
    }
}

#[test]
fn a_run_cut_before_its_first_snapshot_says_so_and_ends_with_the_last_weights() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let output = succeed(train("cigl", &run, &["train.steps=25"]));
    let said = crate::program::stderr(&output);
    assert!(said.contains("no snapshot was taken before step 25"), "{said}");
    let (result, last) = (model(&run), Tensors::read(&run.join("checkpoint/last.safetensors")));
    for name in result.all.keys() {
        assert_eq!(result.all[name], last.all[name], "{name}");
    }
}

#[test]
fn more_logits_than_classes_are_trained_and_measured() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), "run", "rigl", &["network.classes=25"]);
    assert_eq!(model(&run).all["fc.weight"].1, [25, 64]);
    assert!(summary(&run)["test"]["accuracy"].as_f64().unwrap() > 0.4);
}

#[test]
fn an_ensemble_keeps_its_snapshots_sparse_and_each_with_its_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), "run", "cigl-no-wma", &[]);
    let snapshots: Vec<_> =
        files(&run).into_iter().filter(|file| file.to_string_lossy().contains("snapshot-")).collect();
    assert_eq!(
        snapshots,
        [5, 6].map(|epoch| format!("checkpoint/snapshot-{epoch:04}.safetensors").into()) as [std::path::PathBuf; 2]
    );
    let [fifth, sixth] = [0, 1].map(|i: usize| Tensors::read(&run.join(&snapshots[i])));
    let last = Tensors::read(&run.join("checkpoint/last.safetensors"));
    assert_ne!(fifth.all["bn1.running_mean"], sixth.all["bn1.running_mean"]);
    assert_eq!(last.all["bn1.running_mean"], sixth.all["bn1.running_mean"]);
    for weight in last.masked() {
        let kept = expanded(&sixth, &weight).into_iter().zip(last.floats(&weight)).zip(last.mask(&weight));
        let active: Vec<bool> = kept
            .filter(|&((sample, master), inside)| {
                assert!(sample == 0.0 || (inside && sample == master), "{weight}");
                inside
            })
            .map(|((sample, _), _)| sample != 0.0)
            .collect();
        let share = active.iter().filter(|&&kept| kept).count() as f64 / active.len() as f64;
        // keep is .95; of the 87 weights and more of a layer, more than 3 in 20 are dropped once in many thousand runs.
        assert!((0.85..=1.0).contains(&share), "{weight}: {share} of the weights kept");
    }
    let size = |file: &std::path::Path| std::fs::metadata(run.join(file)).unwrap().len();
    assert!(
        5 * size(&snapshots[0]) < size("checkpoint/model.safetensors".as_ref()),
        "90 % of the weights are not stored"
    );
}

/// A snapshot's weight: the values at the ones of its bits, lowest bit first.
fn expanded(snapshot: &Tensors, weight: &str) -> Vec<f32> {
    let mut values = snapshot.floats(&format!("{weight}.values")).into_iter();
    let bits = &snapshot.all[&format!("{weight}.bits")].2;
    let bit = |i: usize| bits[i / 8] >> (i % 8) & 1 == 1;
    let dense = (0..8 * bits.len()).map(|i| if bit(i) { values.next().unwrap() } else { 0.0 }).collect();
    assert_eq!(values.next(), None, "{weight}: a value for each one");
    dense
}

#[test]
fn an_ensemble_without_its_snapshots_is_an_error_and_not_another_network() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), "run", "cigl-no-wma", &[]);
    let alone = folder.path().join("model.safetensors");
    std::fs::copy(run.join("checkpoint/model.safetensors"), &alone).unwrap();
    let mut eval = cigl();
    eval.arg("eval").arg(&alone);
    let error = fail(eval, 1);
    assert!(error.contains("holds 0 files snapshot-NNNN.safetensors, the run kept 2"), "{error}");
}

#[test]
fn the_probabilities_of_predictions_are_those_of_the_method() {
    let folder = tempfile::tempdir().unwrap();
    let validation = ["data.validation=64"];
    // Temperature scaling changes no prediction, but the confidence in it.
    let scaled = summary(&trained(folder.path(), "scaled", "rigl+ts", &validation));
    let plain = summary(&trained(folder.path(), "plain", "rigl", &validation));
    assert_eq!(scaled["test"]["accuracy"], plain["test"]["accuracy"]);
    assert_ne!(scaled["test"]["nll"], plain["test"]["nll"]);
    assert!(scaled["val"]["nll"].as_f64() <= plain["val"]["nll"].as_f64(), "the temperature fits the validation set");
    // W-DP and MC-DP are trained alike and differ at test time.
    let [wdp, mcdp] = ["rigl+wdp", "rigl+mcdp"].map(|method| trained(folder.path(), method, method, &[]));
    assert_eq!(model(&wdp).all, model(&mcdp).all);
    assert_ne!(summary(&wdp)["test"], summary(&mcdp)["test"]);
    // As do CigL without averaging and W-DP.
    let ensemble = trained(folder.path(), "ensemble", "cigl-no-wma", &[]);
    assert_eq!(model(&wdp).all, model(&ensemble).all);
    assert_ne!(summary(&wdp)["test"], summary(&ensemble)["test"]);
}

// CigL and CigL without averaging are trained alike: what one keeps predicts as the other does.
#[test]
fn kept_snapshots_predict_as_the_ablation_that_has_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let ablation = summary(&trained(folder.path(), "ablation", "cigl-no-wma", &[]));
    let run = trained(folder.path(), "run", "cigl", &["averaging.keep_snapshots=true"]);
    let plain = trained(folder.path(), "plain", "cigl", &[]);
    assert_eq!(model(&run).all, model(&plain).all, "keeping snapshots changes nothing else");
    assert_eq!(summary(&run)["test"], summary(&plain)["test"]);
    let mut eval = cigl();
    eval.args(["eval", "--json", "--ensemble"]).arg(&run);
    let ensemble: Value = serde_json::from_slice(&succeed(eval).stdout).unwrap();
    assert_eq!(ensemble, ablation["test"]);
    assert_ne!(ensemble, summary(&run)["test"]);
    let mut eval = cigl();
    eval.args(["eval", "--ensemble"]).arg(&plain);
    assert!(fail(eval, 2).contains("kept no snapshots"));
}

//! How masks move in the course of a run, as its log, its summary and its checkpoint tell it.

use serde_json::Value;

use crate::program::trained;
use crate::run_files::{Tensors, last, log, model, summary};

/// The points of a log that describe the masks: the beginning and every update.
fn states(log: &[Value]) -> Vec<&Value> {
    log.iter().filter(|point| !point["ever_active"].is_null()).collect()
}

fn numbers(states: &[&Value], key: &str) -> Vec<f64> {
    states.iter().map(|state| state[key].as_f64().unwrap_or_else(|| panic!("{key} in {state}"))).collect()
}

#[test]
fn what_was_ever_active_never_falls_and_rises_where_weights_grow() {
    let folder = tempfile::tempdir().unwrap();
    for method in ["set", "rigl", "cigl", "snfs", "gmp"] {
        let run = trained(folder.path(), method, method, &[]);
        let log = log(&run);
        let states = states(&log);
        assert_eq!(states.len(), 10, "{method}: the beginning and nine updates");
        assert_eq!((states[0], &log[0]["step"]), (&log[0], &0.into()), "{method}");
        let [density, ever, first] = ["density", "ever_active", "first_mask_overlap"].map(|key| numbers(&states, key));
        assert_eq!((ever[0], first[0]), (density[0], 1.0), "{method}");
        assert!(ever.windows(2).all(|pair| pair[0] <= pair[1]) && ever[9] <= 1.0, "{method}: {ever:?}");
        assert!(ever.iter().zip(&density).all(|(ever, density)| ever >= density), "{method}");
        // Before the first update the previous masks are the first ones.
        assert_eq!(states[1]["mask_overlap"], states[1]["first_mask_overlap"], "{method}");
        let new = density[1] * (1.0 - first[1]);
        assert!((ever[1] - ever[0] - new).abs() < 1e-12, "{method}: {new} are new");
        if method == "gmp" {
            assert!(ever.iter().chain(&first).all(|&share| share == 1.0), "dense at first");
        } else {
            assert!(ever[9] > 1.1 * ever[0] && first[9] < first[1], "{method}: {ever:?}, {first:?}");
        }
        for point in &log {
            let updated = !point["drop_fraction"].is_null();
            assert_eq!(updated, !point["mask_overlap"].is_null(), "{method}: {point}");
            assert!(updated || point["ever_active"].is_null() || point == &log[0], "{method}: {point}");
        }
    }
}

#[test]
fn masks_that_never_change_are_described_once() {
    let folder = tempfile::tempdir().unwrap();
    for method in ["static", "dense"] {
        let run = trained(folder.path(), method, method, &[]);
        let (log, said) = (log(&run), summary(&run));
        let states = states(&log);
        assert_eq!(states.len(), 1, "{method}");
        assert_eq!((&said["first_mask_overlap"], &said["dead_channels"]), (&1.0.into(), &0.into()), "{method}");
        assert_eq!(said["ever_active"], states[0]["density"], "{method}");
        assert_eq!(said["density_by_layer"], states[0]["density_by_layer"], "{method}");
    }
}

/// The packed masks of a checkpoint, lowest bit first, as long as the weight they belong to.
fn packed(checkpoint: &Tensors, weight: &str, suffix: &str) -> Vec<bool> {
    let bits = &checkpoint.all[&format!("{weight}.{suffix}")].2;
    (0..checkpoint.mask(weight).len()).map(|i| bits[i / 8] >> (i % 8) & 1 == 1).collect()
}

#[test]
fn the_checkpoint_remembers_the_first_masks_and_all_that_was_active() {
    let folder = tempfile::tempdir().unwrap();
    let start = model(&trained(folder.path(), "start", "rigl", &["train.steps=0"]));
    let run = trained(folder.path(), "run", "rigl", &[]);
    let (checkpoint, said) = (last(&run), summary(&run));
    let (mut in_first, mut active, mut ever_active, mut all) = (0, 0, 0, 0);
    for weight in checkpoint.masked() {
        let (first, ever) = (packed(&checkpoint, &weight, "first_mask"), packed(&checkpoint, &weight, "ever_active"));
        assert_eq!(first, start.mask(&weight), "{weight}");
        for ((first, ever), now) in first.into_iter().zip(ever).zip(checkpoint.mask(&weight)) {
            assert!(ever || !(first || now), "{weight}");
            in_first += usize::from(first && now);
            active += usize::from(now);
            ever_active += usize::from(ever);
            all += 1;
        }
    }
    assert_eq!(said["first_mask_overlap"], in_first as f64 / active as f64);
    assert_eq!(said["ever_active"], ever_active as f64 / all as f64);
    let log = log(&run);
    let end = states(&log).pop().unwrap();
    for key in ["first_mask_overlap", "ever_active", "dead_channels", "density_by_layer"] {
        assert_eq!(said[key], end[key], "{key}");
    }
}

#[test]
fn channels_that_a_mask_cuts_off_are_counted_as_dead() {
    let folder = tempfile::tempdir().unwrap();
    let mut start = model(&trained(folder.path(), "start", "static", &["train.steps=0"]));
    // The first and the last channel of a convolution and one class.
    for (weight, channels) in [("conv3.weight", &[0, 31][..]), ("fc.weight", &[4])] {
        let (_, shape, bytes) = start.all.get_mut(&format!("{weight}.mask")).unwrap();
        let elements: usize = shape[1..].iter().product();
        channels.iter().for_each(|&channel: &usize| bytes[channel * elements..(channel + 1) * elements].fill(0));
    }
    let tensors = start.all.iter().map(|(name, (dtype, shape, bytes))| {
        (name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let file = folder.path().join("cut.safetensors");
    std::fs::write(&file, safetensors::serialize(tensors, None).unwrap()).unwrap();
    let run = trained(folder.path(), "run", "static", &[&format!("train.init={}", file.display())]);
    assert_eq!(summary(&run)["dead_channels"], 3);
    assert_eq!(log(&run)[0]["dead_channels"], 3);
    assert_eq!(summary(&run)["ever_active"], log(&run)[0]["density"]);
}

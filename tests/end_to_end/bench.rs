//! `cigl bench`: what it prints, not how fast anything is.

use serde_json::Value;

use crate::program::{cigl, fail, succeed};

fn json(arguments: &str) -> Value {
    let mut command = cigl();
    command.arg("bench").args(arguments.split_whitespace()).arg("--json");
    serde_json::from_slice(&succeed(command).stdout).unwrap()
}

fn positive(object: &Value, key: &str) -> f64 {
    let number = object[key].as_f64().unwrap_or_else(|| panic!("{key} in {object}"));
    assert!(number > 0.0 && number.is_finite(), "{key} = {number}");
    number
}

#[test]
fn a_step_is_timed_beside_the_dense_one_on_the_configuration_that_was_asked_for() {
    let step = json("step --preset digits --method rigl --sparsity 0.8 --batch 32 --rounds 2 --threads 1");
    for (key, expected) in [("preset", "digits"), ("method", "rigl"), ("precision", "f32")] {
        assert_eq!(step[key], expected);
    }
    for (key, expected) in [("sparsity", 0.8), ("batch", 32.0), ("threads", 1.0), ("rounds", 2.0)] {
        assert_eq!(positive(&step, key), expected, "{key}");
    }
    assert!(step["device"].as_str().unwrap().starts_with("cpu (1 thread,"), "{step}");
    for key in ["train_img_s", "dense_train_img_s"] {
        positive(&step, key);
    }
    if cfg!(target_os = "linux") {
        positive(&step, "peak_bytes");
    }
}

#[test]
fn inference_gives_rates_and_latencies_and_any_batch_will_do() {
    for batch in [1, 20] {
        let found = json(&format!("inference --preset digits --sparsity 0.9 --batch {batch} --rounds 3"));
        let (rate, p50) = (positive(&found, "infer_img_s"), positive(&found, "p50_ms"));
        assert!((rate * p50 / 1e3 / f64::from(batch) - 1.0).abs() < 1e-9, "{found}");
        assert!(positive(&found, "p99_ms") >= p50, "{found}");
        positive(&found, "dense_infer_img_s");
    }
    let mut command = cigl();
    command.args(["bench", "inference", "--device", "cuda"]);
    assert!(fail(command, 2).contains("expected --device cpu"));
}

#[test]
fn kernels_are_listed_with_their_useful_operations() {
    let kernels = json("kernels --sparsity 0.9 --batch 1 --rounds 1 --device cpu");
    let kernels = kernels.as_array().unwrap();
    let of = |name: &str| kernels.iter().filter(|k| k["kernel"] == name).cloned().collect::<Vec<_>>();
    for pass in ["forward", "input gradient", "weight gradient"] {
        assert!(of(pass).len() >= 10, "{pass}");
        for kernel in of(pass) {
            positive(&kernel, "dense_ms");
            // A 3x3 layer of 32 channels on 32x32 pixels has 9,437,184 weights at all its pixels, of which a tenth is left.
            if kernel["shape"] == "32x32x32 to 32, 3x3 / 1" {
                let flop = 1e6 * positive(&kernel, "gflops") * positive(&kernel, "ms");
                assert!((flop / (0.2 * 9_437_184.0) - 1.0).abs() < 0.05, "{kernel}");
            }
        }
    }
    assert_eq!([of("random mask").len(), of("prune and grow").len()], [1, 1]);
}

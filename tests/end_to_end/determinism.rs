//! The same seed gives the same bits, whatever the machine runs it on.

use std::process::Command;

use crate::program::{cigl, fail, succeed, train, trained};
use crate::run_files::{assert_same_run, model};

/// Runs a command with `change` applied and asserts that the run is that of the command alone.
fn assert_no_difference(method: &str, change: impl Fn(&mut Command)) {
    let folder = tempfile::tempdir().unwrap();
    let plain = trained(folder.path(), "plain", method, &[]);
    let changed = folder.path().join("changed");
    let mut command = train(method, &changed, &[]);
    change(&mut command);
    succeed(command);
    // The device's name says threads and instruction set; everything else must be equal.
    for run in [&plain, &changed] {
        let text = std::fs::read_to_string(run.join("summary.json")).unwrap();
        let without_device: String = text.lines().filter(|line| !line.contains("\"device\"")).collect();
        std::fs::write(run.join("summary.json"), without_device).unwrap();
    }
    assert_same_run(&changed, &plain);
}

#[test]
fn one_thread_and_two_give_the_same_bits() {
    for method in ["cigl", "snfs"] {
        for threads in ["1", "2"] {
            assert_no_difference(method, |command| _ = command.args(["--threads", threads]));
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let mut used = vec![];
    for level in ["avx2", "avx512"] {
        let info = succeed({
            let mut command = cigl();
            command.args(["info", "--json"]).env("CIGL_SIMD", level);
            command
        });
        let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
        // A level that the machine has not is answered with the one below it.
        if info["simd"] == level {
            assert_no_difference("cigl", |command| _ = command.env("CIGL_SIMD", level));
            used.push(level);
        }
    }
    assert!(!cfg!(target_arch = "x86_64") || !is_avx2_detected() || used.contains(&"avx2"), "{used:?}");
}

fn is_avx2_detected() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" avx2 "))
}

#[test]
fn another_seed_gives_another_model() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = ["1", "2"].map(|seed| trained(folder.path(), seed, "cigl", &[&format!("seed={seed}")]));
    let (one, two) = (model(&one), model(&two));
    for name in ["conv1.weight", "conv3.weight.mask", "fc.bias"] {
        assert_ne!(one.all[name], two.all[name], "{name}");
    }
}

#[test]
fn tuning_measures_every_layer_and_changes_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    let plain = trained(folder.path(), "plain", "cigl", &[]);
    let tuned = folder.path().join("tuned");
    // Stopped and resumed without the flag, the choice stays.
    let mut first = train("cigl", &tuned, &["train.steps=25"]);
    first.arg("--tune");
    let said = String::from_utf8(succeed(first).stderr).unwrap();
    assert!(said.contains("cigl s0: tuned: ") && said.contains("layers run on the sparse kernels"), "{said}");
    let file = tuned.join("tuning.json");
    let layers: Vec<serde_json::Value> = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let names: Vec<&str> = layers.iter().map(|layer| layer["layer"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 6);
    for (layer, name) in layers.iter().zip(&names) {
        let [sparse, dense] = ["sparse_ms", "dense_ms"].map(|key| layer[key].as_f64().unwrap());
        assert!(sparse > 0.0 && dense > 0.0, "{name}");
        assert_eq!(layer["kernel"], if sparse <= dense { "sparse" } else { "dense" }, "{name}");
    }
    // Whatever is chosen, the run is the same.
    for kernel in ["sparse", "dense"] {
        let run = folder.path().join(kernel);
        let mut command = train("cigl", &run, &[]);
        command.args(["--tune"]);
        succeed(command);
        std::fs::remove_file(run.join("summary.json")).unwrap();
        std::fs::remove_file(run.join("checkpoint/last.safetensors")).unwrap();
        let forced: Vec<_> = layers
            .iter()
            .map(|layer| {
                let mut layer = layer.clone();
                layer["kernel"] = kernel.into();
                layer
            })
            .collect();
        std::fs::write(run.join("tuning.json"), serde_json::to_string(&forced).unwrap()).unwrap();
        let mut again = train("cigl", &run, &[]);
        again.arg("--resume");
        succeed(again);
        std::fs::remove_file(run.join("tuning.json")).unwrap();
        assert_same_run(&run, &plain);
    }
    std::fs::write(&file, "[{}]").unwrap();
    std::fs::remove_file(tuned.join("summary.json")).unwrap();
    let mut broken = train("cigl", &tuned, &["train.steps=25"]);
    broken.arg("--resume");
    let error = fail(broken, 1);
    assert!(error.contains("tuning.json: is not what --tune writes"), "{error}");
}

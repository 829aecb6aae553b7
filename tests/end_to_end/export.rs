//! What `cigl export` writes, read back by this program and by others.

use std::path::{Path, PathBuf};

use cigl::data::{Limits, Source};
use safetensors::Dtype;

use crate::predictions::array;
use crate::program::{cigl, fail, succeed, train, trained};
use crate::run_files::{Tensors, files, model};

/// `cigl export` of a run or model file.
fn export(from: &Path, out: &Path, options: &[&str]) -> std::process::Command {
    let mut command = cigl();
    command.arg("export").arg(from).args(options).arg("--out").arg(out);
    command
}

/// Exports; returns the file and the line that was printed.
fn exported(from: &Path, name: &str, options: &[&str]) -> (PathBuf, String) {
    let out = from.parent().unwrap().join(name);
    let line = String::from_utf8(succeed(export(from, &out, options)).stdout).unwrap();
    assert_eq!(line.lines().count(), 1, "{line}");
    (out, line)
}

/// The logits that `cigl eval` writes.
fn logits(of: &Path) -> Vec<f64> {
    let npz = of.with_extension("npz");
    let mut eval = cigl();
    eval.arg("eval").arg(of).arg("--predictions").arg(&npz);
    succeed(eval);
    array(&npz, "logits").1
}

#[test]
fn a_sparse_file_is_the_model_to_the_last_bit() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), "run", "cigl", &[]);
    let dense = run.join("checkpoint/model.safetensors");
    let (sparse, line) = exported(&run, "sparse.safetensors", &["--format", "sparse"]);

    let (back, _) = exported(&sparse, "back.safetensors", &["--names", "cigl"]);
    assert!(std::fs::read(&back).unwrap() == std::fs::read(&dense).unwrap(), "dense, sparse and dense again");
    assert_eq!(logits(&sparse), logits(&dense));
    for method in ["rigl", "cigl"] {
        let start = |file: &Path| format!("train.init={}", file.display());
        let [a, b] = [&sparse, &dense].map(|file| {
            let name = format!("{method}-{}", file.file_stem().unwrap().display());
            model(&trained(folder.path(), &name, method, &["train.epochs=1", "averaging.start=1", &start(file)])).all
        });
        assert!(a == b, "{method} from either file");
    }

    let all = Tensors::read(&dense);
    let weights: usize = all.counts().values().map(|(_, len)| len).sum();
    let floats = all.all.values().filter(|(dtype, ..)| *dtype == Dtype::F32);
    let values: usize = floats.map(|(_, shape, _)| shape.iter().product::<usize>()).sum();
    let least = 4 * (all.active() + values - weights) + weights / 8;
    let size = std::fs::metadata(&sparse).unwrap().len() as usize;
    // Besides the tensors: their names, the configuration, and bits that fill up bytes.
    assert!((least..least + 8192).contains(&size), "{size} bytes, the numbers alone take {least}");
    assert!(line.contains(&format!("sparse safetensors, {size} bytes, ")), "{line}");
    assert!(line.contains(&format!("of the {} that", 4 * values)), "{line}");
}

#[test]
fn a_damaged_sparse_file_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), "run", "rigl", &["train.steps=0"]);
    let (sparse, _) = exported(&run, "sparse.safetensors", &["--format", "sparse"]);
    let bytes = std::fs::read(&sparse).unwrap();
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (damaged, part) in
        [(&bytes[..bytes.len() - 3], "is not a complete safetensors file"), (&flipped, "is damaged: the checksum")]
    {
        std::fs::write(&sparse, damaged).unwrap();
        let mut eval = cigl();
        eval.arg("eval").arg(&sparse);
        assert!(fail(eval, 1).contains(part));
        let init = format!("train.init={}", sparse.display());
        assert!(fail(train("rigl", &folder.path().join("new"), &[&init]), 1).contains(part));
    }
}

#[test]
fn torchvisions_names_are_the_state_dict_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let settings = ["train.steps=0", "network.name=resnet18", "data.test_limit=16"];
    let run = trained(folder.path(), "run", "rigl", &settings);
    let (file, _) = exported(&run, "torchvision.safetensors", &[]);
    let (ours, theirs) = (model(&run), Tensors::read(&file));
    // 20 convolutions, 20 batch norms of 5 tensors, a linear layer of 2: what torchvision.models.resnet18().state_dict() has.
    assert_eq!(theirs.all.len(), 20 + 20 * 5 + 2);
    let mut counters = 0;
    for (name, tensor) in &theirs.all {
        if name.ends_with(".num_batches_tracked") {
            assert_eq!(*tensor, (Dtype::I64, vec![], vec![0; 8]), "{name}");
            counters += 1;
        } else {
            assert!(*tensor == ours.all[name], "{name}");
        }
    }
    assert_eq!(counters, 20);
    let (dense, _) = exported(&run, "cigl.safetensors", &["--names", "cigl"]);
    assert!(Tensors::read(&dense) == ours);
}

#[test]
fn a_network_that_torchvision_lacks_keeps_our_names() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), "run", "rigl", &["train.steps=0"]);
    let (file, _) = exported(&run, "default.safetensors", &[]);
    assert!(Tensors::read(&file) == model(&run));
    let narrow = ["train.steps=0", "network.name=resnet18", "data.test_limit=16"];
    let narrow = trained(folder.path(), "narrow", "small-dense", &narrow);
    for (run, part) in [
        (
            &run,
            "torchvision has no small-convnet, only resnet18, resnet50, resnet18-imagenet, resnet50-imagenet, vgg16-bn",
        ),
        (&narrow, "torchvision has no resnet18 as narrow as that of small-dense"),
    ] {
        let out = folder.path().join("out.safetensors");
        let error = fail(export(run, &out, &["--names", "torchvision"]), 2);
        assert!(error.contains(part) && error.contains("--names cigl") && !out.exists(), "{error}");
    }
}

#[test]
fn another_runtime_predicts_the_test_images_as_eval_does() {
    let folder = tempfile::tempdir().unwrap();
    let test = Source::Digits.load(None, Limits::default()).unwrap().test;
    let pixels: Vec<f32> = (0..200)
        .flat_map(|i| {
            test.image(i).unwrap().iter().map(|&v| test.normalisation().apply(0, f32::from(v))).collect::<Vec<_>>()
        })
        .collect();
    for method in ["cigl", "rigl+ts"] {
        let run = trained(folder.path(), method, method, &["data.validation=64"]);
        let (file, _) = exported(&run, "model.onnx", &["--format", "onnx"]);
        let onnx = rten::Model::load(std::fs::read(file).unwrap()).unwrap();
        let images = rten::Value::from_shape([200, 1, 8, 8], pixels.clone()).unwrap();
        let (shape, found) = onnx.run_one(images.into(), None).unwrap().into_shape_vec::<f32, 2>().unwrap();
        assert_eq!(shape, [200, 10], "{method}");
        for (x, y) in found.iter().zip(logits(&run)) {
            assert!((f64::from(*x) - y).abs() < 1e-4 * y.abs().max(1.0), "{method}: {x}, expected {y}");
        }
    }
}

#[test]
fn what_predicts_by_a_mean_is_refused_and_what_can_be_had_instead_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let ensemble = trained(folder.path(), "ensemble", "cigl-no-wma", &[]);
    for format in ["safetensors", "sparse", "onnx"] {
        let error = fail(export(&ensemble, &out, &["--format", format]), 2);
        assert!(error.contains("the mean over its 2 snapshots") && error.contains("a run of cigl,"), "{error}");
    }
    let mcdp = trained(folder.path(), "mcdp", "rigl+mcdp", &[]);
    let error = fail(export(&mcdp, &out, &["--format", "onnx"]), 2);
    assert!(error.contains("passes with random masks") && error.contains("--format safetensors or sparse"), "{error}");
    assert!(!out.exists());
    succeed(export(&mcdp, &out, &["--format", "sparse"]));
}

#[test]
fn an_export_that_cannot_be_written_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), "run", "rigl", &["train.steps=0"]);
    let before = files(folder.path());
    let model = run.join("checkpoint/model.safetensors");
    for (out, code, part) in [
        (folder.path().join("no/such/folder"), 1, "could not be written"),
        (run.join("checkpoint"), 1, "could not be written"),
        (model.clone(), 2, "is the model itself"),
    ] {
        let error = fail(export(&run, &out, &[]), code);
        assert!(error.contains(part) && error.contains(out.to_str().unwrap()), "{error}");
    }
    let names = fail(export(&run, &folder.path().join("out"), &["--format", "onnx", "--names", "cigl"]), 2);
    assert!(names.contains("--names goes with --format safetensors"), "{names}");
    assert_eq!(files(folder.path()), before);
    let (out, _) = exported(&run, "out.onnx", &["--format", "onnx"]);
    std::fs::write(&out, "something else").unwrap();
    exported(&run, "out.onnx", &["--format", "onnx"]);
    assert!(rten::Model::load(std::fs::read(out).unwrap()).is_ok(), "what was there is replaced");
}

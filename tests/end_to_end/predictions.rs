//! Predictions of a trained model, by `eval` on its data and by `predict` on image files, agree.

use std::collections::BTreeMap;
use std::path::Path;

use cigl::data::{Limits, Source};

use crate::program::{cigl, succeed, trained};
use crate::run_files::summary;

/// An array of an `.npz` file, as f64, with its shape.
pub(crate) fn array(file: &Path, name: &str) -> (Vec<u64>, Vec<f64>) {
    let mut npz = npyz::npz::NpzArchive::open(file).unwrap();
    let array = npz.by_name(name).unwrap().unwrap_or_else(|| panic!("{} has no {name}", file.display()));
    let shape = array.shape().to_vec();
    let values = match name {
        "labels" => array.into_vec::<i64>().unwrap().into_iter().map(|x| x as f64).collect(),
        _ => array.into_vec::<f32>().unwrap().into_iter().map(f64::from).collect(),
    };
    (shape, values)
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|x| x.exp()).sum();
    logits.iter().map(|x| x.exp() / sum).collect()
}

/// Writes the first `count` test digits as PNG files: 16 levels become 255.
fn write_digits(folder: &Path, count: usize) -> Vec<String> {
    let test = Source::Digits.load(None, Limits::default()).unwrap().test;
    let write = |i: usize| {
        let path = folder.join(format!("digit, \"{i}\".png"));
        let grays = test.image(i).unwrap().iter().map(|&v| (f64::from(v) * 255.0 / 16.0).round() as u8).collect();
        image::GrayImage::from_raw(8, 8, grays).unwrap().save(&path).unwrap();
        path.to_str().unwrap().to_owned()
    };
    (0..count).map(write).collect()
}

#[test]
fn eval_and_predict_say_the_same_of_the_same_images() {
    let folder = tempfile::tempdir().unwrap();
    let images = write_digits(folder.path(), 5);
    for (method, kind) in [("cigl", "logits"), ("rigl+ts", "logits"), ("cigl-no-wma", "probs"), ("rigl+mcdp", "probs")]
    {
        let run = trained(folder.path(), method, method, &["data.validation=64"]);
        let (npz, out) = (folder.path().join("eval.npz"), folder.path().join("predict.npz"));
        let mut eval = cigl();
        eval.arg("eval").arg(&run).arg("--predictions").arg(&npz);
        succeed(eval);
        let (shape, mut scores) = array(&npz, kind);
        assert_eq!(shape, [200, 10], "{method}");
        if kind == "logits" {
            scores = scores.chunks(10).flat_map(softmax).collect();
        }
        let (_, labels) = array(&npz, "labels");
        let best = |row: &[f64]| (0..10).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as f64;
        let right = scores.chunks(10).zip(&labels).filter(|(row, label)| best(row) == **label).count();
        assert_eq!(summary(&run)["test"]["accuracy"], right as f64 / 200.0, "{method}");

        let mut predict = cigl();
        predict.arg("predict").arg(&run).args(&images).arg("--out").arg(&out);
        succeed(predict);
        let (shape, predicted) = array(&out, "probs");
        assert_eq!(shape, [5, 10], "{method}");
        for (i, (p, expected)) in predicted.iter().zip(&scores).enumerate() {
            assert!((p - expected).abs() < 1e-5, "{method}, image {}: {p}, expected {expected}", i / 10);
        }
    }
}

#[test]
fn a_model_file_alone_predicts_and_its_csv_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let images = write_digits(folder.path(), 3);
    let run = trained(folder.path(), "run", "cigl", &[]);
    let alone = folder.path().join("alone.safetensors");
    std::fs::copy(run.join("checkpoint/model.safetensors"), &alone).unwrap();
    let out = folder.path().join("out.csv");
    let mut predict = cigl();
    predict.arg("predict").arg(&alone).args(&images).arg("--out").arg(&out);
    let table = String::from_utf8(succeed(predict).stdout).unwrap();
    let text = std::fs::read_to_string(&out).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("image,class,0,1,2,3,4,5,6,7,8,9"));
    for (line, image) in lines.clone().zip(&images) {
        let name = format!("\"{}\",", image.replace('"', "\"\""));
        let rest = line.strip_prefix(&name).unwrap_or_else(|| panic!("{line} does not begin with {name}"));
        let (class, numbers) = rest.split_once(',').unwrap();
        let probabilities: Vec<f64> = numbers.split(',').map(|x| x.parse().unwrap()).collect();
        let by_class: BTreeMap<usize, f64> = probabilities.iter().copied().enumerate().collect();
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{line}");
        assert!(by_class.values().all(|&p| p <= by_class[&class.parse::<usize>().unwrap()]), "{line}");
        assert!(table.contains(image), "{table}");
    }
    assert_eq!(lines.count(), 3);
}

//! Every key of the configuration does something: changing it changes the model, the log or the measurement.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cigl::backend::Precision;
use cigl::config::key::KEYS;
use cigl::config::{Assignment, Config};
use serde_json::Value;

use crate::program::{SMALL, cigl, fail, succeed, train, trained};
use crate::run_files::{Tensors, log, model, summary};

/// Where a changed key must show.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shows {
    /// In the tensors of the result.
    Model,
    /// In the log, the result being the same.
    Log,
    /// In what is measured, the result being the same.
    Measurement,
}
use Shows::{Log, Measurement, Model};

/// key, what else is set, its two values, where the difference shows.
///
/// FOLDERS is a folder with two image folders a and b; RUNS one with two runs, of two seeds.
const CASES: &[(&str, &[&str], [&str; 2], Shows)] = &[
    ("preset", &["method=cigl", "train.steps=3", "data.train_limit=256"], ["digits", "fashion-mini"], Model),
    ("method", &[], ["rigl", "set"], Model),
    ("sparsity", &[], ["0.9", "0.8"], Model),
    ("seed", &[], ["1", "2"], Model),
    ("precision", &[], ["f32", "bf16"], Model),
    ("train.epochs", &[], ["6", "7"], Model),
    ("train.steps", &[], ["12", "13"], Model),
    ("train.multiplier", &[], ["1", "1.5"], Model),
    ("train.batch_size", &[], ["64", "32"], Model),
    ("train.optimizer", &[], ["sgd", "adam"], Model),
    ("train.lr", &[], ["0.1", "0.05"], Model),
    ("train.lr_schedule", &[], ["step", "cosine"], Model),
    ("train.warmup_steps", &[], ["0", "10"], Model),
    ("train.lr_milestones", &[], ["[0.5]", "[0.4]"], Model),
    ("train.lr_factor", &[], ["0.5", "0.4"], Model),
    ("train.momentum", &[], ["0.9", "0.8"], Model),
    ("train.nesterov", &[], ["on", "off"], Model),
    ("train.adam_beta2", &["train.optimizer=adam", "train.lr=0.001"], ["0.999", "0.9"], Model),
    ("train.adam_epsilon", &["train.optimizer=adam", "train.lr=0.001"], ["1e-8", "1e-3"], Model),
    ("train.weight_decay", &[], ["0.0005", "0.001"], Model),
    ("train.decay_biases", &[], ["off", "on"], Model),
    ("train.label_smoothing", &[], ["0", "0.1"], Model),
    ("train.mixup", &[], ["0", "0.2"], Model),
    ("train.init", &[], ["RUNS/1/checkpoint/model.safetensors", "RUNS/2/checkpoint/model.safetensors"], Model),
    ("train.log_every", &[], ["7", "8"], Log),
    ("data.dataset", &["train.steps=3", "data.train_limit=256"], ["digits", "fashion-mnist"], Model),
    ("data.dir", IMAGES, ["FOLDERS/a", "FOLDERS/b"], Model),
    ("data.train_limit", &[], ["640", "704"], Model),
    ("data.test_limit", &[], ["50", "51"], Measurement),
    ("data.validation", &[], ["0", "64"], Model),
    ("data.shuffle", &[], ["on", "off"], Model),
    ("data.augment", &["data.dir=FOLDERS/a"], ["off", "on"], Model),
    ("data.drop_last", &["data.train_limit=650"], ["on", "off"], Model),
    ("network.name", &[], ["small-convnet", "mlp"], Model),
    ("network.classes", &[], ["10", "12"], Model),
    ("network.hidden", &["network.name=mlp"], ["[30]", "[20, 10]"], Model),
    ("network.dropout", &["network.name=wrn22-2", "train.batch_size=16", "train.steps=3"], ["0", "0.3"], Model),
    ("sparse.distribution", &[], ["erk", "uniform"], Model),
    ("sparse.dense_first", &["sparse.distribution=uniform"], ["off", "on"], Model),
    ("sparse.alpha", &[], ["0.3", "0.2"], Model),
    ("sparse.delta_t", &[], ["5", "6"], Model),
    ("sparse.t_end", &[], ["0.75", "0.5"], Model),
    ("sparse.schedule", &[], ["cosine", "linear"], Model),
    ("sparse.mask_from", &["method=lottery"], ["RUNS/1", "RUNS/2"], Model),
    ("random_mask.keep", &[], ["0.95", "0.9"], Model),
    ("random_mask.semantics", &[], ["paper", "official"], Model),
    ("random_mask.momentum", &[], ["frozen", "decay"], Model),
    ("random_mask.rescale", &[], ["none", "inverted"], Model),
    ("averaging.start", &[], ["5", "6"], Model),
];

/// One step on the first images of a folder.
const IMAGES: &[&str] = &[
    "data.dataset=imagenet",
    "data.train_limit=4",
    "data.test_limit=2",
    "train.batch_size=4",
    "train.steps=1",
    "train.warmup_steps=0",
];

/// Keys without a difference to show; each has a test of its own, below or in methods.rs.
const OTHERS: [&str; 5] = ["version", "device", "train.recipe", "averaging.reprune", "averaging.keep_snapshots"];

struct Workshop {
    folder: tempfile::TempDir,
    /// What the run of a configuration left.
    done: BTreeMap<String, (Tensors, Vec<Value>, Value)>,
}

impl Workshop {
    fn new() -> Workshop {
        let folder = tempfile::tempdir().unwrap();
        for seed in ["1", "2"] {
            let seed_setting = format!("seed={seed}");
            trained(&folder.path().join("runs"), seed, "rigl", &["train.steps=8", &seed_setting]);
        }
        for (name, shade) in [("a", 40), ("b", 90)] {
            write_images(&folder.path().join("folders").join(name), shade);
        }
        Workshop { folder, done: BTreeMap::new() }
    }

    /// Trains the small experiment with these settings, the last one winning; equal configurations once.
    fn run(&mut self, settings: &[String]) -> (Tensors, Vec<Value>, Value) {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let out = PathBuf::from(path(&format!("out-{}", self.done.len())));
        let mut all: Vec<String> = ["preset=digits"].iter().chain(&SMALL).map(|s| s.to_string()).collect();
        all.push("data.test_limit=50".into());
        all.extend(settings.iter().map(|s| s.replace("RUNS", &path("runs")).replace("FOLDERS", &path("folders"))));
        let assignments: Vec<Assignment> = all.iter().map(|setting| Assignment::parse(setting).unwrap()).collect();
        let resolved = Config::resolve(None, None, &assignments).unwrap().to_toml();
        let train = || {
            let mut command = cigl();
            command.args(["train", "--out"]).arg(&out);
            all.iter().for_each(|setting| _ = command.args(["--set", setting]));
            succeed(command);
            (model(&out), log(&out), summary(&out)["test"].clone())
        };
        self.done.entry(resolved).or_insert_with(train).clone()
    }
}

/// Two classes of four images to train on and one to test on, each 16x16 and not all alike.
fn write_images(folder: &Path, shade: u32) {
    for (split, count) in [("train", 4), ("val", 1)] {
        for class in 0..2 {
            let class_folder = folder.join(split).join(format!("class{class}"));
            std::fs::create_dir_all(&class_folder).unwrap();
            for number in 0..count {
                let pixel = |x, y| [shade + 3 * x, 2 * y + 50 * class, 40 * number].map(|value| value as u8);
                let picture = image::RgbImage::from_fn(16, 16, |x, y| image::Rgb(pixel(x, y)));
                picture.save(class_folder.join(format!("{number}.png"))).unwrap();
            }
        }
    }
}

#[test]
fn every_key_is_in_this_table() {
    let mut known: Vec<&str> = CASES.iter().map(|case| case.0).chain(OTHERS).collect();
    let mut keys: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    known.sort();
    keys.sort();
    assert_eq!(known, keys);
}

#[test]
fn every_key_changes_what_it_says() {
    let mut workshop = Workshop::new();
    for (key, others, values, shows) in CASES {
        let images = if *key == "data.augment" { IMAGES } else { &[] };
        let [before, after] = values.map(|value| {
            let settings = images.iter().chain(*others).map(|s| s.to_string()).chain([format!("{key}={value}")]);
            workshop.run(&settings.collect::<Vec<_>>())
        });
        assert_eq!(before.0.all != after.0.all, *shows == Model, "{key}: is the model another one?");
        match shows {
            Model => {}
            Log => assert_ne!(before.1, after.1, "{key}: the logs are equal"),
            Measurement => assert_ne!(before.2, after.2, "{key}: the measurements are equal"),
        }
    }
}

#[test]
fn version_and_device_are_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let plain = trained(folder.path(), "plain", "cigl", &["train.steps=3"]);
    let changed = trained(folder.path(), "changed", "cigl", &["train.steps=3", "version=0.0.1", "device=cpu"]);
    // The one device there is so far is that of auto; the version is the program's, whatever a file said.
    assert_eq!(model(&plain).all, model(&changed).all);
    let config = Config::read(&changed.join("config.toml")).unwrap();
    assert_eq!((config.version.as_str(), config.device.to_string().as_str()), (env!("CARGO_PKG_VERSION"), "cpu"));
}

#[test]
fn a_run_records_its_precision_keeps_it_and_is_evaluated_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let recorded = |run: &Path| Config::read(&run.join("config.toml")).unwrap().precision;
    let plain = trained(folder.path(), "plain", "cigl", &["train.steps=3"]);
    assert_eq!(recorded(&plain), Some(Precision::F32), "the CPU's own");
    let coarse = trained(folder.path(), "coarse", "cigl", &["train.steps=3", "precision=bf16"]);
    assert_eq!(recorded(&coarse), Some(Precision::Bf16));
    let (result, measured) = (model(&coarse), summary(&coarse)["test"].clone());
    let mut eval = cigl();
    eval.args(["eval", "--json"]).arg(&coarse);
    let evaluated: Value = serde_json::from_slice(&succeed(eval).stdout).unwrap();
    assert_eq!(evaluated["nll"], measured["nll"]);

    std::fs::remove_file(coarse.join("summary.json")).unwrap();
    let mut other = train("cigl", &coarse, &["train.steps=3"]);
    other.args(["--resume", "--precision", "f32"]);
    let error = fail(other, 2);
    assert!(error.contains("begun with another precision"), "{error}");
    let mut resume = train("cigl", &coarse, &["train.steps=3"]);
    resume.arg("--resume");
    succeed(resume);
    assert_eq!((recorded(&coarse), model(&coarse).all), (Some(Precision::Bf16), result.all));
}

#[test]
fn a_recipe_changes_the_hyper_parameters_of_a_preset_that_has_it() {
    let resolve = |recipe: &str| {
        let set = Assignment::parse(&format!("train.recipe={recipe}")).unwrap();
        Config::resolve(Some("cifar10-wrn22-2"), None, &[set]).unwrap()
    };
    // method.md section 5: plain RigL decays by .2 and drops out .3.
    let (cigl, rigl) = (resolve("cigl"), resolve("rigl"));
    assert_eq!((cigl.train.lr_factor, cigl.network.dropout), (0.5, 0.0));
    assert_eq!((rigl.train.lr_factor, rigl.network.dropout), (0.2, 0.3));
}

#[test]
fn repruning_allows_an_early_start_and_ends_at_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let early = ["averaging.start=2"];
    let error = fail(train("cigl", &folder.path().join("refused"), &early), 2);
    assert!(error.contains("averaging.start = 2") && error.contains("averaging.reprune"), "{error}");
    let run = trained(folder.path(), "run", "cigl", &["averaging.start=2", "averaging.reprune=on"]);
    let summary = summary(&run);
    assert_eq!((&summary["snapshots"], &summary["mask_updates"]), (&5.into(), &9.into()));
    let rigl = trained(folder.path(), "rigl", "rigl", &["train.steps=0"]);
    let (repruned, start) = (model(&run), model(&rigl));
    assert_eq!(repruned.counts(), start.counts(), "the layers' densities");
    for weight in repruned.masked() {
        // Snapshots of five different masks were averaged: the largest entries stay, none outside the mask.
        let values = repruned.floats(&weight);
        let mask = repruned.mask(&weight);
        assert!(values.iter().zip(&mask).all(|(x, &inside)| inside || *x == 0.0), "{weight}");
    }
}

#[test]
fn a_keep_probability_of_one_layer_concerns_that_layer() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, settings: &[&str]| {
        model(&trained(folder.path(), name, "cigl", &[&["train.steps=3"], settings].concat()))
    };
    let everywhere = run("everywhere", &["random_mask.keep=0.7"]);
    let spelled = run("spelled", &["random_mask.keep=0.9", "random_mask.keep.default=0.7"]);
    let one = run("one", &["random_mask.keep=0.7", "random_mask.keep.fc.weight=1"]);
    assert_eq!(everywhere.all, spelled.all);
    assert_ne!(everywhere.all["fc.weight"], one.all["fc.weight"]);
    let all = run("all", &["random_mask.keep=1"]);
    let rigl = model(&trained(folder.path(), "rigl", "rigl", &["train.steps=3"]));
    assert_eq!(all.all, rigl.all, "with every weight kept CigL trains as RigL");
}

#[test]
fn a_run_finds_the_files_of_its_configuration_from_any_folder() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().canonicalize().unwrap();
    trained(&here, "first", "rigl", &["train.steps=0"]);
    let init = "first/checkpoint/model.safetensors";
    let settings = ["train.steps=0", "sparse.mask_from=first", &format!("train.init={init}")];
    let mut command = train("lottery", "second".as_ref(), &settings);
    command.current_dir(&here);
    succeed(command);
    let config: toml::Table = std::fs::read_to_string(here.join("second/config.toml")).unwrap().parse().unwrap();
    for (part, key, path) in [("train", "init", init), ("sparse", "mask_from", "first")] {
        assert_eq!(config[part][key].as_str(), here.join(path).to_str(), "{part}.{key}");
    }
    // Resumed from elsewhere.
    std::fs::remove_file(here.join("second/summary.json")).unwrap();
    let mut resume = cigl();
    resume.args(["train", "--resume", "--out"]).arg(here.join("second"));
    succeed(resume);
    // A folder without data is named from the root.
    let mut command = cigl();
    command.args(["train", "--preset", "fashion-mnist", "--set", "data.dir=no/data"]).current_dir(&here);
    let error = fail(command, 1);
    assert!(error.contains(here.join("no/data").to_str().unwrap()), "{error}");
}

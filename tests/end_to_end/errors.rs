//! Whatever a user gets wrong is answered with one line and the right exit code, and leaves nothing behind.

use std::path::Path;

use crate::program::{cigl, fail, stderr, succeed, train, trained};
use crate::run_files::files;

/// Runs `cigl train` with these arguments and `--out` in an empty folder, which must stay empty.
fn train_fails(arguments: &[&str], code: i32, parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = cigl();
    command.arg("train").args(arguments).arg("--out").arg(folder.path().join("run"));
    let error = fail(command, code);
    assert!(parts.iter().all(|part| error.contains(part)), "{arguments:?}: {error}");
    assert_eq!(files(folder.path()), Vec::<std::path::PathBuf>::new(), "{arguments:?}");
}

#[test]
fn contradictory_settings_are_usage_errors_that_name_the_key() {
    let digits = ["--preset", "digits"];
    for (arguments, parts) in [
        (&["--method", "rigl+ts"][..], &["data.validation", "rigl+ts"][..]),
        (&["--method", "lottery"], &["sparse.mask_from"]),
        (&["--set", "averaging.start=21"], &["averaging.start = 21", "the last epoch is 20"]),
        (&["--set", "averaging.start=2"], &["averaging.start = 2", "averaging.reprune"]),
        (&["--set", "train.batch_size=5000"], &["train.batch_size = 5000", "3823 images"]),
        (&["--set", "train.steps=99999"], &["train.steps = 99999", "train.epochs"]),
        (&["--set", "network.classes=5"], &["network.classes = 5", "10 classes"]),
        (&["--set", "data.train_limit=9999"], &["data.train_limit", "9999", "3823"]),
        (&["--set", "data.test_limit=9999"], &["data.test_limit", "9999", "1797"]),
        (&["--set", "data.validation=3823"], &["data.validation", "3823"]),
        (&["--set", "network.dropout=0.5"], &["network.dropout = 0.5", "wrn22-2"]),
        (&["--set", "random_mask.keep.fc2.weight=0.5"], &["fc2.weight", "did you mean fc.weight?"]),
        (&["--set", "train.recipe=rigl"], &["train.recipe", "only recipe cigl"]),
        (&["--set", "preset=digit"], &["unknown preset", "did you mean digits?"]),
        (&["--method", "gmp", "--set", "sparse.t_end=10"], &["sparse.delta_t = 20", "never"]),
        (
            &["--set", "random_mask.semantics=official", "--set", "train.optimizer=adam"],
            &["random_mask.semantics", "train.optimizer"],
        ),
        (
            &["--set", "random_mask.semantics=official", "--set", "random_mask.momentum=decay"],
            &["random_mask.momentum", "official"],
        ),
        (&["--method", "rigl", "--method", "cigl", "--method", "rigl"], &["--method rigl: given twice"]),
        (&["--data", "/nowhere"], &["digits are embedded"]),
        (&["--set", "data.dataset=cifar10"], &["CIFAR-10", "--data DIR"]),
    ] {
        // A preset that is named by --set is in place of --preset.
        let named = arguments.contains(&"preset=digit");
        let all = [if named { &[][..] } else { &digits[..] }, arguments].concat();
        train_fails(&all, 2, parts);
    }
}

/// What clap answers takes several lines and ends with where to read on.
#[test]
fn what_cannot_be_parsed_is_answered_with_what_can() {
    for (arguments, parts) in [
        (&["train", "--preset", "digit"][..], &["'digit'", "digits"][..]),
        (&["train", "--method", "riggl"], &["'riggl'", "rigl"]),
        (&["train", "--sets", "seed=1"], &["'--sets'", "'--set'"]),
        (&["train", "--set", "train.epoch=3"], &["unknown key train.epoch; did you mean train.epochs?"]),
        (&["train", "--set", "lr=3"], &["unknown key lr; did you mean train.lr?"]),
        (&["train", "--set", "train.lr=fast"], &["train.lr = \"fast\": expected a number above 0"]),
        (&["train", "--set", "train.lr=-1"], &["train.lr = -1: expected a number above 0"]),
        (&["train", "--set", "train.lr=nan"], &["train.lr = nan: expected a number above 0"]),
        (&["train", "--set", "train.epochs=2.5"], &["train.epochs = 2.5: expected an integer of 1 or more"]),
        (&["train", "--set", "random_mask.keep=0"], &["random_mask.keep = 0: expected a number above 0"]),
        (&["train", "--set", "sparse.schedule=cubik"], &["sparse.schedule", "did you mean cubic?"]),
        (&["train", "--set", "seed"], &["expected KEY=VALUE"]),
        (&["train", "--sparsity", "1"], &["from 0 to below 1"]),
        (&["train", "--sparsity", "90"], &["from 0 to below 1"]),
        (&["train", "--threads", "0"], &["--threads"]),
        (&["train", "--device", "cuda:x"], &["expected auto, cpu, cuda, cuda:N or simt"]),
        (&["train", "--device", "tpu"], &["expected auto, cpu, cuda, cuda:N or simt"]),
        (&["train", "--seed", "1", "--seeds", "2"], &["cannot be used with"]),
        (&["train", "--seeds", "1001"], &["1001", "1..=1000"]),
        (&["train", "--seeds", "9223372036854775807"], &["1..=1000"]),
        (&["trian"], &["'trian'", "'train'"]),
        (&["eval"], &["<RUN|MODEL.safetensors>"]),
        (&["eval", "run", "--predictions", "p.txt"], &["ending in .npz"]),
        (&["predict", "run"], &["<IMAGES>"]),
        (&["predict", "run", "a.png", "--out", "p.json"], &[".csv or .npz"]),
        (&["info", "--plan"], &["--preset"]),
    ] {
        let mut command = cigl();
        command.args(arguments);
        let output = command.output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(parts.iter().all(|part| text.contains(part)) && text.starts_with("error: "), "{arguments:?}: {text}");
        assert!(!text.contains("panicked") && output.stdout.is_empty(), "{arguments:?}: {text}");
    }
}

#[test]
fn a_bad_configuration_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    let path = file.to_str().unwrap();
    train_fails(&["--config", path], 1, &["mine.toml: cannot be read"]);
    std::fs::write(&file, "preset = \"digits\"\n[train\n").unwrap();
    train_fails(&["--config", path], 1, &["mine.toml: line 2 is not TOML"]);
    std::fs::write(&file, [0xff, 0xfe, 0]).unwrap();
    train_fails(&["--config", path], 1, &["mine.toml: cannot be read"]);
    std::fs::write(&file, "preset = \"digits\"\n[train]\nepochz = 1\n").unwrap();
    train_fails(&["--config", path], 1, &["unknown key train.epochz", "did you mean train.epochs?"]);
}

#[test]
fn missing_and_broken_data_files_are_named_with_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let path = data.to_str().unwrap();
    let cifar = ["--preset", "cifar10-wrn22-2", "--data", path];
    train_fails(&cifar, 1, &["data: ", "data_batch_1.bin"]);
    std::fs::create_dir(&data).unwrap();
    train_fails(&cifar, 1, &["data: ", "data_batch_1.bin"]);
    for file in ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"] {
        std::fs::write(data.join(file), vec![0; 3073]).unwrap();
    }
    std::fs::write(data.join("test_batch.bin"), vec![0; 3000]).unwrap();
    train_fails(&cifar, 1, &["data_batch_1.bin: ", "30730000"]);
    let fashion = ["--preset", "fashion-mnist", "--data", path];
    train_fails(&fashion, 1, &["data: ", "train-images-idx3-ubyte"]);
    for file in
        ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
    {
        std::fs::write(data.join(file), [0, 0, 8, 3, 0, 0, 0, 9, 0, 0]).unwrap();
    }
    train_fails(&fashion, 1, &["train-images-idx3-ubyte: "]);
}

#[test]
fn a_start_that_does_not_fit_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), "run", "rigl", &["train.steps=0"]);
    let mlp = trained(folder.path(), "mlp", "rigl", &["train.steps=0", "network.name=mlp"]);
    let other = folder.path().join("other.safetensors");
    std::fs::write(&other, b"not tensors at all").unwrap();
    let model = |run: &Path| run.join("checkpoint/model.safetensors").to_str().unwrap().to_owned();
    let missing = folder.path().join("missing.safetensors");
    for (file, part) in [
        (missing.to_str().unwrap(), "could not be read"),
        (other.to_str().unwrap(), "is not a complete safetensors file"),
        (&model(&mlp), "has no tensor conv1.weight"),
        (&format!("{}/checkpoint/last.safetensors", run.display()), "could not be read"),
    ] {
        train_fails(&["--preset", "digits", "--set", &format!("train.init={file}")], 1, &[file, part]);
    }
    let from = |path: &Path| format!("sparse.mask_from={}", path.display());
    let lottery = ["--preset", "digits", "--method", "lottery", "--set"];
    train_fails(&[&lottery[..], &[&from(&missing)]].concat(), 1, &["is not a run folder"]);
    train_fails(&[&lottery[..], &[&from(&mlp)]].concat(), 1, &["has no tensor conv1.weight.mask"]);
    std::fs::remove_file(run.join("summary.json")).unwrap();
    train_fails(&[&lottery[..], &[&from(&run)]].concat(), 1, &["is an unfinished run"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    for out in [file.clone(), file.join("run")] {
        let error = fail(train("rigl", &out, &["train.steps=0"]), 1);
        assert!(error.contains(out.to_str().unwrap()), "{error}");
    }
    assert_eq!(files(folder.path()), [Path::new("file")]);
    let mut resume = cigl();
    resume.args(["train", "--resume", "--out"]).arg(folder.path());
    assert!(fail(resume, 1).contains("holds no run to resume"));
}

#[test]
fn what_is_not_a_trained_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), "run", "rigl", &["train.steps=0"]);
    let model = run.join("checkpoint/model.safetensors");
    let image = folder.path().join("image.png");
    std::fs::write(&image, b"GIF89a is not a PNG").unwrap();
    let bytes = std::fs::read(&model).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let foreign = safetensors::serialize(Vec::<(String, safetensors::tensor::TensorView<'_>)>::new(), None).unwrap();
    for (path, part) in [
        (folder.path().join("nothing"), "could not be read"),
        (folder.path().to_path_buf(), "holds no checkpoint/model.safetensors"),
        (write("truncated.safetensors", &bytes[..bytes.len() / 2]), "is not a complete safetensors file"),
        (write("flipped.safetensors", &flipped), "is damaged"),
        (write("text.safetensors", b"hello, this is no model"), "is not a complete safetensors file"),
        (write("foreign.safetensors", &foreign), "does not say what network it is"),
    ] {
        let mut eval = cigl();
        eval.arg("eval").arg(&path);
        let error = fail(eval, 1);
        assert!(error.contains(part) && error.contains(path.to_str().unwrap()), "{error}");
        let mut predict = cigl();
        predict.arg("predict").args([&path, &image]);
        assert!(fail(predict, 1).contains(part));
    }
    let mut eval = cigl();
    eval.args(["eval", "--split", "val"]).arg(&run);
    assert!(fail(eval, 2).contains("data.validation is 0"));
    let out = folder.path().join("out.csv");
    for path in [image, folder.path().join("no.png"), folder.path().to_path_buf()] {
        let mut predict = cigl();
        predict.arg("predict").args([&run, &path]).arg("--out").arg(&out);
        let error = fail(predict, 1);
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert!(!out.exists(), "something half-written was left behind");
    }
}

#[test]
fn a_log_or_configuration_damaged_by_hand_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), "run", "rigl", &["train.steps=3"]);
    let resume = || {
        let mut command = cigl();
        command.args(["train", "--resume", "--out"]).arg(&run);
        command
    };
    std::fs::write(run.join("summary.json"), "{").unwrap();
    assert!(fail(resume(), 1).contains("summary.json: is not a run's summary"));
    std::fs::remove_file(run.join("summary.json")).unwrap();
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    std::fs::write(run.join("config.toml"), config.replace("delta_t = 5", "delta_t = 0")).unwrap();
    assert!(fail(resume(), 1).contains("sparse.delta_t = 0: expected an integer of 1 or more"));
    std::fs::write(run.join("config.toml"), config).unwrap();
    succeed(resume());
}

#[test]
fn a_network_beyond_the_machine_is_an_error_before_anything_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    for (hidden, expected) in [("[60000000]", "MiB are free"), ("[10000000000]", "more than 2^32 elements")] {
        let mut train = train("dense", &out, &["network.name=mlp"]);
        train.args(["--set", &format!("network.hidden={hidden}")]);
        let error = fail(train, 1);
        assert!(error.contains(expected), "{hidden}: {error}");
        assert!(!out.exists());
    }
}

#[test]
fn a_ticket_of_another_sparsity_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = trained(folder.path(), "source", "rigl", &["sparsity=0.5"]);
    let mut lottery = train("lottery", &folder.path().join("run"), &["sparsity=0.9"]);
    lottery.arg("--set").arg(format!("sparse.mask_from={}", source.display()));
    let error = fail(lottery, 2);
    assert!(error.contains("its masks have 34952 ones, a sparsity of 0.9 has"), "{error}");
}

#[test]
fn an_unknown_instruction_set_is_refused() {
    let mut info = cigl();
    info.arg("info").env("CIGL_SIMD", "avx1024");
    assert!(fail(info, 2).contains("CIGL_SIMD=avx1024: expected avx512, avx2 or portable"));
}

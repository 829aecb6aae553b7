//! Weight and mask averaging against runs that stop at every epoch's end.

use crate::program::trained;
use crate::run_files::{Tensors, model};
use crate::softmax_regression::{PIXELS, digits, kept};

/// Snapshots after epochs 4, 5 and 6 of ten steps; the masks are frozen from step 30 on.
const SETTINGS: [&str; 4] = ["averaging.start=4", "sparse.t_end=0.5", "random_mask.keep=0.8", "seed=3"];

/// Z of a tensor of this shape in the order of files, (O, I, kH, kW), drawn in (O, kH, kW, I) order.
fn kept_in_file_order(step: usize, layer: u32, shape: &[usize]) -> Vec<bool> {
    let elements = kept(3, step, layer, 0.8, shape.iter().product());
    let (inputs, taps) = (shape[1], shape[2..].iter().product::<usize>());
    let element = |at: usize| (at / (inputs * taps) * taps + at % taps) * inputs + at / taps % inputs;
    (0..elements.len()).map(|at| elements[element(at)]).collect()
}

/// What a sample of the network holds at the end of `step`, which is the last one of `end`: M Z W, and under the official semantics
/// M (Z ? W : leak).
fn sample(end: &Tensors, step: usize, layer: u32, weight: &str, official: bool) -> Vec<f64> {
    let z = kept_in_file_order(step, layer, &end.all[weight].1);
    let values = end.floats(weight);
    let leak = if official { end.floats(&format!("{weight}.leak")) } else { vec![0.0; values.len()] };
    let value = |(((w, leak), kept), inside)| match (inside, kept) {
        (false, _) => 0.0,
        (true, true) => f64::from(w),
        (true, false) => f64::from(leak),
    };
    values.into_iter().zip(leak).zip(z).zip(end.mask(weight)).map(value).collect()
}

#[test]
fn the_result_is_the_mean_of_masked_weights_over_epoch_ends() {
    for official in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let semantics = format!("random_mask.semantics={}", if official { "official" } else { "paper" });
        let run = |name: &str, more: &[&str]| {
            trained(folder.path(), name, "cigl", &[&SETTINGS[..], &[semantics.as_str()], more].concat())
        };
        let result = model(&run("whole", &[]));
        let ends = [40, 50, 60].map(|steps: usize| {
            let stopped = run(&steps.to_string(), &[&format!("train.steps={steps}")]);
            (steps - 1, Tensors::read(&stopped.join("checkpoint/last.safetensors")))
        });
        // conv1 to conv5, then fc: the order of the alphabet is that of the layers.
        let weights = result.masked();
        for name in result.all.keys().filter(|name| !name.ends_with(".mask") && !name.contains("running_")) {
            let mut mean = vec![0.0; result.floats(name).len()];
            for (step, end) in &ends {
                let values = match weights.iter().position(|weight| weight == name) {
                    Some(layer) => sample(end, *step, layer as u32, name, official),
                    None => end.floats(name).into_iter().map(f64::from).collect(),
                };
                mean.iter_mut().zip(values).for_each(|(m, value)| *m += value / 3.0);
            }
            for (i, (value, expected)) in result.floats(name).into_iter().zip(mean).enumerate() {
                let near = (f64::from(value) - expected).abs() < 1e-6;
                assert!(near, "{semantics}, {name} {i}: {value}, the mean is {expected}");
            }
        }
    }
}

#[test]
fn the_average_starts_at_the_epoch_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    // Six epochs: a fraction is rounded up to an epoch, a number from 1 on is one.
    for (start, snapshots) in [("0.8", 2), ("0.5", 4), ("5", 2), ("6", 1)] {
        let setting = format!("averaging.start={start}");
        let run = trained(folder.path(), start, "cigl", &["sparse.t_end=0.4", &setting]);
        assert_eq!(crate::run_files::summary(&run)["snapshots"], snapshots, "start {start}");
    }
}

/// The convolution of the digits with kernels (16, 1, 3, 3), padded by one zero: 64 values an image and channel.
fn first_convolution(image: &[f64; PIXELS], kernel: &[f64]) -> Vec<f64> {
    let at =
        |y: isize, x: isize| if (0..8).contains(&y) && (0..8).contains(&x) { image[(8 * y + x) as usize] } else { 0.0 };
    let value = |y: isize, x: isize| (0..9).map(|t| kernel[t as usize] * at(y + t / 3 - 1, x + t % 3 - 1)).sum::<f64>();
    (0..64).map(|i| value(i / 8, i % 8)).collect()
}

/// The first batch norm can be followed by hand: its input is one convolution of the images.
#[test]
fn batch_norm_statistics_are_the_weighted_means_of_one_pass_over_the_training_images() {
    let folder = tempfile::tempdir().unwrap();
    // 13 batches of 48 images and one of 16, in file order.
    let more = ["train.batch_size=48", "data.drop_last=off", "data.shuffle=off"];
    let result = model(&trained(folder.path(), "run", "cigl", &[&SETTINGS[..], &more].concat()));
    let images = digits(640);
    let weight: Vec<f64> = result.floats("conv1.weight").into_iter().map(f64::from).collect();
    for channel in 0..16 {
        let (mut mean, mut variance) = (0.0, 0.0);
        for batch in images.chunks(48) {
            let kernel = &weight[9 * channel..][..9];
            let values: Vec<f64> = batch.iter().flat_map(|(pixels, _)| first_convolution(pixels, kernel)).collect();
            let (n, share) = (values.len() as f64, batch.len() as f64 / 640.0);
            let batch_mean = values.iter().sum::<f64>() / n;
            mean += share * batch_mean;
            variance += share * values.iter().map(|x| (x - batch_mean).powi(2)).sum::<f64>() / (n - 1.0);
        }
        for (name, expected) in [("bn1.running_mean", mean), ("bn1.running_var", variance)] {
            let value = f64::from(result.floats(name)[channel]);
            assert!((value - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{name} {channel}: {value}, {expected}");
        }
    }
}

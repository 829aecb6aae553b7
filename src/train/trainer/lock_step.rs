//! Training steps of the CUDA backend, its kernels run on the CPU, beside those of the CPU backend and of the f64 reference.
//!
//! Rounding differences grow about tenfold a step at a usual learning rate, so devices are compared step by step: each step
//! starts all of them from the CPU's state. At a small learning rate they may run freely.

use super::*;
use crate::backend::Precision;
use crate::backend::cpu::Cpu;
use crate::backend::cuda::{Cuda, driver::simt};
use crate::backend::parity::Reference;
use crate::bitmask::BitMask;
use crate::config::Assignment;
use crate::data::Dataset;
use crate::graph::{Graph, NodeId};
use crate::nn::Conv2d;

/// Ten steps, a mask update at the third, sixth and ninth.
const STEPS: u64 = 10;

/// A stem, a block of stride 2 with a convolution in its shortcut, pooling, a linear layer; channel numbers that fill no piece of 8.
struct SmallResNet;

impl Network for SmallResNet {
    fn name(&self) -> &str {
        "small-resnet"
    }

    fn record(&self, g: &mut Graph, images: NodeId, classes: usize) -> Result<NodeId> {
        let x = g.conv2d("stem", images, Conv2d::same(12, 3, 1))?;
        let x = g.batch_norm_relu("stem_bn", x)?;
        let y = g.conv2d("conv1", x, Conv2d::same(20, 3, 2))?;
        let y = g.batch_norm_relu("bn1", y)?;
        let y = g.conv2d("conv2", y, Conv2d::same(20, 3, 1))?;
        let y = g.batch_norm_add_relu("bn2", y, |g| {
            let x = g.conv2d("shortcut", x, Conv2d::same(20, 1, 2))?;
            g.batch_norm("shortcut_bn", x)
        })?;
        let features = g.global_average_pool("pool", y)?;
        g.linear("fc", features, classes)
    }
}

fn config(lr: f64) -> Config {
    let lr = format!("train.lr={lr}");
    let settings = [
        "method=cigl",
        "sparsity=0.8",
        "train.epochs=1",
        "train.batch_size=16",
        "train.warmup_steps=0",
        "data.train_limit=160",
        "data.test_limit=16",
        "sparse.delta_t=3",
        "sparse.t_end=1.0",
        "random_mask.keep=0.9",
        &lr,
    ];
    let settings: Vec<Assignment> = settings.iter().map(|s| Assignment::parse(s).unwrap()).collect();
    Config::resolve(Some("digits"), None, &settings).unwrap()
}

fn digits(config: &Config) -> Dataset {
    config.data.dataset.load(None, config.limits()).unwrap().split(config.limits()).unwrap().train
}

fn cpu(precision: Precision) -> Box<dyn Backend> {
    Box::new(Cpu::new().with_precision(precision))
}

fn simt(precision: Precision) -> Box<dyn Backend> {
    let driver = simt::Simt::new(simt::Schedule { order: simt::Order::Random(3), late_copies: true });
    Box::new(Cuda::new(Box::new(driver), precision).unwrap())
}

fn trainer<'a>(config: &'a Config, data: &'a Dataset, backend: Box<dyn Backend>) -> Trainer<'a> {
    let trainer = Trainer::start(config, Box::new(SmallResNet), data, backend).unwrap();
    assert!(trainer.timetable.steps >= STEPS && trainer.timetable.updates.contains(2));
    trainer
}

/// Everything that a step starts from: parameters, gradients, moments, statistics, M.
fn copy_state(from: &mut Trainer, to: &mut Trainer) {
    let whole = Span { at: 0, len: from.state_len() };
    let values = from.model.backend().read(whole).unwrap();
    to.model().backend().write(whole, &values).unwrap();
    for layer in 0..from.model.weights().len() {
        let mask = from.model.mask(layer).unwrap();
        to.model().backend().write_mask(layer, &mask).unwrap();
    }
}

impl Trainer<'_> {
    /// The end of what outlives a step.
    fn state_len(&self) -> usize {
        let spans = self.moments.iter().flat_map(|m| {
            [Some(m.velocity), m.second, m.average, Some(self.model.value(m.id)), Some(self.model.gradient(m.id))]
        });
        spans.flatten().map(|span| span.at + span.len).max().unwrap_or(0)
    }

    fn random_masks(&mut self) -> Vec<BitMask> {
        (0..self.model.weights().len()).map(|l| self.model.backend().read_random_mask(l).unwrap()).collect()
    }

    fn masks(&mut self) -> Vec<BitMask> {
        (0..self.model.weights().len()).map(|l| self.model.mask(l).unwrap()).collect()
    }

    /// Each parameter's name and some span of it, where only what M covers counts.
    fn tensors(&mut self, span: impl Fn(&Model, &Moments) -> Span) -> Vec<(String, Vec<f64>)> {
        let moments = self.moments.clone();
        let tensor = |m: &Moments| {
            let span = span(&self.model, m);
            let mut values = self.model.backend().read(span).unwrap();
            if let Some(weight) = self.model.weight(m.id) {
                let mask = self.model.mask(weight.layer).unwrap();
                values.iter_mut().enumerate().filter(|(i, _)| !mask.get(*i)).for_each(|(_, x)| *x = 0.0);
            }
            (self.model.parameters()[m.id].name.clone(), values.into_iter().map(f64::from).collect())
        };
        moments.iter().map(tensor).collect()
    }
}

/// The length of a - b.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
}

/// Each tensor of `device` is at most twice as far from the reference's as the CPU's is, or no farther than rounding.
fn assert_as_good(what: &str, device: &[(String, Vec<f64>)], cpu: &[(String, Vec<f64>)], exact: &[(String, Vec<f64>)]) {
    let zero = |x: &[f64]| vec![0.0; x.len()];
    for (((name, device), (_, cpu)), (_, exact)) in device.iter().zip(cpu).zip(exact) {
        let size = distance(exact, &zero(exact));
        let allowed = 2.0 * distance(cpu, exact) + 2e-6 * size + 1e-7;
        let error = distance(device, exact);
        assert!(error <= allowed, "{what} of {name}: off by {error:e} of {size:e}, allowed {allowed:e}");
    }
}

fn in_lock_step(precision: Precision) {
    let config = config(0.1);
    let data = digits(&config);
    let mut cpu = trainer(&config, &data, cpu(precision));
    let mut simt = trainer(&config, &data, simt(precision));
    let mut exact = trainer(&config, &data, Box::new(Reference::new()));
    let mut updates = 0;
    for step in 0..STEPS {
        copy_state(&mut cpu, &mut simt);
        copy_state(&mut cpu, &mut exact);
        let [seen, device, truth] = [&mut cpu, &mut simt, &mut exact].map(|t| t.pass().unwrap());
        assert_eq!(cpu.random_masks(), simt.random_masks(), "Z at step {step}");
        let [seen, device, truth] =
            [seen, device, truth].map(|l| vec![("the batch".to_string(), vec![f64::from(l.loss)])]);
        assert_as_good(&format!("step {step}, loss"), &device, &seen, &truth);
        let grads = [&mut cpu, &mut simt, &mut exact].map(|t| t.tensors(|model, m| model.gradient(m.id)));
        assert_as_good(&format!("step {step}, gradient"), &grads[1], &grads[0], &grads[2]);

        // From the same weights and gradients all must choose the same positions and come to the same weights.
        copy_state(&mut cpu, &mut simt);
        copy_state(&mut cpu, &mut exact);
        let [_, change, _] = [&mut cpu, &mut simt, &mut exact].map(|t| t.change().unwrap());
        updates += u64::from(change.is_some());
        assert_eq!(cpu.masks(), simt.masks(), "M after step {step}");
        let values = [&mut cpu, &mut simt, &mut exact].map(|t| t.tensors(|model, m| model.value(m.id)));
        assert_as_good(&format!("step {step}, new value"), &values[1], &values[0], &values[2]);
    }
    assert_eq!(updates, 3);
}

#[test]
fn ten_steps_in_f32_follow_the_cpu_step_by_step() {
    in_lock_step(Precision::F32);
}

#[test]
fn ten_steps_in_bf16_follow_the_cpu_step_by_step() {
    in_lock_step(Precision::Bf16);
}

/// Ten free steps: the losses.
fn losses(config: &Config, data: &Dataset, backend: Box<dyn Backend>) -> Vec<f32> {
    let mut trainer = trainer(config, data, backend);
    (0..STEPS).map(|_| trainer.step().unwrap().loss).collect()
}

#[test]
fn ten_free_steps_in_f32_at_a_small_learning_rate_stay_with_the_cpu_and_repeat_to_the_bit() {
    let config = config(0.002);
    let data = digits(&config);
    let on_cpu = losses(&config, &data, cpu(Precision::F32));
    let on_simt = losses(&config, &data, simt(Precision::F32));
    for (step, (a, b)) in on_cpu.iter().zip(&on_simt).enumerate() {
        assert!((a - b).abs() <= 1e-4 * a.abs(), "step {step}: {a} on the CPU, {b} on the device");
    }
    assert_eq!(on_simt, losses(&config, &data, simt(Precision::F32)), "two runs on the device differ");
    let bf16 = || losses(&config, &data, simt(Precision::Bf16));
    assert_eq!(bf16(), bf16(), "two runs on the device in bf16 differ");
}

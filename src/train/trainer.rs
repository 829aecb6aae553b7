//! The training loop's state machine: one call of [`Trainer::step`] is one batch.
//!
//! Everything random is a function of the seed and the step, so the state is the weights, the optimiser's moments, the masks, the
//! average and a step number; restoring those restores the run to the bit.

#[cfg(all(test, simt))]
mod lock_step;

use super::evaluate::{Predictor, measure};
use super::evolution::{Evolution, MaskState, masks};
use super::mask_update::MaskUpdater;
use super::schedule::Timetable;
use super::start;
use crate::backend::{Adam, Backend, Draw, Effective, Extent, Masking, Rule, Sgd, Span, StepState, Update, on_pool};
use crate::calibration::Evaluation;
use crate::config::{Config, MaskUpdates, MaskedMomentum, Optimizer, Rescale, Semantics};
use crate::data::batches::{self, Augment};
use crate::data::{Augmentation, Dataset, Mixup, Pixels, soft_targets};
use crate::error::{Error, Result};
use crate::graph::{Mode, ParameterId, Role};
use crate::model::{BatchLoss, Images, Model};
use crate::nn::Network;
use crate::rng::Domain;

/// The share of a batch in batch norm's running statistics.
const STATISTICS_MOMENTUM: f32 = 0.1;

/// What one step did.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// 0-based.
    pub step: u64,
    /// From 1.
    pub epoch: u64,
    /// Images in the batch.
    pub images: usize,
    /// Mean loss of the batch before the update.
    pub loss: f32,
    /// Images of the batch predicted right (under mixup: at the larger target).
    pub correct: u32,
    /// Learning rate; on a mask update the schedule's, though no optimiser step was made.
    pub lr: f64,
    /// The mask update of this step.
    pub update: Option<MaskChange>,
    /// Set on the last step of an epoch.
    pub epoch_end: Option<EpochMeans>,
    /// A snapshot was taken (its number, from 1): it entered the average, or is to be kept, or both.
    pub snapshot: Option<u64>,
}

/// A mask update in numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskChange {
    /// f(g); the share of active weights that each sparse layer drops. For pruning from dense, the share removed.
    pub drop_fraction: f64,
    /// Of the weights active after the update, the share that was active before.
    pub overlap: f64,
    /// The masks after the update.
    pub masks: MaskState,
}

/// Means over the images of an epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpochMeans {
    /// Mean training loss.
    pub loss: f64,
    /// Mean training accuracy.
    pub accuracy: f64,
}

/// Running sums of an epoch; part of the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct EpochSums {
    pub(super) loss: f64,
    pub(super) correct: u64,
    pub(super) images: u64,
}

/// What is kept beside each trainable parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments {
    pub(super) id: ParameterId,
    /// Momentum, or Adam's first moment.
    pub(super) velocity: Span,
    /// Adam's second moment.
    pub(super) second: Option<Span>,
    /// The running mean of snapshots.
    pub(super) average: Option<Span>,
    /// The last snapshot, where they are kept.
    pub(super) snapshot: Option<Span>,
    /// What Z-dropped weights hold under the official semantics.
    pub(super) leak: Option<Span>,
}

/// A run in progress.
pub struct Trainer<'a> {
    pub(super) config: &'a Config,
    pub(super) timetable: Timetable,
    pub(super) model: Model,
    pub(super) moments: Vec<Moments>,
    pub(super) step: u64,
    /// Snapshots in the average.
    pub(super) averaged: u64,
    pub(super) epoch_sums: EpochSums,
    /// Begun when first asked for, which is before anything changes the first masks.
    pub(super) evolution: Option<Evolution>,
    train: &'a Dataset,
    masks: MaskUpdater,
    keep: Vec<f64>,
    augmentation: Augmentation,
    order: Option<(u64, Vec<u32>)>,
    /// The step whose masks and effective weights are in force already, since the optimiser's step formed them.
    formed: Option<u64>,
    images: Vec<f32>,
    /// In place of `images` where a device can do the rest.
    pixels: Option<Pixels<'a>>,
    labels: Vec<u32>,
    targets: Vec<f32>,
}

impl<'a> Trainer<'a> {
    /// A run of any network, one of your own for example, on `train` from its very beginning: initial weights and masks are set.
    ///
    /// What `config` says of the network, its name and width, is not looked at, and neither are `config.device` and
    /// `config.precision`.
    ///
    /// # Errors
    /// As [`Timetable::new`], [`Model::new`] and [`Trainer::new`].
    pub fn start(
        config: &'a Config,
        network: Box<dyn Network>,
        train: &'a Dataset,
        backend: Box<dyn Backend>,
    ) -> Result<Self> {
        let timetable = Timetable::new(config, train.len())?;
        let shape = train.shape();
        let classes = config.network.classes.unwrap_or(train.classes());
        let model = Model::new(network, [shape.channels, shape.height, shape.width], classes, backend)?;
        let mut trainer = Trainer::new(config, timetable, model, train)?;
        start::initialise(config, &mut trainer.model)?;
        Ok(trainer)
    }

    /// Sets up a run on `model`, whose parameters and masks are then still to be set: by
    /// [`start`](super::start::initialise) or from a checkpoint.
    pub fn new(config: &'a Config, timetable: Timetable, mut model: Model, train: &'a Dataset) -> Result<Self> {
        let names: Vec<String> = model.parameters().weights().map(|(_, p)| p.name.clone()).collect();
        config.random_mask.keep.check_layers(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
        let keep = names.iter().map(|name| config.keep(name)).collect();
        let parts = config.ingredients();
        let trainable: Vec<(ParameterId, usize, Role)> = model
            .parameters()
            .iter()
            .filter(|(_, p)| p.role.trainable())
            .map(|(id, p)| (id, p.len(), p.role))
            .collect();
        let mut moments: Vec<Moments> = trainable
            .into_iter()
            .map(|(id, len, role)| Moments {
                id,
                velocity: model.allocate(len),
                second: (config.train.optimizer == Optimizer::Adam).then(|| model.allocate(len)),
                average: None,
                snapshot: None,
                leak: (role == Role::Weight && leaks(config)).then(|| model.allocate(len)),
            })
            .collect();
        // What is first written late lies together: until then the system need not hold those pages.
        for m in &mut moments {
            let len = model.parameters()[m.id].len();
            m.average = parts.averaging.then(|| model.allocate(len));
            m.snapshot = config.keeps_snapshots().then(|| model.allocate(len));
        }
        let masks = MaskUpdater::new(config, &timetable, &model)?;
        let augmentation = if config.data.augment { config.data.dataset.augmentation() } else { Augmentation::None };
        Ok(Trainer {
            config,
            timetable,
            model,
            moments,
            step: 0,
            averaged: 0,
            epoch_sums: EpochSums::default(),
            evolution: None,
            train,
            masks,
            keep,
            augmentation,
            order: None,
            formed: None,
            images: vec![],
            pixels: None,
            labels: vec![],
            targets: vec![],
        })
    }

    /// The next step's number, from 0.
    pub fn position(&self) -> u64 {
        self.step
    }

    /// Whether all steps are done.
    pub fn is_done(&self) -> bool {
        self.step >= self.timetable.steps
    }

    /// The run's schedules.
    pub fn timetable(&self) -> &Timetable {
        &self.timetable
    }

    /// The network. Whoever has it may put other weights in force, so the next step forms its own anew.
    pub fn model(&mut self) -> &mut Model {
        self.formed = None;
        &mut self.model
    }

    /// The masks as they are now, beside those of the run's beginning and since.
    pub fn mask_state(&mut self) -> Result<MaskState> {
        let masks = masks(&mut self.model)?;
        Ok(Evolution::begun(&mut self.evolution, &mut self.model)?.state(&masks))
    }

    /// Trains on the next batch.
    pub fn step(&mut self) -> Result<StepReport> {
        on_pool(self.model.backend().works_on_pool(), || self.make_step())
    }

    fn make_step(&mut self) -> Result<StepReport> {
        let g = self.step;
        let seen = self.pass()?;
        let update = self.change()?;
        let snapshot = if self.timetable.snapshot_after(g) { Some(self.snapshot()?) } else { None };
        let images = self.labels.len();
        Ok(StepReport {
            step: g,
            epoch: self.timetable.epoch(g),
            images,
            loss: seen.loss,
            correct: seen.correct,
            lr: self.timetable.lr.at(g),
            update,
            epoch_end: self.count(seen.loss, seen.correct, images),
            snapshot,
        })
    }

    /// Forward and backward on the next batch: leaves the gradients in place.
    fn pass(&mut self) -> Result<BatchLoss> {
        let g = self.step;
        self.load_batch(g, self.timetable.epoch(g))?;
        if self.formed.take() != Some(g) {
            self.force_masks(g)?;
        }
        let updates = self.config.ingredients().updates;
        let dense =
            updates == MaskUpdates::Snfs || (updates == MaskUpdates::Rigl && self.timetable.updates.contains(g));
        let state = StepState {
            seed: self.config.seed,
            step: g as u32,
            statistics_momentum: STATISTICS_MOMENTUM,
            extent: if dense { Extent::Dense } else { Extent::Active },
        };
        let images = self.pixels.as_ref().map_or(Images::Values(&self.images), Images::Pixels);
        self.model.train_pass(images, &self.targets, state)
    }

    /// Changes either the masks or the weights by the gradients that are there, and goes on to the next step.
    fn change(&mut self) -> Result<Option<MaskChange>> {
        let g = self.step;
        let update = if self.timetable.updates.contains(g) {
            let evolution = Evolution::begun(&mut self.evolution, &mut self.model)?;
            Some(self.masks.update(&mut self.model, evolution, &self.moments, g)?)
        } else {
            self.optimise(g, self.timetable.lr.at(g))?;
            None
        };
        self.step += 1;
        Ok(update)
    }

    /// Fails when a parameter is not finite: such weights must not replace the last good checkpoint. `loss` is the last step's.
    pub fn check_finite(&mut self, loss: f32) -> Result<()> {
        for (id, p) in self.model.parameters().clone().iter() {
            let span = self.model.value(id);
            if self.model.backend().read(span)?.iter().any(|x| !x.is_finite()) {
                let step = self.step.saturating_sub(1);
                return Err(Error::Diverged { loss, step, layer: p.name.clone() });
            }
        }
        Ok(())
    }

    /// Fills images and targets.
    fn load_batch(&mut self, g: u64, epoch: u64) -> Result<()> {
        let (config, size) = (self.config, self.config.train.batch_size);
        if self.order.as_ref().is_none_or(|(of, _)| *of != epoch) {
            let order = batches::epoch_order(self.train.len(), config.seed, epoch as u32, config.data.shuffle);
            self.order = Some((epoch, order));
        }
        let (_, order) = self.order.as_ref().expect("the epoch's order was just made");
        let at = (g % self.timetable.steps_per_epoch) as usize;
        let indices = &order[at * size..((at + 1) * size).min(order.len())];
        let augment = Augment { kind: self.augmentation, seed: config.seed, epoch: epoch as u32 };
        let mixup = match config.train.mixup {
            0.0 => None,
            alpha => Some(Mixup::draw(config.seed, g as u32, alpha, indices.len())?),
        };
        self.labels.clear();
        self.labels.extend(indices.iter().map(|&index| self.train.labels()[index as usize]));
        // Mixup mixes finished images.
        self.pixels = if mixup.is_none() { batches::pixels(self.train, indices, augment) } else { None };
        if self.pixels.is_none() {
            self.images.resize(indices.len() * self.train.shape().elements(), 0.0);
            batches::fill(self.train, indices, augment, &mut self.images, &mut self.labels)?;
        }
        if let Some(mixup) = &mixup {
            mixup.mix(&mut self.images);
        }
        self.targets.resize(indices.len() * self.model.classes(), 0.0);
        let smoothing = config.train.label_smoothing as f32;
        soft_targets(&self.labels, self.model.classes(), smoothing, mixup.as_ref(), &mut self.targets)
    }

    /// Forms the weights of this step's passes.
    fn force_masks(&mut self, g: u64) -> Result<()> {
        if !self.config.ingredients().random_mask {
            return self.model.use_deterministic_weights();
        }
        if leaks(self.config) {
            // The released code's network still holds what the last update left under the mask of that update.
            let Some(last) = self.last_optimiser_step(g) else { return self.model.use_deterministic_weights() };
            self.draw(last)?;
            let leaks = self.leaks();
            return self.model.backend().effective_weights(Effective::Leaky, &leaks);
        }
        self.draw(g)?;
        self.model.backend().effective_weights(Effective::Random, &[])
    }

    fn draw(&mut self, g: u64) -> Result<()> {
        self.model.backend().random_mask(&draw(self.config, &self.keep, g))
    }

    /// The last step before `g` that moved the weights.
    fn last_optimiser_step(&self, g: u64) -> Option<u64> {
        (0..g).rev().find(|&s| !self.timetable.updates.contains(s))
    }

    fn leaks(&self) -> Vec<Span> {
        self.moments.iter().filter_map(|m| m.leak).collect()
    }

    fn optimise(&mut self, g: u64, lr: f64) -> Result<()> {
        let train = &self.config.train;
        if leaks(self.config) {
            self.draw(g)?;
        }
        let updates: Vec<Update> = self
            .moments
            .iter()
            .map(|m| {
                let parameter = &self.model.parameters()[m.id];
                let decays = parameter.dims.len() > 1 || train.decay_biases;
                Update {
                    value: self.model.value(m.id),
                    grad: self.model.gradient(m.id),
                    velocity: m.velocity,
                    masked: self.model.weight(m.id).map(|weight| (weight, self.masking(m))),
                    weight_decay: if decays { train.weight_decay as f32 } else { 0.0 },
                }
            })
            .collect();
        let rule = match train.optimizer {
            Optimizer::Sgd => {
                Rule::Sgd(Sgd { lr: lr as f32, momentum: train.momentum as f32, nesterov: train.nesterov })
            }
            Optimizer::Adam => Rule::Adam(Adam {
                lr: lr as f32,
                betas: [train.momentum as f32, train.adam_beta2 as f32],
                epsilon: train.adam_epsilon as f32,
                t: g + 1 - self.timetable.updates.count(g),
            }),
        };
        let second: Vec<Span> = self.moments.iter().filter_map(|m| m.second).collect();
        if self.forms_next(g) {
            let next = self.config.ingredients().random_mask.then(|| draw(self.config, &self.keep, g + 1));
            let which = self.sampled();
            self.model.backend().update_and_mask(rule, &updates, &second, next.as_ref(), which)?;
            self.formed = Some(g + 1);
            return Ok(());
        }
        match rule {
            Rule::Sgd(rule) => self.model.backend().sgd(rule, &updates),
            Rule::Adam(rule) => self.model.backend().adam(rule, &updates, &second),
        }
    }

    /// Whether the optimiser's step `g` may form the weights of the next: there is one, nothing asks for Z of step `g` after it, and
    /// the next weights follow from the next Z alone.
    fn forms_next(&self, g: u64) -> bool {
        g + 1 < self.timetable.steps && !self.timetable.snapshot_after(g) && !leaks(self.config)
    }

    /// How Z enters the update of a masked weight.
    fn masking(&self, moments: &Moments) -> Masking {
        let parts = self.config.ingredients();
        match (parts.random_mask, moments.leak) {
            (true, Some(leak)) => Masking::Leaky(leak),
            (true, None) => match self.config.random_mask.momentum {
                MaskedMomentum::Frozen => Masking::Frozen,
                MaskedMomentum::Decay => Masking::Decay,
            },
            (false, _) if parts.updates == MaskUpdates::Snfs => Masking::DenseMomentum,
            (false, _) => Masking::Deterministic,
        }
    }

    /// The weights that a sample of the network has now: what the average takes in.
    fn sampled(&self) -> Effective {
        match (self.config.ingredients().random_mask, leaks(self.config)) {
            (false, _) => Effective::Deterministic,
            (true, false) => Effective::Random,
            (true, true) => Effective::Leaky,
        }
    }

    /// Takes a snapshot: into the average, and beside it where snapshots are kept.
    fn snapshot(&mut self) -> Result<u64> {
        let which = self.sampled();
        for m in &self.moments {
            let masked = self.model.weight(m.id).map(|weight| (weight, which, m.leak));
            let value = self.model.value(m.id);
            // A mean of one is the snapshot itself.
            for (span, before) in [(m.average, self.averaged), (m.snapshot, 0)] {
                if let Some(span) = span {
                    self.model.backend().average(value, masked, span, before as u32)?;
                }
            }
        }
        self.averaged += 1;
        Ok(self.averaged)
    }

    fn count(&mut self, loss: f32, correct: u32, images: usize) -> Option<EpochMeans> {
        let sums = &mut self.epoch_sums;
        sums.loss += f64::from(loss) * images as f64;
        sums.correct += u64::from(correct);
        sums.images += images as u64;
        self.step.is_multiple_of(self.timetable.steps_per_epoch).then(|| {
            let EpochSums { loss, correct, images } = std::mem::take(sums);
            EpochMeans { loss: loss / images as f64, accuracy: correct as f64 / images as f64 }
        })
    }

    /// Turns the trained network into the result: the average in place of the last weights, where there is one, with batch-norm
    /// statistics re-estimated. `progress` is told the images done.
    pub fn finish(&mut self, progress: &mut dyn FnMut(usize)) -> Result<()> {
        self.formed = None;
        if self.config.ingredients().averaging && self.averaged > 0 {
            for m in self.moments.clone() {
                let Some(average) = m.average else { continue };
                let mut values = self.model.backend().read(average)?;
                if let (Some(weight), true) = (self.model.weight(m.id), self.config.averaging.reprune) {
                    let kept = self.model.mask(weight.layer)?.count();
                    let mask = super::mask_update::largest(&values, kept);
                    values.iter_mut().enumerate().filter(|(i, _)| !mask.get(*i)).for_each(|(_, v)| *v = 0.0);
                    self.model.backend().write_mask(weight.layer, &mask)?;
                }
                let value = self.model.value(m.id);
                self.model.backend().write(value, &values)?;
            }
            self.reestimate(progress)?;
        } else if leaks(self.config) {
            // Outside M the released code may hold stale values; the result is M W.
            for m in self.moments.clone() {
                if let Some(weight) = self.model.weight(m.id) {
                    let mask = self.model.mask(weight.layer)?;
                    let mut values = self.model.backend().read(weight.value)?;
                    values.iter_mut().enumerate().filter(|(i, _)| !mask.get(*i)).for_each(|(_, v)| *v = 0.0);
                    self.model.backend().write(weight.value, &values)?;
                }
            }
        }
        self.model.use_deterministic_weights()
    }

    /// Predicts the images of `set` as they are now, the way the run's method does, and measures the predictions.
    ///
    /// A method that predicts with stored snapshots or a fitted temperature does so only in a [`run`](super::run::run).
    pub fn evaluate(&mut self, set: &Dataset) -> Result<Evaluation> {
        let predictor = Predictor { config: self.config, snapshots: vec![], temperature: 1.0 };
        let outputs = predictor.predict(self.model(), set, &mut |_| {})?;
        measure(&outputs, set, self.model.classes(), self.config.seed)
    }

    /// One pass over the training images, ordered and augmented as the epoch after the last would be, that replaces the running
    /// statistics by the sample-weighted mean of the batches'.
    fn reestimate(&mut self, progress: &mut dyn FnMut(usize)) -> Result<()> {
        self.model.use_deterministic_weights()?;
        let (config, epoch) = (self.config, self.timetable.epochs as u32 + 1);
        let order = batches::epoch_order(self.train.len(), config.seed, epoch, config.data.shuffle);
        let augment = Augment { kind: self.augmentation, seed: config.seed, epoch };
        let mut seen = 0;
        for indices in batches::batches(&order, config.train.batch_size, config.data.drop_last) {
            self.images.resize(indices.len() * self.train.shape().elements(), 0.0);
            self.labels.resize(indices.len(), 0);
            batches::fill(self.train, indices, augment, &mut self.images, &mut self.labels)?;
            seen += indices.len();
            // A momentum of n_b / (images so far) makes the running value the weighted mean of all batches so far.
            let state = StepState {
                seed: config.seed,
                step: 0,
                statistics_momentum: (indices.len() as f64 / seen as f64) as f32,
                extent: Extent::Active,
            };
            self.model.forward(Mode::Reestimate, &self.images, state)?;
            progress(seen);
        }
        Ok(())
    }
}

/// Z of step `g`.
fn draw<'a>(config: &Config, keep: &'a [f64], g: u64) -> Draw<'a> {
    let inverted = config.random_mask.rescale == Rescale::Inverted;
    Draw { seed: config.seed, domain: Domain::RandomMask, step: g as u32, keep, inverted }
}

/// Whether Z-dropped weights leak, as in the released code.
fn leaks(config: &Config) -> bool {
    config.ingredients().random_mask && config.random_mask.semantics == Semantics::Official
}

#[cfg(test)]
mod tests;

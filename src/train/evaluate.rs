//! Predictions of a trained network, and what they are worth.

use std::path::PathBuf;

use super::start;
use crate::backend::{Draw, Effective, Extent, StepState};
use crate::calibration::{self, Evaluation, Metrics, Options, Scores, softmax, temperature};
use crate::config::{Config, Rescale};
use crate::data::batches::{self, Augment};
use crate::data::{Dataset, Splits};
use crate::error::{Error, Result};
use crate::graph::Mode;
use crate::model::Model;
use crate::rng::Domain;

/// A classifier's outputs for the images of a set, row-major (N, classes).
#[derive(Clone, Debug, PartialEq)]
pub enum Outputs {
    /// Logits of one pass.
    Logits(Vec<f32>),
    /// Mean probabilities of several passes.
    Probabilities(Vec<f32>),
}

impl Outputs {
    /// As the calibration room takes them.
    pub fn scores(&self) -> Scores<'_> {
        match self {
            Outputs::Logits(values) => Scores::Logits(values),
            Outputs::Probabilities(values) => Scores::Probs(values),
        }
    }

    /// As probabilities, by softmax where they are logits.
    pub fn into_probabilities(self, classes: usize) -> Vec<f32> {
        match self {
            Outputs::Probabilities(values) => values,
            Outputs::Logits(logits) => {
                let mut probabilities = vec![0.0; logits.len()];
                let rows = logits.chunks_exact(classes).zip(probabilities.chunks_exact_mut(classes));
                rows.for_each(|(logits, probabilities)| {
                    softmax::softmax(logits, probabilities);
                });
                probabilities
            }
        }
    }
}

/// Logits of all images under the effective weights in force, in file order and not augmented.
pub fn logits(model: &mut Model, set: &Dataset, batch: usize, seen: &mut dyn FnMut(usize)) -> Result<Vec<f32>> {
    let order = batches::epoch_order(set.len(), 0, 0, false);
    let state = StepState { seed: 0, step: 0, statistics_momentum: 0.0, extent: Extent::Active };
    let (mut images, mut labels) = (vec![], vec![]);
    let mut all = Vec::with_capacity(set.len() * model.classes());
    for indices in batches::batches(&order, batch, false) {
        images.resize(indices.len() * set.shape().elements(), 0.0);
        labels.resize(indices.len(), 0);
        batches::fill(set, indices, Augment::default(), &mut images, &mut labels)?;
        let logits = model.forward(Mode::Evaluate, &images, state)?;
        if let Some(at) = logits.iter().position(|x| !x.is_finite()) {
            let image = all.len() / model.classes() + at / model.classes();
            let detail = format!("the logits of image {image} are not finite: the network has diverged");
            return Err(Error::shape("evaluation", detail));
        }
        all.extend(logits);
        seen(indices.len());
    }
    Ok(all)
}

/// What a network is worth.
pub struct Measured {
    /// On the test images.
    pub test: Evaluation,
    /// On the validation images, where there are any.
    pub val: Option<Evaluation>,
    /// The temperature that was fitted, for a method that does, and the test images before it.
    pub temperature: Option<(f64, Metrics)>,
}

/// How the trained network predicts.
pub struct Predictor<'a> {
    /// The run's configuration.
    pub config: &'a Config,
    /// The snapshots that predict in the network's place; none for the network itself.
    pub snapshots: Vec<PathBuf>,
    /// Divides the logits; 1 where none was fitted.
    pub temperature: f64,
}

impl Predictor<'_> {
    /// Predicts a set the way the run's method does: one deterministic pass, the mean over random masks (MC-DP), or the mean over
    /// snapshots.
    pub fn predict(&self, model: &mut Model, set: &Dataset, seen: &mut dyn FnMut(usize)) -> Result<Outputs> {
        let (batch, parts) = (self.batch(set), self.config.ingredients());
        if parts.mc_samples > 0 {
            return self.predict_by_sampling(model, set, parts.mc_samples, seen);
        }
        if !self.snapshots.is_empty() {
            let passes = self.snapshots.len();
            return mean(passes, model.classes(), |pass| {
                start::load_model(model, &self.snapshots[pass])?;
                logits(model, set, batch, seen)
            });
        }
        model.use_deterministic_weights()?;
        let mut logits = logits(model, set, batch, seen)?;
        if self.temperature != 1.0 {
            temperature::apply(&mut logits, self.temperature);
        }
        Ok(Outputs::Logits(logits))
    }

    /// Predicts a set by the mean over `samples` random masks, drawn with the keep probabilities of training (MC prediction,
    /// Gal & Ghahramani 2016). Mask s is a function of (seed, s), so more of them begin with the same ones.
    ///
    /// # Errors
    /// [`Error::Usage`] for a method that trains without a random mask.
    pub fn predict_by_sampling(
        &self,
        model: &mut Model,
        set: &Dataset,
        samples: usize,
        seen: &mut dyn FnMut(usize),
    ) -> Result<Outputs> {
        if !self.config.ingredients().random_mask {
            let detail = "trains without a random mask, so there is none to draw for a prediction";
            return Err(Error::Usage(format!("{} {detail}", self.config.method)));
        }
        let outputs = mean(samples, model.classes(), |sample| self.logits_of_draw(model, set, sample, seen))?;
        model.use_deterministic_weights()?;
        Ok(outputs)
    }

    /// Logits under the random mask number `draw`, a function of the seed and that number; the mask stays in force.
    pub(super) fn logits_of_draw(
        &self,
        model: &mut Model,
        set: &Dataset,
        draw: usize,
        seen: &mut dyn FnMut(usize),
    ) -> Result<Vec<f32>> {
        let random = &self.config.random_mask;
        let keep: Vec<f64> = model.parameters().weights().map(|(_, p)| random.keep.of(&p.name)).collect();
        let (seed, domain, step) = (self.config.seed, Domain::MonteCarlo, draw as u32);
        let inverted = random.rescale == Rescale::Inverted;
        model.backend().random_mask(&Draw { seed, domain, step, keep: &keep, inverted })?;
        model.backend().effective_weights(Effective::Random, &[])?;
        logits(model, set, self.batch(set), seen)
    }

    /// Measures the network on test and validation images, on which a method that does so fits its temperature.
    ///
    /// `seen` is told the images done, [`passes`](Self::passes) times those of both sets.
    pub fn measure(&self, model: &mut Model, splits: &Splits, seen: &mut dyn FnMut(usize)) -> Result<Measured> {
        let (classes, seed) = (model.classes(), self.config.seed);
        let (mut fitted, mut val) = (None, None);
        if !splits.validation.is_empty() {
            let set = &splits.validation;
            let mut outputs = self.predict(model, set, seen)?;
            if let (true, Outputs::Logits(logits)) = (self.config.ingredients().temperature, &mut outputs) {
                let t = temperature::fit(logits, set.labels(), classes)?;
                temperature::apply(logits, t);
                fitted = Some(t);
            }
            val = Some(measure(&outputs, set, classes, seed)?);
        }
        let mut outputs = self.predict(model, &splits.test, seen)?;
        let mut temperature = None;
        if let (Some(t), Outputs::Logits(logits)) = (fitted, &mut outputs) {
            let before = measure(&Outputs::Logits(logits.clone()), &splits.test, classes, seed)?;
            temperature = Some((t, before.metrics));
            temperature::apply(logits, t);
        }
        Ok(Measured { test: measure(&outputs, &splits.test, classes, seed)?, val, temperature })
    }

    /// Passes over a set that a prediction takes.
    pub fn passes(&self) -> usize {
        self.snapshots.len().max(self.config.ingredients().mc_samples).max(1)
    }

    fn batch(&self, set: &Dataset) -> usize {
        self.config.train.batch_size.min(set.len().max(1))
    }
}

/// The mean of the softmax of several passes.
fn mean(passes: usize, classes: usize, mut pass: impl FnMut(usize) -> Result<Vec<f32>>) -> Result<Outputs> {
    let mut sum: Vec<f64> = vec![];
    for i in 0..passes {
        let probabilities = Outputs::Logits(pass(i)?).into_probabilities(classes);
        sum.resize(probabilities.len(), 0.0);
        sum.iter_mut().zip(probabilities).for_each(|(s, p)| *s += f64::from(p));
    }
    Ok(Outputs::Probabilities(sum.into_iter().map(|s| (s / passes as f64) as f32).collect()))
}

/// Metrics with 95 % intervals, and the reliability diagram's data.
pub fn measure(outputs: &Outputs, set: &Dataset, classes: usize, seed: u64) -> Result<Evaluation> {
    calibration::evaluate(
        outputs.scores(),
        set.labels(),
        classes,
        &Options { intervals: true, seed, ..Options::default() },
    )
}

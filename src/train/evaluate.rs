//! Predictions of a trained network, and what they are worth.

use std::path::PathBuf;

use super::start;
use crate::backend::{Draw, Effective, Extent, StepState};
use crate::calibration::{self, Evaluation, Options, Scores, softmax, temperature};
use crate::config::Config;
use crate::data::Dataset;
use crate::data::batches::{self, Augment};
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

/// How the trained network predicts.
pub struct Predictor<'a> {
    /// The run's configuration.
    pub config: &'a Config,
    /// The snapshots of an ensemble; none for any other method.
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
        let batch = self.batch(set);
        let keep: Vec<f64> = model.parameters().weights().map(|(_, p)| self.config.keep(&p.name)).collect();
        let inverted = self.config.random_mask.rescale == crate::config::Rescale::Inverted;
        let outputs = mean(samples, model.classes(), |sample| {
            let (seed, domain, step) = (self.config.seed, Domain::MonteCarlo, sample as u32);
            model.backend().random_mask(&Draw { seed, domain, step, keep: &keep, inverted })?;
            model.backend().effective_weights(Effective::Random, &[])?;
            logits(model, set, batch, seen)
        })?;
        model.use_deterministic_weights()?;
        Ok(outputs)
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

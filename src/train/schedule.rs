//! When things happen in a run: learning rate, mask updates and snapshots, in steps and epochs.

use crate::config::{Config, LrDecay, MaskUpdates};
use crate::sparse::schedule::UpdateSteps;
use crate::{Error, Result};
use std::ops::RangeInclusive;

/// The learning rate of every step: a linear warm-up from 0, then a decay.
#[derive(Clone, Debug, PartialEq)]
pub struct LearningRate {
    /// The rate at the end of the warm-up.
    pub peak: f64,
    /// Steps of the warm-up, W.
    pub warmup: u64,
    /// What follows.
    pub decay: Decay,
}

/// The decay of a learning rate.
#[derive(Clone, Debug, PartialEq)]
pub enum Decay {
    /// Multiplied by `factor` at each of the `milestones`, 0-based steps.
    Step {
        /// In (0, 1].
        factor: f64,
        /// In any order.
        milestones: Vec<u64>,
    },
    /// Half a cosine from the end of the warm-up to 0 at step `end`.
    Cosine {
        /// The number of steps of the whole training.
        end: u64,
    },
}

impl LearningRate {
    /// The rate of the 0-based `step`: peak step / W in the warm-up (the first is 0), then
    /// peak factor^(number of milestones <= step).
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        match &self.decay {
            Decay::Step { factor, milestones } => {
                let passed = milestones.iter().filter(|&&milestone| milestone <= step).count();
                self.peak * factor.powi(passed as i32)
            }
            Decay::Cosine { end } => {
                let length = end.saturating_sub(self.warmup).max(1);
                let progress = ((step - self.warmup) as f64 / length as f64).min(1.0);
                self.peak / 2.0 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
        }
    }
}

/// Every schedule of a run, in absolute steps (counted from 0) and epochs (from 1).
#[derive(Clone, Debug, PartialEq)]
pub struct Timetable {
    /// Epochs of the whole training.
    pub epochs: u64,
    /// Steps of an epoch; the last one has fewer images unless partial batches are dropped.
    pub steps_per_epoch: u64,
    /// Images that an epoch uses.
    pub images_per_epoch: u64,
    /// Images of every step but the last of an epoch, which may have fewer.
    pub batch_size: u64,
    /// Steps that the run takes: all of the training, or `train.steps`.
    pub steps: u64,
    /// The learning rate.
    pub lr: LearningRate,
    /// The mask updates; without any, `end` is 0.
    pub updates: UpdateSteps,
    /// The epochs at whose ends a snapshot is taken, T* ..= E, for a method that takes some.
    pub snapshots: Option<RangeInclusive<u64>>,
}

impl Timetable {
    /// Lays out `config` for `images` training images (limit and validation already taken off).
    ///
    /// # Errors
    /// An epoch without a batch, more steps than the 32-bit step counter of the random numbers tells apart,
    /// `train.steps` beyond the training, and averaging that starts before the last mask update without
    /// `averaging.reprune`.
    pub fn new(config: &Config, images: usize) -> Result<Self> {
        let (train, batch) = (&config.train, config.train.batch_size as u64);
        let images = images as u64;
        let steps_per_epoch = if config.data.drop_last { images / batch } else { images.div_ceil(batch) };
        if steps_per_epoch == 0 {
            return Err(Error::Usage(format!(
                "train.batch_size = {batch}: an epoch has {images} images, with data.drop_last = {} not one batch",
                config.data.drop_last
            )));
        }
        let images_per_epoch = if config.data.drop_last { steps_per_epoch * batch } else { images };
        let epochs = config.epochs();
        let all = epochs.checked_mul(steps_per_epoch).filter(|&all| all <= u64::from(u32::MAX)).ok_or_else(|| {
            Error::Usage(format!(
                "train.epochs = {}, train.multiplier = {}: expected at most {} steps, an epoch has {steps_per_epoch}",
                train.epochs,
                train.multiplier,
                u32::MAX
            ))
        })?;
        let steps = train.steps.unwrap_or(all);
        if steps > all {
            return Err(Error::Usage(format!("train.steps = {steps}: training has {all}, raise train.epochs")));
        }
        let at = |point: crate::config::Steps| point.resolve(all as f64, train.multiplier);
        let decay = match train.lr_schedule {
            LrDecay::Step => Decay::Step {
                factor: train.lr_factor,
                milestones: train.lr_milestones.iter().map(|&milestone| at(milestone)).collect(),
            },
            LrDecay::Cosine => Decay::Cosine { end: all },
        };
        // T_end counts a partial batch as the fraction it is (method.md section 2), unlike the learning rate.
        let exact_steps = epochs as f64 * images_per_epoch as f64 / batch as f64;
        let end = match config.ingredients().updates {
            MaskUpdates::Dense | MaskUpdates::Static | MaskUpdates::Lottery => 0,
            MaskUpdates::Set | MaskUpdates::Snfs | MaskUpdates::Rigl | MaskUpdates::Gmp => {
                config.sparse.t_end.resolve(exact_steps, train.multiplier).min(all)
            }
        };
        let updates = UpdateSteps { delta_t: config.sparse.delta_t, end };
        if config.ingredients().updates == MaskUpdates::Gmp && updates.count(all) == 0 && config.sparsity > 0.0 {
            return Err(Error::Usage(format!(
                "sparse.delta_t = {}: gmp prunes every so many steps before step {end} (sparse.t_end), so it never would",
                config.sparse.delta_t
            )));
        }
        let snapshots = config.ingredients().snapshots().then(|| config.first_snapshot()..=epochs);
        if let (Some(snapshots), Some(last)) = (&snapshots, updates.last(all)) {
            // The first snapshot is taken after the last step of its epoch.
            if last >= snapshots.start() * steps_per_epoch && !config.averaging.reprune {
                return Err(Error::Usage(format!(
                    "averaging.start = {}: epoch {} ends before the last mask update (step {last}, epoch {}), so the \
                     average would be denser than asked; start later, lower sparse.t_end, or set averaging.reprune",
                    config.averaging.start.0,
                    snapshots.start(),
                    last / steps_per_epoch + 1
                )));
            }
        }
        let lr = LearningRate { peak: train.lr, warmup: at(train.warmup_steps), decay };
        Ok(Timetable { epochs, steps_per_epoch, images_per_epoch, batch_size: batch, steps, lr, updates, snapshots })
    }

    /// The epoch, from 1, of the 0-based `step`.
    pub fn epoch(&self, step: u64) -> u64 {
        step / self.steps_per_epoch + 1
    }

    /// Images seen in the first `steps` steps.
    pub fn images(&self, steps: u64) -> u64 {
        let (epochs, rest) = (steps / self.steps_per_epoch, steps % self.steps_per_epoch);
        epochs * self.images_per_epoch + rest * self.batch_size
    }

    /// Whether a snapshot is taken once the 0-based `step` is done.
    pub fn snapshot_after(&self, step: u64) -> bool {
        let ends = (step + 1).is_multiple_of(self.steps_per_epoch);
        ends && self.snapshots.as_ref().is_some_and(|epochs| epochs.contains(&self.epoch(step)))
    }

    /// Snapshots that the run takes.
    pub fn snapshot_count(&self) -> u64 {
        let whole = self.steps / self.steps_per_epoch;
        self.snapshots.as_ref().map_or(0, |epochs| (whole.min(*epochs.end()) + 1).saturating_sub(*epochs.start()))
    }

    /// Mask updates that the run makes.
    pub fn update_count(&self) -> u64 {
        self.updates.count(self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Assignment;

    fn config(preset: &str, set: &[&str]) -> Config {
        let set: Vec<Assignment> = set.iter().map(|text| Assignment::parse(text).unwrap()).collect();
        Config::resolve(Some(preset), None, &set).unwrap()
    }

    fn timetable(preset: &str, set: &[&str], images: usize) -> Timetable {
        Timetable::new(&config(preset, set), images).unwrap()
    }

    // method.md sections 2, 4 and 5.
    #[test]
    fn the_papers_schedule_has_88_000_steps_659_updates_and_51_snapshots() {
        for preset in ["cifar10-resnet50", "cifar100-resnet50", "cifar10-wrn22-2"] {
            let t = timetable(preset, &[], 45_000);
            assert_eq!((t.steps_per_epoch, t.steps, t.updates.end), (352, 88_000, 65_918), "{preset}");
            assert_eq!((t.update_count(), t.snapshot_count()), (659, 51), "{preset}");
            assert_eq!(t.snapshots, Some(200..=250), "{preset}");
            assert_eq!((0..t.steps).filter(|&step| t.snapshot_after(step)).count(), 51, "{preset}");
            assert!(t.snapshot_after(200 * 352 - 1) && t.snapshot_after(87_999), "{preset}");
        }
    }

    #[test]
    fn the_small_scale_schedules_are_those_of_section_10() {
        for (images, steps, end, updates) in [(3_000, 920, 690, 34), (6_000, 1_840, 1_380, 69)] {
            let limit = format!("data.train_limit={images}");
            let t = timetable("fashion-mini", &[&limit], images);
            assert_eq!((t.steps, t.updates.end, t.update_count(), t.snapshot_count()), (steps, end, updates, 9));
            assert_eq!((t.snapshots, t.lr.warmup), (Some(32..=40), t.steps_per_epoch));
        }
    }

    #[test]
    fn fractions_give_the_published_warm_ups_and_milestones() {
        for (preset, warmup, expected) in [
            ("cifar10-resnet50", 1_760, vec![21_760, 41_760, 61_760, 81_760]),
            ("cifar100-resnet50", 1_760, vec![21_760, 41_760, 61_760, 81_760]),
            ("cifar10-wrn22-2", 0, vec![30_000, 60_000]),
        ] {
            let lr = timetable(preset, &[], 45_000).lr;
            let Decay::Step { milestones, .. } = lr.decay else { panic!("{preset} has no step schedule") };
            assert_eq!((lr.warmup, milestones), (warmup, expected), "{preset}");
        }
    }

    #[test]
    fn the_learning_rate_starts_at_zero_and_decays_from_each_milestone_on() {
        let lr = timetable("cifar10-resnet50", &[], 45_000).lr;
        for (step, expected) in
            [(0, 0.0), (880, 0.05), (1_760, 0.1), (21_759, 0.1), (21_760, 0.05), (41_760, 0.025), (87_999, 0.00625)]
        {
            assert!((lr.at(step) - expected).abs() < 1e-12, "step {step}: {}", lr.at(step));
        }
    }

    #[test]
    fn the_cosine_goes_from_the_peak_to_zero_after_the_warm_up() {
        let lr = LearningRate { peak: 0.2, warmup: 10, decay: Decay::Cosine { end: 110 } };
        for (step, expected) in [(5, 0.1), (10, 0.2), (60, 0.1), (110, 0.0)] {
            assert!((lr.at(step) - expected).abs() < 1e-12, "step {step}");
        }
    }

    #[test]
    fn train_epochs_rescales_every_schedule_and_train_steps_none() {
        let t = timetable("cifar10-resnet50", &["train.epochs=25"], 45_000);
        assert_eq!((t.steps, t.lr.warmup, t.updates.end, t.snapshots.clone()), (8_800, 176, 6_592, Some(20..=25)));
        let cut = timetable("cifar10-resnet50", &["train.steps=400"], 45_000);
        let whole = timetable("cifar10-resnet50", &[], 45_000);
        assert_eq!((cut.update_count(), cut.snapshot_count()), (4, 0));
        assert_eq!(Timetable { steps: 88_000, ..cut }, whole);
    }

    #[test]
    fn the_multiplier_stretches_fractions_and_steps_alike() {
        let by_step = ["train.warmup_steps=23", "train.lr_milestones=[230]", "sparse.t_end=690", "averaging.start=32"];
        let stretched = [&by_step[..], &["train.multiplier=5"]].concat();
        let (one, five) = (timetable("fashion-mini", &by_step, 3_000), timetable("fashion-mini", &stretched, 3_000));
        assert_eq!((five.steps, five.lr.warmup, five.updates.end), (5 * one.steps, 5 * 23, 5 * 690));
        assert_eq!(five.lr.decay, Decay::Step { factor: 0.5, milestones: vec![1_150] });
        assert_eq!(five.snapshots, Some(160..=200));
        assert_eq!(timetable("fashion-mini", &["train.multiplier=5"], 3_000).updates.end, 5 * 690);
    }

    #[test]
    fn averaging_before_the_last_mask_update_is_refused_unless_repruned() {
        // The last update is step 679 of 690, in epoch 30; a snapshot of epoch 29 comes before it.
        let early = config("fashion-mini", &["averaging.start=29"]);
        let error = Timetable::new(&early, 3_000).unwrap_err().to_string();
        assert!(error.contains("averaging.start = 29") && error.contains("averaging.reprune"), "{error}");
        assert_eq!(timetable("fashion-mini", &["averaging.start=30"], 3_000).snapshots, Some(30..=40));
        let repruned = timetable("fashion-mini", &["averaging.start=29", "averaging.reprune=true"], 3_000);
        assert_eq!(repruned.snapshots, Some(29..=40));
        assert!(Timetable::new(&config("fashion-mini", &["averaging.start=29", "method=rigl"]), 3_000).is_ok());
    }

    // method.md section 5: 45,000 images in 352 steps of 128, the last one of 72.
    #[test]
    fn images_are_counted_with_the_smaller_last_batch_of_an_epoch() {
        let t = timetable("cifar10-resnet50", &[], 45_000);
        for (steps, images) in [(0, 0), (3, 384), (351, 44_928), (352, 45_000), (353, 45_128)] {
            assert_eq!(t.images(steps), images, "{steps} steps");
        }
    }

    #[test]
    fn pruning_that_would_never_happen_is_refused() {
        let set = ["method=gmp", "sparse.t_end=19"];
        let error = Timetable::new(&config("fashion-mini", &set), 3_000).unwrap_err().to_string();
        assert!(error.contains("sparse.delta_t = 20") && error.contains("step 19"), "{error}");
    }

    #[test]
    fn methods_without_mask_updates_have_none() {
        for method in ["dense", "static", "small-dense"] {
            let t = timetable("fashion-mini", &[&format!("method={method}")], 3_000);
            assert_eq!((t.update_count(), t.snapshot_count()), (0, 0), "{method}");
        }
    }

    #[test]
    fn impossible_lengths_are_errors() {
        let small = Timetable::new(&config("fashion-mini", &[]), 100).unwrap_err().to_string();
        assert!(small.contains("train.batch_size = 128") && small.contains("100 images"), "{small}");
        let long = Timetable::new(&config("fashion-mini", &["train.steps=921"]), 3_000).unwrap_err().to_string();
        assert_eq!(long, "train.steps = 921: training has 920, raise train.epochs");
        assert_eq!(timetable("fashion-mini", &["train.steps=0"], 3_000).steps, 0);
        for set in ["train.epochs=9223372036854775807", "train.multiplier=1e300", "train.epochs=200000000"] {
            let error = Timetable::new(&config("fashion-mini", &[set]), 3_000).unwrap_err().to_string();
            assert!(error.contains("at most 4294967295 steps"), "{error}");
        }
    }
}

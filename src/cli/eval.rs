//! `cigl eval`: a trained network on a split of its data.

use serde_json::Map;

use super::args::{EvalArgs, Recalibration, Split};
use super::machine;
use super::metrics::{Measured, about, about_predictions};
use super::output::print;
use super::predictions::write_npz;
use super::train::load;
use crate::calibration::{Evaluator, Kind, Options, Recalibrator};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::train::evaluate::{Outputs, measure};
use crate::train::trained::Trained;

pub(super) fn run(args: &EvalArgs) -> Result<()> {
    args.machine.use_threads()?;
    if args.top_label && matches!(args.recalibrate, Some(Recalibration::Temperature | Recalibration::Vector)) {
        return Err(Error::Usage("--top-label goes with histogram and isotonic: the others map whole rows".into()));
    }
    let mut trained = Trained::open(&args.model, |config| {
        machine::backend(args.machine.device.unwrap_or_default(), config.precision)
    })?;
    let mut config = trained.config.clone();
    if let Some(dir) = &args.data {
        config.data.dir = Some(dir.clone());
    }
    let splits = load(&config)?;
    let set: &Dataset = match args.split {
        Split::Test => &splits.test,
        Split::Train => &splits.train,
        Split::Val => &splits.validation,
    };
    if set.is_empty() || (args.recalibrate.is_some() && splits.validation.is_empty()) {
        return Err(Error::Usage("the run has no validation images: data.validation is 0".into()));
    }
    let outputs = predict(&mut trained, set, args)?;
    let classes = trained.about.classes;
    let evaluation = measure(&outputs, set, classes, config.seed)?;
    let Some(method) = args.recalibrate else {
        return report(args, Measured { evaluation, before: None }, None, &outputs, set, classes);
    };

    let validation = predict(&mut trained, &splits.validation, args)?;
    let labels = splits.validation.labels();
    let fitted = Recalibrator::fit(method.into(), args.top_label, validation.scores(), labels, classes)?;
    let options = Options { intervals: true, seed: config.seed, ..Options::default() };
    let mut evaluator = Evaluator::recalibrated(fitted.clone(), options);
    evaluator.add(outputs.scores(), set.labels())?;
    let changed = evaluator.changed_predictions();
    let measured = Measured { evaluation: evaluator.finish()?, before: Some(evaluation) };
    let (kind, mended) = fitted.apply(outputs.scores())?;
    let mended = mended.into_iter().map(|score| score as f32).collect();
    let outputs = match kind {
        Kind::Logits => Outputs::Logits(mended),
        Kind::Probs => Outputs::Probabilities(mended),
    };
    report(args, measured, Some((&fitted, changed)), &outputs, set, classes)
}

fn predict(trained: &mut Trained, set: &Dataset, args: &EvalArgs) -> Result<Outputs> {
    match args.mc_samples {
        Some(samples) => trained.predict_by_sampling(set, samples as usize),
        None if args.ensemble => trained.predict_by_ensemble(set),
        None => trained.predict(set),
    }
}

fn report(
    args: &EvalArgs,
    measured: Measured,
    recalibrated: Option<(&Recalibrator, u64)>,
    outputs: &Outputs,
    set: &Dataset,
    classes: usize,
) -> Result<()> {
    if let Some(path) = &args.predictions {
        write_npz(path, outputs, classes, Some(set.labels()))?;
    }
    measured.warn();
    if args.json {
        let mut more = Map::new();
        if let Some((fitted, changed)) = recalibrated {
            more.insert("recalibration".into(), about(fitted, changed));
        }
        return print(format_args!("{:#}", measured.json(more, false)?));
    }
    if let (Some((fitted, changed)), Some(before)) = (recalibrated, &measured.before) {
        print(format_args!("{fitted}, fitted on the validation images"))?;
        print(format_args!("{}\n", about_predictions(&before.metrics, &measured.evaluation.metrics, changed)))?;
    }
    measured.print_table()
}

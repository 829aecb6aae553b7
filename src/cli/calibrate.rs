//! `cigl calibrate`: predictions from any framework.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::args::{BinScheme, CalibrateArgs, Recalibration, ScoreKind};
use super::machine::use_threads;
use super::metrics::{Measured, about, about_predictions, kind_name};
use super::output::{print, tell};
use crate::calibration::predictions::{Labels, Predictions, Values};
use crate::calibration::{
    Evaluation, Evaluator, Kind, Options, Recalibrator, Scheme, Scores, Separation, SeparationIntervals,
};
use crate::error::{Error, Result};
use crate::report::{plot, png};
use crate::train::checkpoint::write_atomically;

pub(super) fn run(args: &CalibrateArgs) -> Result<()> {
    use_threads(args.threads)?;
    let predictions = open(args, &args.predictions, args.labels.as_deref())?;
    let (kind, guessed, classes) = (predictions.kind(), predictions.kind_is_a_guess(), predictions.classes());
    let recalibrator = recalibrator(args, classes)?;
    let options = Options {
        bins: args.bins.into(),
        scheme: match args.scheme {
            BinScheme::Width => Scheme::Width,
            BinScheme::Mass => Scheme::Mass,
        },
        intervals: args.intervals,
        seed: args.seed,
        bin_sweep: args.plot.is_some(),
        ..Options::default()
    };

    let mut measured =
        Measured { evaluation: evaluate(predictions, Evaluator::new(classes, options))?.0, before: None };
    let mut changed = 0;
    if let Some(recalibrator) = &recalibrator {
        // A second pass over the file, since it may be larger than the memory.
        let again = open(args, &args.predictions, args.labels.as_deref())?;
        let (after, number) = evaluate(again, Evaluator::recalibrated(recalibrator.clone(), options))?;
        measured.before = Some(std::mem::replace(&mut measured.evaluation, after));
        changed = number;
    }
    let separation = args.ood.as_deref().map(|ood| separate(args, ood, classes)).transpose()?;
    let pictures = args.plot.as_deref().map(|path| draw(path, args, &measured)).transpose()?;
    measured.warn();

    let mut more = Map::new();
    more.insert("classes".into(), classes.into());
    more.insert("kind".into(), kind_name(kind).into());
    more.insert("kind_guessed".into(), guessed.into());
    if let Some((separation, intervals)) = &separation {
        more.extend(json_keys(separation)?);
        more.extend(json_keys(intervals)?);
    }
    if let Some(recalibrator) = &recalibrator {
        more.insert("recalibration".into(), about(recalibrator, changed));
    }
    if args.json {
        return print(format_args!("{:#}", measured.json(more, true)?));
    }
    print_text(
        args,
        &measured,
        recalibrator.as_ref().map(|found| (found, changed)),
        separation,
        (kind, guessed, classes),
    )?;
    for path in pictures.unwrap_or_default() {
        print(format_args!("plot {}", path.display()))?;
    }
    Ok(())
}

fn print_text(
    args: &CalibrateArgs,
    measured: &Measured,
    recalibrator: Option<(&Recalibrator, u64)>,
    separation: Option<(Separation, SeparationIntervals)>,
    (kind, guessed, classes): (Kind, bool, usize),
) -> Result<()> {
    let metrics = &measured.evaluation.metrics;
    let how = if guessed { " by the look of the first rows; --kind says otherwise" } else { "" };
    let samples = metrics.n;
    print(format_args!("{}: {samples} samples, {classes} classes, {kind}{how}", args.predictions.display()))?;
    if let (Some((recalibrator, changed)), Some(before)) = (recalibrator, &measured.before) {
        let from = args.fit.as_ref().or(args.apply.as_ref()).map_or(String::new(), |file| file.display().to_string());
        print(format_args!("{recalibrator}, from {from}"))?;
        print(about_predictions(&before.metrics, metrics, changed))?;
    }
    print("")?;
    measured.print_table()?;
    if let (Some((found, intervals)), Some(ood)) = (separation, &args.ood) {
        let with = |value: f64, interval: Option<[f64; 2]>| match interval {
            Some([low, high]) => format!("{value:.4} ({low:.4} to {high:.4})"),
            None => format!("{value:.4}"),
        };
        print(format_args!(
            "\nagainst {}: AUROC {}, AUPR {}, FPR at 95 % TPR {}",
            ood.display(),
            with(found.auroc, intervals.auroc_ci95),
            with(found.aupr, intervals.aupr_ci95),
            with(found.fpr95, intervals.fpr95_ci95)
        ))?;
    }
    Ok(())
}

/// The keys of a struct of metrics.
fn json_keys(metrics: &impl Serialize) -> Result<Map<String, Value>> {
    let json = |e| Error::Resources(format!("the metrics cannot be written as JSON: {e}"));
    serde_json::to_value(metrics).and_then(serde_json::from_value).map_err(json)
}

fn open(args: &CalibrateArgs, path: &Path, labels: Option<&Path>) -> Result<Predictions> {
    Predictions::open(path, labels.map_or(Labels::Inside, Labels::File), kind(args))
}

fn kind(args: &CalibrateArgs) -> Option<Kind> {
    args.kind.map(|kind| match kind {
        ScoreKind::Logits => Kind::Logits,
        ScoreKind::Probs => Kind::Probs,
    })
}

/// Every metric, and how many predictions a recalibrator changed.
fn evaluate(predictions: Predictions, mut evaluator: Evaluator) -> Result<(Evaluation, u64)> {
    predictions.evaluate(&mut evaluator)?;
    if evaluator.leaves_out_tace() {
        tell("note: tace is left out, too many probabilities are above 0.01 to be kept in memory");
    }
    let changed = evaluator.changed_predictions();
    Ok((evaluator.finish()?, changed))
}

/// The recalibrator that is asked for: fitted and maybe saved, or read.
fn recalibrator(args: &CalibrateArgs, classes: usize) -> Result<Option<Recalibrator>> {
    let fits = |found: Recalibrator, path: &Path| match found.classes() {
        own if own == classes => Ok(Some(found)),
        own => Err(Error::file(path, format!("is for {own} classes, the predictions have {classes}"))),
    };
    if let Some(path) = &args.apply {
        let text = std::fs::read_to_string(path).map_err(|e| Error::file_because(path, "could not be read", e))?;
        let found = Recalibrator::from_json(&text);
        return fits(found.map_err(|e| Error::file_because(path, "cannot be applied", e))?, path);
    }
    let (Some(method), Some(path)) = (args.recalibrate, &args.fit) else { return Ok(None) };
    if args.top_label && matches!(method, Recalibration::Temperature | Recalibration::Vector) {
        return Err(Error::Usage("--top-label goes with histogram and isotonic: the others map whole rows".into()));
    }
    if same_file(path, &args.predictions) {
        tell("warning: fitted on the predictions that are measured, so that the result flatters");
    }
    let validation = open(args, path, args.fit_labels.as_deref())?;
    let (kind, own) = (validation.kind(), validation.classes());
    let (values, labels) = validation.read_all()?;
    let fitted = match &values {
        Values::F32(values) => {
            Recalibrator::fit(method.into(), args.top_label, Scores::new(kind, values), &labels, own)
        }
        Values::F64(values) => {
            Recalibrator::fit(method.into(), args.top_label, Scores::new(kind, values), &labels, own)
        }
    };
    let fitted = fitted.map_err(|e| Error::file_because(path, "cannot be fitted on", e))?;
    if let Some(save) = &args.save {
        write_atomically(save, fitted.to_json().as_bytes())?;
    }
    fits(fitted, path)
}

fn same_file(a: &Path, b: &Path) -> bool {
    a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b)
}

/// How well confidence tells the predictions from those of `ood`, with intervals where they are asked for.
fn separate(args: &CalibrateArgs, ood: &Path, classes: usize) -> Result<(Separation, SeparationIntervals)> {
    let inside = open(args, &args.predictions, args.labels.as_deref())?.confidences()?;
    let outside = Predictions::open(ood, Labels::Unneeded { classes }, kind(args))?.confidences()?;
    let intervals = args.intervals.then(|| Separation::intervals(&inside, &outside, args.seed)).transpose()?;
    Ok((Separation::new(&inside, &outside)?, intervals.unwrap_or_default()))
}

/// Draws the reliability diagram, or both of a recalibration, to `path`, and beside it the confidences and the numbers of bins.
fn draw(path: &Path, args: &CalibrateArgs, measured: &Measured) -> Result<Vec<PathBuf>> {
    let title = args.predictions.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
    let after = &measured.evaluation;
    let diagram = match &measured.before {
        Some(before) => plot::comparison(&[("before", before), ("recalibrated", after)]),
        None => plot::reliability(&title, after),
    };
    let mut written = vec![];
    for (suffix, svg) in [
        ("", diagram),
        ("-confidence", plot::confidence(&title, after)),
        ("-bins", plot::bin_sweep(&title, &after.bin_sweep, after.metrics.n)),
    ] {
        let stem = path.file_stem().map_or(String::new(), |stem| stem.to_string_lossy().into_owned());
        let ending = path.extension().map_or(String::new(), |ending| ending.to_string_lossy().into_owned());
        let path = path.with_file_name(format!("{stem}{suffix}.{ending}"));
        let bytes = if ending == "png" { png::render(&svg, 2.0)? } else { svg.into_bytes() };
        write_atomically(&path, &bytes)?;
        written.push(path);
    }
    Ok(written)
}

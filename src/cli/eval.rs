//! `cigl eval`: a trained network on a split of its data.

use std::path::Path;

use super::args::{EvalArgs, Split};
use super::machine;
use super::train::load;
use crate::calibration::Metrics;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::report::table::Table;
use crate::train::checkpoint::write_atomically;
use crate::train::evaluate::{Outputs, measure};
use crate::train::trained::Trained;

pub(super) fn run(args: &EvalArgs) -> Result<()> {
    args.machine.use_threads()?;
    let mut trained = Trained::open(&args.model, machine::backend())?;
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
    if set.is_empty() {
        return Err(Error::Usage("the run has no validation images: data.validation is 0".into()));
    }
    let outputs = trained.predict(set)?;
    let classes = trained.about.classes;
    let evaluation = measure(&outputs, set, classes, config.seed)?;
    if let Some(path) = &args.predictions {
        write_npz(path, &outputs, classes, Some(set.labels()))?;
    }
    print(&evaluation.metrics, args.json)
}

fn print(metrics: &Metrics, json: bool) -> Result<()> {
    let value = serde_json::to_value(metrics)
        .map_err(|e| Error::Resources(format!("the metrics cannot be written as JSON: {e}")))?;
    if json {
        println!("{value:#}");
        return Ok(());
    }
    let mut table = Table::new(["metric", "value", "95 % interval"]);
    for (key, number) in value.as_object().into_iter().flatten() {
        let Some(number) = number.as_f64() else { continue };
        let interval = &value[format!("{key}_ci95")];
        let interval = match (interval[0].as_f64(), interval[1].as_f64()) {
            (Some(from), Some(to)) => format!("{from:.4} to {to:.4}"),
            _ => String::new(),
        };
        table.row([
            key.clone(),
            if key.starts_with('n') && number.fract() == 0.0 { format!("{number}") } else { format!("{number:.4}") },
            interval,
        ]);
    }
    println!("{table}");
    if metrics.nll_infinite > 0 {
        eprintln!("warning: {} labels have probability 0, so the NLL is infinite", metrics.nll_infinite);
    }
    Ok(())
}

/// Predictions as `.npz`: `logits` or `probs` (N, C) float32, and `labels` (N) int64 where there are any.
pub(super) fn write_npz(path: &Path, outputs: &Outputs, classes: usize, labels: Option<&[u32]>) -> Result<()> {
    use npyz::WriterBuilder;
    let (name, values) = match outputs {
        Outputs::Logits(values) => ("logits", values),
        Outputs::Probabilities(values) => ("probs", values),
    };
    let write = || -> std::io::Result<Vec<u8>> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let mut npz = npyz::npz::NpzWriter::new(&mut bytes);
        let rows = (values.len() / classes) as u64;
        let mut array = npz
            .array(name, npyz::zip::write::FileOptions::default())?
            .default_dtype()
            .shape(&[rows, classes as u64])
            .begin_nd()?;
        array.extend(values)?;
        array.finish()?;
        if let Some(labels) = labels {
            let mut array = npz
                .array("labels", npyz::zip::write::FileOptions::default())?
                .default_dtype()
                .shape(&[rows])
                .begin_nd()?;
            array.extend(labels.iter().map(|&label| i64::from(label)))?;
            array.finish()?;
        }
        drop(npz);
        Ok(bytes.into_inner())
    };
    let bytes = write().map_err(|e| Error::file_because(path, "the predictions could not be packed", e))?;
    write_atomically(path, &bytes)
}

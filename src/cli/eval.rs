//! `cigl eval`: a trained network on a split of its data.

use super::args::{EvalArgs, Split};
use super::machine;
use super::output::{print, tell};
use super::predictions::write_npz;
use super::train::load;
use crate::calibration::Metrics;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::report::table::Table;
use crate::train::evaluate::measure;
use crate::train::trained::Trained;

pub(super) fn run(args: &EvalArgs) -> Result<()> {
    args.machine.use_threads()?;
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
    if set.is_empty() {
        return Err(Error::Usage("the run has no validation images: data.validation is 0".into()));
    }
    let outputs = trained.predict(set)?;
    let classes = trained.about.classes;
    let evaluation = measure(&outputs, set, classes, config.seed)?;
    if let Some(path) = &args.predictions {
        write_npz(path, &outputs, classes, Some(set.labels()))?;
    }
    report(&evaluation.metrics, args.json)
}

fn report(metrics: &Metrics, json: bool) -> Result<()> {
    let value = serde_json::to_value(metrics)
        .map_err(|e| Error::Resources(format!("the metrics cannot be written as JSON: {e}")))?;
    if json {
        return print(format_args!("{value:#}"));
    }
    let mut table = Table::new(["metric", "value", "95 % interval"]);
    for (key, number) in value.as_object().into_iter().flatten() {
        let Some(number) = number.as_f64() else { continue };
        let interval = &value[format!("{key}_ci95")];
        let interval = match (interval[0].as_f64(), interval[1].as_f64()) {
            (Some(from), Some(to)) => format!("{from:.4} to {to:.4}"),
            _ => String::new(),
        };
        table.row([key.clone(), decimals(key, number), interval]);
    }
    print(table)?;
    if metrics.nll_infinite > 0 {
        tell(format_args!("warning: {} labels have probability 0, so the NLL is infinite", metrics.nll_infinite));
    }
    Ok(())
}

/// A metric as text: counts are whole.
fn decimals(key: &str, number: f64) -> String {
    if matches!(key, "n" | "nll_infinite") { format!("{number}") } else { format!("{number:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_counts_are_whole() {
        for (key, number, text) in
            [("n", 200.0, "200"), ("nll_infinite", 3.0, "3"), ("nll", 2.0, "2.0000"), ("accuracy", 1.0, "1.0000")]
        {
            assert_eq!(decimals(key, number), text, "{key}");
        }
    }
}

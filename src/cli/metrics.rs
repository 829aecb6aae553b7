//! Metrics as a table and as JSON: what `eval` and `calibrate` print.

use serde_json::{Map, Value, json};

use super::output::{print, tell};
use crate::calibration::{Evaluation, Kind, Metrics, Recalibrator, recalibration};
use crate::error::{Error, Result};
use crate::report::metrics;

/// What was measured, and what it was before recalibration, if that was done.
pub(super) struct Measured {
    pub(super) evaluation: Evaluation,
    pub(super) before: Option<Evaluation>,
}

impl Measured {
    /// One JSON object: the metric keys, what else `more` has, `bins` where asked for, and `before` with the same keys.
    pub(super) fn json(&self, more: Map<String, Value>, bins: bool) -> Result<Value> {
        let mut all = object(&self.evaluation, bins)?;
        all.extend(more);
        if let Some(before) = &self.before {
            all.insert("before".into(), Value::Object(object(before, bins)?));
        }
        Ok(Value::Object(all))
    }

    /// Prints a row for each metric: its value, its interval where there are some, and its bins.
    pub(super) fn print_table(&self) -> Result<()> {
        let before = self.before.as_ref().map(|evaluation| &evaluation.metrics);
        print(metrics::table(&self.evaluation.metrics, before)?)
    }

    /// Says on standard error what a number alone does not.
    pub(super) fn warn(&self) {
        let metrics = &self.evaluation.metrics;
        match metrics.nll_infinite {
            0 => {}
            1 => tell("warning: 1 label has probability 0, so the NLL is infinite"),
            many => tell(format_args!("warning: {many} labels have probability 0, so the NLL is infinite")),
        }
    }
}

fn object(evaluation: &Evaluation, bins: bool) -> Result<Map<String, Value>> {
    let mut all = metrics::object(&evaluation.metrics)?;
    if bins {
        let value = serde_json::to_value(&evaluation.reliability.bins);
        all.insert(
            "bins".into(),
            value.map_err(|e| Error::Resources(format!("the bins cannot be written as JSON: {e}")))?,
        );
    }
    Ok(all)
}

/// As `--kind` has it.
pub(super) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Logits => "logits",
        Kind::Probs => "probs",
    }
}

/// A recalibration as JSON has it, with the number of predictions that it changed.
pub(super) fn about(recalibrator: &Recalibrator, changed: u64) -> Value {
    let mut about = json!({"method": recalibrator.name(), "changed_predictions": changed});
    if let recalibration::Map::Temperature { temperature } = recalibrator.map() {
        about["temperature"] = (*temperature).into();
    }
    about
}

/// What the accuracy did under a recalibration that changed `changed` of the predictions.
pub(super) fn about_predictions(before: &Metrics, after: &Metrics, changed: u64) -> String {
    match changed {
        0 => format!("no prediction changed: accuracy stays {:.4}", after.accuracy),
        _ => {
            let (was, is) = (before.accuracy, after.accuracy);
            format!("{changed} of {} predictions changed: accuracy {was:.4} becomes {is:.4}", after.n)
        }
    }
}

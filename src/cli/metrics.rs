//! Metrics as a table and as JSON: what `eval` and `calibrate` print.

use serde_json::{Map, Value, json};

use super::output::{print, tell};
use crate::calibration::{Evaluation, Kind, Metrics, Recalibrator, recalibration};
use crate::error::{Error, Result};
use crate::report::table::Table;

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
        let after = object(&self.evaluation, false)?;
        let before = self.before.as_ref().map(|evaluation| object(evaluation, false)).transpose()?;
        let intervals = self.evaluation.metrics.intervals.ci95_method.is_some();
        let mut header = vec!["metric"];
        header.extend(if before.is_some() { vec!["before", "after"] } else { vec!["value"] });
        header.extend(intervals.then_some("95 % interval"));
        header.push("bins");
        let mut table = Table::new(header);
        for (key, value) in &after {
            let Some(cell) = number(key, value) else { continue };
            let mut cells = vec![key.clone()];
            if let Some(before) = &before {
                cells.push(before.get(key).and_then(|value| number(key, value)).unwrap_or_default());
            }
            cells.push(cell);
            if intervals {
                let interval = after.get(&format!("{key}_ci95")).and_then(Value::as_array);
                let ends = interval.and_then(|ends| Some((ends.first()?.as_f64()?, ends.get(1)?.as_f64()?)));
                cells.push(ends.map_or(String::new(), |(from, to)| format!("{from:.4} to {to:.4}")));
            }
            cells.push(self.evaluation.metrics.binning.get(key).cloned().unwrap_or_default());
            table.row(cells);
        }
        print(table)
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
    let json = |e| Error::Resources(format!("the metrics cannot be written as JSON: {e}"));
    let value = serde_json::to_value(&evaluation.metrics).map_err(json)?;
    let Value::Object(mut all) = value else {
        return Err(Error::Resources("the metrics cannot be written as JSON: not an object".into()));
    };
    if bins {
        all.insert("bins".into(), serde_json::to_value(&evaluation.reliability.bins).map_err(json)?);
    }
    Ok(all)
}

/// A metric as text: counts are whole, and only the NLL may be infinite, which JSON has as null. None for what is no number.
fn number(key: &str, value: &Value) -> Option<String> {
    match value.as_f64() {
        Some(number) if matches!(key, "n" | "nll_infinite") => Some(format!("{number}")),
        Some(number) => Some(format!("{number:.4}")),
        None => (key == "nll" && value.is_null()).then(|| "infinite".into()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_counts_are_whole_and_a_missing_nll_is_infinite() {
        for (key, value, text) in [
            ("n", Value::from(200), Some("200")),
            ("nll_infinite", Value::from(3), Some("3")),
            ("nll", Value::from(2.0), Some("2.0000")),
            ("accuracy", Value::from(1.0), Some("1.0000")),
            ("nll", Value::Null, Some("infinite")),
            ("binning", Value::Object(Map::new()), None),
        ] {
            assert_eq!(number(key, &value).as_deref(), text, "{key}");
        }
    }
}

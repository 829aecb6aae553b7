//! The table of all metrics of some predictions.

use serde_json::{Map, Value};

use super::table::Table;
use crate::calibration::Metrics;
use crate::error::{Error, Result};

/// A row for each metric: its value, or those before and after recalibration, its 95 % interval where there are some, and its bins.
pub fn table(metrics: &Metrics, before: Option<&Metrics>) -> Result<Table> {
    let after = object(metrics)?;
    let before = before.map(object).transpose()?;
    let intervals = metrics.intervals.ci95_method.is_some();
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
        cells.push(metrics.binning.get(key).cloned().unwrap_or_default());
        table.row(cells);
    }
    Ok(table)
}

/// The metrics as `summary.json` and `--json` hold them.
pub fn object(metrics: &Metrics) -> Result<Map<String, Value>> {
    match serde_json::to_value(metrics) {
        Ok(Value::Object(all)) => Ok(all),
        Ok(_) => Err(Error::Resources("the metrics cannot be written as JSON: not an object".into())),
        Err(e) => Err(Error::Resources(format!("the metrics cannot be written as JSON: {e}"))),
    }
}

/// A metric as text: counts are whole, and only the NLL may be infinite, which JSON has as null. None for what is no number.
fn number(key: &str, value: &Value) -> Option<String> {
    match value.as_f64() {
        Some(number) if matches!(key, "n" | "nll_infinite") => Some(format!("{number}")),
        Some(number) => Some(format!("{number:.4}")),
        None => (key == "nll" && value.is_null()).then(|| "infinite".into()),
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

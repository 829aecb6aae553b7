//! A run's log as TensorBoard reads it: `events.out.tfevents.TIME.cigl` in the run folder.
//!
//! The log itself is `metrics.jsonl`; the events are made from it. When a run is begun or resumed, a new file is written from the
//! points that the log keeps, in place of one of an earlier sitting, and each point that is logged afterwards is appended at once. So
//! no step is there twice, however often a run was interrupted. The log has no times of day: points of earlier sittings get that of
//! the replay.
//!
//! | tags | what |
//! |---|---|
//! | `train/loss`, `train/accuracy`, `train/lr`, `train/images_per_second` | a batch |
//! | `epoch/loss`, `epoch/accuracy`, `epoch/seconds` | means of an epoch, seconds of training so far |
//! | `mask/density`, `mask/overlap`, `mask/first_mask_overlap`, `mask/ever_active`, `mask/dead_channels`, `mask/drop_fraction` | the masks after an update; see [`MaskState`](super::evolution::MaskState) |
//! | `density_by_layer/NAME` | density of a masked tensor |
//! | `test/...`, `val/...`, `test_uncalibrated/...` | the metrics of `summary.json`, at the run's last step |

mod event_file;

use std::fs;

use serde_json::Value;

use super::run_folder::RunFolder;
use super::summary::Summary;
use crate::error::{Error, Result};
use event_file::EventFile;

const PREFIX: &str = "events.out.tfevents.";
/// Whose events these are: files of others are left alone.
const SUFFIX: &str = ".cigl";

/// The events of a run.
#[derive(Debug)]
pub struct Events {
    file: EventFile,
}

impl Events {
    /// Begins the events of the run in `folder` with what its log holds, and removes those of earlier sittings. Only for the holder of
    /// the lock.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn begin(folder: &RunFolder) -> Result<Events> {
        let path = folder.path();
        let because = |e| Error::file_because(path, "events of an earlier sitting could not be removed", e);
        for entry in fs::read_dir(path).map_err(because)? {
            let entry = entry.map_err(because)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
                fs::remove_file(entry.path()).map_err(because)?;
            }
        }
        // TensorBoard reads the files of a folder in the order of their names.
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let name = format!("{PREFIX}{:010}{SUFFIX}", since.as_secs());
        let mut events = Events { file: EventFile::create(path.join(name))? };
        folder.log()?.iter().try_for_each(|point| events.append(point))?;
        Ok(events)
    }

    /// Appends a point of the log.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&mut self, point: &Value) -> Result<()> {
        self.file.append(point["step"].as_u64().unwrap_or(0), scalars(point).into_iter())
    }

    /// Appends the final metrics.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(&mut self, summary: &Summary) -> Result<()> {
        let sets = [
            ("test", Some(&summary.test)),
            ("val", summary.val.as_ref()),
            ("test_uncalibrated", summary.test_uncalibrated.as_ref()),
        ];
        let mut scalars = vec![];
        for (set, metrics) in sets.into_iter().filter_map(|(set, metrics)| Some((set, metrics?))) {
            let metrics = serde_json::to_value(metrics)
                .map_err(|e| Error::file_because(self.file.path(), "the metrics cannot be written", e))?;
            scalars.extend(numbers(&metrics).map(|(key, value)| (format!("{set}/{key}"), value)));
        }
        self.file.append(summary.steps, scalars.into_iter())
    }
}

/// The numbers of an object by their keys, those of objects in it left out.
fn numbers(object: &Value) -> impl Iterator<Item = (&String, f64)> {
    object.as_object().into_iter().flatten().filter_map(|(key, value)| Some((key, value.as_f64()?)))
}

/// Every number of a point of the log by its tag, but for those that say when it is.
fn scalars(point: &Value) -> Vec<(String, f64)> {
    let own = numbers(point).filter(|(key, _)| !["step", "epoch"].contains(&key.as_str()));
    let by_layer = numbers(&point["density_by_layer"]);
    own.map(|(key, value)| (tag(key), value))
        .chain(by_layer.map(|(layer, value)| (format!("density_by_layer/{layer}"), value)))
        .collect()
}

fn tag(key: &str) -> String {
    match key {
        "epoch_loss" => "epoch/loss".into(),
        "epoch_accuracy" => "epoch/accuracy".into(),
        "seconds" | "kl" => format!("epoch/{key}"),
        "mask_overlap" => "mask/overlap".into(),
        "density" | "first_mask_overlap" | "ever_active" | "dead_channels" | "drop_fraction" => format!("mask/{key}"),
        _ => format!("train/{key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_a_point_has_a_tag_and_what_is_none_has_not() {
        let point = serde_json::json!({
            "step": 4, "epoch": 1, "loss": 2.5, "lr": 0.0, "accuracy": null, "mask_overlap": 0.75, "ever_active": 0.25,
            "density_by_layer": {"conv1.weight": 1.0, "fc.weight": 0.5},
        });
        let expected = [
            ("train/loss", 2.5),
            ("train/lr", 0.0),
            ("mask/overlap", 0.75),
            ("mask/ever_active", 0.25),
            ("density_by_layer/conv1.weight", 1.0),
            ("density_by_layer/fc.weight", 0.5),
        ];
        assert_eq!(scalars(&point), expected.map(|(tag, value)| (tag.to_owned(), value)));
        let end = serde_json::json!({"step": 9, "epoch": 1, "epoch_loss": 1.0, "epoch_accuracy": 0.5, "seconds": 3.0});
        let tags: Vec<String> = scalars(&end).into_iter().map(|(tag, _)| tag).collect();
        assert_eq!(tags, ["epoch/loss", "epoch/accuracy", "epoch/seconds"]);
    }
}

//! What there is to say of one run.

use std::fs;
use std::path::{Path, PathBuf};

use super::run::Run;
use crate::config::Config;
use crate::data::Source;
use crate::error::{Error, Result};
use crate::report::html::Part;
use crate::report::summary::percent;
use crate::report::table::Table;
use crate::report::{metrics, svg};
use crate::train::run_folder::RunFolder;
use crate::train::summary::Summary;

/// A run, folded away under its folder's name: how it was made, its metrics, every picture of its `plots` and its configuration. Of a
/// run without a result, why it has none.
///
/// # Errors
/// A file of it that cannot be read or is not what it should be.
pub fn run_section(folder: &RunFolder) -> Result<Part> {
    section(&Run::read(folder.clone())?)
}

/// The same of a run that was read.
pub(super) fn section(run: &Run) -> Result<Part> {
    let mut parts = vec![Part::Text(format!("Folder {}", run.folder.path().display()))];
    if let Some(lack) = run.lack() {
        parts.push(Part::Note(lack));
    }
    if let Some(summary) = run.summary() {
        parts.push(Part::Text(how_made(&run.config, summary)));
        let caption = format!("Metrics on the {} test images", summary.test.n);
        parts.push(Part::Table { caption, table: metrics::table(&summary.test, summary.test_uncalibrated.as_ref())? });
        parts.push(Part::Table { caption: "Size and cost".into(), table: costs(summary) });
    }
    for path in pictures(&run.folder.path().join("plots"))? {
        let name = path.file_stem().map_or(String::new(), |stem| stem.to_string_lossy().into_owned());
        parts.push(Part::Picture { caption: caption(&name), svg: read_picture(&path)? });
    }
    let config = run.folder.path().join("config.toml");
    let text = fs::read_to_string(&config).map_err(|e| Error::file_because(&config, "could not be read", e))?;
    parts.push(Part::Text("config.toml, which repeats the run with cigl train --config:".into()));
    parts.push(Part::Code(text));
    let outcome = match run.summary() {
        Some(Summary { test, .. }) => {
            format!("accuracy {:.2} %, NLL {:.3}, ECE {:.4}", 100.0 * test.accuracy, test.nll, test.ece)
        }
        None => run.lack().unwrap_or_default(),
    };
    Ok(Part::Details { summary: format!("{}: {outcome}", run.name()), parts })
}

/// A sentence or two on where a run's numbers come from.
fn how_made(config: &Config, summary: &Summary) -> String {
    let Summary { method, network, dataset, seed, device, version, epochs, steps, seconds, .. } = summary;
    let precision = config.precision.map_or(String::new(), |precision| format!(" in {}", precision.name()));
    let sparsity = percent(summary.sparsity_target);
    format!(
        "{method} at {sparsity} % sparsity, seed {seed}, on {device}{precision} by cigl {version}. {network} was trained on \
         {} of {dataset} for {epochs} epochs ({steps} steps of {} images) in {seconds:.0} s, with {} mask updates and {} \
         snapshots, and measured on {} test images.",
        training_images(config),
        config.train.batch_size,
        summary.mask_updates,
        summary.snapshots,
        summary.test.n,
    )
}

/// `3,500 images` or, where that is the files' secret, `all images`; with those that were set apart for validation.
pub fn training_images(config: &Config) -> String {
    let [published, _] = config.data.dataset.published().2;
    let unknown = config.data.dataset == Source::ImageNet && config.data.train_limit.is_none();
    let apart = match config.data.validation {
        0 => String::new(),
        n => format!(" ({n} more set apart for validation)"),
    };
    match config.split(config.data.train_limit.unwrap_or(published)) {
        Ok((images, _)) if !unknown => format!("{images} images{apart}"),
        _ => format!("all images{apart}"),
    }
}

fn costs(summary: &Summary) -> Table {
    let mut table = Table::new(["quantity", "value"]);
    let costs = &summary.costs;
    let mut row = |name: &str, value: String| {
        table.row([name.to_string(), value]);
    };
    row("parameters", costs.params.to_string());
    row("of them active", costs.params_active.to_string());
    row("realised sparsity (%)", format!("{:.3}", 100.0 * summary.sparsity));
    row("operations of training over dense training", format!("{:.4}", costs.train_flops_ratio));
    row("operations of a prediction over dense", format!("{:.4}", costs.inference_flops_ratio));
    row("training images a second", format!("{:.0}", summary.images_per_second));
    if let Some(temperature) = summary.temperature {
        row("fitted temperature", format!("{temperature:.4}"));
    }
    table
}

/// The SVG files of a folder: those that every run has first and in a fixed order, then others by name. None where there is no folder.
fn pictures(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(Error::file_because(folder, "could not be read", e)),
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "svg"));
    let place = |path: &PathBuf| {
        let known = CAPTIONS.iter().position(|(name, _)| path.file_stem().is_some_and(|stem| stem == *name));
        (known.unwrap_or(CAPTIONS.len()), path.clone())
    };
    paths.sort_by_key(place);
    Ok(paths)
}

const CAPTIONS: [(&str, &str); 5] = [
    ("reliability", "Reliability diagram: accuracy against confidence"),
    ("confidence", "How confident right and wrong predictions are"),
    ("training", "Loss, accuracy and learning rate against the step"),
    ("density", "Density by layer"),
    ("evolution", "How the masks changed in training"),
];

fn caption(name: &str) -> String {
    CAPTIONS.iter().find(|(known, _)| *known == name).map_or(name, |(_, caption)| caption).to_string()
}

/// An SVG file that can stand inside a page.
fn read_picture(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).map_err(|e| Error::file_because(path, "could not be read", e))?;
    svg::check(&text).map_err(|e| Error::file_because(path, "cannot be shown", e))?;
    Ok(text)
}

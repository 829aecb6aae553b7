//! `cigl predict`: new, unlabelled images.

use super::args::PredictArgs;
use super::machine;
use super::output::print;
use super::predictions::{write_csv, write_npz};
use crate::data::Dataset;
use crate::error::Result;
use crate::report::table::Table;
use crate::train::evaluate::Outputs;
use crate::train::trained::Trained;

pub(super) fn run(args: &PredictArgs) -> Result<()> {
    args.machine.use_threads()?;
    let mut trained = Trained::open(&args.model, |config| {
        machine::backend(args.machine.device.unwrap_or_default(), config.precision)
    })?;
    let (shape, normalisation) = (trained.image(), trained.about.normalisation.clone());
    let mut pixels = Vec::new();
    for path in &args.images {
        pixels.extend(trained.config.data.dataset.read_image(path, shape, &normalisation)?);
    }
    let (names, classes) = (trained.about.class_names.clone(), trained.about.classes);
    // The images have no labels; nothing below looks at these.
    let labels = vec![0; args.images.len()];
    let set = Dataset::in_memory("images", shape, names.clone(), normalisation, labels, pixels)?;
    let outputs = trained.predict(&set)?;
    let probabilities = outputs.into_probabilities(classes);
    let names: Vec<String> =
        (0..classes).map(|class| names.get(class).cloned().unwrap_or_else(|| class.to_string())).collect();

    let mut table = Table::new(["image", "class", "confidence (%)", "next", "(%)"]);
    for (path, row) in args.images.iter().zip(probabilities.chunks_exact(classes)) {
        let mut order: Vec<usize> = (0..classes).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        let mut cells = vec![path.display().to_string()];
        for &class in order.iter().take(2) {
            cells.extend([names[class].clone(), format!("{:.1}", 100.0 * row[class])]);
        }
        table.row(cells);
    }
    print(table)?;
    let Some(out) = &args.out else { return Ok(()) };
    if out.extension().is_some_and(|ending| ending == "npz") {
        return write_npz(out, &Outputs::Probabilities(probabilities), classes, None);
    }
    write_csv(out, &args.images, &names, &probabilities)
}

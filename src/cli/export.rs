//! `cigl export`: a trained network for other programs.

use std::fs;
use std::path::Path;

use super::args::{ExportArgs, ExportFormat, Names};
use super::output::print;
use crate::backend::cpu::Cpu;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::export::{self, Format, OPSET};
use crate::train::run_folder::RunFolder;
use crate::train::trained::Trained;

pub(super) fn run(args: &ExportArgs) -> Result<()> {
    if args.names.is_some() && args.format != ExportFormat::Safetensors {
        return Err(Error::Usage("--names goes with --format safetensors: the other formats have cigl's names".into()));
    }
    check_out(args)?;
    let mut trained = Trained::open(&args.model, |_| Ok(Box::new(Cpu::new())))?;
    let format = format(args, &trained.config);
    export::export(&mut trained, format, &args.out)?;
    let written = fs::metadata(&args.out).map_err(|e| Error::file_because(&args.out, "could not be read", e))?.len();
    let dense = export::dense_bytes(&mut trained);
    let percent = 100.0 * written as f64 / dense as f64;
    let mut line = format!("{}: {}, {written} bytes, ", args.out.display(), name(format));
    line += &format!("{percent:.1} % of the {dense} that all values take in f32");
    if let (Some(temperature), Format::Torchvision) = (trained.about.temperature, format) {
        line += &format!("; the temperature {temperature}, which divides the logits, is in the file's metadata alone");
    }
    print(line)
}

fn format(args: &ExportArgs, config: &Config) -> Format {
    match (args.format, args.names) {
        (ExportFormat::Sparse, _) => Format::Sparse,
        (ExportFormat::Onnx, _) => Format::Onnx,
        (ExportFormat::Safetensors, Some(Names::Torchvision)) => Format::Torchvision,
        (ExportFormat::Safetensors, Some(Names::Cigl)) => Format::Dense,
        (ExportFormat::Safetensors, None) if export::state_dict_fits(config) => Format::Torchvision,
        (ExportFormat::Safetensors, None) => Format::Dense,
    }
}

fn name(format: Format) -> String {
    match format {
        Format::Torchvision => "safetensors with torchvision's names".into(),
        Format::Dense => "safetensors with cigl's names".into(),
        Format::Sparse => "sparse safetensors".into(),
        Format::Onnx => format!("ONNX, opset {OPSET}"),
    }
}

/// Fails where the export would replace what it is made from.
fn check_out(args: &ExportArgs) -> Result<()> {
    let model = if args.model.is_dir() { RunFolder::new(&args.model).model() } else { args.model.clone() };
    let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if same(&args.out, &model) {
        return Err(Error::Usage(format!("--out {} is the model itself, expected another file", args.out.display())));
    }
    Ok(())
}

//! What can be typed after `cigl report`.

use std::path::PathBuf;

use clap::Args;

use super::file_ending;

/// Options of `cigl report`.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// Run folders, or folders that hold some at any depth
    #[arg(value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
    /// The page; default: report.html in the first DIR
    #[arg(long, value_name = "FILE.html", value_parser = html)]
    pub out: Option<PathBuf>,
}

fn html(text: &str) -> Result<PathBuf, String> {
    file_ending(text, &["html"])
}

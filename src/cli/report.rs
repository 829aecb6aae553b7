//! `cigl report`: run folders on one HTML page.

use super::args::ReportArgs;
use super::output::print;
use crate::error::Result;
use crate::runs::{self, Run};
use crate::train::checkpoint::write_atomically;

pub(super) fn run(args: &ReportArgs) -> Result<()> {
    let runs = runs::find(&args.dirs)?.into_iter().map(Run::read).collect::<Result<Vec<Run>>>()?;
    let names: Vec<String> = args.dirs.iter().map(|dir| dir.display().to_string()).collect();
    let page = runs::page(&format!("Runs of {}", names.join(", ")), &runs)?;
    let out = args.out.clone().unwrap_or_else(|| args.dirs[0].join("report.html"));
    write_atomically(&out, page.html().as_bytes())?;
    let unfinished = runs.iter().filter(|run| run.summary().is_none()).count();
    print(format_args!("{} of {} runs finished", runs.len() - unfinished, runs.len()))?;
    print(format_args!("report {}", out.display()))
}

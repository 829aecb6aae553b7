//! What came out, cell by cell, beside what the paper prints.

use serde::Serialize;

use super::experiment::{Block, Experiment, Measure, Row, Setting};
use super::published::{Published, published};
use super::reproduction::Reproduction;
use super::state::{Scores, State};
use crate::Result;
use crate::report::summary::{deviation, mean};

/// An experiment's cells: those that this scale runs, and those that the paper prints of other networks.
#[derive(Clone, Debug)]
pub struct Results {
    /// The table or figure.
    pub experiment: Experiment,
    /// One for each network and data set.
    pub blocks: Vec<BlockResults>,
}

/// The cells of one network and data set.
#[derive(Clone, Debug)]
pub struct BlockResults {
    /// The network and its data.
    pub setting: Setting,
    /// Columns, in rising order.
    pub sparsities: Vec<f64>,
    /// In the order of the table.
    pub rows: Vec<RowResults>,
}

/// The cells of a row, by sparsity.
#[derive(Clone, Debug)]
pub struct RowResults {
    /// What the row shows.
    pub row: Row,
    /// One for each of the block's sparsities.
    pub cells: Vec<Cell>,
}

/// One cell: what every seed gave, and what is published.
#[derive(Clone, Debug)]
pub struct Cell {
    /// One for each seed; none where the scale or the command leaves the cell out.
    pub seeds: Vec<State>,
    /// By [`Measure::ALL`].
    pub published: [Option<Published>; 3],
}

/// One number of one cell, as files for other programs have it.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The experiment's name.
    pub experiment: &'static str,
    /// The data set's name.
    pub dataset: &'static str,
    /// The network's name.
    pub network: &'static str,
    /// The row's name.
    pub method: &'static str,
    /// A fraction.
    pub sparsity: f64,
    /// The measure's key.
    pub metric: &'static str,
    /// `measured`, `partial`, `failed`, `unfinished` or `not run`.
    pub state: &'static str,
    /// Seeds measured.
    pub seeds: usize,
    /// Over them.
    pub mean: Option<f64>,
    /// The sample standard deviation, from two seeds on.
    pub sd: Option<f64>,
    /// The published mean.
    pub paper_mean: Option<f64>,
    /// The published standard deviation.
    pub paper_sd: Option<f64>,
    /// Why seeds failed.
    pub failure: Option<String>,
}

impl Results {
    /// Gathers an experiment's cells from its run folders.
    ///
    /// # Errors
    /// A result that cannot be read.
    pub fn read(reproduction: &Reproduction, experiment: Experiment) -> Result<Self> {
        let mut blocks: Vec<BlockResults> = vec![];
        for published in experiment.blocks() {
            let run = reproduction.scale.setting(published.setting);
            for setting in run.into_iter().chain([published.setting]) {
                if !blocks.iter().any(|block| block.setting == setting) {
                    blocks.push(BlockResults::read(
                        reproduction,
                        experiment,
                        setting,
                        run == Some(setting),
                        &published,
                    )?);
                }
            }
        }
        // What was run comes before what is only published.
        blocks.sort_by_key(|block| !block.runs());
        Ok(Results { experiment, blocks })
    }

    /// Every number as a line.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = vec![];
        for block in &self.blocks {
            for row in &block.rows {
                for (cell, &sparsity) in row.cells.iter().zip(&block.sparsities) {
                    for measure in self.experiment.measures() {
                        let values = cell.values(measure);
                        let published = cell.published(measure);
                        lines.push(Line {
                            experiment: self.experiment.name(),
                            dataset: block.setting.dataset.name(),
                            network: block.setting.network.name(),
                            method: row.row.name(),
                            sparsity,
                            metric: measure.key(),
                            state: cell.state(),
                            seeds: values.len(),
                            mean: mean(&values),
                            sd: deviation(&values),
                            paper_mean: published.map(|p| p.mean),
                            paper_sd: published.and_then(|p| p.sd),
                            failure: cell.failures().next().map(String::from),
                        });
                    }
                }
            }
        }
        lines
    }
}

impl BlockResults {
    fn read(
        reproduction: &Reproduction,
        experiment: Experiment,
        setting: Setting,
        run: bool,
        block: &Block,
    ) -> Result<Self> {
        let asked = if run { reproduction.sparsities(&block.sparsities) } else { vec![] };
        let mut sparsities = [&block.sparsities[..], &asked].concat();
        sparsities.sort_by(f64::total_cmp);
        sparsities.dedup();
        let cell = |row: Row, sparsity: f64| {
            let seeds = if asked.contains(&sparsity) { reproduction.states(setting, row, sparsity)? } else { vec![] };
            let published = Measure::ALL.map(|measure| published(experiment, setting, row, sparsity, measure));
            Ok(Cell { seeds, published })
        };
        let row = |&row: &Row| {
            let cells = sparsities.iter().map(|&sparsity| cell(row, sparsity)).collect::<Result<_>>()?;
            Ok(RowResults { row, cells })
        };
        let rows = block.rows.iter().map(row).collect::<Result<_>>()?;
        Ok(BlockResults { setting, sparsities, rows })
    }

    /// Whether any cell is run at this scale.
    pub fn runs(&self) -> bool {
        self.rows.iter().any(|row| row.cells.iter().any(|cell| !cell.seeds.is_empty()))
    }

    /// The row of a method.
    pub fn row(&self, of: Row) -> Option<&RowResults> {
        self.rows.iter().find(|row| row.row == of)
    }
}

impl Cell {
    /// A measure of every seed that has it.
    pub fn values(&self, measure: Measure) -> Vec<f64> {
        let measured = self.seeds.iter().filter_map(|state| match state {
            State::Measured(scores) => Some(scores),
            _ => None,
        });
        measured.map(|scores| scores.get(measure)).collect()
    }

    /// What the paper prints.
    pub fn published(&self, measure: Measure) -> Option<Published> {
        Measure::ALL.iter().position(|&m| m == measure).and_then(|at| self.published[at])
    }

    /// Why seeds failed.
    pub fn failures(&self) -> impl Iterator<Item = &str> {
        self.seeds.iter().filter_map(|state| match state {
            State::Failed(why) => Some(why.as_str()),
            _ => None,
        })
    }

    /// How far it has come, in a word or two.
    pub fn state(&self) -> &'static str {
        let all = |is: fn(&State) -> bool| !self.seeds.is_empty() && self.seeds.iter().all(is);
        let any = |is: fn(&State) -> bool| self.seeds.iter().any(is);
        if all(|s| matches!(s, State::Measured(_))) {
            "measured"
        } else if any(|s| matches!(s, State::Measured(_))) {
            "partial"
        } else if any(|s| matches!(s, State::Failed(_))) {
            "failed"
        } else if any(|s| matches!(s, State::Unfinished)) {
            "unfinished"
        } else {
            "not run"
        }
    }
}

impl Scores {
    /// One of them.
    pub fn get(&self, measure: Measure) -> f64 {
        match measure {
            Measure::Accuracy => self.accuracy,
            Measure::Ece => self.ece_10,
            Measure::Nll => self.nll,
        }
    }
}

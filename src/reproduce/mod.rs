//! The paper's experiments: which trainings they need, what came out of them, and tables and figures beside the published numbers.
//!
//! An [`Experiment`] is a table or figure as data. A [`Reproduction`] says how it is run, and [`Reproduction::trainings`] what has to be trained for
//! it: each training once, in a run folder of its own, however many cells show it. Everything that is printed or drawn is read
//! back from those folders ([`Results`]), so that it does not matter which process trained what, or when.

mod experiment;
mod figures;
mod page;
mod published;
mod reproduction;
mod results;
mod scale;
mod state;
mod tables;
mod training;

pub use experiment::{Block, Experiment, Figure, Measure, Row, Setting};
pub use figures::{Drawing, figures};
pub use page::page;
pub use published::{Published, published};
pub use reproduction::Reproduction;
pub use results::{BlockResults, Cell, Line, Results, RowResults};
pub use scale::Scale;
pub use state::{Scores, State};
pub use tables::{Captioned, csv, markdown, sections};
pub use training::Training;

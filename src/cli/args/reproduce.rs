//! What can be typed after `cigl reproduce`.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

use super::{MAX_SEEDS, Machine, absolute, sparsity};
use crate::Result;
use crate::config::{Recipe, Semantics};
use crate::reproduce::{Experiment, Reproduction, Scale};

/// Options of `cigl reproduce`.
#[derive(Args, Clone, Debug)]
pub struct ReproduceArgs {
    /// The tables and figures; default: all of them
    #[arg(value_name = "EXPERIMENT", value_parser = experiment())]
    pub experiments: Vec<Experiment>,
    /// How much is run: paper as published, short in minutes on a CPU, smoke in seconds to see that it works
    #[arg(long, value_name = "SCALE", default_value = "paper", value_parser = scale())]
    pub scale: Scale,
    /// Print what has to be trained, what is done, and about how long the rest takes on this device; train nothing
    #[arg(long, conflicts_with = "emit")]
    pub list: bool,
    /// Print the trainings for a scheduler instead: a job array for SLURM, or one command a line
    #[arg(long, value_name = "FORM", value_enum)]
    pub emit: Option<Emit>,
    /// Seeds of every cell, from 0 on; default: 3 for paper, else 1
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..=MAX_SEEDS))]
    pub seeds: Option<u64>,
    /// The sparsities to run, such as 0.9,0.95; default: the paper's (short and smoke: 0.9 and 0.95 of them)
    #[arg(long, value_name = "S,S...", value_delimiter = ',', value_parser = sparsity)]
    pub sparsities: Option<Vec<f64>>,
    /// Whose hyper-parameters: those of CigL's configurations, or plain RigL's
    #[arg(long, value_name = "RECIPE", default_value = "cigl", value_parser = recipe())]
    pub recipe: Recipe,
    /// What the random mask does in a step: as published, or as the released code executes
    #[arg(long, value_name = "SEMANTICS", default_value = "paper", value_parser = semantics())]
    pub semantics: Semantics,
    /// Only trainings whose name contains this; a whole name means that one alone
    #[arg(long, value_name = "FILTER")]
    pub only: Option<String>,
    /// The folder that holds cifar10/, cifar100/ and imagenet/
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where the work is done
    #[command(flatten)]
    pub machine: Machine,
    /// The folder of run folders, tables and figures; default: runs/reproduce-SCALE
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print every number as JSON
    #[arg(long)]
    pub json: bool,
}

/// A form in which trainings are handed to a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// A job array for sbatch, one task a training
    Slurm,
    /// One command a line
    List,
}

impl ReproduceArgs {
    /// The experiments, in the paper's order.
    pub fn experiments(&self) -> Vec<Experiment> {
        let asked = |experiment: &Experiment| self.experiments.is_empty() || self.experiments.contains(experiment);
        Experiment::ALL.into_iter().filter(asked).collect()
    }

    /// How they are to be run.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn reproduction(&self) -> Result<Reproduction> {
        let out = self.out.clone().unwrap_or_else(|| format!("runs/reproduce-{}", self.scale.name()).into());
        Ok(Reproduction {
            scale: self.scale,
            recipe: self.recipe,
            semantics: self.semantics,
            seeds: self.seeds.unwrap_or(self.scale.seeds()),
            sparsities: self.sparsities.clone(),
            data: self.data.as_deref().map(absolute).transpose()?,
            device: self.machine.device.unwrap_or_default(),
            out,
        })
    }
}

fn experiment() -> impl TypedValueParser<Value = Experiment> {
    PossibleValuesParser::new(Experiment::NAMES).try_map(|name| name.parse::<Experiment>())
}

fn scale() -> impl TypedValueParser<Value = Scale> {
    let named = |name: String| [Scale::Paper, Scale::Short, Scale::Smoke].into_iter().find(|s| s.name() == name);
    PossibleValuesParser::new(Scale::NAMES).map(move |name| named(name).unwrap_or(Scale::Paper))
}

fn recipe() -> impl TypedValueParser<Value = Recipe> {
    let named = |name: String| [Recipe::Cigl, Recipe::Rigl].into_iter().find(|recipe| recipe.name() == name);
    PossibleValuesParser::new(Recipe::NAMES).map(move |name| named(name).unwrap_or(Recipe::Cigl))
}

fn semantics() -> impl TypedValueParser<Value = Semantics> {
    let all = [Semantics::Paper, Semantics::Official];
    let named = move |name: String| all.into_iter().find(|semantics| semantics.name() == name);
    PossibleValuesParser::new(Semantics::NAMES).map(move |name| named(name).unwrap_or(Semantics::Paper))
}

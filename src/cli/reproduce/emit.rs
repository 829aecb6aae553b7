//! Trainings as jobs for a scheduler.

use crate::cli::args::{Emit, ReproduceArgs, absolute};
use crate::cli::output::{print, tell};
use crate::config::Device;
use crate::error::Result;
use crate::reproduce::{Reproduction, Training};

/// Prints a job for each training that is not done. Every job ends in the run folder that `cigl reproduce` itself would use.
pub(super) fn print_jobs(
    args: &ReproduceArgs,
    form: Emit,
    reproduction: &Reproduction,
    trainings: &[&Training],
) -> Result<()> {
    let command = command(args, reproduction)?;
    let left = trainings.iter().filter(|training| !training.is_done());
    let names: Vec<String> = left.map(|training| quoted(&training.name)).collect();
    if names.is_empty() {
        tell("nothing is left to train; the same command without --emit prints the tables");
        return Ok(());
    }
    match form {
        Emit::List => names.iter().try_for_each(|name| print(format_args!("{command} --only {name}"))),
        Emit::Slurm => print(script(args, reproduction, &command, &names)?),
    }
}

/// What every job runs, without the training's name.
fn command(args: &ReproduceArgs, reproduction: &Reproduction) -> Result<String> {
    let program = std::env::current_exe().map_or_else(|_| "cigl".into(), |path| path.to_string_lossy().into_owned());
    let mut words = vec![program, "reproduce".into()];
    words.extend(args.experiments.iter().map(|experiment| experiment.name().to_string()));
    let mut option = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            words.extend([format!("--{name}"), value]);
        }
    };
    option("scale", Some(reproduction.scale.name().into()));
    option("seeds", args.seeds.map(|seeds| seeds.to_string()));
    let sparsities = args.sparsities.as_ref();
    option("sparsities", sparsities.map(|all| all.iter().map(f64::to_string).collect::<Vec<_>>().join(",")));
    option("recipe", Some(reproduction.recipe.name().into()));
    option("semantics", Some(reproduction.semantics.name().into()));
    option("data", reproduction.data.as_ref().map(|dir| dir.to_string_lossy().into_owned()));
    option("device", args.machine.device.map(|device| device.to_string()));
    option("threads", args.machine.threads.map(|threads| threads.to_string()));
    option("out", Some(absolute(&reproduction.out)?.to_string_lossy().into_owned()));
    Ok(words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
}

/// A job array. A task that is stopped before its time saves a checkpoint, is queued again, and goes on from there.
fn script(args: &ReproduceArgs, reproduction: &Reproduction, command: &str, names: &[String]) -> Result<String> {
    let log = absolute(&reproduction.out)?.join("slurm-%A-%a.log");
    let gpu = matches!(reproduction.device, Device::Cuda(_));
    let threads = args.machine.threads.map(|threads| format!("#SBATCH --cpus-per-task={threads}\n"));
    let runs: String = names.iter().map(|name| format!("  {name}\n")).collect();
    let last = names.len() - 1;
    Ok(format!(
        "#!/bin/bash\n\
         # One training a task; submit with sbatch from a folder that all nodes see, adding account, time and partition.\n\
         # Afterwards the same command without --emit assembles the tables.\n\
         #SBATCH --job-name=cigl-{}\n\
         #SBATCH --array=0-{}\n\
         {}{}#SBATCH --requeue\n\
         #SBATCH --open-mode=append\n\
         #SBATCH --output={}\n\
         # Two minutes before the end: a signal to save a checkpoint.\n\
         #SBATCH --signal=TERM@120\n\
         runs=(\n{runs})\n\
         srun {command} --only \"${{runs[SLURM_ARRAY_TASK_ID]}}\"\n\
         status=$?\n\
         # 143: stopped by the signal, the checkpoint is saved.\n\
         if [ \"$status\" -eq 143 ]; then\n\
         \x20 scontrol requeue \"${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}\"\n\
         fi\n\
         exit \"$status\"",
        reproduction.scale.name(),
        last,
        threads.unwrap_or_default(),
        if gpu { "#SBATCH --gpus-per-task=1\n" } else { "" },
        log.display(),
    ))
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_with_more_than_letters_are_quoted() {
        for (word, expected) in
            [("a/b-0.9", "a/b-0.9"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''"), ("$HOME", "'$HOME'")]
        {
            assert_eq!(quoted(word), expected);
        }
    }
}

//! What a person sees while a run goes on: a bar on a terminal, a few lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::tell;
use crate::train::run::Event;

/// Shows the events of runs, on standard error.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    terminal: bool,
    name: String,
}

impl Progress {
    pub(super) fn new() -> Self {
        Progress { bar: None, terminal: std::io::stderr().is_terminal(), name: String::new() }
    }

    /// The run that the next events are of.
    pub(super) fn of(&mut self, name: &str) {
        self.name = name.into();
    }

    /// Shows one event.
    pub(super) fn show(&mut self, event: Event) {
        match event {
            Event::Line(line) => self.line(&format!("{}: {line}", self.name)),
            Event::Phase { name, total, done } => self.phase(name, total, done),
            Event::Step(report) => {
                if let Some(bar) = &self.bar {
                    bar.inc(1);
                    let accuracy = 100.0 * f64::from(report.correct) / report.images as f64;
                    bar.set_message(format!(
                        "epoch {:>3}  loss {:.3}  accuracy {accuracy:.0} %",
                        report.epoch, report.loss
                    ));
                }
            }
            Event::Advance(units) => {
                if let Some(bar) = &self.bar {
                    bar.inc(units);
                }
            }
        }
    }

    /// Ends the bar of the last phase.
    pub(super) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => tell(line),
        }
    }

    fn phase(&mut self, phase: &str, total: u64, done: u64) {
        self.clear();
        if !self.terminal {
            return;
        }
        let unit = if phase == "training" { "steps" } else { "images" };
        let template = format!(
            "{{prefix}} {phase:<10} [{{bar:24}}] {{pos}}/{{len}} {unit}  {{per_sec:.dim}}  {{eta_precise}} left  {{msg}}"
        );
        // The template is a constant but for words without braces.
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total).with_style(style.progress_chars("=> ")).with_prefix(self.name.clone());
        bar.set_position(done);
        bar.reset_eta();
        bar.enable_steady_tick(Duration::from_millis(200));
        self.bar = Some(bar);
    }
}

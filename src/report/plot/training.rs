//! Training curves.

use super::chart::{page, title};
use super::curves::{Legend, Panel, Place, SIDES, STEP_AXIS, draw, steps, thin};

/// One line of a panel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// What it is, for the legend ("training batch", "test").
    pub name: String,
    /// (step, value), steps increasing.
    pub points: Vec<(f64, f64)>,
}

/// A moment worth a vertical line.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// The step.
    pub step: f64,
    /// A few words ("last mask update").
    pub name: String,
}

/// What [`training`] draws. Empty panels are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Training {
    /// Losses in nats.
    pub loss: Vec<Line>,
    /// Accuracies as fractions.
    pub accuracy: Vec<Line>,
    /// (step, learning rate).
    pub learning_rate: Vec<(f64, f64)>,
    /// Moments, drawn through every panel.
    pub marks: Vec<Mark>,
}

/// Loss, accuracy and learning rate by step, one panel each over the same steps.
pub fn training(name: &str, data: &Training) -> String {
    let percent = |line: &Line| line.points.iter().map(|&(step, value)| (step, 100.0 * value)).collect::<Vec<_>>();
    let panels: Vec<Panel> = [
        Panel {
            name: "loss (nats)",
            lines: data.loss.iter().map(|line| (&line.name[..], thin(&line.points))).collect(),
            height: 230,
            low: Some(0.0),
            legend: Legend::Above,
        },
        Panel {
            name: "accuracy (%)",
            lines: data.accuracy.iter().map(|line| (&line.name[..], thin(&percent(line)))).collect(),
            height: 230,
            low: None,
            legend: Legend::Below,
        },
        Panel {
            name: "learning rate",
            lines: vec![("", thin(&data.learning_rate))],
            height: 150,
            low: Some(0.0),
            legend: Legend::Above,
        },
    ]
    .into_iter()
    .filter(|panel| panel.lines.iter().any(|line| !line.1.is_empty()))
    .collect();
    let range = steps(&panels);
    let height = 48 + panels.iter().map(|panel| panel.height).sum::<i32>() + STEP_AXIS;
    page(760, height as u32, |area| {
        title(area, name)?;
        let (_, mut rest) = area.split_vertically(48);
        for (i, panel) in panels.iter().enumerate() {
            let last = i + 1 == panels.len();
            let (cell, below) = rest.split_vertically(panel.height + if last { STEP_AXIS } else { 0 });
            draw(area, &cell, panel, range, Place { first: i == 0, last, sides: SIDES }, &data.marks)?;
            rest = below;
        }
        Ok(())
    })
}

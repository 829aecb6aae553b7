//! Softmax cross-entropy from its definition.

use super::{Reference, set};
use crate::backend::parity::bounded::Bounded;
use crate::backend::{Map, Sink, Span};

/// log softmax of one row, less its maximum first.
fn log_softmax(logits: &[Bounded]) -> Vec<Bounded> {
    let most = logits.iter().copied().max_by(|a, b| a.value.total_cmp(&b.value)).expect("there is a class");
    let shifted: Vec<Bounded> = logits.iter().map(|&x| x - most).collect();
    let log_sum = shifted.iter().map(|x| x.exp()).sum::<Bounded>().ln();
    shifted.into_iter().map(|x| x - log_sum).collect()
}

/// The lowest index of the largest value.
fn argmax(row: &[Bounded]) -> usize {
    (0..row.len()).rev().max_by(|&a, &b| row[a].value.total_cmp(&row[b].value)).expect("there is a class")
}

impl Reference {
    pub(super) fn cross_entropy(&mut self, logits: Map, targets: Map, loss: Span) {
        let (classes, images) = (logits.shape.c, logits.shape.n);
        let (x, t) = (self.bounded_map(logits), self.bounded_map(targets));
        let rows = || x.chunks(classes).zip(t.chunks(classes));
        let cost = |(x, t): (&[Bounded], &[Bounded])| -> Bounded {
            log_softmax(x).into_iter().zip(t).map(|(log_p, &t)| -(t * log_p)).sum()
        };
        let mean = rows().map(cost).sum::<Bounded>() / Bounded::exact(images as f64);
        let right = rows().filter(|(x, t)| argmax(x) == argmax(t)).count();
        self.set(set(loss), vec![mean, Bounded::exact(right as f64)]);
    }

    pub(super) fn cross_entropy_grad(&mut self, logits: Map, targets: Map, dlogits: Sink<Map>) {
        let images = Bounded::exact(logits.shape.n as f64);
        let p: Vec<Bounded> = self.bounded_map(logits).chunks(logits.shape.c).flat_map(log_softmax).collect();
        let t = self.bounded_map(targets);
        self.set_map(dlogits, p.into_iter().zip(t).map(|(log_p, t)| (log_p.exp() - t) / images).collect());
    }
}

//! Dropout, draw by draw.

use super::Reference;
use crate::backend::parity::bounded::Bounded;
use crate::backend::{Map, Sink};
use crate::rng::{self, Domain};

impl Reference {
    /// Element i in (N, C, H, W) order goes where its key, of counter (i / 4, step, site), lies below p 2^32.
    pub(super) fn drop_values(&mut self, x: Map, p: f32, site: u32, y: Sink<Map>) {
        let state = self.step;
        let keep = Bounded::exact(1.0) - p.into();
        let value = |(i, x): (usize, Bounded)| {
            let key = rng::element_key(state.seed, Domain::Dropout, state.step, site, i as u32);
            let dropped = f64::from(key) < f64::from(p) * 32f64.exp2();
            if dropped { Bounded::default() } else { x * (Bounded::exact(1.0) / keep) }
        };
        self.set_map(y, self.bounded_map(x).into_iter().enumerate().map(value).collect());
    }
}

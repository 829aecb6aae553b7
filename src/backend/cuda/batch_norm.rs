//! Batch normalisation.

use super::Cuda;
use super::kernels;
use crate::Result;
use crate::backend::{BatchNorm, Map, Sink, Span};

impl Cuda {
    pub(super) fn normalise(&mut self, bn: &BatchNorm, y: Map) -> Result<()> {
        let (x, y, step) = (self.tensor(bn.x), self.tensor(y), self.step());
        let [scale, shift, batch] = [bn.scale, bn.shift, bn.batch].map(|span| self.floats(span));
        let [running_mean, running_variance] = [bn.running_mean, bn.running_variance].map(|span| self.floats(span));
        let [partial, _] = self.channel_sums(x, 2, 0)?;
        let tiles = x.tiles();
        let on = self.driver();
        kernels::batch_norm_tiles(on, tiles, x, partial)?;
        kernels::batch_norm_statistics(
            on,
            x.groups,
            x,
            partial,
            tiles[0],
            bn.epsilon,
            step,
            running_mean,
            running_variance,
            batch,
        )?;
        kernels::batch_norm(on, tiles, x, batch, scale, shift, bn.relu.into(), y)
    }

    pub(super) fn normalise_by_running(&mut self, bn: &BatchNorm, y: Map) -> Result<()> {
        let (x, y) = (self.tensor(bn.x), self.tensor(y));
        let spans = [bn.running_mean, bn.running_variance, bn.scale, bn.shift];
        let [mean, variance, scale, shift] = spans.map(|span| self.floats(span));
        let (epsilon, relu) = (bn.epsilon, bn.relu.into());
        kernels::batch_norm_inference(self.driver(), x.tiles(), x, mean, variance, epsilon, scale, shift, relu, y)
    }

    pub(super) fn normalise_grad(
        &mut self,
        bn: &BatchNorm,
        dy: Map,
        dx: Option<Sink<Map>>,
        dscale: Sink<Span>,
        dshift: Sink<Span>,
    ) -> Result<()> {
        let (x, dy, relu) = (self.tensor(bn.x), self.tensor(dy), bn.relu.into());
        let [scale, shift, batch] = [bn.scale, bn.shift, bn.batch].map(|span| self.floats(span));
        let [ds, db] = [dscale.to, dshift.to].map(|span| self.floats(span));
        let to = dx.map(|dx| (self.tensor(dx.to), dx.add.into()));
        let [partial, coefficients] = self.channel_sums(x, 2, 3)?;
        let tiles = x.tiles();
        let on = self.driver();
        kernels::batch_norm_grad_tiles(on, tiles, x, dy, batch, scale, shift, relu, partial)?;
        kernels::batch_norm_grad_parameters(
            on,
            x.groups,
            x,
            partial,
            tiles[0],
            batch,
            scale,
            ds,
            dscale.add.into(),
            db,
            dshift.add.into(),
            coefficients,
        )?;
        match to {
            Some((dx, add)) => {
                kernels::batch_norm_grad(on, tiles, x, dy, batch, scale, shift, relu, coefficients, dx, add)
            }
            None => Ok(()),
        }
    }
}

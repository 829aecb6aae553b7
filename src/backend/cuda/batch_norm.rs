//! Batch normalisation.

use super::Cuda;
use super::kernels;
use crate::Result;
use crate::backend::{BatchNorm, Map, Sink, Span};

impl Cuda {
    pub(super) fn normalise(&mut self, bn: &BatchNorm, y: Map) -> Result<()> {
        let (x, y, step) = (self.tensor(bn.x), self.tensor(y), self.step());
        let [scale, shift, batch] = [bn.scale, bn.shift, bn.batch].map(|span| self.floats(span));
        let residual = self.tensor_or_none(bn.residual);
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
        kernels::batch_norm(on, tiles, x, batch, scale, shift, residual, bn.relu.into(), y)
    }

    pub(super) fn normalise_by_running(&mut self, bn: &BatchNorm, y: Map) -> Result<()> {
        let (x, y) = (self.tensor(bn.x), self.tensor(y));
        let spans = [bn.running_mean, bn.running_variance, bn.scale, bn.shift];
        let [mean, variance, scale, shift] = spans.map(|span| self.floats(span));
        let (epsilon, residual, relu) = (bn.epsilon, self.tensor_or_none(bn.residual), bn.relu.into());
        let (on, tiles) = (self.driver(), x.tiles());
        kernels::batch_norm_inference(on, tiles, x, mean, variance, epsilon, scale, shift, residual, relu, y)
    }

    pub(super) fn normalise_grad(
        &mut self,
        bn: &BatchNorm,
        dy: Map,
        dx: Option<Sink<Map>>,
        dresidual: Option<Sink<Map>>,
        dscale: Sink<Span>,
        dshift: Sink<Span>,
    ) -> Result<()> {
        let (x, dy, relu) = (self.tensor(bn.x), self.tensor(dy), bn.relu.into());
        let [scale, shift, batch] = [bn.scale, bn.shift, bn.batch].map(|span| self.floats(span));
        let [ds, db] = [dscale.to, dshift.to].map(|span| self.floats(span));
        let residual = self.tensor_or_none(bn.residual);
        let [to_x, to_residual] = [dx, dresidual].map(|sink| self.tensor_or_none(sink.map(|sink| sink.to)));
        let [add_x, add_residual] = [dx, dresidual].map(|sink| sink.is_some_and(|sink| sink.add).into());
        let [partial, coefficients] = self.channel_sums(x, 2, 3)?;
        let tiles = x.tiles();
        let on = self.driver();
        kernels::batch_norm_grad_tiles(on, tiles, x, dy, batch, scale, shift, residual, relu, partial)?;
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
        if dx.is_none() && dresidual.is_none() {
            return Ok(());
        }
        kernels::batch_norm_grad(
            on,
            tiles,
            x,
            dy,
            batch,
            scale,
            shift,
            residual,
            relu,
            coefficients,
            to_x,
            add_x,
            to_residual,
            add_residual,
        )
    }
}

//! A backend that computes nothing and checks that every place holds what its reader expects.

use std::ops::Range;

use crate::Result;
use crate::backend::*;
use crate::bitmask::BitMask;

/// What was last written to a place.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Held {
    Map(Map),
    Span(Span),
}

/// Follows the writes and reads of one replay.
#[derive(Default)]
pub(super) struct Recorder {
    /// Parameter values lie before this: always there.
    pub(super) values_end: usize,
    /// Parameter gradients lie before this: set once a replay.
    pub(super) gradients_end: usize,
    /// Of maps that no plan asks otherwise of.
    precision: Precision,
    held: Vec<(Range<usize>, Held)>,
    /// Reads and writes in all.
    pub(super) calls: usize,
}

impl Recorder {
    pub(super) fn new(values_end: usize, gradients_end: usize, precision: Precision) -> Self {
        Recorder { values_end, gradients_end, precision, ..Recorder::default() }
    }

    fn range(&self, held: Held) -> Range<usize> {
        match held {
            Held::Map(map) => map.at..map.at + self.map_len(map),
            Held::Span(span) => span.at..span.at + span.len,
        }
    }

    fn read_held(&mut self, held: Held) {
        let range = self.range(held);
        self.calls += 1;
        if range.end > self.values_end {
            let there =
                self.held.iter().filter(|(r, _)| r.start < range.end && range.start < r.end).collect::<Vec<_>>();
            assert_eq!(there, [&(range, held)], "read what is not there");
        }
    }

    fn set(&mut self, held: Held) {
        let range = self.range(held);
        self.calls += 1;
        if range.end <= self.values_end {
            return;
        }
        let parameter = range.end <= self.gradients_end;
        let overlaps = |r: &Range<usize>| r.start < range.end && range.start < r.end;
        assert!(!parameter || !self.held.iter().any(|(r, _)| overlaps(r)), "{held:?} is set twice");
        self.held.retain(|(r, _)| !overlaps(r));
        self.held.push((range, held));
    }

    fn sink(&mut self, held: Held, add: bool) {
        if add { self.read_held(held) } else { self.set(held) }
    }

    fn reads(&mut self, maps: impl IntoIterator<Item = Map>) {
        maps.into_iter().for_each(|map| self.read_held(Held::Map(map)));
    }

    fn writes(&mut self, sink: Sink<Map>) -> Result<()> {
        self.sink(Held::Map(sink.to), sink.add);
        Ok(())
    }

    fn writes_span(&mut self, sink: Sink<Span>) {
        self.sink(Held::Span(sink.to), sink.add);
    }

    /// What the host does before a replay.
    pub(super) fn host_writes(&mut self, map: Map) {
        self.set(Held::Map(map));
    }

    /// What the host looks at after a replay.
    pub(super) fn host_reads(&mut self, map: Map) {
        self.reads([map]);
    }

    pub(super) fn host_reads_span(&mut self, span: Span) {
        self.read_held(Held::Span(span));
    }
}

impl Backend for Recorder {
    fn device(&self) -> String {
        "recorder".into()
    }
    fn precision(&self) -> Precision {
        self.precision
    }
    fn map_len(&self, Map { shape: s, halo, precision, .. }: Map) -> usize {
        let elements = s.n.next_multiple_of(16) * s.c * (s.h + 2 * halo) * (s.w + 2 * halo);
        if precision == Precision::F32 { elements } else { elements / 2 }
    }
    fn reserve(&mut self, _: usize) -> Result<()> {
        Ok(())
    }
    fn write(&mut self, _: Span, _: &[f32]) -> Result<()> {
        Ok(())
    }
    fn read(&mut self, from: Span) -> Result<Vec<f32>> {
        Ok(vec![0.0; from.len])
    }
    fn write_map(&mut self, to: Map, _: &[f32]) -> Result<()> {
        self.host_writes(to);
        Ok(())
    }
    fn read_map(&mut self, from: Map) -> Result<Vec<f32>> {
        self.host_reads(from);
        Ok(vec![0.0; from.shape.len()])
    }
    fn register(&mut self, _: &[Weight]) -> Result<()> {
        Ok(())
    }
    fn write_mask(&mut self, _: usize, _: &BitMask) -> Result<()> {
        Ok(())
    }
    fn read_mask(&mut self, _: usize) -> Result<BitMask> {
        Ok(BitMask::zeros(0))
    }
    fn random_mask(&mut self, _: &Draw) -> Result<()> {
        Ok(())
    }
    fn read_random_mask(&mut self, _: usize) -> Result<BitMask> {
        Ok(BitMask::zeros(0))
    }
    fn effective_weights(&mut self, _: Effective, _: &[Span]) -> Result<()> {
        Ok(())
    }
    fn begin_step(&mut self, _: StepState) -> Result<()> {
        Ok(())
    }
    fn conv2d(&mut self, x: Map, _: Weight, conv: Conv, y: Map) -> Result<()> {
        assert!(x.halo >= conv.padding, "{x:?} lacks zeros for {conv:?}");
        assert_eq!(x.precision, self.precision, "a convolution reads {x:?}");
        self.reads([x]);
        self.writes(Sink { to: y, add: false })
    }
    fn conv2d_grad_input(&mut self, dy: Map, _: Weight, _: Conv, dx: Sink<Map>) -> Result<()> {
        self.reads([dy]);
        self.writes(dx)
    }
    fn conv2d_grad_weight(&mut self, x: Map, dy: Map, w: Weight, _: Conv, add: bool) -> Result<()> {
        self.reads([x, dy]);
        self.writes_span(Sink { to: w.grad, add });
        Ok(())
    }
    fn add_bias(&mut self, x: Map, _: Span, y: Map) -> Result<()> {
        self.reads([x]);
        self.writes(Sink { to: y, add: false })
    }
    fn bias_grad(&mut self, dy: Map, db: Sink<Span>) -> Result<()> {
        self.reads([dy]);
        self.writes_span(db);
        Ok(())
    }
    fn batch_norm(&mut self, bn: &BatchNorm, y: Map) -> Result<()> {
        self.reads([bn.x]);
        self.reads(bn.residual);
        self.writes_span(Sink { to: bn.batch, add: false });
        self.writes(Sink { to: y, add: false })
    }
    fn batch_norm_inference(&mut self, bn: &BatchNorm, y: Map) -> Result<()> {
        self.reads([bn.x]);
        self.reads(bn.residual);
        self.writes(Sink { to: y, add: false })
    }
    fn batch_norm_grad(
        &mut self,
        bn: &BatchNorm,
        dy: Map,
        dx: Option<Sink<Map>>,
        dresidual: Option<Sink<Map>>,
        dscale: Sink<Span>,
        dshift: Sink<Span>,
    ) -> Result<()> {
        self.reads([bn.x, dy]);
        self.reads(bn.residual);
        self.read_held(Held::Span(bn.batch));
        self.writes_span(dscale);
        self.writes_span(dshift);
        dx.into_iter().chain(dresidual).try_for_each(|sink| self.writes(sink))
    }
    fn relu(&mut self, x: Map, y: Map) -> Result<()> {
        self.copy(x, Sink { to: y, add: false })
    }
    fn relu_grad(&mut self, y: Map, dy: Map, dx: Sink<Map>) -> Result<()> {
        self.reads([y, dy]);
        self.writes(dx)
    }
    fn add(&mut self, a: Map, b: Map, y: Map) -> Result<()> {
        self.reads([a, b]);
        self.writes(Sink { to: y, add: false })
    }
    fn copy(&mut self, x: Map, y: Sink<Map>) -> Result<()> {
        self.reads([x]);
        self.writes(y)
    }
    fn max_pool(&mut self, x: Map, _: usize, _: Conv, y: Map) -> Result<()> {
        self.copy(x, Sink { to: y, add: false })
    }
    fn max_pool_grad(&mut self, x: Map, dy: Map, _: usize, _: Conv, dx: Sink<Map>) -> Result<()> {
        self.reads([x, dy]);
        self.writes(dx)
    }
    fn average_pool(&mut self, x: Map, y: Map) -> Result<()> {
        self.copy(x, Sink { to: y, add: false })
    }
    fn average_pool_grad(&mut self, dy: Map, dx: Sink<Map>) -> Result<()> {
        self.copy(dy, dx)
    }
    fn dropout(&mut self, x: Map, _: f32, _: u32, y: Sink<Map>) -> Result<()> {
        self.copy(x, y)
    }
    fn flatten(&mut self, x: Map, y: Map) -> Result<()> {
        self.copy(x, Sink { to: y, add: false })
    }
    fn flatten_grad(&mut self, dy: Map, dx: Sink<Map>) -> Result<()> {
        self.copy(dy, dx)
    }
    fn softmax_cross_entropy(&mut self, logits: Map, targets: Map, loss: Span) -> Result<()> {
        assert_eq!(
            [logits, targets].map(|x| x.precision),
            [Precision::F32; 2],
            "the loss reads {logits:?}, {targets:?}"
        );
        self.reads([logits, targets]);
        self.writes_span(Sink { to: loss, add: false });
        Ok(())
    }
    fn softmax_cross_entropy_grad(&mut self, logits: Map, targets: Map, dlogits: Sink<Map>) -> Result<()> {
        self.reads([logits, targets]);
        self.writes(dlogits)
    }
    fn sgd(&mut self, _: Sgd, _: &[Update]) -> Result<()> {
        Ok(())
    }
    fn adam(&mut self, _: Adam, _: &[Update], _: &[Span]) -> Result<()> {
        Ok(())
    }
    fn average(&mut self, _: Span, _: Option<(Weight, Effective, Option<Span>)>, _: Span, _: u32) -> Result<()> {
        Ok(())
    }
    fn prune_and_grow(&mut self, _: &[PruneAndGrow]) -> Result<()> {
        Ok(())
    }
    fn prune_globally(&mut self, _: &[(Weight, Span)], _: usize) -> Result<()> {
        Ok(())
    }
    fn mean_magnitude(&mut self, _: Weight, _: Span) -> Result<f64> {
        Ok(0.0)
    }
}

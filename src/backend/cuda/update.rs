//! The optimiser's step, the draw of Z and the effective weights: one kernel, told by flags what of it is wanted.
//!
//! What a launch touches is in a table of parameters, written when it changes; what changes from step to step is in one small
//! struct.

use super::Cuda;
use super::driver::Driver;
use super::kernels::{self, Bytes, Each, Floats, Keeps, Parameter, Parameters};
use super::kernels::{WeightStep, WeightStepPointer, Words};
use super::memory::Buffer;
use super::weights::{BLOCK, Layer, Layers, keep_of};
use crate::Result;
use crate::backend::{Adam, Draw, Effective, Masking, Precision, Rule, Sgd, Span, Update, Weight};

/// Parameters as a launch sees them: rows, and behind them the row that each block belongs to.
#[derive(Default)]
pub(super) struct Table {
    rows: Vec<Parameter>,
    memory: Buffer,
    blocks: u32,
}

impl Table {
    /// Makes these the rows; nothing is copied where they are the ones already there. True when the table moved.
    fn set(&mut self, on: &mut dyn Driver, mut rows: Vec<Parameter>) -> Result<bool> {
        let mut owner: Vec<u32> = vec![];
        for (number, row) in rows.iter_mut().enumerate() {
            row.first_block = owner.len() as u32;
            owner.resize(owner.len() + (row.len as usize).div_ceil(BLOCK), number as u32);
        }
        if rows == self.rows {
            return Ok(false);
        }
        let bytes = [bytemuck::cast_slice(&rows), bytemuck::cast_slice::<u32, u8>(&owner)].concat();
        let moves = bytes.len() > self.memory.bytes;
        if moves {
            self.memory.replace(on, bytes.len())?;
        }
        on.write(self.memory.at, &bytes)?;
        (self.rows, self.blocks) = (rows, owner.len() as u32);
        Ok(moves)
    }

    fn owner(&self) -> Words {
        Words(self.memory.at.plus(size_of_val(self.rows.as_slice())))
    }
}

/// The numbers of `enum Which` in weights.cu.
fn which_number(which: Option<Effective>) -> u32 {
    match which {
        None => 0,
        Some(Effective::Deterministic) => 1,
        Some(Effective::Random) => 2,
        Some(Effective::Leaky) => 3,
    }
}

/// The numbers of `enum Masking` in weights.cu.
fn masking_number(masked: Option<(Weight, Masking)>) -> u32 {
    match masked.map(|(_, masking)| masking) {
        None => 0,
        Some(Masking::Deterministic) => 1,
        Some(Masking::Frozen) => 2,
        Some(Masking::Decay) => 3,
        Some(Masking::Leaky(_)) => 4,
        Some(Masking::DenseMomentum) => 5,
    }
}

impl Rule {
    /// The number of `enum Rule` in weights.cu.
    fn number(&self) -> u32 {
        match self {
            Rule::Sgd(Sgd { nesterov: false, .. }) => 1,
            Rule::Sgd(_) => 2,
            Rule::Adam(_) => 3,
        }
    }

    /// Fills in what the kernel needs of the rule.
    fn enter(&self, step: &mut WeightStep) {
        match *self {
            Rule::Sgd(Sgd { lr, momentum, .. }) => (step.lr, step.momentum) = (lr, momentum),
            Rule::Adam(Adam { lr, betas, epsilon, t }) => {
                (step.lr, [step.momentum, step.beta2], step.epsilon) = (lr, betas, epsilon);
                step.unbias = betas.map(|beta| (1.0 - f64::from(beta).powf(t as f64)) as f32);
            }
        }
    }
}

/// What one launch of the weights' kernel is to do.
#[derive(Clone, Copy, Default)]
struct Work<'a> {
    rule: Option<Rule>,
    draw: Option<&'a Draw<'a>>,
    which: Option<Effective>,
}

impl Cuda {
    pub(super) fn draw_masks(&mut self, draw: &Draw) -> Result<()> {
        let leaks = self.layers.leaks.clone();
        self.run_on_layers(&leaks, Work { draw: Some(draw), ..Work::default() })
    }

    pub(super) fn apply_masks(&mut self, which: Effective, leaks: &[Span]) -> Result<()> {
        let leaks = if leaks.is_empty() { self.layers.leaks.clone() } else { leaks.to_vec() };
        self.run_on_layers(&leaks, Work { which: Some(which), ..Work::default() })
    }

    pub(super) fn step_sgd(&mut self, rule: Sgd, updates: &[Update]) -> Result<()> {
        self.run_on_updates(updates, &[], Work { rule: Some(Rule::Sgd(rule)), ..Work::default() })
    }

    pub(super) fn step_adam(&mut self, rule: Adam, updates: &[Update], second: &[Span]) -> Result<()> {
        self.run_on_updates(updates, second, Work { rule: Some(Rule::Adam(rule)), ..Work::default() })
    }

    /// The optimiser's step, the next Z and the effective weights in one launch.
    pub(super) fn step_and_mask(
        &mut self,
        rule: Rule,
        updates: &[Update],
        second: &[Span],
        next: Option<&Draw>,
        which: Effective,
    ) -> Result<()> {
        if next.is_some_and(|draw| keep_of(draw, self.layers.all.len()) != self.layers.keep) {
            // The step takes the scale of the Z that it follows, and the kernel knows one.
            self.run_on_updates(updates, second, Work { rule: Some(rule), ..Work::default() })?;
            let leaks = self.layers.leaks.clone();
            return self.run_on_layers(&leaks, Work { rule: None, draw: next, which: Some(which) });
        }
        self.run_on_updates(updates, second, Work { rule: Some(rule), draw: next, which: Some(which) })
    }

    /// A row for each layer, without an optimiser step.
    fn run_on_layers(&mut self, leaks: &[Span], work: Work) -> Result<()> {
        let mut rows: Vec<Parameter> = (0..self.layers.all.len()).map(|layer| self.masked_row(layer)).collect();
        rows.iter_mut().zip(leaks).for_each(|(row, leak)| row.leak = self.floats(*leak));
        self.layers.leaks = leaks.to_vec();
        self.run_on(|layers| &mut layers.masks, rows, work)
    }

    /// A row for each update; where the masks matter too, one for each layer that has none.
    fn run_on_updates(&mut self, updates: &[Update], second: &[Span], work: Work) -> Result<()> {
        let mut rows: Vec<Parameter> = updates.iter().map(|update| self.update_row(update)).collect();
        rows.iter_mut().zip(second).for_each(|(row, second)| row.second = self.floats(*second));
        if work.which.is_some() {
            let updated = |layer: &usize| updates.iter().any(|u| u.masked.is_some_and(|(w, _)| w.layer == *layer));
            rows.extend((0..self.layers.all.len()).filter(|layer| !updated(layer)).map(|l| self.masked_row(l)));
        }
        self.run_on(|layers| &mut layers.updates, rows, work)
    }

    fn masked_row(&self, layer: usize) -> Parameter {
        let Layer { weight, mask, random, effective, .. } = self.layers.all[layer];
        Parameter {
            value: self.floats(weight.value),
            mask: Bytes(mask.0),
            random: Bytes(random.0),
            effective,
            len: weight.len() as u32,
            in_channels: weight.in_channels as u32,
            layer: layer as u32,
            ..Parameter::default()
        }
    }

    fn update_row(&self, update: &Update) -> Parameter {
        let row = match update.masked {
            Some((weight, _)) => self.masked_row(weight.layer),
            None => Parameter { len: update.value.len as u32, ..Parameter::default() },
        };
        let leak = match update.masked {
            Some((_, Masking::Leaky(leak))) => self.floats(leak),
            _ => Floats::default(),
        };
        Parameter {
            value: self.floats(update.value),
            grad: self.floats(update.grad),
            velocity: self.floats(update.velocity),
            leak,
            masking: masking_number(update.masked),
            weight_decay: update.weight_decay,
            ..row
        }
    }

    /// Launches the kernel over these rows; nothing but the numbers of the step is copied where they are those of before.
    fn run_on(&mut self, table: fn(&mut Layers) -> &mut Table, rows: Vec<Parameter>, work: Work) -> Result<()> {
        let table = table(&mut self.layers);
        let moved = table.set(self.driver.as_mut(), rows)?;
        let (blocks, parameters, owner) = (table.blocks, Parameters(table.memory.at), table.owner());
        if moved {
            self.forget_replays();
        }
        self.enter(work)?;
        let keep = Keeps(self.layers.keep_memory.at);
        let step = WeightStepPointer(self.layers.step_memory.at);
        let rule = work.rule.map_or(0, |rule| rule.number());
        let (draw, which) = (work.draw.is_some().into(), which_number(work.which));
        let bf16 = (self.precision == Precision::Bf16).into();
        kernels::update_and_mask(self.driver(), blocks, parameters, owner, keep, step, rule, draw, which, bf16)
    }

    /// Writes down what changes from step to step: what a captured launch finds there when it is replayed.
    fn enter(&mut self, Work { rule, draw, .. }: Work) -> Result<()> {
        let mut step = WeightStep::default();
        if let Some(rule) = rule {
            rule.enter(&mut step);
        }
        if let Some(draw) = draw {
            (step.seed, step.step, step.domain) = (draw.seed, draw.step, draw.domain as u32);
            self.set_keep(keep_of(draw, self.layers.all.len()))?;
        }
        if self.layers.step_memory.bytes == 0 {
            self.layers.step_memory.reserve(self.driver.as_mut(), size_of::<WeightStep>())?;
        }
        self.driver.write(self.layers.step_memory.at, bytemuck::bytes_of(&step))
    }

    pub(super) fn average_in(
        &mut self,
        value: Span,
        masked: Option<(Weight, Effective, Option<Span>)>,
        average: Span,
        n: u32,
    ) -> Result<()> {
        let octets = Each(value.len.div_ceil(8) as u32);
        let (value, len, mean) = (self.floats(value), value.len as u32, self.floats(average));
        let leak = masked.and_then(|(_, _, leak)| leak).map_or(Floats::default(), |leak| self.floats(leak));
        let (mask, random, scale) = masked.map_or((Bytes::default(), Bytes::default(), 1.0), |(weight, _, _)| {
            let layer = &self.layers.all[weight.layer];
            (Bytes(layer.mask.0), Bytes(layer.random.0), layer.scale)
        });
        let which = which_number(masked.map(|(_, which, _)| which));
        kernels::average(self.driver(), octets, value, mask, random, leak, mean, len, scale, which, n)
    }
}

#[cfg(all(test, simt))]
mod tests {
    use super::*;
    use crate::backend::cuda::driver::simt::{SCHEDULES, Simt};
    use crate::backend::{Backend, Growth, PruneAndGrow};
    use crate::bitmask::BitMask;
    use crate::rng::{Domain, Stream};
    use half::bf16;

    /// Dense, empty, awkward and aligned input channels; the last has two blocks.
    const DIMS: [[usize; 4]; 6] =
        [[3, 1, 1, 1], [5, 3, 3, 3], [2, 8, 3, 3], [7, 20, 1, 1], [4, 16, 1, 3], [9, 40, 3, 3]];

    const SGD: Rule = Rule::Sgd(Sgd { lr: 0.1, momentum: 0.9, nesterov: true });

    struct Network {
        on: Cuda,
        weights: Vec<Weight>,
        updates: Vec<Update>,
    }

    fn numbers(len: usize, seed: u64) -> Vec<f32> {
        let mut stream = Stream::new(seed, Domain::Bootstrap, 0, 0);
        (0..len).map(|_| stream.normal() as f32).collect()
    }

    /// Weights of these shapes under masks of density 1/2, and a bias.
    fn network(schedule: usize, precision: Precision) -> Network {
        let mut on = Cuda::new(Box::new(Simt::new(SCHEDULES[schedule])), precision).unwrap();
        let mut end = 0;
        let mut place = |len: usize| {
            let span = Span { at: end, len };
            end = (end + len).next_multiple_of(16);
            span
        };
        let mut weights = vec![];
        let mut updates = vec![];
        for (layer, [out_channels, in_channels, rows, columns]) in DIMS.into_iter().enumerate() {
            let len = out_channels * in_channels * rows * columns;
            let (value, grad, velocity) = (place(len), place(len), place(len));
            let weight = Weight { layer, value, grad, out_channels, in_channels, kernel: [rows, columns] };
            weights.push(weight);
            let masked = Some((weight, Masking::Frozen));
            updates.push(Update { value, grad, velocity, masked, weight_decay: 1e-2 });
        }
        let (value, grad, velocity) = (place(11), place(11), place(11));
        updates.insert(2, Update { value, grad, velocity, masked: None, weight_decay: 0.0 });
        on.reserve(end).unwrap();
        on.write(Span { at: 0, len: end }, &numbers(end, 1)).unwrap();
        on.register(&weights).unwrap();
        for (layer, weight) in weights.iter().enumerate() {
            let score = numbers(weight.len(), 2 + layer as u64);
            on.write_mask(layer, &BitMask::from_fn(weight.len(), |i| score[i] < 0.0)).unwrap();
        }
        Network { on, weights, updates }
    }

    fn draw(keep: &[f64], step: u32) -> Draw<'_> {
        Draw { seed: 5, domain: Domain::RandomMask, step, keep, inverted: true }
    }

    /// The effective weights in memory: (O, kH kW, I with padding), as bits.
    fn effective(on: &mut Cuda, layer: usize) -> Vec<u32> {
        let Layer { weight, effective, .. } = on.layers.all[layer];
        let len = weight.out_channels * weight.kernel[0] * weight.kernel[1] * weight.in_channels.next_multiple_of(8);
        match on.precision {
            Precision::F32 => {
                let mut words = vec![0u32; len];
                on.driver.read(effective, bytemuck::cast_slice_mut(&mut words)).unwrap();
                words
            }
            Precision::Bf16 => {
                let mut halves = vec![0u16; len];
                on.driver.read(effective, bytemuck::cast_slice_mut(&mut halves)).unwrap();
                halves.into_iter().map(u32::from).collect()
            }
        }
    }

    /// Everything that a step leaves.
    fn all_state(Network { on, weights, updates }: &mut Network) -> Vec<u32> {
        let mut state = vec![];
        for update in updates {
            for span in [update.value, update.velocity] {
                state.extend(on.read(span).unwrap().into_iter().map(f32::to_bits));
            }
        }
        for layer in 0..weights.len() {
            state.extend_from_slice(on.read_random_mask(layer).unwrap().words());
            state.extend(effective(on, layer));
        }
        state
    }

    #[test]
    fn effective_weights_are_padded_rows_of_scaled_and_rounded_products() {
        let keep = [0.5, 0.25, 1.0, 0.7, 0.9, 0.3];
        for precision in [Precision::F32, Precision::Bf16] {
            for which in [Effective::Deterministic, Effective::Random, Effective::Leaky] {
                let Network { mut on, weights, updates } = network(0, precision);
                on.random_mask(&draw(&keep, 3)).unwrap();
                // Any values will do as leaks.
                let masked = updates.iter().filter(|u| u.masked.is_some());
                let leaks: Vec<Span> = masked.map(|u| u.velocity).collect();
                on.effective_weights(which, if which == Effective::Leaky { &leaks } else { &[] }).unwrap();
                for (layer, weight) in weights.iter().enumerate() {
                    let (value, leak) = (on.read(weight.value).unwrap(), on.read(leaks[layer]).unwrap());
                    let (m, z) = (on.read_mask(layer).unwrap(), on.read_random_mask(layer).unwrap());
                    let scale = (1.0 / keep[layer]) as f32;
                    let inputs = weight.in_channels;
                    let element = |i: usize| match which {
                        _ if !m.get(i) => 0.0,
                        Effective::Deterministic => value[i],
                        _ if z.get(i) => value[i] * scale,
                        Effective::Random => 0.0,
                        Effective::Leaky => leak[i],
                    };
                    let padded = inputs.next_multiple_of(8);
                    let expected: Vec<u32> = (0..weight.len() / inputs * padded)
                        .map(|at| if at % padded < inputs { element(at / padded * inputs + at % padded) } else { 0.0 })
                        .map(|x| match precision {
                            Precision::F32 => x.to_bits(),
                            Precision::Bf16 => bf16::from_f32(x).to_bits().into(),
                        })
                        .collect();
                    assert_eq!(effective(&mut on, layer), expected, "layer {layer}, {which:?} in {precision}");
                }
            }
        }
    }

    #[test]
    fn the_fused_step_leaves_what_its_parts_leave() {
        let same = [0.7; 6];
        for precision in [Precision::F32, Precision::Bf16] {
            for (schedule, (next, left_out)) in
                [(same, 0), (same, 2), ([0.4; 6], 0), ([1.0; 6], 1)].into_iter().enumerate()
            {
                let mut fused = network(schedule, precision);
                let mut parts = network(schedule, precision);
                for Network { on, updates, .. } in [&mut fused, &mut parts] {
                    on.random_mask(&draw(&same, 3)).unwrap();
                    updates.truncate(updates.len() - left_out);
                }
                let Network { on, updates, .. } = &mut fused;
                on.update_and_mask(SGD, updates, &[], Some(&draw(&next, 4)), Effective::Random).unwrap();
                let Network { on, updates, .. } = &mut parts;
                let Rule::Sgd(sgd) = SGD else { unreachable!() };
                on.sgd(sgd, updates).unwrap();
                on.random_mask(&draw(&next, 4)).unwrap();
                on.effective_weights(Effective::Random, &[]).unwrap();
                assert_eq!(all_state(&mut fused), all_state(&mut parts), "{next:?}, {left_out} left out, {precision}");
            }
        }
    }

    /// Kernels that read whole words of a mask rely on it.
    #[test]
    fn bits_past_the_length_stay_zero_in_device_memory() {
        let Network { mut on, weights, updates } = network(0, Precision::F32);
        on.random_mask(&draw(&[1.0; 6], 4)).unwrap();
        let velocity =
            |layer| updates.iter().find(|u| u.masked.is_some_and(|(w, _)| w.layer == layer)).unwrap().velocity;
        let job = |weight: &Weight| PruneAndGrow {
            weight: *weight,
            drop: 0,
            grow: weight.len(),
            growth: Growth::Gradient,
            velocity: velocity(weight.layer),
            dense_momentum: false,
            leak: None,
        };
        on.prune_and_grow(&weights.iter().map(job).collect::<Vec<_>>()).unwrap();
        for (layer, weight) in weights.iter().enumerate() {
            for mask in [on.layers.all[layer].mask, on.layers.all[layer].random] {
                let mut words = vec![0u32; weight.len().div_ceil(128) * 4];
                on.driver.read(mask.0, bytemuck::cast_slice_mut(&mut words)).unwrap();
                let ones: usize = words.iter().map(|word| word.count_ones() as usize).sum();
                assert_eq!(ones, weight.len(), "layer {layer}");
            }
        }
    }

    #[test]
    fn what_was_captured_is_captured_anew_when_a_table_has_moved() {
        let Network { mut on, .. } = network(0, Precision::F32);
        for captured in [false, false, true] {
            assert_eq!(on.begin_replay(7).unwrap(), captured);
            on.end_replay(true).unwrap();
        }
        on.random_mask(&draw(&[0.5; 6], 4)).unwrap();
        assert!(!on.begin_replay(7).unwrap());
        on.end_replay(true).unwrap();
    }

    #[test]
    fn a_step_of_the_same_parameters_writes_no_table() {
        let Network { mut on, updates, .. } = network(0, Precision::F32);
        let keep = [0.7; 6];
        on.update_and_mask(SGD, &updates, &[], Some(&draw(&keep, 4)), Effective::Random).unwrap();
        // Rows that only the device has: writing the table again would put the right ones back.
        let table = on.layers.updates.memory.at;
        let mut row = vec![0u8; size_of::<Parameter>()];
        on.driver.read(table, &mut row).unwrap();
        let changed: Vec<u8> = row.iter().map(|byte| byte ^ 1).collect();
        on.driver.write(table, &changed).unwrap();
        let rows = on.layers.updates.rows.clone();
        let mut again = std::mem::take(&mut on.layers.updates);
        again.set(on.driver.as_mut(), rows.clone()).unwrap();
        on.driver.read(table, &mut row).unwrap();
        assert_eq!(row, changed);
        let fewer = rows[1..].to_vec();
        again.set(on.driver.as_mut(), fewer).unwrap();
        on.driver.read(table, &mut row).unwrap();
        assert_eq!(row, bytemuck::bytes_of(&again.rows[0]));
    }
}

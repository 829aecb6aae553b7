//! Exact selections for mask updates: a radix selection over all layers at once, its launches as many for fifty layers as for one.

use super::Cuda;
use super::driver::Address;
use super::kernels::{self, Bytes, Choices, Doubles, Floats, Job, Jobs, Segment, Segments, Words};
use super::weights::BLOCK;
use crate::Result;
use crate::backend::{Growth, PruneAndGrow, Span, Weight};

/// `enum Mode` of select.cu.
#[derive(Clone, Copy)]
enum Mode {
    Drop = 0,
    Grow = 1,
    Keep = 2,
}

/// Threads, and octets, of a block.
const THREADS: usize = 256;

/// Digits of a key, and the bins that one falls into.
const DIGITS: u32 = 4;
const BINS: usize = 256;

/// What selections work with: all of it in scratch memory.
struct Selection {
    segments: u32,
    blocks: u32,
    jobs_at: Jobs,
    segments_at: Segments,
    owner_at: Words,
    choices_at: Choices,
    bins_at: Words,
    ties_at: Words,
    next_at: Bytes,
}

impl Cuda {
    pub(super) fn update_masks(&mut self, jobs: &[PruneAndGrow]) -> Result<()> {
        // Where all layers are dense none takes part.
        if jobs.is_empty() {
            return Ok(());
        }
        let layers = jobs.iter().enumerate().map(|(segment, job)| {
            let leak = job.leak.map_or(Floats::default(), |leak| self.floats(leak));
            let row = Job { leak, ..self.job(job.weight, job.velocity, segment) };
            let row = Job { dense_momentum: job.dense_momentum.into(), ..row };
            match job.growth {
                Growth::Gradient => Job { score: self.floats(job.weight.grad), ..row },
                Growth::Momentum => Job { score: self.floats(job.velocity), ..row },
                Growth::Random { seed, step } => Job { seed, step, ..row },
            }
        });
        let counts = jobs.iter().map(|job| [job.drop, job.grow]);
        let selection = self.prepare(layers.collect(), counts.collect())?;
        self.select(&selection, Mode::Drop)?;
        self.select(&selection, Mode::Grow)
    }

    pub(super) fn keep_largest(&mut self, weights: &[(Weight, Span)], keep: usize) -> Result<()> {
        let layers = weights.iter().map(|&(weight, velocity)| self.job(weight, velocity, 0)).collect();
        let selection = self.prepare(layers, vec![[keep, 0]])?;
        self.select(&selection, Mode::Keep)
    }

    fn job(&self, weight: Weight, velocity: Span, segment: usize) -> Job {
        let layer = &self.layers.all[weight.layer];
        Job {
            value: self.floats(weight.value),
            velocity: self.floats(velocity),
            mask: Bytes(layer.mask.0),
            random: Bytes(layer.random.0),
            layer: weight.layer as u32,
            len: weight.len() as u32,
            segment: segment as u32,
            ..Job::default()
        }
    }

    /// Writes down what a selection needs; `counts` has one pair a segment, and jobs are in the order of segments.
    fn prepare(&mut self, mut jobs: Vec<Job>, counts: Vec<[usize; 2]>) -> Result<Selection> {
        let counts = counts.into_iter().map(|pair| pair.map(|count| u32::try_from(count).unwrap_or(u32::MAX)));
        let mut segments: Vec<Segment> = counts.map(|counts| Segment { counts, ..Segment::default() }).collect();
        let mut owner: Vec<u32> = vec![];
        for (number, job) in jobs.iter_mut().enumerate() {
            let blocks = (job.len as usize).div_ceil(BLOCK);
            let segment = &mut segments[job.segment as usize];
            job.first_block = owner.len() as u32;
            if segment.blocks == 0 {
                segment.first_block = job.first_block;
            }
            segment.blocks += blocks as u32;
            owner.resize(owner.len() + blocks, number as u32);
        }
        // Choices are written before they are read; bins have to be 0.
        let choices = vec![0u64; segments.len()];
        let bins = vec![0u32; BINS * segments.len()];
        let tables: [&[u8]; 5] = [
            bytemuck::cast_slice(&jobs),
            bytemuck::cast_slice(&segments),
            bytemuck::cast_slice(&choices),
            bytemuck::cast_slice(&bins),
            bytemuck::cast_slice(&owner),
        ];
        let tables_bytes: usize = tables.iter().map(|table| table.len()).sum();
        let at = self.scratch(tables_bytes + owner.len() * (size_of::<u32>() + THREADS))?;
        self.driver.write(at, &tables.concat())?;
        let place = |number: usize| -> Address { at.plus(tables[..number].iter().map(|table| table.len()).sum()) };
        let ties = place(tables.len());
        Ok(Selection {
            segments: segments.len() as u32,
            blocks: owner.len() as u32,
            jobs_at: Jobs(place(0)),
            segments_at: Segments(place(1)),
            choices_at: Choices(place(2)),
            bins_at: Words(place(3)),
            owner_at: Words(place(4)),
            ties_at: Words(ties),
            next_at: Bytes(ties.plus(owner.len() * size_of::<u32>())),
        })
    }

    fn select(&mut self, on: &Selection, mode: Mode) -> Result<()> {
        let (&Selection { segments, blocks, jobs_at: jobs, segments_at, owner_at: owner, .. }, mode) =
            (on, mode as u32);
        let &Selection { choices_at: choices, bins_at: bins, ties_at: ties, next_at: next, .. } = on;
        for pass in 0..DIGITS {
            kernels::select_histogram(self.driver(), blocks, jobs, owner, choices, next, bins, mode, pass)?;
            kernels::select_digit(self.driver(), segments, segments_at, choices, bins, mode, pass)?;
        }
        kernels::select_count_ties(self.driver(), blocks, jobs, owner, choices, next, ties, mode)?;
        kernels::select_rank_blocks(self.driver(), segments, segments_at, ties)?;
        kernels::select_apply(self.driver(), blocks, jobs, owner, choices, next, ties, mode)
    }

    pub(super) fn mean_inside(&mut self, weight: Weight, of: Span) -> Result<f64> {
        let blocks = of.len.div_ceil(BLOCK);
        let mut sums = vec![[0.0f64; 2]; blocks];
        let at = self.scratch(size_of_val(sums.as_slice()))?;
        let (mask, values) = (Bytes(self.layers.all[weight.layer].mask.0), self.floats(of));
        kernels::mean_magnitude(self.driver(), blocks as u32, mask, values, of.len as u32, Doubles(at))?;
        self.driver.read(at, bytemuck::cast_slice_mut(&mut sums))?;
        let [sum, count] = sums.iter().fold([0.0; 2], |[sum, count], [s, c]| [sum + s, count + c]);
        Ok(sum / count.max(1.0))
    }
}

#[cfg(all(test, simt))]
mod tests {
    use super::*;
    use crate::backend::cuda::driver::simt::{SCHEDULES, Simt};
    use crate::backend::{Backend, Precision};

    fn weight(layer: usize, at: usize, len: usize) -> Weight {
        let (value, grad) = (Span { at, len }, Span { at: at + len, len });
        Weight { layer, value, grad, out_channels: len, in_channels: 1, kernel: [1, 1] }
    }

    // 300 blocks: some threads of the block that ranks them take two. All magnitudes are equal, so the order is that of the indices.
    #[test]
    fn ties_are_ranked_over_more_blocks_than_a_block_has_threads() {
        let (len, drop, grow) = (300 * BLOCK, 290 * BLOCK + 77, 270 * BLOCK + 5);
        for schedule in [SCHEDULES[1], SCHEDULES[2]] {
            let mut on = Cuda::new(Box::new(Simt::new(schedule)), Precision::F32).unwrap();
            let weight = weight(0, 0, len);
            let velocity = Span { at: 2 * len, len };
            on.reserve(3 * len).unwrap();
            on.write(Span { at: 0, len: 3 * len }, &vec![1.0; 3 * len]).unwrap();
            on.register(&[weight]).unwrap();
            let growth = Growth::Gradient;
            let job = PruneAndGrow { weight, drop, grow, growth, velocity, dense_momentum: false, leak: None };
            on.prune_and_grow(&[job]).unwrap();
            let mask = on.read_mask(0).unwrap();
            assert!((0..len).all(|i| mask.get(i) == (i < grow || i >= drop)));
            // What was dropped and grown again keeps its value.
            let value = on.read(weight.value).unwrap();
            assert!((0..len).all(|i| (value[i] == 1.0) == mask.get(i)));
        }
    }
}

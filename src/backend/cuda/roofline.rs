//! What the products of a training step (convolutions and linear layers) cost at least: an estimate, from sizes alone.
//!
//! A launch takes no less than its operations over the device's rate, nor than its bytes over the device's bandwidth, each byte
//! moved once (Williams, Waterman and Patterson, "Roofline", 2009).

use bytemuck::Pod;

use super::driver::nvrtc::report::Usage;
use super::driver::tally::Launch;
use super::kernels::{Filter, Tensor};

/// A GPU as the estimate sees it, with the rates that programs were measured to reach on one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rates {
    /// Operations a second of bf16 tensor cores; a multiply-add is two.
    pub(crate) bf16: f64,
    /// Operations a second in f32.
    pub(crate) f32: f64,
    /// Bytes a second, of reading and writing together.
    pub(crate) bandwidth: f64,
}

/// An H100 SXM.
pub(crate) const H100: Rates = Rates { bf16: 798e12, f32: 67e12, bandwidth: 3.0e12 };

/// An H200: the same chip with faster memory.
pub(crate) const H200: Rates = Rates { bf16: 790e12, f32: 67e12, bandwidth: 4.3e12 };

/// What a multiprocessor of either has ("CUDA C++ Programming Guide", compute capability 9.0).
const REGISTERS: u32 = 65_536;
const WARPS: u32 = 64;
const BLOCKS: u32 = 32;
const SHARED: u32 = 228 << 10;
/// Shared memory that each block takes besides its own.
const RESERVED: u32 = 1 << 10;
/// Multiprocessors of the SXM boards.
pub(crate) const MULTIPROCESSORS: u32 = 132;

/// Blocks that a multiprocessor holds at once.
pub(crate) fn resident_blocks(usage: &Usage, threads: u32) -> u32 {
    let warps = threads.div_ceil(32).max(1);
    // Registers are given to a warp in units of 256, and each of the four quarters has its own.
    let registers = (usage.registers * 32).next_multiple_of(256).max(256);
    let by_registers = 4 * (REGISTERS / 4 / registers) / warps;
    let by_shared = SHARED / (usage.shared.next_multiple_of(128) + RESERVED);
    by_registers.min(by_shared).min(WARPS / warps).min(BLOCKS)
}

/// The share of a multiprocessor's warps that are resident.
pub(crate) fn occupancy(usage: &Usage, threads: u32) -> f64 {
    f64::from(resident_blocks(usage, threads) * threads.div_ceil(32)) / f64::from(WARPS)
}

/// One product of a step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Product {
    /// The kernel.
    pub(crate) kernel: &'static str,
    /// Threads of a block.
    pub(crate) threads: u32,
    /// Blocks of the grid.
    pub(crate) blocks: u32,
    /// Input and output, each (n, c, h, w).
    pub(crate) shapes: [[u32; 4]; 2],
    /// Rows and columns of the convolution's kernel, and its stride.
    pub(crate) taps: [u32; 3],
    /// Launches of it in a step.
    pub(crate) launches: u32,
    /// Operations of one launch: 2 O I kH kW for each output pixel, also where a tap lies outside the image.
    pub(crate) operations: f64,
    /// Bytes of one launch: operands and result once, and twice a result that is added to.
    pub(crate) bytes: f64,
}

impl Product {
    /// Seconds that a launch takes at least.
    pub(crate) fn seconds(&self, rates: &Rates) -> f64 {
        let rate = if self.kernel.contains("_bf16") { rates.bf16 } else { rates.f32 };
        (self.operations / rate).max(self.bytes / rates.bandwidth)
    }

    /// True when bandwidth is its limit.
    pub(crate) fn bound_by_memory(&self, rates: &Rates) -> bool {
        self.seconds(rates) == self.bytes / rates.bandwidth
    }
}

/// The products among launches, equal ones together, in the order of their first launch.
pub(crate) fn products(launches: &[Launch]) -> Vec<Product> {
    let mut all: Vec<Product> = Vec::new();
    for product in launches.iter().filter_map(product) {
        match all.iter_mut().find(|p| Product { launches: 1, ..(**p).clone() } == product) {
            Some(same) => same.launches += 1,
            None => all.push(product),
        }
    }
    all
}

fn product(launch: &Launch) -> Option<Product> {
    let kernel = launch.kernel;
    let filter: Filter = argument(launch, "Filter filter")?;
    let weight_bytes = if kernel.contains("_bf16") { 2.0 } else { 4.0 };
    let tensor = |name: &str| argument::<Tensor>(launch, name);
    let add = argument::<u32>(launch, "u32 add").is_some_and(|add| add != 0);
    let weight_grad = kernel.contains("grad_weight");
    let (input, output) = match kernel {
        _ if kernel.contains("grad_input") => (tensor("Tensor dx")?, tensor("Tensor dy")?),
        _ if weight_grad => (tensor("Tensor x")?, tensor("Tensor dy")?),
        _ => (tensor("Tensor x")?, tensor("Tensor y")?),
    };
    let [taps, inputs, outputs] = [filter.rows * filter.columns, input.c, output.c].map(f64::from);
    let weights = taps * f64::from(8 * input.groups) * outputs;
    let weights = match weight_grad {
        // One part for each split, in f32.
        true => 4.0 * weights * f64::from(launch.blocks[2]),
        false => weight_bytes * weights,
    };
    let again = if add { bytes(&input) } else { 0.0 };
    Some(Product {
        kernel,
        threads: launch.threads,
        blocks: launch.blocks.iter().product(),
        shapes: [&input, &output].map(|t| [t.n, t.c, t.h, t.w]),
        taps: [filter.rows, filter.columns, filter.stride],
        launches: 1,
        operations: 2.0 * f64::from(output.pixels()) * outputs * inputs * taps,
        bytes: bytes(&input) + bytes(&output) + weights + again,
    })
}

/// Bytes of a tensor, padding included.
fn bytes(tensor: &Tensor) -> f64 {
    f64::from(tensor.vectors()) * if tensor.bf16 != 0 { 16.0 } else { 32.0 }
}

/// The argument of the parameter with this type and name.
fn argument<T: Pod>(launch: &Launch, parameter: &str) -> Option<T> {
    let at = launch.parameters.iter().position(|p| *p == parameter)?;
    bytemuck::try_pod_read_unaligned(launch.arguments.get(at)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::Cuda;
    use crate::backend::cuda::driver::tally::{Notes, Tally};
    use crate::backend::{Backend, Conv, Extent, Map, Precision, Sink, Span, StepState, Weight};
    use crate::shape::Shape;

    fn usage(registers: u32, shared: u32) -> Usage {
        Usage { registers, shared, ..Usage::default() }
    }

    #[test]
    fn blocks_are_resident_as_registers_shared_memory_and_warps_allow() {
        // (registers, shared memory, threads, blocks): by hand from the limits of compute capability 9.0.
        for (registers, shared, threads, blocks) in [
            (32, 0, 256, 8),        // 64 warps
            (128, 0, 256, 2),       // 65,536 registers
            (129, 0, 256, 1),       // registers come in eights for a thread
            (96, 0, 128, 5),        // 5 warps a quarter
            (168, 0, 384, 1),       // 12 of 12 warps
            (40, 48 << 10, 128, 4), // 49 KB each, with the reserved one
            (16, 0, 32, 32),        // no more than 32 blocks
            (255, 227 << 10, 128, 1),
        ] {
            assert_eq!(resident_blocks(&usage(registers, shared), threads), blocks, "{registers} {shared} {threads}");
        }
        assert_eq!(occupancy(&usage(128, 0), 256), 0.25);
    }

    #[test]
    fn a_convolution_costs_its_operations_and_its_operands_once() {
        // 64 channels to 128 on 32x32 at batch 16, 3x3, stride 2.
        let notes = Notes::default();
        let mut cuda = Cuda::new(Box::new(Tally::new(notes.clone())), Precision::Bf16).unwrap();
        let map = |at, c, side| Map {
            at,
            shape: Shape::images(16, c, side, side),
            halo: 0,
            precision: Precision::Bf16,
            inference: false,
        };
        let (x, y, conv) = (map(0, 64, 32), map(1 << 20, 128, 16), Conv { stride: 2, padding: 1 });
        let weights = 128 * 9 * 64;
        let [value, grad] = [1 << 21, 1 << 22].map(|at| Span { at, len: weights });
        let w = Weight { layer: 0, value, grad, out_channels: 128, in_channels: 64, kernel: [3, 3] };
        cuda.reserve(1 << 23).unwrap();
        cuda.register(&[w]).unwrap();
        cuda.begin_step(StepState { seed: 0, step: 0, statistics_momentum: 0.1, extent: Extent::Dense }).unwrap();
        notes.take();
        cuda.conv2d(x, w, conv, y).unwrap();
        cuda.conv2d(x, w, conv, y).unwrap();
        cuda.conv2d_grad_input(y, w, conv, Sink { to: x, add: true }).unwrap();
        cuda.conv2d_grad_weight(x, y, w, conv, false).unwrap();

        let products = products(&notes.take());
        let [forward, grad_input, grad_weight] = &products[..] else { panic!("{products:?}") };
        let operations = 2.0 * (16.0 * 16.0 * 16.0) * 128.0 * 64.0 * 9.0;
        assert!(products.iter().all(|product| product.operations == operations));
        assert_eq!(products.iter().map(|product| product.launches).collect::<Vec<_>>(), [2, 1, 1]);
        let (input, output, weights) = (2.0 * 16.0 * 64.0 * 1024.0, 2.0 * 16.0 * 128.0 * 256.0, weights as f64);
        assert_eq!(forward.bytes, input + output + 2.0 * weights);
        assert_eq!(grad_input.bytes, 2.0 * input + output + 2.0 * weights);
        let parts = (grad_weight.bytes - input - output) / (4.0 * weights);
        assert!(parts >= 1.0 && parts.fract() == 0.0, "{parts} parts");
        assert_eq!(forward.seconds(&H200), (operations / 790e12).max(forward.bytes / 4.3e12));
    }
}

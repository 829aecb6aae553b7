//! The launch table: every kernel with its file, threads and parameters, and a typed function that launches it.
//!
//! A test compares each row with the declaration in the kernel's source, type by type and name by name.

use bytemuck::{Pod, Zeroable};

use super::driver::{Address, Driver, Kernel};
use crate::Result;

/// `Tensor` of tensor.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub(super) struct Tensor {
    pub(super) at: Address,
    pub(super) n: u32,
    pub(super) h: u32,
    pub(super) w: u32,
    pub(super) c: u32,
    /// ceil(c / 8)
    pub(super) groups: u32,
    pub(super) bf16: u32,
}

impl Tensor {
    /// Pixels of all images.
    pub(super) fn pixels(&self) -> u32 {
        self.n * self.h * self.w
    }

    /// Pieces of 8 channels.
    pub(super) fn vectors(&self) -> u32 {
        self.pixels() * self.groups
    }
}

/// `Filter` of conv.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub(super) struct Filter {
    pub(super) rows: u32,
    pub(super) columns: u32,
    pub(super) stride: u32,
    pub(super) padding: u32,
}

/// `Divisor` of conv.cu: x / by is the high word of x multiplier, shifted, for x below 2^31.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub(super) struct Divisor {
    pub(super) by: u32,
    pub(super) multiplier: u32,
    pub(super) shift: u32,
}

impl Divisor {
    /// Granlund & Montgomery 1994: with 2^s >= by the rounded-up multiplier 2^(31 + s) / by errs by less than one part in 2^31.
    pub(super) fn new(by: u32) -> Self {
        let bits = by.next_power_of_two().trailing_zeros();
        let multiplier = (1u64 << (31 + bits)).div_ceil(u64::from(by)) as u32;
        Divisor { by, multiplier, shift: bits.saturating_sub(1) }
    }
}

/// `Parameter` of weights.cu: null is what it lacks or a launch leaves alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(super) struct Parameter {
    pub(super) value: Floats,
    pub(super) grad: Floats,
    pub(super) velocity: Floats,
    pub(super) second: Floats,
    pub(super) leak: Floats,
    pub(super) mask: Bytes,
    pub(super) random: Bytes,
    pub(super) effective: Address,
    pub(super) len: u32,
    pub(super) first_block: u32,
    pub(super) in_channels: u32,
    pub(super) layer: u32,
    pub(super) masking: u32,
    pub(super) weight_decay: f32,
}

/// `Keep` of weights.cu: a layer's threshold of 16-bit draws, and the factor of what they keep.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub(super) struct Keep {
    pub(super) threshold: u32,
    pub(super) scale: f32,
}

/// `WeightStep` of weights.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(super) struct WeightStep {
    pub(super) seed: u64,
    pub(super) step: u32,
    pub(super) domain: u32,
    pub(super) lr: f32,
    pub(super) momentum: f32,
    pub(super) beta2: f32,
    pub(super) epsilon: f32,
    pub(super) unbias: [f32; 2],
}

/// `Job` of select.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(super) struct Job {
    pub(super) value: Floats,
    pub(super) score: Floats,
    pub(super) velocity: Floats,
    pub(super) leak: Floats,
    pub(super) mask: Bytes,
    pub(super) random: Bytes,
    pub(super) seed: u64,
    pub(super) step: u32,
    pub(super) layer: u32,
    pub(super) len: u32,
    pub(super) first_block: u32,
    pub(super) segment: u32,
    pub(super) dense_momentum: u32,
}

/// `Segment` of select.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(super) struct Segment {
    pub(super) first_block: u32,
    pub(super) blocks: u32,
    pub(super) counts: [u32; 2],
}

/// Declares a pointer parameter's type.
macro_rules! pointers {
    ($($name:ident $of:literal;)*) => {$(
        #[doc = concat!("`", $of, "*` of a kernel.")]
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
        pub(super) struct $name(pub(super) Address);
    )*
        /// Each pointer type and what C++ calls its target.
        #[cfg(test)]
        const POINTERS: &[(&str, &str)] = &[$((stringify!($name), $of)),*];
    };
}

pointers! {
    Floats "float";
    Words "u32";
    Bytes "u8";
    Longs "u64";
    Doubles "double";
    Anything "void";
    StepPointer "Step";
    Parameters "Parameter";
    Keeps "Keep";
    WeightStepPointer "WeightStep";
    Jobs "Job";
    Segments "Segment";
    Choices "Choice";
}

macro_rules! kernels {
    ($($file:literal { $($(#[$attribute:meta])* fn $name:ident[$threads:literal]($($parameter:ident: $type:ident),* $(,)?);)* })*) => {
        #[allow(non_upper_case_globals)]
        mod table {
            use super::Kernel;
            $($(pub(super) static $name: Kernel = Kernel {
                name: stringify!($name),
                file: $file,
                threads: $threads,
                parameters: &[$(concat!(stringify!($type), " ", stringify!($parameter))),*],
            };)*)*
        }

        /// Every kernel.
        #[cfg(test)]
        pub(crate) static KERNELS: &[&Kernel] = &[$($(&table::$name),*),*];

        $($(
            #[doc = concat!("Launches `", stringify!($name), "` of ", $file, " on a grid of `blocks`.")]
            #[allow(clippy::too_many_arguments)]
            $(#[$attribute])*
            pub(super) fn $name(on: &mut dyn Driver, blocks: impl Blocks, $($parameter: $type),*) -> Result<()> {
                let blocks = blocks.grid(table::$name.threads);
                if blocks.contains(&0) {
                    return Ok(());
                }
                on.launch(&table::$name, blocks, &[$(bytemuck::bytes_of(&$parameter)),*])
            }
        )*)*
    };
}

/// A way to say how many blocks a launch has.
pub(super) trait Blocks {
    /// The grid for blocks of so many threads.
    fn grid(self, threads: u32) -> [u32; 3];
}

/// One thread for each of so many pieces of work.
pub(super) struct Each(pub(super) u32);

impl Blocks for Each {
    fn grid(self, threads: u32) -> [u32; 3] {
        [self.0.div_ceil(threads), 1, 1]
    }
}

impl Blocks for [u32; 3] {
    fn grid(self, _: u32) -> [u32; 3] {
        self
    }
}

impl Blocks for u32 {
    fn grid(self, _: u32) -> [u32; 3] {
        [self, 1, 1]
    }
}

kernels! {
    "pointwise.cu" {
        fn relu[256](x: Tensor, y: Tensor);
        fn relu_grad[256](y: Tensor, dy: Tensor, dx: Tensor, add: u32);
        fn add[256](a: Tensor, b: Tensor, y: Tensor);
        fn copy[256](x: Tensor, y: Tensor, add: u32);
        fn add_bias[256](x: Tensor, bias: Floats, y: Tensor);
    }
    "conv.cu" {
        fn conv2d_f32[128](x: Tensor, w: Anything, y: Tensor, filter: Filter);
        fn conv2d_bf16_64[128](x: Tensor, w: Anything, y: Tensor, filter: Filter);
        fn conv2d_bf16_128[256](x: Tensor, w: Anything, y: Tensor, filter: Filter);
        fn conv2d_grad_input_f32[128](dy: Tensor, w: Anything, dx: Tensor, filter: Filter, add: u32);
        fn conv2d_grad_input_bf16_64[128](dy: Tensor, w: Anything, dx: Tensor, filter: Filter, add: u32);
        fn conv2d_grad_input_bf16_128[256](dy: Tensor, w: Anything, dx: Tensor, filter: Filter, add: u32);
        fn conv2d_grad_weight_f32[128](x: Tensor, dy: Tensor, parts: Floats, filter: Filter, per_image: Divisor, per_row: Divisor, pixels_a_split: u32);
        fn conv2d_grad_weight_bf16_64[128](x: Tensor, dy: Tensor, parts: Floats, filter: Filter, per_image: Divisor, per_row: Divisor, pixels_a_split: u32);
        fn conv2d_grad_weight_bf16_128[256](x: Tensor, dy: Tensor, parts: Floats, filter: Filter, per_image: Divisor, per_row: Divisor, pixels_a_split: u32);
        fn sum_parts[256](parts: Floats, splits: u32, dw: Floats, mask: Words, elements: u32, inputs: u32, padded: u32, add: u32);
    }
    "select.cu" {
        fn select_histogram[256](
            jobs: Jobs,
            owner: Words,
            choices: Choices,
            next: Bytes,
            bins: Words,
            mode: u32,
            pass: u32,
        );
        fn select_digit[256](segments: Segments, choices: Choices, bins: Words, mode: u32, pass: u32);
        fn select_count_ties[256](
            jobs: Jobs,
            owner: Words,
            choices: Choices,
            next: Bytes,
            ties: Words,
            mode: u32,
        );
        fn select_rank_blocks[256](segments: Segments, ties: Words);
        fn select_apply[256](jobs: Jobs, owner: Words, choices: Choices, next: Bytes, ties: Words, mode: u32);
        fn mean_magnitude[256](mask: Bytes, values: Floats, len: u32, sums: Doubles);
    }
    "weights.cu" {
        fn update_and_mask[256](
            parameters: Parameters,
            owner: Words,
            keep: Keeps,
            step: WeightStepPointer,
            rule: u32,
            draw: u32,
            which: u32,
            bf16: u32,
        );
        fn average[256](
            value: Floats,
            mask: Bytes,
            random: Bytes,
            leak: Floats,
            mean: Floats,
            len: u32,
            scale: f32,
            which: u32,
            n: u32,
        );
    }


    "augment.cu" {
        fn write_images[256](pixels: Bytes, crops: Words, inputs: Floats, scale: f32, y: Tensor);
    }
    "batch_norm.cu" {
        fn batch_norm_tiles[256](x: Tensor, partial: Floats);
        fn batch_norm_statistics[256](
            x: Tensor, partial: Floats, tiles: u32, epsilon: f32, state: StepPointer, running_mean: Floats,
            running_variance: Floats, batch: Floats
        );
        fn batch_norm[256](x: Tensor, batch: Floats, scale: Floats, shift: Floats, residual: Tensor, relu: u32, y: Tensor);
        fn batch_norm_inference[256](
            x: Tensor, mean: Floats, variance: Floats, epsilon: f32, scale: Floats, shift: Floats, residual: Tensor, relu: u32,
            y: Tensor
        );
        fn batch_norm_grad_tiles[256](
            x: Tensor, dy: Tensor, batch: Floats, scale: Floats, shift: Floats, residual: Tensor, relu: u32,
            partial: Floats
        );
        fn batch_norm_grad_parameters[256](
            x: Tensor, partial: Floats, tiles: u32, batch: Floats, scale: Floats, dscale: Floats, add_scale: u32,
            dshift: Floats, add_shift: u32, coefficients: Floats
        );
        fn batch_norm_grad[256](
            x: Tensor, dy: Tensor, batch: Floats, scale: Floats, shift: Floats, residual: Tensor, relu: u32,
            coefficients: Floats, dx: Tensor, add_x: u32, dresidual: Tensor, add_residual: u32
        );
    }
    "bias_grad.cu" {
        fn bias_grad_tiles[256](dy: Tensor, partial: Floats);
        fn bias_grad[256](dy: Tensor, partial: Floats, tiles: u32, db: Floats, add: u32);
    }
    "calibration.cu" {
        fn calibration_histogram[256](logits: Tensor, labels: Words, words: Longs);
    }
    "loss.cu" {
        fn softmax_cross_entropy_rows[256](logits: Tensor, targets: Tensor, costs: Floats, right: Words);
        fn softmax_cross_entropy[256](costs: Floats, right: Words, rows: u32, loss: Floats);
        fn softmax_cross_entropy_grad[256](logits: Tensor, targets: Tensor, dlogits: Tensor, add: u32);
    }
    "pool.cu" {
        fn max_pool[256](x: Tensor, size: u32, stride: u32, padding: u32, y: Tensor);
        fn max_pool_grad[256](x: Tensor, dy: Tensor, size: u32, stride: u32, padding: u32, dx: Tensor, add: u32);
        fn average_pool[256](x: Tensor, scale: f32, y: Tensor);
        fn average_pool_grad[256](dy: Tensor, scale: f32, dx: Tensor, add: u32);
    }
    // Only tests launch these.
    "ptx_probe.cu" {
        #[cfg_attr(not(test), allow(dead_code))]
        fn probe_f32_to_bf16[32](x: Floats, y: Words, n: u32);
        #[cfg_attr(not(test), allow(dead_code))]
        fn probe_ldmatrix_x4[32](rows: Words, order: Words, transposed: u32, out: Words);
        #[cfg_attr(not(test), allow(dead_code))]
        fn probe_mma_bf16_16816[32](a: Words, b: Words, c: Floats);
        #[cfg_attr(not(test), allow(dead_code))]
        fn probe_cp_async_16[32](rows: Words, valid: u32, out: Words);
        #[cfg_attr(not(test), allow(dead_code))]
        fn probe_cp_async_wait[32](rows: Words, out: Words);
    }
    "rearrange.cu" {
        fn dropout[256](x: Tensor, limit: u32, scale: f32, site: u32, state: StepPointer, y: Tensor, add: u32);
        fn flatten[256](x: Tensor, y: Tensor);
        fn flatten_grad[256](dy: Tensor, dx: Tensor, add: u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    /// The kernels that the sources declare: name, file, launch bounds, parameters as in the table.
    fn declared() -> BTreeMap<String, (String, u32, Vec<String>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            if !file.ends_with(".cu") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for declaration in text.split("extern \"C\" __global__ void ").skip(1) {
                let declaration = declaration.split_once(") {").expect("a kernel has a body").0;
                let bounds = declaration.strip_prefix("__launch_bounds__(").expect("launch bounds come first");
                let (threads, rest) = bounds.split_once(')').unwrap();
                let (name, parameters) = rest.split_once('(').unwrap();
                let parameters = parameters.split(',').map(parameter).collect();
                let before =
                    found.insert(name.trim().to_string(), (file.clone(), threads.parse().unwrap(), parameters));
                assert!(before.is_none(), "{name} is declared twice");
            }
        }
        found
    }

    /// `const float* x` as `Floats x`.
    fn parameter(text: &str) -> String {
        let words: Vec<&str> =
            text.split_whitespace().filter(|w| !["const", "__restrict__", "__grid_constant__"].contains(w)).collect();
        let [kind, name] = words[..] else { panic!("parameter {text:?}") };
        let kind = match kind.strip_suffix('*') {
            Some(of) => POINTERS.iter().find(|(_, target)| *target == of).unwrap_or_else(|| panic!("{text:?}")).0,
            None if kind == "float" => "f32",
            None => kind,
        };
        format!("{kind} {name}")
    }

    #[test]
    fn a_divisor_divides() {
        let some =
            [1, 2, 3, 5, 7, 31, 32, 33, 49, 64, 196, 1000, 3136, 65535, 65537, 1 << 20, (1 << 30) + 1, (1 << 31) - 1];
        for by in some {
            let d = Divisor::new(by);
            for x in some.into_iter().flat_map(|x| [x - 1, x, x.saturating_mul(by).min((1 << 31) - 1)]) {
                let high = ((u64::from(x) * u64::from(d.multiplier)) >> 32) as u32;
                let quotient = if by == 1 { x } else { high >> d.shift };
                assert_eq!(quotient, x / by, "{x} / {by}");
            }
        }
    }

    #[test]
    fn every_row_of_the_launch_table_is_a_kernel_and_every_kernel_has_a_row() {
        let rows: BTreeMap<_, _> = KERNELS
            .iter()
            .map(|k| {
                let parameters = k.parameters.iter().map(|p| p.to_string()).collect();
                (k.name.to_string(), (k.file.to_string(), k.threads, parameters))
            })
            .collect();
        assert_eq!(rows, declared());
    }
}

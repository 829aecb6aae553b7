//! Vectors of 16 f32, one pixel of 16 images or 16 pixels of one, in the instruction set that the machine has.
//!
//! A kernel is written once, generic over [`Lanes`], and compiled three times by [`dispatch!`]. All three do the same operations
//! in the same order, fused multiply-adds among them, so results do not depend on the instruction set wherever it has FMA.

use std::sync::OnceLock;

use crate::error::{Error, Result};

/// Floats in a vector: images side by side, the innermost extent of activations, or pixels of a single image.
pub(crate) const LANES: usize = 16;

/// An instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Whatever the compiler's target has.
    Portable,
    /// x86-64 with AVX2 and FMA: a vector is two registers.
    Avx2,
    /// x86-64 with AVX-512F: a vector is one register.
    Avx512,
}

impl Level {
    /// Rows and columns of pixels whose sums a sparse convolution keeps in registers.
    pub(crate) const fn sparse_tile(self) -> [usize; 2] {
        match self {
            Level::Portable => [1, 2],
            Level::Avx2 => [2, 3],
            Level::Avx512 => [4, 7],
        }
    }

    /// The best level of this machine, or the lower one that `CIGL_SIMD=avx512|avx2|portable` asks for.
    pub fn detect() -> Level {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| {
            let best = best();
            match Level::asked_for() {
                Ok(Some(Level::Portable)) => Level::Portable,
                Ok(Some(Level::Avx2)) if best == Level::Avx512 => Level::Avx2,
                _ => best,
            }
        })
    }

    /// What the environment variable `CIGL_SIMD` says, if it is set.
    ///
    /// # Errors
    /// A value that names no level.
    pub fn asked_for() -> Result<Option<Level>> {
        match std::env::var("CIGL_SIMD").as_deref() {
            Err(_) => Ok(None),
            Ok("portable") => Ok(Some(Level::Portable)),
            Ok("avx2") => Ok(Some(Level::Avx2)),
            Ok("avx512") => Ok(Some(Level::Avx512)),
            Ok(other) => Err(Error::Usage(format!("CIGL_SIMD={other}: expected avx512, avx2 or portable"))),
        }
    }
}

#[cfg(test)]
impl Level {
    /// All levels of this machine, the best last.
    pub(crate) fn available() -> Vec<Level> {
        match best() {
            Level::Portable => vec![Level::Portable],
            Level::Avx2 => vec![Level::Portable, Level::Avx2],
            Level::Avx512 => vec![Level::Portable, Level::Avx2, Level::Avx512],
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn best() -> Level {
    // Whatever has AVX2 counts bits too.
    if !is_x86_feature_detected!("popcnt") {
        Level::Portable
    } else if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
        Level::Avx512
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        Level::Avx2
    } else {
        Level::Portable
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn best() -> Level {
    Level::Portable
}

/// Sixteen f32. Every method is one instruction a register, and must be inlined into a function that has the feature.
///
/// # Safety
/// All methods ask that the CPU has the instruction set, `load` and `store` also that 16 floats are there.
#[allow(clippy::missing_safety_doc)] // the contract is the trait's, stated once above
pub(crate) trait Lanes: Copy {
    /// Sixteen-float vectors that fit into registers, about.
    const REGISTERS: usize;
    /// [`Level::sparse_tile`].
    const SPARSE_TILE: [usize; 2];
    /// Pixels that a dense convolution keeps in registers for each of four output channels.
    const TILE: usize;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Stores past the caches, on a 64-byte boundary: what is too large to stay in one is not read into it first.
    /// [`Lanes::fence`] must follow before another thread may read.
    unsafe fn stream(self, to: *mut f32);
    unsafe fn fence();
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    /// self * by + plus, rounded once.
    unsafe fn fma(self, by: Self, plus: Self) -> Self;
    /// The larger; `other` where one is NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// self where by > 0, else 0.
    unsafe fn where_positive(self, by: Self) -> Self;
    /// Of the 16 integers at `from`, stores those above `bound` side by side and says how many there are; `to` has room for 16,
    /// and what follows the stored ones there is anything.
    #[inline(always)]
    unsafe fn store_above(from: *const u32, bound: u32, to: *mut u32) -> usize {
        let mut above = 0;
        for i in 0..LANES {
            // Stored whether it is above or not: a branch would be mispredicted. SAFETY: the caller has 16 integers at both.
            unsafe {
                let value = from.add(i).read();
                to.add(above).write(value);
                above += usize::from(value > bound);
            }
        }
        above
    }
}

impl Lanes for [f32; LANES] {
    const REGISTERS: usize = 4;
    const SPARSE_TILE: [usize; 2] = Level::Portable.sparse_tile();
    const TILE: usize = 1;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has 16 floats there.
        unsafe { from.cast::<Self>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller has 16 floats there.
        unsafe { to.cast::<Self>().write_unaligned(self) }
    }
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: the caller has 16 floats there.
        unsafe { self.store(to) }
    }
    #[inline(always)]
    unsafe fn fence() {}
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] - other[i])
    }
    #[inline(always)]
    unsafe fn fma(self, by: Self, plus: Self) -> Self {
        // Without the instruction mul_add is a library call, a hundred times slower than the rounding it saves is worth.
        if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
            std::array::from_fn(|i| self[i].mul_add(by[i], plus[i]))
        } else {
            std::array::from_fn(|i| self[i] * by[i] + plus[i])
        }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] > other[i] { self[i] } else { other[i] })
    }
    #[inline(always)]
    unsafe fn where_positive(self, by: Self) -> Self {
        std::array::from_fn(|i| if by[i] > 0.0 { self[i] } else { 0.0 })
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use super::{Lanes, Level};
    use std::arch::x86_64::*;

    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256, __m256);

    // SAFETY, of every block below: the trait's contract says that the instruction set is there and pointers hold 16 floats.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Lanes for Avx2 {
        const REGISTERS: usize = 8;
        const SPARSE_TILE: [usize; 2] = Level::Avx2.sparse_tile();
        const TILE: usize = 1;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            unsafe { Avx2(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Avx2(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe {
                _mm256_storeu_ps(to, self.0);
                _mm256_storeu_ps(to.add(8), self.1);
            }
        }
        #[inline(always)]
        unsafe fn stream(self, to: *mut f32) {
            unsafe {
                _mm256_stream_ps(to, self.0);
                _mm256_stream_ps(to.add(8), self.1);
            }
        }
        #[inline(always)]
        unsafe fn fence() {
            unsafe { _mm_sfence() }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { Avx2(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            unsafe { Avx2(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
        }
        #[inline(always)]
        unsafe fn fma(self, by: Self, plus: Self) -> Self {
            unsafe { Avx2(_mm256_fmadd_ps(self.0, by.0, plus.0), _mm256_fmadd_ps(self.1, by.1, plus.1)) }
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            unsafe { Avx2(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
        }
        #[inline(always)]
        unsafe fn where_positive(self, by: Self) -> Self {
            unsafe {
                let zero = _mm256_setzero_ps();
                let keep = |x, b| _mm256_and_ps(x, _mm256_cmp_ps::<_CMP_GT_OQ>(b, zero));
                Avx2(keep(self.0, by.0), keep(self.1, by.1))
            }
        }
    }

    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    // SAFETY: as above.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Lanes for Avx512 {
        const REGISTERS: usize = 32;
        const SPARSE_TILE: [usize; 2] = Level::Avx512.sparse_tile();
        const TILE: usize = 4;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            unsafe { Avx512(_mm512_set1_ps(x)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Avx512(_mm512_loadu_ps(from)) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn stream(self, to: *mut f32) {
            unsafe { _mm512_stream_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn fence() {
            unsafe { _mm_sfence() }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { Avx512(_mm512_add_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            unsafe { Avx512(_mm512_sub_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn fma(self, by: Self, plus: Self) -> Self {
            unsafe { Avx512(_mm512_fmadd_ps(self.0, by.0, plus.0)) }
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            unsafe { Avx512(_mm512_max_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn where_positive(self, by: Self) -> Self {
            unsafe {
                let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(by.0, _mm512_setzero_ps());
                Avx512(_mm512_maskz_mov_ps(positive, self.0))
            }
        }
        #[inline(always)]
        unsafe fn store_above(from: *const u32, bound: u32, to: *mut u32) -> usize {
            unsafe {
                let values = _mm512_loadu_si512(from.cast());
                let above = _mm512_cmpgt_epu32_mask(values, _mm512_set1_epi32(bound as i32));
                // In the register: compressing into memory is microcode on some machines.
                _mm512_storeu_si512(to.cast(), _mm512_maskz_compress_epi32(above, values));
                above.count_ones() as usize
            }
        }
    }
}

/// Calls `kernel::<L>(args)` for the widest [`Lanes`] of `level`, inside a function compiled for that instruction set.
///
/// The kernel must be `#[inline(always)] unsafe fn kernel<L: Lanes>(..)`; the arguments' types are named because they become those
/// of an inner function.
macro_rules! dispatch {
    ($level:expr, $kernel:ident ( $($arg:ident : $type:ty = $value:expr),* $(,)? ) $(-> $out:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512vl,avx2,fma,popcnt")]
        #[allow(clippy::too_many_arguments)] // they are the kernel's
        fn avx512($($arg: $type),*) $(-> $out)? {
            // SAFETY: this function has the feature; the kernel's own contract is its caller's.
            unsafe { $kernel::<$crate::backend::cpu::simd::x86::Avx512>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,popcnt")]
        #[allow(clippy::too_many_arguments)] // they are the kernel's
        fn avx2($($arg: $type),*) $(-> $out)? {
            // SAFETY: as above.
            unsafe { $kernel::<$crate::backend::cpu::simd::x86::Avx2>($($arg),*) }
        }
        match $level {
            // SAFETY: `Level::detect` found the instruction set.
            #[cfg(target_arch = "x86_64")]
            $crate::backend::cpu::simd::Level::Avx512 => unsafe { avx512($($value),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            $crate::backend::cpu::simd::Level::Avx2 => unsafe { avx2($($value),*) },
            // SAFETY: plain arrays need no instruction set.
            _ => unsafe { $kernel::<[f32; $crate::backend::cpu::simd::LANES]>($($value),*) },
        }
    }};
}
pub(crate) use dispatch;

/// Words of a sparse mask from one that is worked on to one whose elements are to be fetched: far enough for memory to answer.
pub(crate) const WORDS_AHEAD: usize = 32;

/// Has the cache fetch a value that is read soon: of a sparse mask's elements the hardware does not foresee the next.
#[inline(always)]
pub(crate) fn prefetch(value: Option<&f32>) {
    #[cfg(target_arch = "x86_64")]
    if let Some(value) = value {
        // SAFETY: every x86-64 CPU has the instruction, and it never faults.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(value).cast())
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Copies the values above `bound` to the front of `out`, in their order, and says how many there are. `out` is as long as
/// `values`; what follows them there is anything.
pub(crate) fn keep_above(values: &[u32], bound: u32, out: &mut [u32]) -> usize {
    dispatch!(
        Level::detect(),
        keep_above_kernel(values: &[u32] = values, bound: u32 = bound, out: &mut [u32] = out) -> usize
    )
}

/// # Safety
/// As [`dispatch!`] has it.
#[inline(always)]
unsafe fn keep_above_kernel<L: Lanes>(values: &[u32], bound: u32, out: &mut [u32]) -> usize {
    assert_eq!(values.len(), out.len(), "as many places as values");
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut kept = 0;
    for block in blocks {
        // SAFETY: no more are kept than were read, so 16 places follow.
        kept += unsafe { L::store_above(block.as_ptr(), bound, out[kept..][..LANES].as_mut_ptr()) };
    }
    for &value in rest {
        out[kept] = value;
        kept += usize::from(value > bound);
    }
    kept
}

/// The sum of 16 lanes in a fixed tree.
#[inline(always)]
pub(crate) fn sum_lanes(lanes: &[f32; LANES]) -> f32 {
    let mut part = *lanes;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            part[i] += part[i + half];
        }
    }
    part[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_above_a_bound_are_kept_in_their_order_on_every_level() {
        let values: Vec<u32> = (0..77u32).map(|i| i.wrapping_mul(2_654_435_769)).chain([7, 8, u32::MAX]).collect();
        for bound in [0, 7, 1 << 31, u32::MAX] {
            let expected: Vec<u32> = values.iter().copied().filter(|&value| value > bound).collect();
            for level in Level::available() {
                let mut out = vec![0; values.len()];
                let kept = dispatch!(
                    level,
                    keep_above_kernel(values: &[u32] = &values, bound: u32 = bound, out: &mut [u32] = &mut out) -> usize
                );
                assert_eq!(out[..kept], expected, "above {bound} with {level:?}");
            }
        }
    }
}

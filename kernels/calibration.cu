// Fused softmax, argmax, negative log-likelihood, Brier score and reliability histogram of a batch of logits.
//
//   in           logits: a tensor (tensor.cuh), f32, an image of one pixel a row; labels u32 (rows), each below the classes
//   out          words u64 (48), added to: of each of the 15 bins (lo, hi] the rows, of each the correct ones, of each the
//                confidences, then losses, infinite losses, Brier scores; sums in multiples of 2^-32
//   Work         one warp a row, lane l the classes l, l + 32, ...; a row comes from memory once and is in the cache for the two
//                more looks that softmax takes
//   Exactness    a row's terms are IEEE additions, divisions and explicit fused multiply-adds in the order that
//                src/calibration/softmax.rs states; no product feeds an addition otherwise, so that no compiler can fuse what another
//                does not; exp and ln are written out. Each term is rounded once, to nearest even, and then only integers are added,
//                by atomics: equal logits give equal words on every device, in any order of rows
//   Range        losses from 16,384 on count as infinite: 2^18 rows fit into 64 bits
//   Equals       Histogram::of of src/calibration/histogram.rs, bit for bit
//   Launch       256 threads: 8 rows a block, no shared memory
#include "tensor.cuh"

constexpr u32 BINS = 15;
constexpr double LARGEST_LOSS = 16384.0;

// e^x for x <= 0.
__device__ __forceinline__ float exp_exact(float x) {
    const float ROUND = 12582912.0f, LOG2_E = 1.44269504088896340736f;
    const float LN_2_HIGH = __uint_as_float(0x3F317200u), LN_2_LOW = float(0.693147180559945309417232 - (double)LN_2_HIGH);
    if (x < -87.0f) return 0.0f;
    float n = fmaf(x, LOG2_E, ROUND) - ROUND;
    float r = fmaf(n, -LN_2_LOW, fmaf(n, -LN_2_HIGH, x));
    float sum = 1.0f / 5040.0f;
    sum = fmaf(r, sum, 1.0f / 720.0f);
    sum = fmaf(r, sum, 1.0f / 120.0f);
    sum = fmaf(r, sum, 1.0f / 24.0f);
    sum = fmaf(r, sum, 1.0f / 6.0f);
    sum = fmaf(r, sum, 0.5f);
    sum = fmaf(r, sum, 1.0f);
    sum = fmaf(r, sum, 1.0f);
    return sum * __uint_as_float(u32(int(n) + 127) << 23);
}

// ln x for a finite x >= 1.
__device__ __forceinline__ double ln_exact(float x) {
    u32 bits = __float_as_uint(x), exponent = (bits - 0x3F3504F3u) >> 23;
    double m = __uint_as_float(bits - (exponent << 23));
    double t = (m - 1.0) / (m + 1.0), s = t * t;
    double sum = 1.0 / 17.0;
    for (int odd = 15; odd > 0; odd -= 2) sum = fma(s, sum, 1.0 / odd);
    return fma(2.0 * t, sum, exponent * 0.693147180559945309417232);
}

// A lane's sum and those of the others, lane l taking lane l + 16's, then l + 8's, ...; given to all.
template <class T> __device__ __forceinline__ T add_lanes(T mine) {
    for (u32 width = WARP / 2; width > 0; width /= 2) mine = mine + __shfl_down_sync(ALL_LANES, mine, width);
    return __shfl_sync(ALL_LANES, mine, 0);
}

// A term in multiples of 2^-32: the product is exact.
__device__ __forceinline__ u64 units(double term) { return u64(rint(term * 4294967296.0)); }

extern "C" __global__ void __launch_bounds__(256) calibration_histogram(Tensor logits, const u32* labels, u64* words) {
    u32 row = (blockIdx.x * blockDim.x + threadIdx.x) / WARP, lane = threadIdx.x % WARP;
    if (row >= logits.n) return;
    const float* own = static_cast<const float*>(logits.at) + (size_t)row * logits.groups * 8;
    u32 label = labels[row];

    // The largest logit, the lowest class among equals.
    float most = -INFINITY_F32;
    u32 top = 0;
    for (u32 k = lane; k < logits.c; k += WARP)
        if (own[k] > most) most = own[k], top = k;
    for (u32 by = WARP / 2; by > 0; by /= 2) {
        float other = __shfl_xor_sync(ALL_LANES, most, by);
        u32 at = __shfl_xor_sync(ALL_LANES, top, by);
        if (other > most || (other == most && at < top)) most = other, top = at;
    }

    float sum = 0.0f;
    for (u32 k = lane; k < logits.c; k += WARP) sum = sum + exp_exact(own[k] - most);
    sum = add_lanes(sum);

    double brier = 0.0;
    for (u32 k = lane; k < logits.c; k += WARP) {
        float p = exp_exact(own[k] - most) / sum;
        double off = k == label ? p - 1.0f : p;
        brier = fma(off, off, brier);
    }
    brier = add_lanes(brier);

    if (lane > 0) return;
    float confidence = min(1.0f / sum, 1.0f);
    u32 bin = 0;
    for (u32 k = 1; k < BINS; k++) bin += float(k) / float(BINS) < confidence;
    atomicAdd(words + bin, 1ull);
    if (top == label) atomicAdd(words + BINS + bin, 1ull);
    atomicAdd(words + 2 * BINS + bin, units(confidence));
    double loss = ((double)most - (double)own[label]) + ln_exact(sum);
    if (loss < LARGEST_LOSS) atomicAdd(words + 3 * BINS, units(loss));
    else atomicAdd(words + 3 * BINS + 1, 1ull);
    atomicAdd(words + 3 * BINS + 2, units(brier));
}

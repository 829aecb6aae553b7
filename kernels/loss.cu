// Softmax cross-entropy of a batch, and its gradient.
//
//   in           logits, targets: f32 tensors (tensor.cuh), an image of one pixel a row; rows of targets sum to 1
//   between      costs f32 (rows), right u32 (rows)
//   out          loss f32 (2): the mean of -sum_k t_k log softmax(x)_k, and the number of rows whose largest logit is at the largest
//                target, the lowest index on ties; dlogits = (softmax(x) - t) / rows, set or added to
//   Work         one warp a row, lane l its vectors l, l + 32, ...; then one block adds up the rows
//   Precision    f32 within a row, its largest logit taken off first; f64 over the rows
//   Determinism  lanes are added in a butterfly, rows in a tree of 256 threads, each with every 256th row
//   Equals       backend/cpu/loss.rs, within rounding; the count exactly
//   Launch       256 threads: 8 rows a block, then one block with 4 KB of shared memory
#include "tensor.cuh"

constexpr u32 LOSS_THREADS = 256;

// A value and where it is, for the lowest index among the maxima.
struct Top {
    float value;
    u32 index;
};

__device__ __forceinline__ Top larger(Top a, Top b) { return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a; }

__device__ __forceinline__ Top warp_top(Top mine) {
    for (u32 by = WARP / 2; by > 0; by /= 2) {
        Top other;
        other.value = __shfl_xor_sync(ALL_LANES, mine.value, by);
        other.index = __shfl_xor_sync(ALL_LANES, mine.index, by);
        mine = larger(mine, other);
    }
    return mine;
}

__device__ __forceinline__ float warp_sum(float mine) {
    for (u32 by = WARP / 2; by > 0; by /= 2) mine += __shfl_xor_sync(ALL_LANES, mine, by);
    return mine;
}

// The largest value of a row: lanes start below everything, and NaN is never larger.
__device__ __forceinline__ Top row_top(const Tensor& t, u32 row, u32 lane) {
    Top top = {-INFINITY_F32, 0};
    for (u32 group = lane; group < t.groups; group += WARP) {
        Vector a = load(t, row * t.groups + group);
        for (u32 k = 0; k < 8; k++) {
            u32 c = group * 8 + k;
            if (c < t.c && a.v[k] > top.value) top = {a.v[k], c};
        }
    }
    return warp_top(top);
}

// The sum of exp(x - most) over a row.
__device__ __forceinline__ float row_sum(const Tensor& x, u32 row, u32 lane, float most) {
    float sum = 0.0f;
    for (u32 group = lane; group < x.groups; group += WARP) {
        Vector a = load(x, row * x.groups + group);
        for (u32 k = 0; k < 8; k++)
            if (group * 8 + k < x.c) sum += expf(a.v[k] - most);
    }
    return warp_sum(sum);
}

extern "C" __global__ void __launch_bounds__(256) softmax_cross_entropy_rows(Tensor logits, Tensor targets, float* costs, u32* right) {
    u32 row = (blockIdx.x * LOSS_THREADS + threadIdx.x) / WARP, lane = threadIdx.x % WARP;
    if (row >= logits.n) return;
    Top predicted = row_top(logits, row, lane), target = row_top(targets, row, lane);
    float log_sum = logf(row_sum(logits, row, lane, predicted.value));
    float cost = 0.0f;
    for (u32 group = lane; group < logits.groups; group += WARP) {
        Vector a = load(logits, row * logits.groups + group), t = load(targets, row * targets.groups + group);
        // 0 times an infinite log-probability is 0: a class without target mass costs nothing.
        for (u32 k = 0; k < 8; k++)
            if (group * 8 + k < logits.c && t.v[k] != 0.0f) cost += t.v[k] * (log_sum - (a.v[k] - predicted.value));
    }
    cost = warp_sum(cost);
    if (lane == 0) costs[row] = cost, right[row] = predicted.index == target.index;
}

extern "C" __global__ void __launch_bounds__(256) softmax_cross_entropy(const float* costs, const u32* right, u32 rows, float* loss) {
    SHARED(sums, double[LOSS_THREADS]);
    SHARED(counts, u32[LOSS_THREADS]);
    u32 thread = threadIdx.x, count = 0;
    double sum = 0;
    for (u32 row = thread; row < rows; row += LOSS_THREADS) sum += costs[row], count += right[row];
    sums[thread] = sum, counts[thread] = count;
    for (u32 half = LOSS_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half) sums[thread] += sums[thread + half], counts[thread] += counts[thread + half];
    }
    if (thread == 0) loss[0] = float(sums[0] / rows), loss[1] = float(counts[0]);
}

extern "C" __global__ void __launch_bounds__(256) softmax_cross_entropy_grad(Tensor logits, Tensor targets, Tensor dlogits, u32 add) {
    u32 row = (blockIdx.x * LOSS_THREADS + threadIdx.x) / WARP, lane = threadIdx.x % WARP;
    if (row >= logits.n) return;
    float most = row_top(logits, row, lane).value;
    float log_sum = logf(row_sum(logits, row, lane, most)), rows = float(logits.n);
    for (u32 group = lane; group < logits.groups; group += WARP) {
        u32 i = row * logits.groups + group;
        Vector a = load(logits, i), t = load(targets, i), g = zeros();
        for (u32 k = 0; k < 8; k++)
            if (group * 8 + k < logits.c) g.v[k] = (expf(a.v[k] - most - log_sum) - t.v[k]) / rows;
        put(dlogits, i, g, add);
    }
}

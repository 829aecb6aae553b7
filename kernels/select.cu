// Mask updates: exact selections among the weights of all layers at once, and what a new mask does to the values.
//
//   in       jobs       one a layer; a segment is what one selection looks at: a layer, or all of them in the order of the jobs
//   in out   mask       M: bit e % 8 of byte e / 8; bits past the length are 0
//   in out   value, velocity, leak   f32: what leaves M, and what comes, becomes 0
//   scratch  next       M after the drop, a byte an octet, 256 a block; ties: a count a block; bins: 256 a segment, 0 at first and
//                       between the passes; choices: one a segment
//
//   Method       Radix selection of the k smallest 32-bit keys (Alabi et al., "Fast k-selection algorithms for graphics processing
//                units", JEA 2012). Four times: a histogram of the next 8 bits of all keys that begin like the k-th, then the bin that
//                holds it. Keys below the k-th are chosen, and of those equal to it the first: ties are counted by block, blocks
//                ranked, elements ranked in their blocks. A drop and a growth take 11 launches each, whatever the number of layers
//   Keys         |x| as its bits, whose order is that of magnitudes and puts NaN above all; their complement where the largest are
//                wanted; SET's growth a Philox word of (seed, growth, step, layer, element)
//   Work         one thread an octet (octet.cuh); values are read only where there are candidates: six times in all
//   Determinism  counts are integers, so the order of atomics doesn't show; ties go to the lower index
//   Equals       backend/cpu/select.rs, bit for bit
//   Launch       256 threads; a block belongs to one job, owner[block]; or one block a segment
#include "octet.cuh"
#include "philox.cuh"

enum Mode : u32 {
    DROP,  // the smallest |W| inside M leave
    GROW,  // the best positions outside what the drop left come
    KEEP,  // the largest |W| inside M stay
};

struct Job {
    float* value;
    const float* score;  // what ranks growth; null: random keys
    float* velocity;
    float* leak;  // null: none
    u8* mask;
    const u8* random;
    u64 seed;
    u32 step;
    u32 layer;
    u32 len;
    u32 first_block;
    u32 segment;
    u32 dense_momentum;
};

struct Segment {
    u32 first_block;
    u32 blocks;
    u32 counts[2];  // to drop or keep; to grow
};

// The k-th smallest key as far as it is known, and how many of the keys that begin so are among the k.
struct Choice {
    u32 prefix;
    u32 remaining;
};

// Where a thread stands.
struct Place {
    u32 octet, first;
    u32 present;  // bits of its elements that exist
};

__device__ __forceinline__ Place place(const Job& job) {
    u32 octet = (blockIdx.x - job.first_block) * blockDim.x + threadIdx.x, first = 8 * octet;
    return Place{octet, first, first < job.len ? present(first, job.len) : 0};
}

__device__ __forceinline__ u32 magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }

// The candidates of an octet as bits, and their keys: the smallest are wanted.
__device__ __forceinline__ u32 candidates(const Job& job, const Place& at, const u8* next, u32 mode, u32 (&key)[8]) {
    u32 own = blockIdx.x * blockDim.x + threadIdx.x;
    u32 bits = !at.present ? 0 : mode == GROW ? at.present & ~next[own] : job.mask[at.octet];
    if (!bits) return 0;
    if (mode == GROW && !job.score) {
        for (u32 half = 0; half < 2; half++) {
            uint4 draws = philox(make_uint4(2 * at.octet + half, job.step, job.layer, DOMAIN_GROWTH), philox_key(job.seed));
            key[4 * half] = draws.x, key[4 * half + 1] = draws.y, key[4 * half + 2] = draws.z, key[4 * half + 3] = draws.w;
        }
        return bits;
    }
    Vector x = load_octet(mode == GROW ? job.score : job.value, at.first, job.len);
    if (mode == DROP && job.leak) {
        // The released code ranks what the network holds, and where Z is 0 that is the leak.
        u32 kept = job.random[at.octet];
        Vector leak = load_octet(job.leak, at.first, job.len);
        for (u32 k = 0; k < 8; k++)
            if (!(kept >> k & 1)) x.v[k] = leak.v[k];
    }
    for (u32 k = 0; k < 8; k++) key[k] = mode == DROP ? magnitude(x.v[k]) : ~magnitude(x.v[k]);
    return bits;
}

// The sum of x over the threads before this one; `total` over all 256 of them.
__device__ __forceinline__ u32 sum_before(u32 x, u32 (&of_warp)[8], u32& total) {
    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, sum = x;
    for (u32 by = 1; by < WARP; by *= 2) {
        u32 before = __shfl_up_sync(ALL_LANES, sum, by);
        if (lane >= by) sum += before;
    }
    if (lane == WARP - 1) of_warp[warp] = sum;
    __syncthreads();
    u32 before = 0;
    total = 0;
    for (u32 w = 0; w < 8; w++) {
        if (w < warp) before += of_warp[w];
        total += of_warp[w];
    }
    return before + sum - x;
}

// Counts digit `pass`, from the highest of four, of the keys that begin with their segment's prefix.
extern "C" __global__ void __launch_bounds__(256) select_histogram(const Job* jobs, const u32* owner, const Choice* choices,
                                                                   const u8* next, u32* bins, u32 mode, u32 pass) {
    // One histogram a warp: most keys begin alike, and a warp's additions to one bin wait for each other.
    SHARED(counts, u32[8][256]);
    for (u32 w = 0; w < 8; w++) counts[w][threadIdx.x] = 0;
    __syncthreads();
    const Job& job = jobs[owner[blockIdx.x]];
    u32 key[8], bits = candidates(job, place(job), next, mode, key);
    u32 prefix = choices[job.segment].prefix, warp = threadIdx.x / WARP, bin = 0, run = 0;
    for (u32 k = 0; k < 8; k++) {
        if (!(bits >> k & 1) || (pass > 0 && key[k] >> (32 - 8 * pass) != prefix)) continue;
        u32 digit = key[k] >> (24 - 8 * pass) & 0xff;
        if (run && digit != bin) {
            atomicAdd(&counts[warp][bin], run);
            run = 0;
        }
        bin = digit;
        run++;
    }
    if (run) atomicAdd(&counts[warp][bin], run);
    __syncthreads();
    u32 sum = 0;
    for (u32 w = 0; w < 8; w++) sum += counts[w][threadIdx.x];
    if (sum) atomicAdd(&bins[256 * job.segment + threadIdx.x], sum);
}

// Finds each segment's digit: the bin of its k-th key. Leaves the bins 0.
extern "C" __global__ void __launch_bounds__(256) select_digit(const Segment* segments, Choice* choices, u32* bins, u32 mode, u32 pass) {
    SHARED(of_warp, u32[8]);
    u32* bin = &bins[256 * blockIdx.x + threadIdx.x];
    u32 count = *bin, total;
    *bin = 0;
    Choice choice = choices[blockIdx.x];
    u32 before = sum_before(count, of_warp, total);
    // At first all candidates are counted: no more than those can be chosen.
    if (pass == 0) choice = Choice{0, min(segments[blockIdx.x].counts[mode == GROW], total)};
    bool here = choice.remaining ? before < choice.remaining && choice.remaining <= before + count : threadIdx.x == 0;
    if (here) choices[blockIdx.x] = Choice{choice.prefix << 8 | threadIdx.x, choice.remaining ? choice.remaining - before : 0};
}

// Counts the keys of each block that equal their segment's k-th.
extern "C" __global__ void __launch_bounds__(256) select_count_ties(const Job* jobs, const u32* owner, const Choice* choices,
                                                                    const u8* next, u32* ties, u32 mode) {
    SHARED(of_warp, u32[8]);
    const Job& job = jobs[owner[blockIdx.x]];
    u32 key[8], bits = candidates(job, place(job), next, mode, key), limit = choices[job.segment].prefix, equal = 0, total;
    for (u32 k = 0; k < 8; k++) equal += bits >> k & 1 && key[k] == limit;
    sum_before(equal, of_warp, total);
    if (threadIdx.x == 0) ties[blockIdx.x] = total;
}

// The ties of a segment's blocks become those of the blocks before each. A thread takes neighbouring blocks.
extern "C" __global__ void __launch_bounds__(256) select_rank_blocks(const Segment* segments, u32* ties) {
    SHARED(of_warp, u32[8]);
    const Segment& segment = segments[blockIdx.x];
    u32 each = div_up(segment.blocks, blockDim.x), first = min(threadIdx.x * each, segment.blocks);
    u32 last = min(first + each, segment.blocks), sum = 0, total;
    u32* of_block = &ties[segment.first_block];
    for (u32 block = first; block < last; block++) sum += of_block[block];
    u32 before = sum_before(sum, of_warp, total);
    for (u32 block = first; block < last; block++) {
        u32 count = of_block[block];
        of_block[block] = before;
        before += count;
    }
}

__device__ __forceinline__ void clear_octet(float* values, const Place& at, u32 len, u32 bits) {
    if (!bits) return;
    Vector x = zeros();
    if (bits != at.present) x = load_octet(values, at.first, len);
    for (u32 k = 0; k < 8; k++)
        if (bits >> k & 1) x.v[k] = 0.0f;
    store_octet(values, at.first, len, x);
}

// Chooses, and puts the new M in force unless growth is still to come.
extern "C" __global__ void __launch_bounds__(256) select_apply(const Job* jobs, const u32* owner, const Choice* choices, u8* next,
                                                               const u32* ties, u32 mode) {
    SHARED(of_warp, u32[8]);
    const Job& job = jobs[owner[blockIdx.x]];
    Place at = place(job);
    Choice choice = choices[job.segment];
    u32 key[8], bits = candidates(job, at, next, mode, key), equal = 0, total;
    for (u32 k = 0; k < 8; k++) equal += bits >> k & 1 && key[k] == choice.prefix;
    u32 rank = ties[blockIdx.x] + sum_before(equal, of_warp, total), chosen = 0;
    for (u32 k = 0; k < 8; k++) {
        if (!(bits >> k & 1)) continue;
        bool is = key[k] < choice.prefix || (key[k] == choice.prefix && rank++ < choice.remaining);
        chosen |= u32(is) << k;
    }
    if (!at.present) return;
    u32 own = blockIdx.x * blockDim.x + threadIdx.x, old = job.mask[at.octet];
    if (mode == DROP) {
        next[own] = u8(old & ~chosen);
        return;
    }
    u32 now = mode == GROW ? next[own] | chosen : chosen, gone = at.present & ~(old & now);
    job.mask[at.octet] = u8(now);
    // The released code clears what the network holds; what Z dropped keeps its stale value aside.
    clear_octet(job.value, at, job.len, job.leak ? gone & job.random[at.octet] : gone);
    if (job.leak) clear_octet(job.leak, at, job.len, gone);
    if (!job.dense_momentum) clear_octet(job.velocity, at, job.len, gone);
}

// Of each block of 2,048 elements, the sum of |value| inside M and the count, in f64: the sum over a fixed tree.
extern "C" __global__ void __launch_bounds__(256) mean_magnitude(const u8* mask, const float* values, u32 len, double* sums) {
    SHARED(of_warp, double[8]);
    SHARED(count_of_warp, u32[8]);
    u32 octet = blockIdx.x * blockDim.x + threadIdx.x, first = 8 * octet, inside = first < len ? mask[octet] : 0, count;
    Vector x = inside ? load_octet(values, first, len) : zeros();
    double sum = 0;
    for (u32 k = 0; k < 8; k++)
        if (inside >> k & 1) sum += double(__uint_as_float(magnitude(x.v[k])));
    for (u32 by = WARP / 2; by > 0; by /= 2) sum += __shfl_down_sync(ALL_LANES, sum, by);
    if (threadIdx.x % WARP == 0) of_warp[threadIdx.x / WARP] = sum;
    // Its barrier is that of the sums too.
    sum_before(u32(__popc(inside)), count_of_warp, count);
    if (threadIdx.x > 0) return;
    for (u32 w = 1; w < 8; w++) sum += of_warp[w];
    sums[2 * blockIdx.x] = sum;
    sums[2 * blockIdx.x + 1] = double(count);
}

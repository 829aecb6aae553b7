// The optimiser's step, the random mask Z, and the effective weights: everything that happens to a weight between two passes, in
// one reading of it.
//
//   in       step       the rule's numbers and what keys the draw, in device memory, so that a captured graph can replay
//   in       keep       of each layer: 2^16 keep, rounded, below which a 16-bit draw keeps its element; the factor of kept weights
//   in       grad       f32, looked at only where the masks let it move something: elsewhere it is unspecified
//   in out   value, velocity, second, leak   f32, (O, kH, kW, I) order
//   in       mask       M: bit e % 8 of byte e / 8; bits past the length are 0
//   in out   random     Z, likewise; bit e is a function of (seed, domain, step, layer, e)
//   out      effective  what convolutions multiply with: (O, kH kW, I) in f32 or bf16, I padded to a multiple of 8; whoever allocates
//                       it makes the padding 0
//
//   Work         one thread an octet (octet.cuh). An octet outside M costs no reading of values: on the whole a step moves 22.4
//                bytes for each weight in bf16, 10.4 for one whose whole octet M leaves out, 24.4 and 12.4 in f32
//   Determinism  no value depends on another thread
//   Equals       backend/cpu/optimiser.rs and masks.rs; masks bit for bit
//   Launch       256 threads; a block belongs to one parameter, owner[block], whose first block is first_block
#include "octet.cuh"
#include "philox.cuh"

enum Rule : u32 { NO_RULE, SGD, NESTEROV, ADAM };
enum Which : u32 { NOTHING, DETERMINISTIC_WEIGHTS, RANDOM_WEIGHTS, LEAKY_WEIGHTS };
enum Masking : u32 { UNMASKED, DETERMINISTIC, FROZEN, DECAY, LEAKY, DENSE_MOMENTUM };

// What this launch knows of one parameter. A part that it lacks, or that this launch leaves alone, is null.
struct Parameter {
    float* value;
    const float* grad;
    float* velocity;  // null: no optimiser step
    float* second;
    float* leak;
    const u8* mask;
    u8* random;
    void* effective;
    u32 len;
    u32 first_block;
    u32 in_channels;
    u32 layer;
    u32 masking;
    float weight_decay;
};

struct Keep {
    u32 threshold;
    float scale;
};

struct WeightStep {
    u64 seed;
    u32 step;
    u32 domain;
    float lr;
    float momentum;  // Adam: the first moment's decay
    float beta2;
    float epsilon;
    float unbias1;  // 1 - beta^t
    float unbias2;
};

// What the elements of an octet may do in this step, as bits; an element in none of them stays as it is.
struct Moves {
    u32 freely;            // gradient, momentum and value change
    u32 without_gradient;  // the gradient is 0, the rest as ever
    u32 into_leak;         // the value stays, minus its update is the leak
    u32 only_momentum;     // outside M, but its momentum goes on
    u32 outside;           // all becomes 0
};

// Whether the gradient is one under Z.
__device__ __forceinline__ bool drawn(u32 masking) { return masking == FROZEN || masking == DECAY || masking == LEAKY; }

__device__ __forceinline__ Moves moves(u32 masking, u32 inside, u32 kept) {
    Moves m{0, 0, 0, 0, 0};
    m.freely = drawn(masking) ? inside & kept : inside;
    if (masking == DECAY) m.without_gradient = inside & ~kept;
    if (masking == LEAKY) m.into_leak = inside & ~kept;
    // A stale value outside M dies as soon as Z keeps it; until then the released code holds on to it.
    if (masking == DENSE_MOMENTUM) m.only_momentum = ~inside;
    else m.outside = masking == LEAKY ? ~inside & kept : ~inside;
    return m;
}

// The new values of an octet after an optimiser step; momentum, moments and leaks are stored.
__device__ __forceinline__ Vector optimise(const Parameter& p, u32 first, const Moves& m, float scale, const WeightStep& s, u32 rule) {
    bool leaky = p.masking == LEAKY;
    Vector w = zeros(), v = zeros(), squares = zeros(), g = zeros(), leak = zeros();
    if (u8(m.outside) != 0xff) {
        w = load_octet(p.value, first, p.len);
        v = load_octet(p.velocity, first, p.len);
        if (rule == ADAM) squares = load_octet(p.second, first, p.len);
        if (leaky) leak = load_octet(p.leak, first, p.len);
        if (m.freely | m.into_leak | m.only_momentum) g = load_octet(p.grad, first, p.len);
    }
    for (u32 k = 0; k < 8; k++) {
        bool freely = m.freely >> k & 1, without_gradient = m.without_gradient >> k & 1, into_leak = m.into_leak >> k & 1;
        if (m.outside >> k & 1) w.v[k] = v.v[k] = squares.v[k] = leak.v[k] = 0.0f;
        if (!freely && !without_gradient && !into_leak && !(m.only_momentum >> k & 1)) continue;
        // Only what Z kept went into the products scaled; where the network holds no value there is nothing to decay.
        float gradient = freely ? scale * g.v[k] + p.weight_decay * w.v[k] : without_gradient ? 0.0f : g.v[k], update;
        if (rule == ADAM) {
            v.v[k] = s.momentum * v.v[k] + (1.0f - s.momentum) * gradient;
            squares.v[k] = s.beta2 * squares.v[k] + (1.0f - s.beta2) * gradient * gradient;
            update = s.lr * (v.v[k] / s.unbias1) / (sqrtf(squares.v[k] / s.unbias2) + s.epsilon);
        } else {
            v.v[k] = s.momentum * v.v[k] + gradient;
            update = s.lr * (rule == NESTEROV ? gradient + s.momentum * v.v[k] : v.v[k]);
        }
        if (freely || without_gradient) w.v[k] -= update;
        if (into_leak) leak.v[k] = -update;
    }
    store_octet(p.value, first, p.len, w);
    store_octet(p.velocity, first, p.len, v);
    if (rule == ADAM) store_octet(p.second, first, p.len, squares);
    if (leaky) store_octet(p.leak, first, p.len, leak);
    return w;
}

// What the masks make of master values.
__device__ __forceinline__ Vector sample(u32 which, u32 inside, u32 kept, float scale, const Vector& w, const Vector& leak) {
    Vector x = zeros();
    for (u32 k = 0; k < 8; k++) {
        if (!(inside >> k & 1)) continue;
        if (which == DETERMINISTIC_WEIGHTS) x.v[k] = w.v[k];
        else if (kept >> k & 1) x.v[k] = scale * w.v[k];
        else if (which == LEAKY_WEIGHTS) x.v[k] = leak.v[k];
    }
    return x;
}

__device__ __forceinline__ void store_effective(const Parameter& p, u32 first, const Vector& x, u32 bf16) {
    if (p.in_channels % 8 == 0) {
        Tensor to{};
        to.at = p.effective;
        to.bf16 = bf16;
        store(to, first / 8, x);
        return;
    }
    u32 padded = div_up(p.in_channels, 8) * 8, row = first / p.in_channels, i = first % p.in_channels;
    for (u32 k = 0; k < 8; k++) {
        if (first + k >= p.len) break;
        size_t at = (size_t)row * padded + i;
        if (bf16) static_cast<u16*>(p.effective)[at] = f32_to_bf16(x.v[k]);
        else static_cast<float*>(p.effective)[at] = x.v[k];
        if (++i == p.in_channels) i = 0, row++;
    }
}

// Whatever is asked of an optimiser step (rule), a new Z (draw) and the effective weights that follow (which), in this order.
extern "C" __global__ void __launch_bounds__(256) update_and_mask(const Parameter* parameters, const u32* owner, const Keep* keep,
                                                                  const WeightStep* step, u32 rule, u32 draw, u32 which, u32 bf16) {
    const Parameter& p = parameters[owner[blockIdx.x]];
    u32 octet = (blockIdx.x - p.first_block) * blockDim.x + threadIdx.x, first = 8 * octet;
    if (first >= p.len) return;
    u32 inside = p.mask ? p.mask[octet] : 0xff, kept = p.mask ? p.random[octet] : 0xff;
    Keep of_layer = p.mask ? keep[p.layer] : Keep{0, 1.0f};
    Vector w = zeros();
    bool steps = rule != NO_RULE && p.velocity;
    if (steps) w = optimise(p, first, moves(p.masking, inside, kept), drawn(p.masking) ? of_layer.scale : 1.0f, *step, rule);
    if (!p.mask) return;
    if (draw) {
        uint4 draws = philox(make_uint4(octet, step->step, p.layer, step->domain), philox_key(step->seed));
        kept = mask_octet(draws, of_layer.threshold) & present(first, p.len);
        p.random[octet] = u8(kept);
    }
    if (which == NOTHING) return;
    if (!steps && inside) w = load_octet(p.value, first, p.len);
    Vector leak = zeros();
    if (which == LEAKY_WEIGHTS && (inside & ~kept)) leak = load_octet(p.leak, first, p.len);
    store_effective(p, first, sample(which, inside, kept, of_layer.scale, w, leak), bf16);
}

// The running mean of samples: average += (x - average) / (n + 1), x the value, or what the masks make of it. The first sample
// replaces what is there: nothing of an older average is left by rounding.
extern "C" __global__ void __launch_bounds__(256) average(const float* value, const u8* mask, const u8* random, const float* leak,
                                                          float* mean, u32 len, float scale, u32 which, u32 n) {
    u32 octet = blockIdx.x * blockDim.x + threadIdx.x, first = 8 * octet;
    if (first >= len) return;
    Vector x = load_octet(value, first, len);
    if (which != NOTHING) {
        Vector held = which == LEAKY_WEIGHTS ? load_octet(leak, first, len) : zeros();
        x = sample(which, mask[octet], random[octet], scale, x, held);
    }
    if (n > 0) {
        Vector a = load_octet(mean, first, len);
        float share = 1.0f / (float(n) + 1.0f);
        for (u32 k = 0; k < 8; k++) x.v[k] = a.v[k] + (x.v[k] - a.v[k]) * share;
    }
    store_octet(mean, first, len, x);
}

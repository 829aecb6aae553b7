// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//
//   Equals   rng.rs, bit for bit
#pragma once
#include "port.cuh"

// rng::Domain
constexpr u32 DOMAIN_GROWTH = 7;

__device__ __forceinline__ uint2 philox_key(u64 seed) { return make_uint2(u32(seed), u32(seed >> 32)); }

// Ten rounds on `counter` under `key`.
__device__ __forceinline__ uint4 philox(uint4 counter, uint2 key) {
    for (u32 round = 0; round < 10; round++) {
        u32 high_x = __umulhi(0xD2511F53u, counter.x), low_x = 0xD2511F53u * counter.x;
        u32 high_z = __umulhi(0xCD9E8D57u, counter.z), low_z = 0xCD9E8D57u * counter.z;
        counter = make_uint4(high_z ^ counter.y ^ key.x, low_z, high_x ^ counter.w ^ key.y, low_x);
        key.x += 0x9E3779B9u;
        key.y += 0xBB67AE85u;
    }
    return counter;
}

// Bits 2 pair and 2 pair + 1 of an octet of a random mask.
__device__ __forceinline__ u32 mask_bits(u32 draws, u32 pair, u32 threshold) {
    return u32((draws & 0xffffu) < threshold) << 2 * pair | u32(draws >> 16 < threshold) << (2 * pair + 1);
}

// Eight Bernoulli bits: bit j is set when the j-th 16-bit draw of a block, low half first, lies below the threshold.
__device__ __forceinline__ u32 mask_octet(uint4 draws, u32 threshold) {
    return mask_bits(draws.x, 0, threshold) | mask_bits(draws.y, 1, threshold) | mask_bits(draws.z, 2, threshold) |
           mask_bits(draws.w, 3, threshold);
}

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), as src/rng.rs has it, bit for bit.
#pragma once
#include "port.cuh"

// Ten rounds on `counter` under `key`, a seed's low word first.
__device__ __forceinline__ uint4 philox(uint4 counter, uint2 key) {
    for (u32 round = 0; round < 10; round++) {
        u32 a = __umulhi(0xD2511F53u, counter.x), a_low = 0xD2511F53u * counter.x;
        u32 b = __umulhi(0xCD9E8D57u, counter.z), b_low = 0xCD9E8D57u * counter.z;
        counter = make_uint4(b ^ counter.y ^ key.x, b_low, a ^ counter.w ^ key.y, a_low);
        key = make_uint2(key.x + 0x9E3779B9u, key.y + 0xBB67AE85u);
    }
    return counter;
}

// Eight neighbouring elements of a parameter, first a multiple of 8: one byte of its masks, one Philox block of 16-bit draws, one
// 32-byte sector of f32 values. The unit of every kernel on weights.
//
// Parameters start at multiples of 16 bytes, so a whole octet moves as two 16-byte pieces; the last one of a length that is no
// multiple of 8 moves element by element, and nothing behind it is touched.
#pragma once
#include "tensor.cuh"

// The bits of an octet's elements below `len`.
__device__ __forceinline__ u32 present(u32 first, u32 len) { return len - first >= 8 ? 0xffu : (1u << (len - first)) - 1; }

// Elements `first ..` of `from`; 0 from `len` on.
__device__ __forceinline__ Vector load_octet(const float* from, u32 first, u32 len) {
    Vector x = zeros();
    if (len - first >= 8) {
        const float4* at = reinterpret_cast<const float4*>(from + first);
        float4 low = at[0], high = at[1];
        x.v[0] = low.x, x.v[1] = low.y, x.v[2] = low.z, x.v[3] = low.w;
        x.v[4] = high.x, x.v[5] = high.y, x.v[6] = high.z, x.v[7] = high.w;
    } else {
        for (u32 k = 0; k < 8; k++)
            if (first + k < len) x.v[k] = from[first + k];
    }
    return x;
}

__device__ __forceinline__ void store_octet(float* to, u32 first, u32 len, const Vector& x) {
    if (len - first >= 8) {
        float4* at = reinterpret_cast<float4*>(to + first);
        at[0] = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
        at[1] = make_float4(x.v[4], x.v[5], x.v[6], x.v[7]);
    } else {
        for (u32 k = 0; k < 8; k++)
            if (first + k < len) to[first + k] = x.v[k];
    }
}

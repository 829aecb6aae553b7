// An activation or its gradient in device memory, and how eight channels of it are read and written.
//
//   layout   NHWC; channels padded with zeros to a multiple of 8, so that a pixel's channels are whole 16-byte pieces in bf16
//   vector   8 neighbouring channels of a pixel: the unit that every kernel but the products works in
//   dtype    f32 or bf16, looked at once a vector; a branch that a whole launch takes the same way costs nothing beside the memory
//
// Whoever writes a tensor writes the padding channels too, as zeros: readers may then multiply or add them without a look.
#pragma once
#include "ptx.cuh"

struct Tensor {
    void* at;
    u32 n, h, w, c;
    u32 groups;  // ceil(c / 8)
    u32 bf16;
};

struct Vector {
    float v[8];
};

__device__ __forceinline__ u32 pixels(const Tensor& t) { return t.n * t.h * t.w; }
__device__ __forceinline__ u32 vectors(const Tensor& t) { return pixels(t) * t.groups; }

__device__ __forceinline__ void unpack_bf16(u32 pair, float& low, float& high) {
    low = __uint_as_float(pair << 16);
    high = __uint_as_float(pair & 0xffff0000u);
}
__device__ __forceinline__ u32 pack_bf16(float low, float high) { return f32_to_bf16(low) | u32(f32_to_bf16(high)) << 16; }

__device__ __forceinline__ Vector zeros() { return Vector{{0, 0, 0, 0, 0, 0, 0, 0}}; }

// Vector number `i` of a tensor: group i % groups of pixel i / groups.
__device__ __forceinline__ Vector load(const Tensor& t, u32 i) {
    Vector x;
    if (t.bf16) {
        uint4 raw = static_cast<const uint4*>(t.at)[i];
        unpack_bf16(raw.x, x.v[0], x.v[1]);
        unpack_bf16(raw.y, x.v[2], x.v[3]);
        unpack_bf16(raw.z, x.v[4], x.v[5]);
        unpack_bf16(raw.w, x.v[6], x.v[7]);
    } else {
        const float4* from = static_cast<const float4*>(t.at) + 2 * (size_t)i;
        float4 low = from[0], high = from[1];
        x.v[0] = low.x, x.v[1] = low.y, x.v[2] = low.z, x.v[3] = low.w;
        x.v[4] = high.x, x.v[5] = high.y, x.v[6] = high.z, x.v[7] = high.w;
    }
    return x;
}

__device__ __forceinline__ void store(const Tensor& t, u32 i, const Vector& x) {
    if (t.bf16) {
        static_cast<uint4*>(t.at)[i] =
            make_uint4(pack_bf16(x.v[0], x.v[1]), pack_bf16(x.v[2], x.v[3]), pack_bf16(x.v[4], x.v[5]), pack_bf16(x.v[6], x.v[7]));
    } else {
        float4* to = static_cast<float4*>(t.at) + 2 * (size_t)i;
        to[0] = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
        to[1] = make_float4(x.v[4], x.v[5], x.v[6], x.v[7]);
    }
}

// Sets vector i, or adds to what is there: the sum is taken in f32 and rounded once.
__device__ __forceinline__ void put(const Tensor& t, u32 i, Vector x, u32 add) {
    if (add) {
        Vector old = load(t, i);
        for (u32 k = 0; k < 8; k++) x.v[k] = old.v[k] + x.v[k];
    }
    store(t, i, x);
}

// One value: channel `channel` of pixel `pixel`, both counted over the whole tensor and from 0.
__device__ __forceinline__ float value(const Tensor& t, u32 pixel, u32 channel) {
    size_t at = (size_t)pixel * t.groups * 8 + channel;
    return t.bf16 ? bf16_to_f32(static_cast<const u16*>(t.at)[at]) : static_cast<const float*>(t.at)[at];
}

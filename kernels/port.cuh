// Included first by every kernel file: the same source is read by NVRTC for GPUs and by a C++ compiler for the tests.
//
// A kernel's shared memory is static and at most 48 KB, which every GPU since sm_80 has without asking:
// SHARED(name, type) declares it, on either side.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// Lets an array type stand before a name.
template <class T> using Same = T;

#if defined(__CUDACC_RTC__)
#define SHARED(name, ...) __shared__ __align__(128) Same<__VA_ARGS__> name
#define ON_GPU 1
#else
#include "engine.h"
#define SHARED(name, ...)                                                  \
    static const char name##_owner = 0;                                    \
    auto& name = *static_cast<Same<__VA_ARGS__>*>(                   \
        ::simt::shared(&name##_owner, sizeof(Same<__VA_ARGS__>)))
#define ON_GPU 0
#endif

#define INFINITY_F32 __uint_as_float(0x7f800000u)

// Threads of a warp.
constexpr u32 WARP = 32;
constexpr u32 ALL_LANES = 0xffffffffu;

__device__ __forceinline__ u32 div_up(u32 a, u32 b) { return (a + b - 1) / b; }

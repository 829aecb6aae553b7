// CUDA C++ for the CPU: what a kernel source needs when a host compiler reads it.
//
// A block's threads are fibers of one operating-system thread, run one at a time. Each runs until it has to wait: for a
// barrier, for its warp, or for its end. Which ready fiber goes next is a Schedule's choice, so that a test can run the orders
// that a missing barrier shows in. All state belongs to the calling thread: several may launch at once.
//
// Modelled: barriers, warp collectives, atomics (one thread runs at a time), cp.async in groups (landing at issue or at the
// wait), shared memory that starts as NaN and ends at an inaccessible page, device memory likewise. Not modelled: the memory
// orders of several blocks at once (blocks run one after the other), bank conflicts, time.
#pragma once
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "fiber.h"

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct uint2 { unsigned x, y; };
struct uint3 { unsigned x, y, z; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace simt {

// A place in a source where threads wait for each other or for memory. Tests can leave one out.
struct Site {
    const char* file;
    int line;
    const char* what;
    std::atomic<unsigned> number{0};  // from 1, given at the first visit
    constexpr Site(const char* f, int l, const char* w) : file(f), line(l), what(w) {}
};

enum class State : unsigned char { Ready, AtBarrier, InCollective, Done };

struct Copy {
    void* to;
    const void* from;
    unsigned bytes, valid;
};

enum { COPIES = 256, GROUPS = 32 };

struct Thread {
    uint3 index;
    unsigned linear, lane, warp;
    State state;
    const Site* waits_at;
    void* waits_on;
    Fiber fiber;
    unsigned copies, groups;
    unsigned group_end[GROUPS];
    Copy copy[COPIES];
};

struct Grid {
    uint3 block, blocks, threads;
};

extern __thread Thread* current;
extern __thread Grid grid;

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
bool skipped(Site& site);
void barrier(Site& site);
void* shared(const void* owner, size_t bytes);
void preempt();

// What the lanes of a mask gave when the last of them arrived.
struct Met {
    unsigned lanes;
    const unsigned char (*given)[16];
    template <class T> T of(unsigned lane) const {
        T value;
        memcpy(&value, given[lane], sizeof value);
        return value;
    }
};

// What the last lane to arrive does with what all have given, before any goes on.
typedef void (*Combine)(const unsigned char (*given)[16], unsigned lanes);
Met rendezvous(unsigned mask, Site& site, const void* given, size_t bytes, Combine combine = nullptr);

template <class T> T shuffle(unsigned mask, T value, unsigned from, Site& site) {
    static_assert(sizeof(T) <= 16, "a lane gives at most 16 bytes");
    Met met = rendezvous(mask, site, &value, sizeof value);
    if (from >= 32 || !(met.lanes >> from & 1)) return value;
    return met.of<T>(from);
}
template <class T> T shuffle_up(unsigned mask, T value, unsigned by, Site& site) {
    unsigned lane = current->lane;
    return shuffle(mask, value, lane >= by ? lane - by : lane, site);
}
template <class T> T shuffle_down(unsigned mask, T value, unsigned by, Site& site) {
    unsigned lane = current->lane;
    return shuffle(mask, value, lane + by < 32 ? lane + by : lane, site);
}
template <class T> T shuffle_xor(unsigned mask, T value, unsigned by, Site& site) {
    return shuffle(mask, value, current->lane ^ by, site);
}
// A skipped __syncwarp may be left out; a skipped shuffle has no meaning, so only __syncwarp asks.
inline void warp_barrier(unsigned mask, Site& site) {
    if (!skipped(site)) rendezvous(mask, site, nullptr, 0);
}

void copy_async(void* to, const void* from, unsigned bytes, unsigned valid);
void copy_commit();
void copy_wait(unsigned left, Site& site);

// One thread runs at a time: nothing can come between the reading and the writing.
template <class T, class F> T atomic_update(T* at, F next) {
    preempt();
    T old = *at;
    *at = next(old);
    return old;
}

// Calls a kernel with the arguments that a launch points at.
template <class... P, size_t... I> void call(void (*kernel)(P...), void* const* arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<P>*>(arguments[I])...);
}
template <class... P> void call(void (*kernel)(P...), void* const* arguments) {
    call(kernel, arguments, std::index_sequence_for<P...>{});
}

// A kernel that Rust can find by name, with the size of each parameter.
struct Entry {
    const char* name;
    void (*run)(void* const*);
    unsigned count;
    unsigned sizes[32];
    Entry* next;
    Entry(const char* name, void (*run)(void* const*));
    template <class... P> Entry(const char* name, void (*run)(void* const*), void (*)(P...)) : Entry(name, run) {
        static_assert(sizeof...(P) <= 32, "a kernel has at most 32 parameters");
        ((sizes[count++] = sizeof(P)), ...);
    }
};

}  // namespace simt

#define SIMT_ENTRY(kernel)                                                      \
    static void kernel##__run(void* const* a) { ::simt::call(kernel, a); } \
    static ::simt::Entry kernel##__entry(#kernel, kernel##__run, kernel)

#define SIMT_SITE(what) ([]() -> ::simt::Site& { static ::simt::Site site(__FILE__, __LINE__, what); return site; }())

#define threadIdx (::simt::current->index)
#define blockIdx (::simt::grid.block)
#define blockDim (::simt::grid.threads)

#define __syncthreads() ::simt::barrier(SIMT_SITE("__syncthreads"))
#define __syncwarp() ::simt::warp_barrier(~0u, SIMT_SITE("__syncwarp"))
#define __shfl_sync(mask, value, from) ::simt::shuffle(mask, value, from, SIMT_SITE("__shfl_sync"))
#define __shfl_up_sync(mask, value, by) ::simt::shuffle_up(mask, value, by, SIMT_SITE("__shfl_up_sync"))
#define __shfl_down_sync(mask, value, by) ::simt::shuffle_down(mask, value, by, SIMT_SITE("__shfl_down_sync"))
#define __shfl_xor_sync(mask, value, by) ::simt::shuffle_xor(mask, value, by, SIMT_SITE("__shfl_xor_sync"))

// No atomicAdd for floats: its order is the scheduler's, and results would differ from run to run.
static inline unsigned atomicAdd(unsigned* at, unsigned by) {
    return simt::atomic_update(at, [=](unsigned old) { return old + by; });
}
static inline unsigned long long atomicAdd(unsigned long long* at, unsigned long long by) {
    return simt::atomic_update(at, [=](unsigned long long old) { return old + by; });
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }
static inline unsigned __float_as_uint(float x) { unsigned u; memcpy(&u, &x, 4); return u; }
static inline float __uint_as_float(unsigned u) { float x; memcpy(&x, &u, 4); return x; }
static inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
static inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }

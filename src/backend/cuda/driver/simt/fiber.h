// Fibers of one operating-system thread: each has a stack of its own and runs until it leaves.
#pragma once
#include <cstddef>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define SIMT_ASAN 1
#else
#define SIMT_ASAN 0
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

namespace simt {

// Bytes of a fiber's stack. AddressSanitizer's frames are larger.
constexpr size_t STACK = (SIMT_ASAN ? 256 : 64) << 10;

struct Fiber {
    void* stack;
#if defined(__x86_64__)
    void* stack_pointer;
#else
    ucontext_t context;
#endif
    void* sanitizer;
};

// Makes a fiber that will run `body`, which never returns: it leaves for ever. `number` staggers stacks.
void prepare_fiber(Fiber& fiber, void* stack, unsigned number, void (*body)());
// Runs a fiber until it leaves; for the thread itself to call.
void enter_fiber(Fiber& fiber);
// Goes back to the thread, until the fiber is entered again.
void leave_fiber(Fiber& fiber, bool for_ever = false);

}  // namespace simt

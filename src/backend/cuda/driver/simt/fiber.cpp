// Switching between fibers: by hand on x86-64, where it takes a few nanoseconds, by ucontext elsewhere.
#include "fiber.h"

#include <cstdint>
#if SIMT_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__)
extern "C" void simt_switch(void** save, void* load);
asm(R"(
    .text
    .globl simt_switch
    .type simt_switch,@function
    .align 16
simt_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp,(%rdi)
    movq %rsi,%rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmp *%rcx
    .size simt_switch,.-simt_switch
)");
#endif

namespace simt {
namespace {

// The thread itself, while a fiber runs.
#if defined(__x86_64__)
__thread void* thread_stack_pointer;
#else
thread_local ucontext_t thread_context;
#endif
#if SIMT_ASAN
__thread const void* thread_stack;
__thread size_t thread_stack_size;
__thread void* thread_fake;
#endif
__thread void (*first)();

void start() {
#if SIMT_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &thread_stack, &thread_stack_size);
#endif
    first();
}

}  // namespace

void prepare_fiber(Fiber& fiber, void* stack, unsigned number, void (*body)()) {
    first = body;
    fiber.stack = stack;
    fiber.sanitizer = nullptr;
#if defined(__x86_64__)
    // Staggered: equal addresses modulo the page size would fight for the same cache sets.
    uintptr_t top = (uintptr_t(stack) + STACK - number % 61 * 128) & ~uintptr_t(15);
    void** at = reinterpret_cast<void**>(top);
    *--at = nullptr;
    *--at = reinterpret_cast<void*>(&start);
    for (int i = 0; i < 6; i++) *--at = nullptr;
    fiber.stack_pointer = at;
#else
    (void)number;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack;
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, start, 0);
#endif
}

void enter_fiber(Fiber& fiber) {
#if SIMT_ASAN
    __sanitizer_start_switch_fiber(&thread_fake, fiber.stack, STACK);
#endif
#if defined(__x86_64__)
    simt_switch(&thread_stack_pointer, fiber.stack_pointer);
#else
    swapcontext(&thread_context, &fiber.context);
#endif
#if SIMT_ASAN
    __sanitizer_finish_switch_fiber(thread_fake, nullptr, nullptr);
#endif
}

void leave_fiber(Fiber& fiber, bool for_ever) {
    (void)for_ever;
#if SIMT_ASAN
    __sanitizer_start_switch_fiber(for_ever ? nullptr : &fiber.sanitizer, thread_stack, thread_stack_size);
#endif
#if defined(__x86_64__)
    simt_switch(&fiber.stack_pointer, thread_stack_pointer);
#else
    swapcontext(&fiber.context, &thread_context);
#endif
#if SIMT_ASAN
    __sanitizer_finish_switch_fiber(fiber.sanitizer, &thread_stack, &thread_stack_size);
#endif
}

}  // namespace simt

// Guarded memory: see memory.h.
#include "memory.h"

#include <algorithm>
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <vector>
#include <sys/mman.h>

#include "engine.h"
#include "fiber.h"

namespace simt {
namespace {

struct Region {
    char* map;
    size_t map_bytes;
    char* at;
    size_t bytes;
    const char* name;
};
std::mutex regions_lock;
std::vector<Region> regions;

struct sigaction previous[2];

// The launch that this thread is in.
struct Launch {
    sigjmp_buf before;
    volatile sig_atomic_t running;
    char fault[400];
};
thread_local Launch launch;

void on_fault(int signal, siginfo_t* info, void* context) {
    if (!launch.running) {
        struct sigaction& p = previous[signal == SIGBUS];
        if (p.sa_flags & SA_SIGINFO) p.sa_sigaction(signal, info, context);
        else sigaction(signal, &p, nullptr);
        return;
    }
    char* at = static_cast<char*>(info->si_addr);
    char place[160] = "memory that belongs to no buffer";
    long nearest = 1l << 40;
    // No lock: the thread that faults may hold it only inside allocate, which touches no guarded page.
    for (const Region& r : regions) {
        long offset = at - r.at, distance = offset < 0 ? -offset : offset;
        if (distance >= nearest) continue;
        nearest = distance;
        snprintf(place, sizeof place, "%s of %zu bytes, at byte %ld", r.name, r.bytes, offset);
    }
    const uint3 &b = grid.block, &t = current->index;
    snprintf(launch.fault, sizeof launch.fault, "block (%u,%u,%u) thread (%u,%u,%u) leaves %s", b.x, b.y, b.z, t.x, t.y, t.z, place);
    siglongjmp(launch.before, 1);
}

void install_handler() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigaction(SIGSEGV, &action, &previous[0]);
        sigaction(SIGBUS, &action, &previous[1]);
    });
    // A fiber's stack may be what overflowed: the handler needs one of its own.
    stack_t now;
    sigaltstack(nullptr, &now);
    if (now.ss_flags & SS_DISABLE) {
        static thread_local char alternative[64 << 10];
        stack_t own{};
        own.ss_sp = alternative;
        own.ss_size = sizeof alternative;
        sigaltstack(&own, nullptr);
    }
}

}  // namespace

void* allocate(size_t bytes, const char* name) {
    size_t body = (bytes + PAGE - 1) / PAGE * PAGE, whole = body + 2 * PAGE;
    void* mapped = mmap(nullptr, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    char* map = static_cast<char*>(mapped);
    if (mprotect(map + PAGE, body, PROT_READ | PROT_WRITE)) {
        munmap(map, whole);
        return nullptr;
    }
    char* at = map + PAGE + body - (bytes + 15) / 16 * 16;
    ASAN_POISON_MEMORY_REGION(map + PAGE, at - map - PAGE);
    ASAN_POISON_MEMORY_REGION(at + bytes, map + PAGE + body - at - bytes);
    std::lock_guard<std::mutex> hold(regions_lock);
    regions.push_back({map, whole, at, bytes, name});
    return at;
}

void release(void* at) {
    std::lock_guard<std::mutex> hold(regions_lock);
    auto found = std::find_if(regions.begin(), regions.end(), [=](const Region& r) { return r.at == at; });
    if (found == regions.end()) return;
    // Others may get these addresses.
    ASAN_UNPOISON_MEMORY_REGION(found->map, found->map_bytes);
    munmap(found->map, found->map_bytes);
    regions.erase(found);
}

const char* run_guarded(void (*run)()) {
    install_handler();
    if (sigsetjmp(launch.before, 1)) {
        launch.running = 0;
        return launch.fault;
    }
    launch.running = 1;
    run();
    launch.running = 0;
    return nullptr;
}

}  // namespace simt

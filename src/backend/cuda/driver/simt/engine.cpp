// The engine behind engine.h: the schedule of a block's threads, barriers, collectives, asynchronous copies.
#include "engine.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

#include "fiber.h"
#include "memory.h"

namespace simt {

__thread Thread* current;
__thread Grid grid;

namespace {

enum Order : unsigned { Forward, Reverse, Random };

// As Schedule in simt.rs.
struct Schedule {
    unsigned order;
    unsigned seed;
    unsigned late_copies;
};

constexpr size_t SHARED_LIMIT = 48 << 10;
constexpr unsigned THREADS = 1024;
// Lies before each variable in shared memory, for nobody to touch; only AddressSanitizer sees who does.
constexpr size_t RED_ZONE = SIMT_ASAN ? 128 : 0;
constexpr unsigned VARIABLES = 32;
// A multiple of pages for up to 32 variables.
constexpr size_t SHARED_ROOM = SHARED_LIMIT + VARIABLES * RED_ZONE;

// One set of lanes that meet; two slots, so that a lane still reading one meeting is not overtaken by the next.
struct Collective {
    unsigned mask, arrived, generation;
    const Site* site;
    Combine combine;
    unsigned got[2];
    unsigned char given[2][32][16];
};
constexpr unsigned COLLECTIVES = 8;

struct Variable {
    const void* owner;
    unsigned char* at;
};

struct Engine {
    std::vector<Thread> threads{THREADS};
    std::vector<Collective> collectives{THREADS / 32 * COLLECTIVES};
    unsigned collective_count[THREADS / 32];
    unsigned alive_lanes[THREADS / 32];
    char* stacks;
    unsigned char* shared_begin;
    unsigned char* shared_end;
    std::vector<Variable> variables;
    unsigned char* shared_at;

    Schedule schedule{};
    unsigned random = 1;
    unsigned count = 0, alive = 0;
    unsigned waiting = 0;
    const Site* barrier_site = nullptr;
    bool aborted = false;
    std::string error;
    void (*run)(void* const*) = nullptr;
    void* const* arguments = nullptr;

    // Tests: a place to leave out, "FILE:LINE" in the environment, and the places visited.
    std::string skip_file;
    int skip_line = 0;
    std::vector<char> visited;

    Engine() {
        stacks = static_cast<char*>(need(allocate(THREADS * STACK, "the stacks")));
        shared_begin = static_cast<unsigned char*>(need(allocate(SHARED_ROOM, "shared memory")));
        shared_end = shared_begin + SHARED_ROOM;
        const char* skip = getenv("CIGL_SIMT_SKIP");
        if (const char* colon = skip ? strrchr(skip, ':') : nullptr) {
            skip_file.assign(skip, colon);
            skip_line = atoi(colon + 1);
        }
    }
    ~Engine() {
        release(stacks);
        release(shared_begin);
    }
    static void* need(void* memory) {
        if (memory) return memory;
        fprintf(stderr, "simt: no memory for an engine\n");
        abort();
    }
    unsigned next_random() {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        return random;
    }
};

thread_local Engine the_engine;
__thread Engine* engine;

Engine& here() {
    if (!engine) engine = &the_engine;
    return *engine;
}

// ---- Threads

void resume(Thread& t) {
    current = &t;
    enter_fiber(t.fiber);
}

void suspend() { leave_fiber(current->fiber); }

void finish();

void body() {
    engine->run(engine->arguments);
    finish();
    leave_fiber(current->fiber, true);
}

void prepare(Engine& e, unsigned linear) {
    Thread& t = e.threads[linear];
    t.index = {linear % grid.threads.x, linear / grid.threads.x % grid.threads.y, linear / (grid.threads.x * grid.threads.y)};
    t.linear = linear;
    t.lane = linear % 32;
    t.warp = linear / 32;
    t.state = State::Ready;
    t.copies = t.groups = 0;
    prepare_fiber(t.fiber, e.stacks + linear * STACK, linear, body);
}

// ---- Waiting

void release_barrier(Engine& e) {
    e.waiting = 0;
    for (unsigned i = 0; i < e.count; i++)
        if (e.threads[i].state == State::AtBarrier) e.threads[i].state = State::Ready;
}

bool complete_if_all_arrived(Engine& e, Collective& c, unsigned warp) {
    unsigned needed = c.mask & e.alive_lanes[warp];
    if (!c.arrived || (c.arrived & needed) != needed) return false;
    if (c.combine) c.combine(c.given[c.generation & 1], c.arrived);
    c.got[c.generation & 1] = c.arrived;
    c.arrived = 0;
    c.generation++;
    for (unsigned lane = 0; lane < 32; lane++) {
        unsigned i = warp * 32 + lane;
        if (i < e.count && e.threads[i].state == State::InCollective && e.threads[i].waits_on == &c)
            e.threads[i].state = State::Ready;
    }
    return true;
}

void finish() {
    Engine& e = *engine;
    if (current->copies) fail("exits with %u cp.async copies that it did not wait for", current->copies);
    current->state = State::Done;
    e.alive--;
    e.alive_lanes[current->warp] &= ~(1u << current->lane);
    if (e.waiting && e.waiting == e.alive) release_barrier(e);
    unsigned warp = current->warp;
    for (unsigned i = 0; i < e.collective_count[warp]; i++)
        complete_if_all_arrived(e, e.collectives[warp * COLLECTIVES + i], warp);
}

// ---- Running a block

void shuffle_order(Engine& e, unsigned* order, unsigned n) {
    for (unsigned i = n; i-- > 1;) std::swap(order[i], order[e.next_random() % (i + 1)]);
}

void describe_deadlock(Engine& e) {
    e.aborted = true;
    e.error = "deadlock:";
    unsigned shown = 0;
    for (unsigned i = 0; i < e.count && shown < 4; i++) {
        const Thread& t = e.threads[i];
        if (t.state == State::Done) continue;
        char line[200];
        snprintf(line, sizeof line, " thread %u waits in %s at %s:%d;", i, t.waits_at->what, t.waits_at->file, t.waits_at->line);
        e.error += line;
        shown++;
        i |= 31;
    }
}

// One warp runs as far as it can (to a barrier or its end) before the next starts: the largest skew that the program
// allows. Taking turns after each step would hide a missing barrier.
void run_block(Engine& e) {
    e.count = e.alive = grid.threads.x * grid.threads.y * grid.threads.z;
    e.waiting = 0;
    e.variables.clear();
    e.shared_at = e.shared_end;
    ASAN_POISON_MEMORY_REGION(e.shared_begin, SHARED_ROOM);
    unsigned warps = (e.count + 31) / 32;
    std::fill_n(e.collective_count, warps, 0u);
    for (unsigned w = 0; w < warps; w++) e.alive_lanes[w] = e.count - w * 32 >= 32 ? ~0u : (1u << (e.count - w * 32)) - 1;
    for (unsigned i = 0; i < e.count; i++) prepare(e, i);
    unsigned warp_order[THREADS / 32], lane_order[32];
    bool reverse = e.schedule.order == Reverse;
    for (unsigned i = 0; i < warps; i++) warp_order[i] = reverse ? warps - 1 - i : i;
    for (unsigned i = 0; i < 32; i++) lane_order[i] = reverse ? 31 - i : i;
    while (e.alive) {
        bool progress = false;
        if (e.schedule.order == Random) shuffle_order(e, warp_order, warps);
        for (unsigned k = 0; k < warps; k++) {
            unsigned base = warp_order[k] * 32, lanes = std::min(32u, e.count - base);
            if (e.schedule.order == Random) shuffle_order(e, lane_order, 32);
            for (bool again = true; again;) {
                again = false;
                for (unsigned l = 0; l < 32; l++) {
                    if (lane_order[l] >= lanes) continue;
                    Thread& t = e.threads[base + lane_order[l]];
                    if (t.state != State::Ready) continue;
                    again = progress = true;
                    resume(t);
                    if (e.aborted) return;
                }
                // Sometimes a warp is left half way.
                if (e.schedule.order == Random && e.next_random() % 8 == 0) break;
            }
        }
        if (!progress) return describe_deadlock(e);
    }
}

void run_grid(Engine& e) {
    unsigned blocks = grid.blocks.x * grid.blocks.y * grid.blocks.z;
    std::vector<unsigned> order(blocks);
    for (unsigned i = 0; i < blocks; i++) order[i] = e.schedule.order == Reverse ? blocks - 1 - i : i;
    if (e.schedule.order == Random) shuffle_order(e, order.data(), blocks);
    for (unsigned b : order) {
        grid.block = {b % grid.blocks.x, b / grid.blocks.x % grid.blocks.y, b / (grid.blocks.x * grid.blocks.y)};
        run_block(e);
        if (e.aborted) return;
    }
}

// ---- What there is to run, and to wait at

Entry* entries;
std::mutex site_list_lock;
std::vector<const Site*> site_list;

}  // namespace

Entry::Entry(const char* name, void (*run)(void* const*)) : name(name), run(run), count(0), sizes{}, next(entries) {
    entries = this;
}

void fail(const char* format, ...) {
    char text[600], where[160];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    snprintf(where, sizeof where, "block (%u,%u,%u) thread (%u,%u,%u) ", grid.block.x, grid.block.y, grid.block.z, current->index.x,
             current->index.y, current->index.z);
    engine->error = std::string(where) + text;
    engine->aborted = true;
    for (;;) suspend();
}

static void visit(Engine& e, Site& site) {
    unsigned number = site.number.load(std::memory_order_relaxed);
    if (!number) {
        std::lock_guard<std::mutex> hold(site_list_lock);
        number = site.number;
        if (!number) {
            site_list.push_back(&site);
            site.number = number = unsigned(site_list.size());
        }
    }
    if (e.visited.size() <= number) e.visited.resize(number + 1);
    e.visited[number] = 1;
}

// Instances of a template have sites of their own.
static bool same_place(const Site& a, const Site& b) { return &a == &b || (a.line == b.line && !strcmp(a.file, b.file)); }

bool skipped(Site& site) {
    Engine& e = *engine;
    visit(e, site);
    return site.line == e.skip_line && e.skip_file == site.file;
}

void barrier(Site& site) {
    Engine& e = *engine;
    if (skipped(site)) return;
    if (!e.waiting) e.barrier_site = &site;
    else if (!same_place(*e.barrier_site, site))
        fail("is in %s at %s:%d while others wait at %s:%d", site.what, site.file, site.line, e.barrier_site->file,
             e.barrier_site->line);
    if (++e.waiting == e.alive) {
        release_barrier(e);
    } else {
        current->state = State::AtBarrier;
        current->waits_at = &site;
        suspend();
    }
}

void* shared(const void* owner, size_t bytes) {
    Engine& e = *engine;
    for (const Variable& v : e.variables)
        if (v.owner == owner) return v.at;
    // From the end downwards: the first variable ends where the guard page begins.
    size_t taken = (bytes + 127) / 128 * 128, before = e.shared_end - e.shared_at - e.variables.size() * RED_ZONE;
    if (before + taken > SHARED_LIMIT) fail("takes more than %zu bytes of shared memory", SHARED_LIMIT);
    if (e.variables.size() == VARIABLES) fail("has more than %u variables in shared memory", VARIABLES);
    unsigned char* at = e.shared_at - taken;
    ASAN_UNPOISON_MEMORY_REGION(at, bytes);
    memset(at, 0xFF, bytes);
    e.variables.push_back({owner, at});
    e.shared_at = at - RED_ZONE;
    return at;
}

void preempt() {
    Engine& e = *engine;
    if (e.schedule.order == Random && e.next_random() % 4 == 0) suspend();
}

Met rendezvous(unsigned mask, Site& site, const void* given, size_t bytes, Combine combine) {
    Engine& e = *engine;
    visit(e, site);
    unsigned warp = current->warp, lane = current->lane;
    if (!(mask >> lane & 1)) fail("calls %s at %s:%d, but its lane %u is not in the mask %08x", site.what, site.file, site.line, lane, mask);
    Collective* all = &e.collectives[warp * COLLECTIVES];
    Collective* c = nullptr;
    for (unsigned i = 0; i < e.collective_count[warp]; i++)
        if (all[i].mask == mask) c = &all[i];
    if (!c) {
        if (e.collective_count[warp] == COLLECTIVES) fail("uses more than %u different warp masks", COLLECTIVES);
        c = &all[e.collective_count[warp]++];
        c->mask = mask;
        c->arrived = c->generation = 0;
    }
    if (!c->arrived) {
        c->site = &site;
        c->combine = combine;
    } else if (!same_place(*c->site, site)) {
        fail("calls %s at %s:%d while lanes of its warp are in %s at %s:%d", site.what, site.file, site.line, c->site->what,
             c->site->file, c->site->line);
    }
    unsigned slot = c->generation & 1;
    // The usual sizes without a call.
    if (bytes == 4) memcpy(c->given[slot][lane], given, 4);
    else if (bytes == 8) memcpy(c->given[slot][lane], given, 8);
    else if (bytes) memcpy(c->given[slot][lane], given, bytes);
    c->arrived |= 1u << lane;
    if (!complete_if_all_arrived(e, *c, warp)) {
        current->state = State::InCollective;
        current->waits_on = c;
        current->waits_at = &site;
        suspend();
    }
    return {c->got[slot], c->given[slot]};
}

// ---- Asynchronous copies

static void land(const Copy& c) {
    memcpy(c.to, c.from, c.valid);
    memset(static_cast<char*>(c.to) + c.valid, 0, c.bytes - c.valid);
}

void copy_async(void* to, const void* from, unsigned bytes, unsigned valid) {
    preempt();
    Thread& t = *current;
    if (uintptr_t(to) % bytes || (valid && uintptr_t(from) % bytes)) fail("copies %u bytes to or from an address that is no multiple of that", bytes);
    const Copy copy = {to, from, bytes, valid};
    if (!engine->schedule.late_copies) return land(copy);
    if (t.copies == COPIES) fail("has more than %u cp.async in flight", unsigned(COPIES));
    t.copy[t.copies++] = copy;
    // What it will overwrite is as good as gone: nobody may read it from here on.
    memset(to, 0xFF, bytes);
}

void copy_commit() {
    Thread& t = *current;
    if (t.groups == GROUPS) fail("has more than %u groups of cp.async", unsigned(GROUPS));
    t.group_end[t.groups++] = t.copies;
}

void copy_wait(unsigned left, Site& site) {
    if (skipped(site)) return;
    Thread& t = *current;
    if (t.groups <= left) return;
    unsigned done = t.groups - left, count = t.group_end[done - 1];
    std::for_each(t.copy, t.copy + count, land);
    std::copy(t.copy + count, t.copy + t.copies, t.copy);
    t.copies -= count;
    std::copy(t.group_end + done, t.group_end + t.groups, t.group_end);
    t.groups -= done;
    for (unsigned i = 0; i < t.groups; i++) t.group_end[i] -= count;
}

}  // namespace simt

using namespace simt;

extern "C" {

const Entry* simt_find(const char* name) {
    for (Entry* e = entries; e; e = e->next)
        if (!strcmp(e->name, name)) return e;
    return nullptr;
}

unsigned simt_parameters(const Entry* entry, unsigned* sizes) {
    std::copy_n(entry->sizes, entry->count, sizes);
    return entry->count;
}

// Runs a kernel; 0, or 1 and a message.
int simt_launch(const Entry* entry, void* const* arguments, const unsigned blocks[3], unsigned threads, const unsigned schedule[3],
                char* message, size_t message_size) {
    Engine& e = here();
    e.schedule = {schedule[0], schedule[1], schedule[2]};
    e.random = schedule[1] * 2654435761u + 12345u;
    e.run = entry->run;
    e.arguments = arguments;
    e.aborted = false;
    grid = {{0, 0, 0}, {blocks[0], blocks[1], blocks[2]}, {threads, 1, 1}};
    if (threads == 0 || threads > THREADS) {
        snprintf(message, message_size, "a block has 1 to %u threads, not %u", THREADS, threads);
        return 1;
    }
    const char* fault = run_guarded([] { run_grid(*engine); });
    if (!fault && !e.aborted) return 0;
    // Threads that did not end have left their frames.
    ASAN_UNPOISON_MEMORY_REGION(e.stacks, THREADS * STACK);
    snprintf(message, message_size, "%s", fault ? fault : e.error.c_str());
    return 1;
}

void* simt_allocate(size_t bytes) { return allocate(bytes, "a buffer"); }

void simt_free(void* at) { release(at); }

void simt_forget_visits() {
    here().visited.clear();
}

// The number-th place of synchronisation that this thread visited since; false when there are no more.
bool simt_visited(unsigned number, const char** file, int* line) {
    Engine& e = here();
    std::lock_guard<std::mutex> hold(site_list_lock);
    for (const Site* s : site_list) {
        if (s->number >= e.visited.size() || !e.visited[s->number] || number--) continue;
        *file = s->file;
        *line = s->line;
        return true;
    }
    return false;
}
}

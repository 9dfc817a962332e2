#include "emulation.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <exception>
#include <vector>

namespace emulation {
namespace {

constexpr unsigned long kStack = 128 << 10, kPage = 4096;

enum class State { ready, at_barrier, at_exchange, done };

struct Fibre {
  ucontext_t first;
  jmp_buf at;
  bool started = false;
  State state = State::done;
  bool any = false;
  unsigned char mine[16], other[16];
  unsigned long size = 0;
  int distance = 0;
  void* brought = nullptr;
  void (*action)(void* const*) = nullptr;  // null: an exchange
  void* stack = nullptr;
};

struct Machine {
  Block block;
  std::vector<Fibre> fibres;
  jmp_buf scheduler;
  const std::function<void()>* body = nullptr;
  bool any = false, reversed = false, fail = false;
};
Machine machine;

Fibre& now() { return machine.fibres[static_cast<std::size_t>(machine.block.thread)]; }

void leave(State state) {
  Fibre& fibre = now();
  fibre.state = state;
  if (_setjmp(fibre.at) == 0) _longjmp(machine.scheduler, 1);
}

void start() {
  (*machine.body)();
  now().state = State::done;
  _longjmp(machine.scheduler, 1);
}

void resume(int thread) {
  machine.block.thread = thread;
  Fibre& fibre = now();
  if (_setjmp(machine.scheduler) != 0) return;
  if (fibre.started) _longjmp(fibre.at, 1);
  fibre.started = true;
  setcontext(&fibre.first);
}

// One step of all fibres that can run; then barriers and exchanges that are complete let theirs go on.
void run_block(int threads) {
  for (int i = 0; i < threads; ++i) {
    Fibre& fibre = machine.fibres[static_cast<std::size_t>(i)];
    if (!fibre.stack) fibre.stack = allocate(kStack);
    getcontext(&fibre.first);
    fibre.first.uc_stack.ss_sp = fibre.stack;
    fibre.first.uc_stack.ss_size = kStack;
    fibre.first.uc_link = nullptr;
    makecontext(&fibre.first, start, 0);
    fibre.started = false;
    fibre.state = State::ready;
  }
  while (true) {
    for (int i = 0; i < threads; ++i) {
      const int thread = machine.reversed ? threads - 1 - i : i;
      if (machine.fibres[static_cast<std::size_t>(thread)].state == State::ready) resume(thread);
    }
    int waiting = 0, done = 0;
    bool any = false;
    for (int i = 0; i < threads; ++i) {
      const Fibre& fibre = machine.fibres[static_cast<std::size_t>(i)];
      waiting += fibre.state == State::at_barrier;
      done += fibre.state == State::done;
      any |= fibre.state == State::at_barrier && fibre.any;
    }
    if (done == threads) return;
    if (waiting == threads) {
      machine.any = any;
      for (int i = 0; i < threads; ++i) machine.fibres[static_cast<std::size_t>(i)].state = State::ready;
      continue;
    }
    bool moved = false;
    for (int warp = 0; warp < threads; warp += 32) {
      int exchanging = 0;
      for (int i = warp; i < warp + 32 && i < threads; ++i)
        exchanging += machine.fibres[static_cast<std::size_t>(i)].state == State::at_exchange;
      if (exchanging != 32) continue;
      moved = true;
      const auto lane = [&](int i) -> Fibre& { return machine.fibres[static_cast<std::size_t>(warp + i)]; };
      const auto action = lane(0).action;
      void* brought[32];
      for (int i = 0; i < 32; ++i) {
        expect(lane(i).action == action, "the lanes of a warp meet in different places");
        brought[i] = lane(i).brought;
        lane(i).state = State::ready;
      }
      if (action) action(brought);
      for (int i = warp; !action && i < warp + 32; ++i) {
        Fibre& to = machine.fibres[static_cast<std::size_t>(i)];
        const Fibre& from = machine.fibres[static_cast<std::size_t>(warp + ((i - warp) ^ to.distance))];
        memcpy(to.other, from.mine, to.size);
      }
    }
    expect(moved, "the threads of a block wait for each other: a barrier or shuffle that not all of them reach");
  }
}

unsigned long padded(unsigned long bytes) { return (bytes + kPage - 1) / kPage * kPage; }

}  // namespace

Block& block() { return machine.block; }

void expect(bool condition, const char* message) {
  if (condition) return;
  fprintf(stderr, "emulation: %s\n", message);
  abort();
}

void run(long long blocks, int threads, unsigned long shared, const std::function<void()>& body) {
  if (machine.fibres.size() < static_cast<std::size_t>(threads)) machine.fibres.resize(static_cast<std::size_t>(threads));
  machine.body = &body;
  machine.block.threads = threads;
  machine.block.shared_size = shared;
  expect(shared <= 99 << 10, "more shared memory than every device has");
  for (long long i = 0; i < blocks; ++i) {
    machine.block.index = machine.reversed ? blocks - 1 - i : i;
    machine.block.shared = static_cast<unsigned char*>(allocate(shared));
    run_block(threads);
    release(machine.block.shared, shared);
  }
}

bool barrier(bool any) {
  now().any = any;
  leave(State::at_barrier);
  return machine.any;
}

void warp_exchange(const void* mine, void* other, unsigned long size, int distance) {
  Fibre& fibre = now();
  memcpy(fibre.mine, mine, size);
  fibre.size = size;
  fibre.distance = distance;
  fibre.action = nullptr;
  leave(State::at_exchange);
  memcpy(other, fibre.other, size);
}

void warp_together(void* mine, void (*action)(void* const*)) {
  Fibre& fibre = now();
  fibre.brought = mine;
  fibre.action = action;
  leave(State::at_exchange);
}

void set_reversed(bool reversed) { machine.reversed = reversed; }
void fail_next_launch() { machine.fail = true; }
bool fails_next_launch() {
  const bool fails = machine.fail;
  machine.fail = false;
  return fails;
}

void* allocate(unsigned long bytes) {
  const unsigned long size = padded(bytes);
  auto* base = static_cast<unsigned char*>(
      mmap(nullptr, size + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  expect(base != MAP_FAILED, "no memory");
  mprotect(base + size, kPage, PROT_NONE);
  memset(base, 0xff, size);
  return base + size - (bytes + 15) / 16 * 16;  // aligned for packets
}

void release(void* data, unsigned long bytes) {
  const unsigned long size = padded(bytes);
  munmap(static_cast<unsigned char*>(data) + (bytes + 15) / 16 * 16 - size, size + kPage);
}

}  // namespace emulation

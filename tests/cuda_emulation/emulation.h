// Blocks of threads on the CPU, to run the CUDA kernels where there is no GPU. Each thread of a block is a fibre; they
// run one after the other up to the next barrier or shuffle, forwards or backwards: a kernel whose result depends on
// that order has a race. Shared memory is full of NaN when a block starts, and ends where its page does.
#pragma once

#include <functional>

namespace emulation {

struct Block {
  long long index = 0;
  int thread = 0, threads = 0;
  unsigned char* shared = nullptr;
  unsigned long shared_size = 0;
};
Block& block();

// Ends the process with this message unless the condition holds: a kernel's mistake, not a user's.
void expect(bool condition, const char* message);

// For every block the body, once a thread.
void run(long long blocks, int threads, unsigned long shared, const std::function<void()>& body);

bool barrier(bool any);  // of the block; whether any thread came with true
void warp_exchange(const void* mine, void* other, unsigned long size, int distance);
template <class A>
A from_lane(A x, int distance) {
  A y;
  warp_exchange(&x, &y, sizeof(A), distance);
  return y;
}
// Calls `action` once when all lanes of the warp have come, with what each has brought.
void warp_together(void* mine, void (*action)(void* const* lanes));

void set_reversed(bool reversed);
void fail_next_launch();
bool fails_next_launch();

// Memory that ends where its page does (what is read behind it ends the process), full of NaN.
void* allocate(unsigned long bytes);
void release(void* data, unsigned long bytes);

}  // namespace emulation

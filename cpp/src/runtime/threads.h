// The only door to threads. Kernels below it know nothing of them; callers above it deal out rows or tiles.
//
// Items may be dealt to threads in any order: no item may read what another one writes, and sums that cross items are
// cut into fixed chunks by the caller and added in chunk order. Results are then the same bits for any thread count.
#pragma once

#include <cstdint>
#include <type_traits>

namespace dhyan {

int num_threads();          // threads a region may use now; 1 in a child made by fork after the parent used threads
int threads_here();         // the same, but 1 inside a region: what is called there has this thread alone
void set_num_threads(int);  // std::invalid_argument below 1
bool built_with_threads();
const char* threading();  // the team of this build: "pool", "openmp" or "none"

// Called between items on the thread that entered from Python; throws when the user asked to stop.
using InterruptCheck = void (*)();
void set_interrupt_check(InterruptCheck);
void check_interrupt();  // cheap: looks at the clock, asks at most every 50 ms, and only on the calling thread

// Marks the calling thread as one that may ask Python about signals (held for the length of a binding call).
struct InterruptScope {
  InterruptScope();
  ~InterruptScope();
};

// The calling thread does nothing any more, and ends with the process.
[[noreturn]] void park();

// `before` runs before every fork of this process, `after` after it, in parent and child.
void around_fork(void (*before)(), void (*after)());

namespace detail {
using Body = void (*)(void* context, std::int64_t item);
void run(std::int64_t items, bool parallel, bool backwards, Body body, void* context);
}  // namespace detail

// Waking a thread costs microseconds: below this many element operations run serial.
constexpr std::int64_t kSerialWork = 1 << 16;

// f(item) for item in [0, items); `work` is the estimated element operations of all items together. A backward pass may
// go backwards: what the forward pass read last is still in the cache.
template <class F>
void parallel_for(std::int64_t items, std::int64_t work, F&& f, bool backwards = false) {
  auto call = [](void* context, std::int64_t item) { (*static_cast<std::remove_reference_t<F>*>(context))(item); };
  detail::run(items, items > 1 && work >= kSerialWork, backwards, call,
              const_cast<void*>(static_cast<const void*>(&f)));
}

}  // namespace dhyan

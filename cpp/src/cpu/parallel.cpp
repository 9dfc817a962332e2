#include "cpu/parallel.h"

#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <string>

#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __unix__
#include <pthread.h>
#endif

namespace dhyan {
namespace {

std::atomic<int> requested_threads{0};  // 0: not set by the user, ask OpenMP
std::atomic<bool> used_threads{false};
std::atomic<bool> forked_child{false};
std::atomic<InterruptCheck> interrupt_check{nullptr};
thread_local int interrupt_depth = 0;
thread_local std::chrono::steady_clock::time_point last_check;

#ifdef _OPENMP
// libgomp's pool does not survive fork: a child that enters a parallel region after its parent did hangs for ever.
const bool watching_fork = [] {
#ifdef __unix__
  pthread_atfork(nullptr, nullptr, [] {
    if (used_threads) forked_child = true;
  });
#endif
  return true;
}();
#endif

}  // namespace

bool built_with_openmp() {
#ifdef _OPENMP
  return true;
#else
  return false;
#endif
}

int num_threads() {
#ifdef _OPENMP
  if (forked_child) return 1;
  const int requested = requested_threads;
  return requested > 0 ? requested : omp_get_max_threads();
#else
  return 1;
#endif
}

void set_num_threads(int n) {
  if (n < 1) throw std::invalid_argument("set_num_threads: n is " + std::to_string(n) + ", expected at least 1");
  requested_threads = n;
}

void set_interrupt_check(InterruptCheck check) { interrupt_check = check; }

InterruptScope::InterruptScope() {
  if (interrupt_depth++ == 0) last_check = std::chrono::steady_clock::now();
}
InterruptScope::~InterruptScope() { --interrupt_depth; }

void check_interrupt() {
  if (interrupt_depth == 0) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - last_check < std::chrono::milliseconds(50)) return;
  last_check = now;
  if (InterruptCheck check = interrupt_check) check();
}

namespace detail {

void run(std::int64_t items, bool parallel, Body body, void* context) {
#ifdef _OPENMP
  const std::int64_t threads = parallel && !omp_in_parallel() ? num_threads() : 1;
  if (threads > 1) {
    used_threads = true;
    std::exception_ptr error;
    std::atomic<bool> stop{false};
    const int team = static_cast<int>(items < threads ? items : threads);
#pragma omp parallel for num_threads(team) schedule(dynamic, 1)
    for (std::int64_t item = 0; item < items; ++item) {
      if (stop.load(std::memory_order_relaxed)) continue;
      try {  // an exception must not leave the region: OpenMP would end the process
        check_interrupt();
        body(context, item);
      } catch (...) {
#pragma omp critical(dhyan_parallel_error)
        if (!error) error = std::current_exception();
        stop = true;
      }
    }
    if (error) std::rethrow_exception(error);
    return;
  }
#endif
  (void)parallel;
  for (std::int64_t item = 0; item < items; ++item) {
    check_interrupt();
    body(context, item);
  }
}

}  // namespace detail
}  // namespace dhyan

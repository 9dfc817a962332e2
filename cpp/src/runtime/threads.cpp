// How many threads there are, and what every team keeps to: one region at a time, no threads in a region or in a forked
// child, the first error of an item rethrown. The thread count obeys OMP_NUM_THREADS, whatever the team.
#include "runtime/threads.h"

#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#ifdef __linux__
#include <sched.h>
#endif
#ifdef __unix__
#include <pthread.h>
#include <signal.h>
#endif

#include "runtime/team.h"

namespace dhyan {
namespace {

using Clock = std::chrono::steady_clock;

std::atomic<int> requested_threads{0};  // 0: not set by the user
std::atomic<bool> forked_child{false};
std::atomic<InterruptCheck> interrupt_check{nullptr};
thread_local int interrupt_depth = 0;
thread_local Clock::time_point last_check;
thread_local bool in_region = false;
thread_local const std::atomic<bool>* region_stop = nullptr;  // set while in a region: another thread has failed

// Whatever runs while one of these lives runs in a region.
struct InRegion {
  const bool outer;
  explicit InRegion(bool here = true) : outer(std::exchange(in_region, here)) {}
  ~InRegion() { in_region = outer; }
};

std::atomic<bool> team_taken{false};
struct TeamTaken {
  ~TeamTaken() { team_taken.store(false, std::memory_order_release); }
};

struct Cancelled {};  // ends an item whose region has failed elsewhere; the error that failed it is the one rethrown

// Threads do not follow into a forked child, where the pool would wait for them and an OpenMP team does: a child of a
// process that has used them works on one.
void watch_forks() {
#ifdef __unix__
  static const int watched = pthread_atfork(nullptr, nullptr, [] { forked_child = true; });
  (void)watched;
#endif
}

int default_threads() {
  if (const char* text = std::getenv("OMP_NUM_THREADS")) {
    const int n = std::atoi(text);
    if (n > 0) return n;
  }
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed) > 0 ? CPU_COUNT(&allowed) : 1;
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n > 0 ? static_cast<int>(n) : 1;
}

}  // namespace

const char* threading() { return kTeam; }

bool built_with_threads() { return std::string_view(kTeam) != "none"; }

int num_threads() {
  if (!built_with_threads() || forked_child) return 1;
  static const int automatic = default_threads();
  const int requested = requested_threads;
  return requested > 0 ? requested : automatic;
}

int threads_here() { return in_region ? 1 : num_threads(); }

void set_num_threads(int n) {
  if (n < 1) throw std::invalid_argument("set_num_threads: n is " + std::to_string(n) + ", expected at least 1");
  requested_threads = n;
}

void set_interrupt_check(InterruptCheck check) { interrupt_check = check; }

InterruptScope::InterruptScope() {
  if (interrupt_depth++ == 0) last_check = Clock::now();
}
InterruptScope::~InterruptScope() { --interrupt_depth; }

void check_interrupt() {
  if (region_stop && region_stop->load(std::memory_order_relaxed)) throw Cancelled{};
  if (interrupt_depth == 0) return;
  const auto now = Clock::now();
  if (now - last_check < std::chrono::milliseconds(50)) return;
  last_check = now;
  if (InterruptCheck check = interrupt_check) check();
}

void park() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(24));
}

void around_fork(void (*before)(), void (*after)()) {
#ifdef __unix__
  pthread_atfork(before, after, after);
#else
  (void)before;
  (void)after;
#endif
}

Region::Region(detail::Body body, void* context, std::int64_t items, bool backwards, int threads)
    : body_(body), context_(context), backwards_(backwards), shares_(threads < kMostShares ? threads : kMostShares) {
  for (int i = 0; i < shares_; ++i) {
    const std::int64_t first = items * i / shares_, end = items * (i + 1) / shares_;
    share_[i].next = first, share_[i].end = end, share_[i].mirror = first + end - 1;
  }
}

void Region::work(int place) {
  const InRegion here;
  region_stop = &stop_;
  for (int i = 0; i < shares_; ++i) work_on(share_[(place + i) % shares_]);
  region_stop = nullptr;
}

void Region::work_on(Share& share) {
  for (std::int64_t item; (item = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) {
    if (stop_.load(std::memory_order_relaxed)) return;
    try {  // an exception must not leave a thread: it would end the process
      check_interrupt();
      body_(context_, backwards_ ? share.mirror - item : item);
    } catch (...) {
      const std::lock_guard<std::mutex> held(error_lock_);
      if (!error_) error_ = std::current_exception();
      stop_ = true;
    }
  }
}

void block_signals() {
#ifdef __unix__
  thread_local bool blocked = false;
  if (blocked) return;
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  blocked = true;
#endif
}

namespace detail {

void run(std::int64_t items, bool parallel, bool backwards, Body body, void* context) {
  const std::int64_t threads = parallel && !in_region ? num_threads() : 1;
  if (threads > 1) watch_forks();
  if (threads > 1 && !team_taken.exchange(true, std::memory_order_acquire)) {
    const TeamTaken until_the_end;
    const int wanted = static_cast<int>(items < threads ? items : threads);
    Region region(body, context, items, backwards, wanted);
    run_team(region, wanted);
    region.rethrow();
    return;
  }
  // Beside another thread's region this one has one thread, and so has what its items open, also when the team is free
  // again.
  const InRegion here(in_region || threads > 1);
  for (std::int64_t item = 0; item < items; ++item) {
    check_interrupt();
    body(context, backwards ? items - 1 - item : item);
  }
}

}  // namespace detail
}  // namespace dhyan

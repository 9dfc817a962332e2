// Threads of our own instead of an OpenMP team. A team's region ends when every member has arrived, and a member that
// the system has not scheduled yet arrives a time slice late: beside one busy process a training epoch of 4 s took 74 s.
// Here nobody waits for a thread that holds no item. The thread count obeys OMP_NUM_THREADS, as a team's would.
#include "runtime/threads.h"

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#ifdef __linux__
#include <sched.h>
#endif
#ifdef __unix__
#include <pthread.h>
#include <signal.h>
#endif

namespace dhyan {
namespace {

using Clock = std::chrono::steady_clock;

std::atomic<int> requested_threads{0};  // 0: not set by the user
std::atomic<bool> used_threads{false};
std::atomic<bool> forked_child{false};
std::atomic<InterruptCheck> interrupt_check{nullptr};
thread_local int interrupt_depth = 0;
thread_local Clock::time_point last_check;
thread_local bool in_region = false;
thread_local const std::atomic<bool>* region_stop = nullptr;  // set while in a region: another thread has failed

// Whatever runs while one of these lives runs in a region.
struct InRegion {
  const bool outer = std::exchange(in_region, true);
  ~InRegion() { in_region = outer; }
};

struct Cancelled {};  // ends an item whose region has failed elsewhere; the error that failed it is the one rethrown

inline void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

struct Region {
  detail::Body body;
  void* context;
  std::int64_t items;
  // Every thread begins with a share of its own, the same in every region of as many items: what it reads is then likely
  // in its own cache from the region before. Who is done helps the others.
  static constexpr int kMostShares = 64;
  struct alignas(64) Share {
    std::atomic<std::int64_t> next{0};
    std::int64_t end = 0;
    std::int64_t mirror = 0;  // backwards: first + last item of the share
  };
  bool backwards;
  int shares;
  Share share[kMostShares];
  std::atomic<bool> stop{false};
  std::mutex error_lock;
  std::exception_ptr error;
  int guests_wanted = 0, guests = 0;  // guarded by the pool's lock
  std::atomic<int> working{0};        // guests that may still touch this region

  Region(detail::Body b, void* c, std::int64_t n, bool back, int threads)
      : body(b), context(c), items(n), backwards(back), shares(threads < kMostShares ? threads : kMostShares) {
    for (int i = 0; i < shares; ++i) {
      const std::int64_t first = items * i / shares, end = items * (i + 1) / shares;
      share[i].next = first, share[i].end = end, share[i].mirror = first + end - 1;
    }
  }

  // `place`: 0 for the thread that opened the region, then one after the other.
  void work(int place) {
    const InRegion here;
    region_stop = &stop;
    for (int i = 0; i < shares; ++i) work_on(share[(place + i) % shares]);
    region_stop = nullptr;
  }

  void work_on(Share& s) {
    for (std::int64_t item; (item = s.next.fetch_add(1, std::memory_order_relaxed)) < s.end;) {
      if (stop.load(std::memory_order_relaxed)) return;
      try {  // an exception must not leave a thread: it would end the process
        check_interrupt();
        body(context, backwards ? s.mirror - item : item);
      } catch (...) {
        const std::lock_guard<std::mutex> held(error_lock);
        if (!error) error = std::current_exception();
        stop = true;
      }
    }
  }
};

// Workers look for a region for 200 us after the last one (the next is usually nearer than a wake-up costs), then sleep.
class Pool {
 public:
  // False: another thread's region is running, do it yourself.
  bool run(Region& region, int threads) {
    {
      const std::lock_guard<std::mutex> held(lock_);
      if (current_) return false;
      while (workers_ < threads - 1 && add_worker()) ++workers_;
      region.guests_wanted = threads - 1;
      current_ = &region;
      generation_.fetch_add(1, std::memory_order_release);
    }
    if (asleep_.load(std::memory_order_acquire) > 0) wake_.notify_all();
    region.work(0);
    {
      const std::lock_guard<std::mutex> held(lock_);
      current_ = nullptr;  // whoever has not come by now is not waited for
    }
    for (int spins = 0; region.working.load(std::memory_order_acquire) > 0; ++spins) {
      if (spins < 2000)
        pause_briefly();
      else
        std::this_thread::yield();
    }
    return true;
  }

 private:
  // False where the system gives no more threads: those there are do the work.
  bool add_worker() {
    try {
      std::thread([this] {
#ifdef __unix__
        sigset_t all;  // signals belong to the program's own threads
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, nullptr);
#endif
        work_for_ever();
      }).detach();
      return true;
    } catch (const std::system_error&) {
      return false;
    }
  }

  void work_for_ever() {
    std::uint64_t seen = 0;
    for (;;) {
      wait_for_news(seen);
      Region* region = nullptr;
      int place = 0;
      {
        const std::lock_guard<std::mutex> held(lock_);
        seen = generation_.load(std::memory_order_relaxed);
        if (current_ && current_->guests < current_->guests_wanted) {
          region = current_;
          place = ++region->guests;
          region->working.fetch_add(1, std::memory_order_relaxed);
        }
      }
      if (region) {
        region->work(place);
        region->working.fetch_sub(1, std::memory_order_release);
      }
    }
  }

  void wait_for_news(std::uint64_t seen) {
    const auto until = Clock::now() + std::chrono::microseconds(200);
    for (int spins = 1; generation_.load(std::memory_order_acquire) == seen; ++spins) {
      pause_briefly();
      if (spins % 64 == 0 && Clock::now() > until) {
        std::unique_lock<std::mutex> held(lock_);
        asleep_.fetch_add(1, std::memory_order_release);
        wake_.wait(held, [&] { return generation_.load(std::memory_order_acquire) != seen; });
        asleep_.fetch_sub(1, std::memory_order_release);
        return;
      }
    }
  }

  std::mutex lock_;
  std::condition_variable wake_;
  Region* current_ = nullptr;  // guarded by lock_
  int workers_ = 0;            // guarded by lock_
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<int> asleep_{0};
};

Pool& pool() {
  static Pool* one = [] {
#ifdef __unix__
    // Threads do not follow into a forked child: it works on one.
    pthread_atfork(nullptr, nullptr, [] {
      if (used_threads) forked_child = true;
    });
#endif
    return new Pool;  // never destroyed: its threads live as long as the process
  }();
  return *one;
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

bool built_with_threads() {
#ifdef DHYAN_THREADS
  return true;
#else
  return false;
#endif
}

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

namespace detail {

namespace {
void run_here(std::int64_t items, bool backwards, Body body, void* context) {
  for (std::int64_t item = 0; item < items; ++item) {
    check_interrupt();
    body(context, backwards ? items - 1 - item : item);
  }
}
}  // namespace

void run(std::int64_t items, bool parallel, bool backwards, Body body, void* context) {
  const std::int64_t threads = parallel && !in_region ? num_threads() : 1;
  if (threads > 1) {
    Pool& shared = pool();
    used_threads = true;
    const int wanted = static_cast<int>(items < threads ? items : threads);
    Region region(body, context, items, backwards, wanted);
    if (shared.run(region, wanted)) {
      if (region.error) std::rethrow_exception(region.error);
      return;
    }
    const InRegion here;  // a region of one thread: what its items open is part of it, also when the pool is free again
    return run_here(items, backwards, body, context);
  }
  run_here(items, backwards, body, context);
}

}  // namespace detail
}  // namespace dhyan

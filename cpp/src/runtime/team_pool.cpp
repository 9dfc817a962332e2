// Threads of our own instead of an OpenMP team. A team's region ends when every member has arrived, and a member that
// the system has not scheduled yet arrives a time slice late: beside one busy process a training epoch of 4 s took 74
// s. Here nobody waits for a thread that holds no item.
#include <chrono>
#include <condition_variable>
#include <system_error>
#include <thread>

#include "runtime/team.h"

namespace dhyan {
namespace {

using Clock = std::chrono::steady_clock;

inline void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Workers look for a region for 200 us after the last one (the next is usually nearer than a wake-up costs), then
// sleep.
class Pool {
 public:
  void run(Region& region, int threads) {
    {
      const std::lock_guard<std::mutex> held(lock_);
      while (workers_ < threads - 1 && add_worker()) ++workers_;
      guests_wanted_ = threads - 1;
      guests_ = 0;
      current_ = &region;
      generation_.fetch_add(1, std::memory_order_release);
    }
    if (asleep_.load(std::memory_order_acquire) > 0) wake_.notify_all();
    region.work(0);
    {
      const std::lock_guard<std::mutex> held(lock_);
      current_ = nullptr;  // whoever has not come by now is not waited for
    }
    for (int spins = 0; working_.load(std::memory_order_acquire) > 0; ++spins) {
      if (spins < 2000)
        pause_briefly();
      else
        std::this_thread::yield();
    }
  }

 private:
  // False where the system gives no more threads: those there are do the work.
  bool add_worker() {
    try {
      std::thread([this] {
        block_signals();
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
        if (current_ && guests_ < guests_wanted_) {
          region = current_;
          place = ++guests_;
          working_.fetch_add(1, std::memory_order_relaxed);
        }
      }
      if (region) {
        region->work(place);
        working_.fetch_sub(1, std::memory_order_release);
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
  // Guarded by lock_:
  Region* current_ = nullptr;
  int workers_ = 0, guests_wanted_ = 0, guests_ = 0;

  std::atomic<int> working_{0};  // guests that may still touch the region
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<int> asleep_{0};
};

}  // namespace

const char* const kTeam = "pool";

void run_team(Region& region, int threads) {
  static Pool* pool = new Pool;  // never destroyed: its threads live as long as the process
  pool->run(region, threads);
}

}  // namespace dhyan

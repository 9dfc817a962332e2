// What stands behind `parallel_for`: the threads that do the items of one region. Exactly one of team_pool.cpp (the
// default), team_openmp.cpp and team_none.cpp is built: DHYAN_THREADS of CMakeLists.txt says which.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>

#include "runtime/threads.h"

namespace dhyan {

// The items of one `parallel_for`.
class Region {
 public:
  Region(detail::Body body, void* context, std::int64_t items, bool backwards, int threads);

  // Does items until none is left; `place`: 0 for the thread that opened the region, then one after the other. Throws
  // nothing.
  void work(int place);
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  // Every thread begins with a share of its own, the same in every region of as many items: what it reads is then
  // likely in its own cache from the region before. Who is done helps the others, so that fewer threads than shares do
  // as well.
  static constexpr int kMostShares = 64;
  struct alignas(64) Share {
    std::atomic<std::int64_t> next{0};
    std::int64_t end = 0;
    std::int64_t mirror = 0;  // backwards: first + last item of the share
  };
  void work_on(Share& share);

  detail::Body body_;
  void* context_;
  bool backwards_;
  int shares_;
  Share share_[kMostShares];
  std::atomic<bool> stop_{false};
  std::mutex error_lock_;
  std::exception_ptr error_;
};

extern const char* const kTeam;  // "pool", "openmp" or "none"

// Calls region.work with 0 on this thread, and with other places below `threads` on those that there are; returns when
// none of them is in it any more. Never entered by two threads at once, nor in a child forked after its first call.
void run_team(Region& region, int threads);

// Signals belong to the program's own threads: a member of a team lets them pass.
void block_signals();

}  // namespace dhyan

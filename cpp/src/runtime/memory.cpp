#include "runtime/memory.h"

#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "runtime/extents.h"
#include "runtime/threads.h"

namespace dhyan {
namespace {

constexpr std::size_t kSmallest = 1 << 12;             // below this the C library's own pool does as well
constexpr std::size_t kLarge = 1 << 18;                // from here on bytes count more than a fraction of a microsecond
constexpr std::size_t kKept = std::size_t(512) << 20;  // bytes that may wait here for the next taker

struct Pool {
  std::mutex lock;  // also held over a fork, so that a child never inherits it taken
  Extents large{kKept};
  std::map<std::size_t, std::vector<void*>> small;
  std::size_t small_kept = 0;
};

Pool& pool() {
  static Pool* one = [] {
    static Pool* made = new Pool;  // never destroyed: arrays may outlive every static destructor
    around_fork([] { made->lock.lock(); }, [] { made->lock.unlock(); });
    return made;
  }();
  return *one;
}

// Eight sizes per power of two: at most an eighth is wasted and a size finds a block again.
std::size_t rounded(std::size_t bytes) {
  if (bytes < kSmallest) return (bytes + 63) / 64 * 64;
  std::size_t step = 64;
  while (step * 16 <= bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

}  // namespace

void* take_block(std::size_t bytes) {
  if (bytes >= kLarge) {
    Pool& p = pool();
    const std::lock_guard<std::mutex> held(p.lock);
    return p.large.take(bytes);
  }
  const std::size_t size = rounded(bytes);
  if (size >= kSmallest) {
    Pool& p = pool();
    const std::lock_guard<std::mutex> held(p.lock);
    if (const auto found = p.small.find(size); found != p.small.end() && !found->second.empty()) {
      void* block = found->second.back();
      found->second.pop_back();
      p.small_kept -= size;
      return block;
    }
  }
  void* block = std::aligned_alloc(64, size);
  if (!block) throw std::bad_alloc();
  return block;
}

void give_block(void* block, std::size_t bytes) {
  if (bytes >= kLarge) {
    Pool& p = pool();
    const std::lock_guard<std::mutex> held(p.lock);
    return p.large.give(block);
  }
  const std::size_t size = rounded(bytes);
  if (size >= kSmallest) {
    Pool& p = pool();
    const std::lock_guard<std::mutex> held(p.lock);
    if (p.small_kept + size <= kKept) {
      try {
        p.small[size].push_back(block);
        p.small_kept += size;
        return;
      } catch (const std::bad_alloc&) {  // called from destructors: freeing is always possible
      }
    }
  }
  std::free(block);
}

}  // namespace dhyan

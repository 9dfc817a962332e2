#include "cpu/buffer.h"

#include <cstdlib>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "cpu/parallel.h"

namespace dhyan {
namespace {

constexpr std::size_t kSmallest = 1 << 12;             // below this the C library's own pool does as well
constexpr std::size_t kHugePage = 1 << 21;             // from here on a fault should bring 2 MiB, not 4 KiB
constexpr std::size_t kKept = std::size_t(512) << 20;  // bytes that may wait here for the next taker

struct Pool {
  std::mutex lock;  // also held over a fork, so that a child never inherits it taken
  std::map<std::size_t, std::vector<void*>> free;
  std::unordered_map<void*, std::size_t> larger;  // sizes of blocks that serve a smaller request
  std::size_t kept = 0;
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
  const std::size_t size = rounded(bytes);
  if (size < bytes) throw std::bad_alloc();
  if (size >= kSmallest) {
    Pool& p = pool();
    const std::lock_guard<std::mutex> held(p.lock);
    // The next larger block will do, up to half as much again: a step asks for many sizes, few of them at a time, and a
    // block a size took a fifth more memory.
    for (auto found = p.free.lower_bound(size); found != p.free.end() && found->first <= size + size / 2; ++found) {
      if (found->second.empty()) continue;
      void* block = found->second.back();
      if (found->first > size) p.larger.emplace(block, found->first);
      found->second.pop_back();
      p.kept -= found->first;
      return block;
    }
  }
#ifdef __linux__
  if (size >= 2 * kHugePage) {
    void* block = std::aligned_alloc(kHugePage, (size + kHugePage - 1) / kHugePage * kHugePage);
    if (!block) throw std::bad_alloc();
    madvise(block, size, MADV_HUGEPAGE);  // a wish: pages of 4 KiB are as right
    return block;
  }
#endif
  void* block = std::aligned_alloc(64, size);
  if (!block) throw std::bad_alloc();
  return block;
}

void give_block(void* block, std::size_t bytes) {
  std::size_t size = rounded(bytes);
  if (size >= kSmallest) {
    Pool& p = pool();
    const std::lock_guard<std::mutex> held(p.lock);
    if (const auto known = p.larger.find(block); known != p.larger.end()) {
      size = known->second;
      p.larger.erase(known);
    }
    if (p.kept + size <= kKept) {
      try {
        p.free[size].push_back(block);
        p.kept += size;
        return;
      } catch (const std::bad_alloc&) {  // called from destructors: freeing is always possible
      }
    }
  }
  std::free(block);
}

}  // namespace dhyan

// Large blocks of one pool, cut from chunks of the system's memory and joined again: a training step asks for many
// sizes, few of them at a time, and blocks that could not be cut held a sixth more memory than was ever in use at once.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <map>
#include <new>
#include <set>
#include <utility>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace dhyan {

// Not safe by itself: the caller holds a lock.
class Extents {
 public:
  static constexpr std::size_t kUnit = 1 << 12;
  static constexpr std::size_t kHugePage = 1 << 21;       // a fault should bring 2 MiB, not 4 KiB
  static constexpr std::size_t kChunk = 2 * kHugePage;    // the least that is asked of the system at a time
  explicit Extents(std::size_t most_kept) : most_kept_(most_kept) {}

  // The smallest free extent that is large enough, cut to size; std::bad_alloc.
  void* take(std::size_t bytes) {
    const std::size_t size = (bytes + kUnit - 1) / kUnit * kUnit;
    if (size < bytes) throw std::bad_alloc();
    auto found = by_size_.lower_bound({size, nullptr});
    if (found == by_size_.end()) found = add_chunk(size);
    const auto [whole, at] = *found;
    Extent& extent = extents_.find(at)->second;
    if (whole > size) {  // the rest first: what throws leaves all as it was
      extents_.emplace(at + size, Extent{whole - size, extent.chunk, true});
      try {
        by_size_.emplace(whole - size, at + size);
      } catch (...) {
        extents_.erase(at + size);
        throw;
      }
    }
    by_size_.erase(found);
    extent.size = size;
    extent.free = false;
    kept_ -= size;
    return at;
  }

  void give(void* block) {
    auto it = extents_.find(static_cast<char*>(block));
    kept_ += it->second.size;
    it->second.free = true;
    if (const auto next = std::next(it); next != extents_.end() && joins(it, next)) join(it, next);
    if (it != extents_.begin())
      if (const auto before = std::prev(it); joins(before, it)) join(before, it), it = before;
    const Extent& extent = it->second;
    const bool whole =
        it->first == extent.chunk && (std::next(it) == extents_.end() || std::next(it)->second.chunk != extent.chunk);
    if (whole && kept_ > most_kept_) {
      kept_ -= extent.size;
      std::free(extent.chunk);
      extents_.erase(it);
      return;
    }
    try {
      by_size_.emplace(extent.size, it->first);
    } catch (const std::bad_alloc&) {  // called from destructors. Nobody finds it until a neighbour joins it.
    }
  }

 private:
  struct Extent {
    std::size_t size;
    char* chunk;
    bool free;
  };
  using Place = std::map<char*, Extent>::iterator;

  static bool joins(Place a, Place b) {
    return a->second.free && b->second.free && a->second.chunk == b->second.chunk;
  }
  void join(Place a, Place b) {
    by_size_.erase({a->second.size, a->first});
    by_size_.erase({b->second.size, b->first});
    a->second.size += b->second.size;
    extents_.erase(b);
  }
  std::set<std::pair<std::size_t, char*>>::iterator add_chunk(std::size_t size) {
    size = size < kChunk ? kChunk : (size + kHugePage - 1) / kHugePage * kHugePage;
    char* chunk = static_cast<char*>(std::aligned_alloc(kHugePage, size));
    if (!chunk) throw std::bad_alloc();
#ifdef __linux__
    madvise(chunk, size, MADV_HUGEPAGE);  // a wish: pages of 4 KiB are as right
#endif
    try {
      const auto made = by_size_.emplace(size, chunk).first;
      try {
        extents_.emplace(chunk, Extent{size, chunk, true});
      } catch (...) {
        by_size_.erase(made);
        throw;
      }
      kept_ += size;
      return made;
    } catch (...) {
      std::free(chunk);
      throw;
    }
  }

  std::map<char*, Extent> extents_;                 // by address, in use and free
  std::set<std::pair<std::size_t, char*>> by_size_;  // the free ones
  std::size_t kept_ = 0, most_kept_;
};

}  // namespace dhyan

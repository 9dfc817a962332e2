// Uninitialised, aligned storage from a pool. A training step takes and gives back hundreds of megabytes; taken from
// the system each time they cost a page fault per 4 KiB (14 % of a GRU step before the pool).
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>

#include "dhyan/view.h"

namespace dhyan {

void* take_block(std::size_t bytes);              // 64-byte aligned; std::bad_alloc
void give_block(void* block, std::size_t bytes);  // kept for the next taker up to a limit, else freed

template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(Index n) : data_(static_cast<T*>(take_block(bytes_of(n))), Give{n}), size_(n) {}
  T* get() const { return data_.get(); }
  Index size() const { return size_; }
  void fill(T value) const { std::fill_n(get(), size_, value); }

 private:
  static std::size_t bytes_of(Index n) { return static_cast<std::size_t>(n > 0 ? n : 1) * sizeof(T); }
  struct Give {
    Index n = 0;
    void operator()(T* p) const { give_block(p, bytes_of(n)); }
  };
  std::unique_ptr<T, Give> data_;
  Index size_ = 0;
};

}  // namespace dhyan

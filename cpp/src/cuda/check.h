// CUDA's error codes as exceptions that say what failed where.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "dhyan/cuda.h"

namespace dhyan::cuda {

void check(cudaError_t status, const char* what);
void check_launch(cudaError_t status, const char* op, const char* kernel);
[[noreturn]] void too_many_blocks(const char* op, const char* kernel, Index blocks);

bool being_captured(const Place& place);

// The device of a call is current while this lives.
class Current {
 public:
  explicit Current(const Place& place);
  ~Current();
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  int before_ = -1;
};

// Working memory of one op. Freed in the order of the stream, so the kernels given to it may still be using it.
template <class T>
class Scratch {
 public:
  Scratch(const Place& place, Index n, const char* op)
      : place_(place), data_(n > 0 ? static_cast<T*>(allocate(place, static_cast<std::size_t>(n) * sizeof(T), op))
                                   : nullptr) {}
  ~Scratch() {
    if (data_) release(place_, data_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const { return data_; }

 private:
  Place place_;
  T* data_;
};

}  // namespace dhyan::cuda

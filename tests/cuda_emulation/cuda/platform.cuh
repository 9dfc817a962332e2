// The stand-in for cpp/src/cuda/platform.cuh: the same kernels as plain C++, run on the CPU by emulation.h.
#pragma once

#include <math.h>

#include <cstring>

#include "cuda/check.h"
#include "dhyan/cuda.h"
#include "emulation.h"

namespace dhyan::cuda {
namespace {

#define DHYAN_DEVICE inline
#define DHYAN_KERNEL(threads, blocks) void

inline float number(float x) { return x; }
inline double number(double x) { return x; }
inline float number(Half x) { return static_cast<float>(__builtin_bit_cast(_Float16, x.bits)); }
inline float number(Bfloat16 x) { return __builtin_bit_cast(float, static_cast<std::uint32_t>(x.bits) << 16); }

template <class T>
inline T stored(Weight<T> x) {
  return x;
}
template <>
inline Half stored<Half>(float x) {
  return {__builtin_bit_cast(std::uint16_t, static_cast<_Float16>(x))};
}
template <>
inline Bfloat16 stored<Bfloat16>(float x) {
  const auto bits = __builtin_bit_cast(std::uint32_t, x);
  if (x != x) return {0x7fff};
  return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

template <class S>
inline S& shared_memory() {
  emulation::expect(sizeof(S) <= emulation::block().shared_size, "a kernel uses more shared memory than its launch gave");
  return *reinterpret_cast<S*>(emulation::block().shared);
}
inline int thread_index() { return emulation::block().thread; }
inline Index block_index() { return emulation::block().index; }
inline void barrier() { emulation::barrier(false); }
inline bool barrier_any(bool x) { return emulation::barrier(x); }
template <class A>
inline A from_lane(A x, int distance) {
  return emulation::from_lane(x, distance);
}

template <class T>
inline const T* unknown(const T* p) {
  return p;
}

template <class... P, class... A>
void launch(const Place&, const char* op, const char* name, Index blocks, int threads, std::size_t shared,
            void (*kernel)(P...), const A&... arguments) {
  if (emulation::fails_next_launch()) check_launch(cudaErrorLaunchFailure, op, name);
  if (blocks > 2147483647) too_many_blocks(op, name, blocks);
  emulation::run(blocks, threads, shared, [&] { kernel(arguments...); });
}

}  // namespace
}  // namespace dhyan::cuda

// One pass over the flat parameter buffer, and the dropout masks.
#pragma once

#include "kernels/dense_table.h"

namespace dhyan {
namespace {

template <class T>
double sum_squares(Index n, const T* x) {
  double lane[16] = {};  // double: the square of a large float32 gradient must not overflow the norm
  Index i = 0;
  for (; i + 16 <= n; i += 16) {
#pragma omp simd
    for (Index l = 0; l < 16; ++l) lane[l] += static_cast<double>(x[i + l]) * static_cast<double>(x[i + l]);
  }
  for (; i < n; ++i) lane[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  double sum = 0;
  for (Index l = 0; l < 16; ++l) sum += lane[l];
  return sum;
}

inline float square_root(float x) { return __builtin_sqrtf(x); }
inline double square_root(double x) { return __builtin_sqrt(x); }

// m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; p -= lr (m / c1 / (sqrt(v / c2) + eps) + decay p)
template <class T>
void adam(Index n, T* p, const T* g, T* m, T* v, T grad_scale, T lr, T beta1, T beta2, T eps, T decay, T correction1,
          T correction2) {
  const T step = lr / correction1;
  const T root = T(1) / correction2;
#pragma omp simd
  for (Index i = 0; i < n; ++i) {
    const T grad = g[i] * grad_scale;
    const T m1 = beta1 * m[i] + (T(1) - beta1) * grad;
    const T v1 = beta2 * v[i] + (T(1) - beta2) * grad * grad;
    m[i] = m1;
    v[i] = v1;
    p[i] -= step * m1 / (square_root(v1 * root) + eps) + lr * decay * p[i];
  }
}
// A 32-bit mix (two rounds of multiply and xor-shift) of a counter under a 64-bit key: no state, so any part of a mask
// can be made on any thread.
inline std::uint32_t mixed(std::uint32_t x, std::uint32_t key0, std::uint32_t key1) {
  x ^= key0;
  x ^= x >> 16;
  x *= 0x7feb352dU;
  x ^= x >> 15;
  x += key1;
  x *= 0x846ca68bU;
  x ^= x >> 16;
  x *= 0x9e3779b1U;
  x ^= x >> 15;
  return x;
}

template <class T>
void dropout_mask(Index first, Index n, std::uint64_t key, T rate, T* out) {
  const auto limit = static_cast<std::uint32_t>(static_cast<double>(rate) * 4294967296.0);
  const T keep = T(1) / (T(1) - rate);
  for (Index block = 0; block < n;) {
    // The counter is 32 bits wide; its upper half goes into the key.
    const std::uint64_t counter = static_cast<std::uint64_t>(first + block);
    const auto low = static_cast<std::uint32_t>(counter);
    const std::uint32_t key0 =
        static_cast<std::uint32_t>(key) + static_cast<std::uint32_t>(counter >> 32) * 0x85ebca6bU;
    const auto key1 = static_cast<std::uint32_t>(key >> 32);
    const std::uint64_t left = 4294967296ULL - low;
    const Index run = n - block < static_cast<Index>(left) ? n - block : static_cast<Index>(left);
#pragma omp simd
    for (Index i = 0; i < run; ++i)
      out[block + i] = mixed(low + static_cast<std::uint32_t>(i), key0, key1) < limit ? T(0) : keep;
    block += run;
  }
}

}  // namespace
}  // namespace dhyan

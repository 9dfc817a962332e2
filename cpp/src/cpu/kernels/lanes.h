// Vectors of the instruction set's own width, and sums over 16 fixed lanes that add in the same order on every one.
//
// Compiler vector types, not arrays under `omp simd`: accumulators of a tile stay in registers, and the last, partial
// vector of a row goes through the same code as the others, so an element's bits do not depend on where it stands.
#pragma once

#include <cstring>
#include <utility>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#include "cpu/kernels/attention_table.h"
#include "cpu/kernels/elementary.h"

#ifndef DHYAN_VECTOR_BYTES
#define DHYAN_VECTOR_BYTES 16
#endif

namespace dhyan {
namespace {

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(DHYAN_VECTOR_BYTES)));
  static constexpr Index width = DHYAN_VECTOR_BYTES / sizeof(T);
};
template <class T>
using Vec = typename VectorOf<T>::type;
template <class T>
constexpr Index kWidth = VectorOf<T>::width;

constexpr Index kLanes = 16;  // lanes of every sum over H or D
template <class T>
constexpr Index kParts = kLanes / kWidth<T>;  // vectors that make up the 16 lanes: 1 to 8

template <>
struct Elements<Vec<float>> {
  using Scalar = float;
  using Bits = Vec<std::int32_t>;
};
template <>
struct Elements<Vec<double>> {
  using Scalar = double;
  using Bits = Vec<std::int64_t>;
};

template <class T>
DHYAN_INLINE Vec<T> load(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
DHYAN_INLINE void store(T* p, Vec<T> v) {
  std::memcpy(p, &v, sizeof v);
}
template <class T>
DHYAN_INLINE Vec<T> broadcast(T x) {
  return splat<Vec<T>>(x);
}

// The first n elements, zeros behind them; reads and writes nothing else.
template <class T>
DHYAN_INLINE Vec<T> load_some(const T* p, Index n) {
  T buffer[kWidth<T>] = {};
  for (Index i = 0; i < n; ++i) buffer[i] = p[i];
  return load<T>(buffer);
}
template <class T>
DHYAN_INLINE void store_some(T* p, Vec<T> v, Index n) {
  T buffer[kWidth<T>];
  store<T>(buffer, v);
  for (Index i = 0; i < n; ++i) p[i] = buffer[i];
}
#if defined(__AVX512F__)
template <>
DHYAN_INLINE Vec<float> load_some<float>(const float* p, Index n) {
  return (Vec<float>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
}
template <>
DHYAN_INLINE void store_some<float>(float* p, Vec<float> v, Index n) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), (__m512)v);
}
template <>
DHYAN_INLINE Vec<double> load_some<double>(const double* p, Index n) {
  return (Vec<double>)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), p);
}
template <>
DHYAN_INLINE void store_some<double>(double* p, Vec<double> v, Index n) {
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1), (__m512d)v);
}
#endif

// Vector load and store of min(n, width) elements; n may be 0 or negative.
template <class T>
DHYAN_INLINE Vec<T> load_upto(const T* p, Index n) {
  return n >= kWidth<T> ? load<T>(p) : n > 0 ? load_some<T>(p, n) : Vec<T>{};
}
template <class T>
DHYAN_INLINE void store_upto(T* p, Vec<T> v, Index n) {
  if (n >= kWidth<T>)
    store<T>(p, v);
  else if (n > 0)
    store_some<T>(p, v, n);
}

// Lane l + lane l + n/2, then quarters, down to one: the same tree for every vector width.
template <class T, Index N>
struct Tree {
  typedef T Whole __attribute__((vector_size(N * sizeof(T))));
  typedef T Half __attribute__((vector_size(N / 2 * sizeof(T))));
  template <std::size_t... I>
  static DHYAN_INLINE Half fold(Whole v, std::index_sequence<I...>) {
    return __builtin_shufflevector(v, v, I...) + __builtin_shufflevector(v, v, (N / 2 + I)...);
  }
  static DHYAN_INLINE T sum(Whole v) { return Tree<T, N / 2>::sum(fold(v, std::make_index_sequence<N / 2>())); }
};
template <class T>
struct Tree<T, 2> {
  typedef T Whole __attribute__((vector_size(2 * sizeof(T))));
  static DHYAN_INLINE T sum(Whole v) { return v[0] + v[1]; }
};
template <class T>
DHYAN_INLINE T sum_lanes(const Vec<T>* parts) {
  Vec<T> v[kParts<T>];
  for (Index i = 0; i < kParts<T>; ++i) v[i] = parts[i];
  for (Index n = kParts<T> / 2; n > 0; n /= 2)
    for (Index i = 0; i < n; ++i) v[i] = v[i] + v[i + n];
  return Tree<T, kWidth<T>>::sum(v[0]);
}

// Largest |x| of a row; NaN counts as larger than infinity (the comparison is of bit patterns).
template <class T>
inline T largest_magnitude(const T* x, Index n) {
  using Bits = BitsOf<Vec<T>>;
  Bits most{};
  for (Index i = 0; i < n; i += kWidth<T>) {
    const Bits bits = bit_cast<Bits>(magnitude(load_upto<T>(x + i, n - i)));
    most = bits > most ? bits : most;
  }
  BitsOf<T> top = most[0];
  for (Index i = 1; i < kWidth<T>; ++i) top = most[i] > top ? most[i] : top;
  return bit_cast<T>(top);
}

}  // namespace
}  // namespace dhyan

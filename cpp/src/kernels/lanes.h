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

#include "kernels/attention_table.h"
#include "kernels/elementary.h"

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
  using Unsigned = Vec<std::uint32_t>;
};
template <>
struct Elements<Vec<double>> {
  using Scalar = double;
  using Bits = Vec<std::int64_t>;
  using Unsigned = Vec<std::uint64_t>;
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

// The first n elements, 0 <= n < width, zeros behind them; reads and writes nothing else.
template <class T>
DHYAN_INLINE Vec<T> load_some(const T* p, Index n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
  if constexpr (sizeof(T) == 8) return (Vec<T>)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), p);
#elif defined(__AVX2__)
  BitsOf<Vec<T>> lane;
  for (Index i = 0; i < kWidth<T>; ++i) lane[i] = static_cast<BitsOf<T>>(i);
  const auto mask = lane < static_cast<BitsOf<T>>(n);
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm256_maskload_ps(p, (__m256i)mask);
  if constexpr (sizeof(T) == 8) return (Vec<T>)_mm256_maskload_pd(p, (__m256i)mask);
#else
  T buffer[kWidth<T>] = {};
  for (Index i = 0; i < n; ++i) buffer[i] = p[i];
  return load<T>(buffer);
#endif
}
// In halves, quarters and so on: a masked store holds up later loads from its neighbourhood.
template <class T>
DHYAN_INLINE void store_some(T* p, Vec<T> v, Index n) {
  T buffer[kWidth<T>];
  store<T>(buffer, v);
  const T* from = buffer;
#pragma GCC unroll 4
  for (Index part = kWidth<T> / 2; part > 0; part /= 2)
    if (n & part) {
      std::memcpy(p, from, static_cast<std::size_t>(part) * sizeof(T));
      p += part, from += part;
    }
}

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

// `x` in lanes [first, last), `other` outside.
template <class T>
DHYAN_INLINE Vec<T> between(Vec<T> x, Index first, Index last, T other) {
  using Bits = BitsOf<Vec<T>>;
  using Lane = BitsOf<T>;
  Bits lane;
  for (Index i = 0; i < kWidth<T>; ++i) lane[i] = static_cast<Lane>(i);
  const Lane from = static_cast<Lane>(first < 0 ? 0 : first),
             to = static_cast<Lane>(last < kWidth<T> ? last : kWidth<T>);
  return (lane >= from) & (lane < to) ? x : broadcast(other);
}

// The largest lane; NaN lanes lose.
template <class T, Index N, std::size_t... I>
DHYAN_INLINE Vec<T> turned(Vec<T> v, std::index_sequence<I...>) {
  return __builtin_shufflevector(v, v, static_cast<int>((I + N) % kWidth<T>)...);
}
template <class T, Index N = kWidth<T> / 2>
DHYAN_INLINE T largest_lane(Vec<T> v) {
  if constexpr (N == 0) {
    return v[0];
  } else {
    const Vec<T> other = turned<T, N>(v, std::make_index_sequence<kWidth<T>>());
    return largest_lane<T, N / 2>(other > v ? other : v);
  }
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

// Sums of four vectors at once, by the same tree: two vectors of `Segments` running sums each become one of twice as
// many. 15 instructions instead of 32 on AVX-512.
template <Index W, Index Segments, Index Half>
constexpr int merged_lane(Index i) {
  constexpr Index length = W / Segments, half = length / 2;  // output lane i holds lane i % half of sum i / half
  const Index sum = i / half, lane = i % half;
  return static_cast<int>((sum < Segments ? 0 : W) + sum % Segments * length + Half * half + lane);
}
template <class T, Index Segments, std::size_t... I>
DHYAN_INLINE Vec<T> merge(Vec<T> a, Vec<T> b, std::index_sequence<I...>) {
  constexpr Index W = kWidth<T>;
  return __builtin_shufflevector(a, b, merged_lane<W, Segments, 0>(I)...) +
         __builtin_shufflevector(a, b, merged_lane<W, Segments, 1>(I)...);
}
template <class T, Index Length, std::size_t... I>
DHYAN_INLINE Vec<T> fold_segments(Vec<T> v, std::index_sequence<I...>) {
  return v +
         __builtin_shufflevector(v, v, static_cast<int>(I / Length * Length + (I % Length + Length / 2) % Length)...);
}
template <class T>
DHYAN_INLINE Vec<T> join_parts(const Vec<T>* parts) {
  Vec<T> v[kParts<T>];
  for (Index i = 0; i < kParts<T>; ++i) v[i] = parts[i];
  for (Index n = kParts<T> / 2; n > 0; n /= 2)
    for (Index i = 0; i < n; ++i) v[i] = v[i] + v[i + n];
  return v[0];
}
template <class T>
DHYAN_INLINE void sum_lanes_of_four(const Vec<T> (&a)[kParts<T>], const Vec<T> (&b)[kParts<T>],
                                    const Vec<T> (&c)[kParts<T>], const Vec<T> (&d)[kParts<T>], T* out) {
  constexpr Index W = kWidth<T>;
  constexpr auto lanes = std::make_index_sequence<W>();
  const Vec<T> ab = merge<T, 1>(join_parts<T>(a), join_parts<T>(b), lanes);
  const Vec<T> cd = merge<T, 1>(join_parts<T>(c), join_parts<T>(d), lanes);
  if constexpr (W == 2) {
    out[0] = ab[0], out[1] = ab[1], out[2] = cd[0], out[3] = cd[1];
  } else {
    Vec<T> v = merge<T, 2>(ab, cd, lanes);
    if constexpr (W >= 16) v = fold_segments<T, W / 4>(v, lanes);
    if constexpr (W >= 8) v = fold_segments<T, W >= 16 ? W / 8 : W / 4>(v, lanes);
    for (Index i = 0; i < 4; ++i) out[i] = v[i * (W / 4)];
  }
}

// The same for Count vectors of kWidth / Count running sums each: with Count = kWidth, one vector of as many sums.
template <class T, Index Count>
DHYAN_INLINE Vec<T> merge_all(const Vec<T>* v) {
  if constexpr (Count == 1) {
    return v[0];
  } else {
    Vec<T> half[Count / 2];
    for (Index i = 0; i < Count / 2; ++i)
      half[i] = merge<T, kWidth<T> / Count>(v[2 * i], v[2 * i + 1], std::make_index_sequence<kWidth<T>>());
    return merge_all<T, Count / 2>(half);
  }
}

// All M x N sums of a tile.
template <class T, int M, int N>
DHYAN_INLINE void sum_tile_lanes(const Vec<T> (&lanes)[M][N][kParts<T>], T (&out)[M][N]) {
  constexpr int count = M * N;
  const auto& flat = reinterpret_cast<const Vec<T>(&)[count][kParts<T>]>(lanes);
  T* sums = &out[0][0];
  int i = 0;
  for (; i + kWidth<T> <= count; i += kWidth<T>) {
    Vec<T> joined[kWidth<T>];
    for (Index j = 0; j < kWidth<T>; ++j) joined[j] = join_parts<T>(flat[i + j]);
    store<T>(sums + i, merge_all<T, kWidth<T>>(joined));
  }
  for (; i + 4 <= count; i += 4) sum_lanes_of_four<T>(flat[i], flat[i + 1], flat[i + 2], flat[i + 3], sums + i);
  for (; i < count; ++i) sums[i] = sum_lanes<T>(flat[i]);
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

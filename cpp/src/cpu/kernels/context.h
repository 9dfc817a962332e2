// Products of one sentence: weighted sums of rows (context, dv, dq, dk, product scores) and rows of dot products
// (dweights). Register tiles; the chain of additions of one output element does not depend on the tile it falls into.
#pragma once

#include "cpu/kernels/lanes.h"

namespace dhyan {
namespace {

#if DHYAN_VECTOR_BYTES == 64 || defined(__aarch64__)
constexpr int kRows = 8;  // rows of a tile: 16 accumulators of 32 registers
constexpr int kDotKeys = 4;
#else
constexpr int kRows = 6;
constexpr int kDotKeys = 2;
#endif
constexpr Index kSumBlock = 64;  // additions in a row before the partial sum joins the total (rounding grows with it)

// Rows k of a matrix as vectors: vector j of row k at data + k * row + j * next.
template <class T>
struct Rows {
  const T* data;
  Index row, next;
};

// acc[i][j] = sum_k a(i, k) * b[k][j]; a(i, k) = a[i * row + k * col].
template <class T, int M, int N>
DHYAN_INLINE void sum_tile(const T* a, Index row, Index col, Index K, Rows<T> b, Vec<T> (&acc)[M][N]) {
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) acc[i][j] = Vec<T>{};
  for (Index k = 0; k < K; ++k) {
    Vec<T> v[N];
    for (int j = 0; j < N; ++j) v[j] = load<T>(b.data + k * b.row + j * b.next);
    for (int i = 0; i < M; ++i) {
      const Vec<T> x = broadcast(a[i * row + k * col]);
      for (int j = 0; j < N; ++j) acc[i][j] += x * v[j];
    }
  }
}

// What a tile does with its part of the sum.
template <class T>
struct TileEnd {
  bool first, last;  // of the blocks of k: start the total at 0; multiply it by factor
  T factor;
  Vec<T>* bad;  // per row: gets NaN where the finished total is not finite, else keeps its 0
};

// out[i][j] += the tile; `width` elements of each row exist.
template <class T, int M, int N>
inline __attribute__((noinline)) void add_tile(const T* a, Index row, Index col, Index K, Rows<T> b, T* out, Index ldo,
                                              Index width, const TileEnd<T>& end) {
  Vec<T> acc[M][N];
  sum_tile<T, M, N>(a, row, col, K, b, acc);
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) {
      T* p = out + i * ldo + j * kWidth<T>;
      const Index n = width - j * kWidth<T>;
      Vec<T> total = (end.first ? Vec<T>{} : load_upto<T>(p, n)) + acc[i][j];
      if (end.last) {
        end.bad[i] += total * T(0);
        if (end.factor != T(1)) total = total * end.factor;
      }
      store_upto<T>(p, total, n);
    }
}

template <class T, int N>
inline void add_rows_tile(Index M, const T* a, Index row, Index col, Index K, Rows<T> b, T* out, Index ldo,
                          Index width, const TileEnd<T>& end) {
  switch (M) {
#define DHYAN_TILE(m) \
  case m:             \
    return add_tile<T, m, N>(a, row, col, K, b, out, ldo, width, end)
    DHYAN_TILE(1);
    DHYAN_TILE(2);
    DHYAN_TILE(3);
    DHYAN_TILE(4);
    DHYAN_TILE(5);
    DHYAN_TILE(6);
#if DHYAN_VECTOR_BYTES == 64 || defined(__aarch64__)
    DHYAN_TILE(7);
    DHYAN_TILE(8);
#endif
#undef DHYAN_TILE
  }
}

// Half-open range of k that row i may use; null pointers mean all of [0, K).
struct Ranges {
  const Index* begin;
  const Index* end;
};
struct Span {
  Index first, last;
};
inline Span span_of(Ranges r, Index row, Index rows, Index K) {
  if (!r.begin) return {0, K};
  Span s{K, 0};
  for (Index i = row; i < row + rows; ++i) {
    if (r.begin[i] >= r.end[i]) continue;
    s.first = r.begin[i] < s.first ? r.begin[i] : s.first;
    s.last = r.end[i] > s.last ? r.end[i] : s.last;
  }
  return s;
}
inline Span range_of(Ranges r, Index row, Index K) { return r.begin ? Span{r.begin[row], r.end[row]} : Span{0, K}; }

// One output row, leaving out every k whose factor is exactly 0: what a row may not see must not reach it as 0 * NaN.
template <class T>
inline void sum_row_without_zeros(const T* a, Index col, Span span, const T* b, Index ldb, Index N, T factor, T* out) {
  for (Index n = 0; n < N; n += kWidth<T>) {
    Vec<T> total{};
    for (Index k0 = span.first / kSumBlock * kSumBlock; k0 < span.last; k0 += kSumBlock) {
      Vec<T> acc{};
      for (Index k = k0 < span.first ? span.first : k0; k < span.last && k < k0 + kSumBlock; ++k)
        if (a[k * col] != T(0)) acc += broadcast(a[k * col]) * load_upto<T>(b + k * ldb + n, N - n);
      total += acc;
    }
    store_upto<T>(out + n, total * factor, N - n);
  }
}

// A matrix product that knows which of its factors may be looked at:
//   out[m, :] = factor * sum over k in the row's range, a(m, k) != 0, of a(m, k) * b[k, :]
// The tiles multiply by the zeros (adding 0 changes no bit); only a row that comes out infinite or NaN is done again
// without them.
template <class T>
struct WeightedSum {
  const T* a;  // a(m, k) = a[m * row + k * col]
  Index row, col;
  Index M, K;
  const T* b;  // (K, N), row k at b + k * ldb
  Index ldb, N;
  Ranges ranges;  // per m
};

constexpr Index kRowGroup = 64;  // rows that share a packed copy of b

// Rows [m0, m1) of the sum, at most kRowGroup.
template <class T>
inline void weighted_sum_rows(const WeightedSum<T>& p, Index m0, Index m1, T factor, T* out, Index ldo) {
  constexpr Index W = kWidth<T>;
  const bool one = m1 - m0 == 1;
  const Span all = span_of(p.ranges, m0, m1 - m0, p.K);
  Vec<T> bad[kRowGroup];
  Span spans[kRowGroup / kRows + 1];
  for (Index m = m0, i = 0; m < m1; m += kRows, ++i) {
    const Index rows = m1 - m < kRows ? m1 - m : kRows;
    spans[i] = span_of(p.ranges, m, rows, p.K);
    for (Index r = m; r < m + rows; ++r) {
      bad[r - m0] = Vec<T>{};
      if (spans[i].first >= spans[i].last) std::memset(out + r * ldo, 0, static_cast<std::size_t>(p.N) * sizeof(T));
    }
  }
  T packed[kSumBlock * 2 * W];
  for (Index n = 0; n < p.N;) {
    const Index left = p.N - n;
    const int vectors = one && left >= 8 * W ? 8 : 2;
    const Index width = left < vectors * W ? left : vectors * W;
    // At a power-of-two row stride the rows of b fall into few cache sets: several row tiles read a packed copy.
    const bool pack = width < vectors * W || (m1 - m0 > 2 * kRows && all.last - all.first > 24);
    for (Index k0 = all.first / kSumBlock * kSumBlock; k0 < all.last; k0 += kSumBlock) {
      const Index k1 = k0 + kSumBlock < all.last ? k0 + kSumBlock : all.last;
      if (pack)
        for (Index k = k0 < all.first ? all.first : k0; k < k1; ++k)
          for (Index j = 0; j < 2; ++j)
            store<T>(packed + (k - k0) * 2 * W + j * W, load_upto<T>(p.b + k * p.ldb + n + j * W, width - j * W));
      for (Index m = m0, i = 0; m < m1; m += kRows, ++i) {
        const Span s = spans[i];
        const Index first = s.first > k0 ? s.first : k0, last = s.last < k1 ? s.last : k1;
        if (first >= last) continue;
        const TileEnd<T> end{s.first >= k0, s.last <= k1, factor, bad + (m - m0)};
        const T* a = p.a + m * p.row + first * p.col;
        const Rows<T> b = pack ? Rows<T>{packed + (first - k0) * 2 * W, 2 * W, W}
                               : Rows<T>{p.b + first * p.ldb + n, p.ldb, W};
        T* tile = out + m * ldo + n;
        if (vectors == 8)
          add_tile<T, 1, 8>(a, p.row, p.col, last - first, b, tile, ldo, width, end);
        else
          add_rows_tile<T, 2>(m1 - m < kRows ? m1 - m : kRows, a, p.row, p.col, last - first, b, tile, ldo, width, end);
      }
    }
    n += width;
  }
  for (Index m = m0; m < m1; ++m) {
    T sum = 0;
    for (Index i = 0; i < W; ++i) sum += bad[m - m0][i];
    if (sum != T(0))
      sum_row_without_zeros(p.a + m * p.row, p.col, range_of(p.ranges, m, p.K), p.b, p.ldb, p.N, factor,
                            out + m * ldo);
  }
}

template <class T>
inline void weighted_sum(const WeightedSum<T>& p, T factor, T* out, Index ldo) {
  // Few terms: the output is what costs, so its rows are written one after the other.
  const Index group = p.K <= 4 ? 1 : kRowGroup;
  for (Index m = 0; m < p.M; m += group)
    weighted_sum_rows(p, m, m + group < p.M ? m + group : p.M, factor, out, ldo);
}

// out[i][j] = x_i . y_j over n elements in 16 fixed lanes.
template <class T, int M, int N>
inline __attribute__((noinline)) void dot_tile(const T* x, Index ldx, const T* y, Index ldy, Index n, T (&out)[M][N]) {
  Vec<T> lanes[M][N][kParts<T>];
  for (Index part = 0; part < kParts<T>; ++part) {
    const Index offset = part * kWidth<T>;
    Vec<T> acc[M][N];
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < N; ++j) acc[i][j] = Vec<T>{};
    Index d = offset;
    for (; d + kWidth<T> <= n; d += kLanes) {
      Vec<T> v[N];
      for (int j = 0; j < N; ++j) v[j] = load<T>(y + j * ldy + d);
      for (int i = 0; i < M; ++i) {
        const Vec<T> u = load<T>(x + i * ldx + d);
        for (int j = 0; j < N; ++j) acc[i][j] += u * v[j];
      }
    }
    if (d < n)
      for (int i = 0; i < M; ++i)
        for (int j = 0; j < N; ++j)
          acc[i][j] += load_some<T>(x + i * ldx + d, n - d) * load_some<T>(y + j * ldy + d, n - d);
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < N; ++j) lanes[i][j][part] = acc[i][j];
  }
  sum_tile_lanes<T, M, N>(lanes, out);
}

template <class T, int M, int N>
DHYAN_INLINE void dot_keys(const T* x, Index ldx, Index m, const T* y, Index s, Index n, Index S, Ranges ranges,
                           T factor, T* out) {
  T tile[M][N];
  dot_tile<T, M, N>(x + m * ldx, ldx, y + s * n, n, n, tile);
  for (int i = 0; i < M; ++i) {
    const Span own = range_of(ranges, m + i, S);
    for (int j = 0; j < N; ++j)
      if (s + j >= own.first && s + j < own.last) out[(m + i) * S + s + j] = tile[i][j] * factor;
  }
}

constexpr Index kDotBlock = 16;  // keys that stay in L1 while the rows pass over them

// out[m, s] = factor * x_m . y_s for s in the row's range; the rest of the row is left alone.
template <class T>
inline void dot_rows(const T* x, Index ldx, Index M, const T* y, Index S, Index n, Ranges ranges, T factor, T* out) {
  constexpr int R = 4, N = kDotKeys;
  const Span all = span_of(ranges, 0, M, S);
  for (Index s0 = all.first; s0 < all.last; s0 += kDotBlock) {
    const Index s1 = s0 + kDotBlock < all.last ? s0 + kDotBlock : all.last;
    for (Index m = 0; m < M;) {
      const Index rows = M - m >= R ? R : 1;
      const Span span = span_of(ranges, m, rows, S);
      const Index last = span.last < s1 ? span.last : s1;
      Index s = span.first > s0 ? span.first : s0;
      if (rows == R) {
        for (; s + N <= last; s += N) dot_keys<T, R, N>(x, ldx, m, y, s, n, S, ranges, factor, out);
        for (; s < last; ++s) dot_keys<T, R, 1>(x, ldx, m, y, s, n, S, ranges, factor, out);
      } else {
        for (; s + 4 <= last; s += 4) dot_keys<T, 1, 4>(x, ldx, m, y, s, n, S, ranges, factor, out);
        for (; s < last; ++s) dot_keys<T, 1, 1>(x, ldx, m, y, s, n, S, ranges, factor, out);
      }
      m += rows;
    }
  }
}

}  // namespace
}  // namespace dhyan

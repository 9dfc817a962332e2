// Products of one sentence: weighted sums of rows (context, dv, dq, dk, product scores) and rows of dot products
// (dweights). Register tiles; the chain of additions of one output element does not depend on the tile it falls into.
#pragma once

#include "kernels/lanes.h"

namespace dhyan {
namespace {

#if DHYAN_VECTOR_BYTES == 64 || defined(__aarch64__)
constexpr int kRows = 12;  // most rows of a tile: 24 accumulators of 32 registers (8 rows wait for the adder's latency)
constexpr int kDotKeys = 4;
#else
constexpr int kRows = 6;
constexpr int kDotKeys = 2;
#endif
constexpr Index kSumBlock = 64;  // additions in a row before the partial sum joins the total (rounding grows with it)

// Rows k of a matrix as vectors: vector j of row k at data + k * row + j * next. Passed by reference: a copy is written
// in pieces and read as one vector, which waits for all stores before it (20 % of a product before this).
template <class T>
struct Rows {
  const T* data;
  Index row, next;
};

// acc[i][j] = sum_k a(i, k) * b[k][j]; a(i, k) = a[i * row + k * col]. With `copy`, what is read of b goes there too,
// closely packed, and the strip of b behind it is asked for: both are free beside the multiplications.
template <class T, int M, int N, bool Copy>
DHYAN_INLINE void sum_tile(const T* a, Index row, Index col, Index K, const Rows<T>& b, T* copy, Vec<T> (&acc)[M][N]) {
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) acc[i][j] = Vec<T>{};
  const T* rows[(M + 3) / 4];  // fewer addresses than rows, or they spill
  for (int i = 0; i < M; i += 4) rows[i / 4] = a + i * row;
  const T* from = b.data;
  for (Index k = 0; k < K; ++k, from += b.row) {
    Vec<T> v[N];
    for (int j = 0; j < N; ++j) v[j] = load<T>(from + j * b.next);
    if constexpr (Copy) {
      for (int j = 0; j < N; ++j) __builtin_prefetch(from + N * kWidth<T> + j * kWidth<T>);
      for (int j = 0; j < N; ++j) store<T>(copy + (k * N + j) * kWidth<T>, v[j]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const Vec<T> x = broadcast(rows[i / 4][i % 4 * row]);
      for (int j = 0; j < N; ++j) acc[i][j] += x * v[j];
    }
    for (int i = 0; i < M; i += 4) rows[i / 4] += col;
  }
}

// What a tile does with its part of the sum.
template <class T>
struct TileEnd {
  bool first, last;  // of the blocks of k: start the total at 0; multiply it by factor
  T factor;
  Vec<T>* bad;  // of the tile: gets NaN where a finished total is not finite, else keeps its 0
};

// out[i][j] += the tile; `width` elements of each row exist.
template <class T, int M, int N, bool Copy>
inline __attribute__((noinline)) void add_tile(const T* a, Index row, Index col, Index K, const Rows<T>& b, T* copy,
                                               T* out, Index ldo, Index width, const TileEnd<T>& end) {
  Vec<T> acc[M][N];
  sum_tile<T, M, N, Copy>(a, row, col, K, b, copy, acc);
  const bool first = end.first, last = end.last;
  const T factor = end.factor;
  Vec<T> bad{};
  const auto finish = [&](const auto& read, const auto& write) {
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < N; ++j) {
        T* p = out + i * ldo + j * kWidth<T>;
        const Index n = width - j * kWidth<T>;
        Vec<T> total = (first ? Vec<T>{} : read(p, n)) + acc[i][j];
        if (last) {
          bad += total * T(0);
          if (factor != T(1)) total = total * factor;
        }
        write(p, total, n);
      }
  };
  if (width >= N * kWidth<T>)
    finish([](const T* p, Index) { return load<T>(p); }, [](T* p, Vec<T> v, Index) { store<T>(p, v); });
  else
    finish([](const T* p, Index n) { return load_upto<T>(p, n); },
           [](T* p, Vec<T> v, Index n) { store_upto<T>(p, v, n); });
  if (last) *end.bad += bad;
}

template <class T, int N, bool Copy>
inline void add_rows_tile(Index M, const T* a, Index row, Index col, Index K, const Rows<T>& b, T* copy, T* out,
                          Index ldo, Index width, const TileEnd<T>& end) {
  switch (M) {
#define DHYAN_TILE(m) \
  case m:             \
    return add_tile<T, m, N, Copy>(a, row, col, K, b, copy, out, ldo, width, end)
    DHYAN_TILE(1);
    DHYAN_TILE(2);
    DHYAN_TILE(3);
    DHYAN_TILE(4);
    DHYAN_TILE(5);
    DHYAN_TILE(6);
#if DHYAN_VECTOR_BYTES == 64 || defined(__aarch64__)
    DHYAN_TILE(7);
    DHYAN_TILE(8);
    DHYAN_TILE(9);
    DHYAN_TILE(10);
    DHYAN_TILE(11);
    DHYAN_TILE(12);
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
// What all of the rows may use.
inline Span common_span(Ranges r, Index row, Index rows, Index K) {
  Span s{0, K};
  for (Index i = row; r.begin && i < row + rows; ++i) {
    s.first = r.begin[i] > s.first ? r.begin[i] : s.first;
    s.last = r.end[i] < s.last ? r.end[i] : s.last;
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

constexpr Index kRowGroup = 72;  // rows that share a packed copy of b

// Rows [m0, m1) of the sum, at most kRowGroup.
template <class T>
inline void weighted_sum_rows(const WeightedSum<T>& p, Index m0, Index m1, T factor, T* out, Index ldo) {
  constexpr Index W = kWidth<T>;
  const Index rows = m1 - m0, tiles = (rows + kRows - 1) / kRows;
  // Tiles of nearly equal height: a tile of one or two rows costs as much time as one of four.
  const auto tile_start = [&](Index i) { return m0 + rows * i / tiles; };
  const Span all = span_of(p.ranges, m0, rows, p.K);
  Vec<T> bad[kRowGroup / kRows + 1];
  Span spans[kRowGroup / kRows + 1];
  for (Index i = 0; i < tiles; ++i) {
    const Index m = tile_start(i), next = tile_start(i + 1);
    bad[i] = Vec<T>{};
    spans[i] = span_of(p.ranges, m, next - m, p.K);
    for (Index r = m; r < next && spans[i].first >= spans[i].last; ++r)
      std::memset(out + r * ldo, 0, static_cast<std::size_t>(p.N) * sizeof(T));
  }
  T packed[kSumBlock * 2 * W];
  for (Index n = 0; n < p.N;) {
    const Index left = p.N - n;
    const int vectors = rows == 1 && left >= 8 * W ? 8 : 2;
    const Index width = left < vectors * W ? left : vectors * W;
    for (Index k0 = all.first / kSumBlock * kSumBlock; k0 < all.last; k0 += kSumBlock) {
      const Index k1 = k0 + kSumBlock < all.last ? k0 + kSumBlock : all.last;
      // At a power-of-two row stride the rows of b fall into few cache sets: the first tile leaves a packed copy for
      // the others. A partial strip is packed beforehand.
      Index from = k1, to = k1;  // the part of b that is packed
      if (width < vectors * W) {
        from = k0 < all.first ? all.first : k0, to = k1;
        for (Index k = from; k < k1; ++k)
          for (Index j = 0; j < 2; ++j)
            store<T>(packed + (k - k0) * 2 * W + j * W, load_upto<T>(p.b + k * p.ldb + n + j * W, width - j * W));
      }
      for (Index i = 0; i < tiles; ++i) {
        const Index m = tile_start(i), count = tile_start(i + 1) - m;
        const Span s = spans[i];
        const Index first = s.first > k0 ? s.first : k0, last = s.last < k1 ? s.last : k1;
        if (first >= last) continue;
        const TileEnd<T> end{s.first >= k0, s.last <= k1, factor, bad + i};
        const T* a = p.a + m * p.row + first * p.col;
        T *tile = out + m * ldo + n, *copy = packed + (first - k0) * 2 * W;
        const Rows<T> direct{p.b + first * p.ldb + n, p.ldb, W};
        if (vectors == 8) {
          add_tile<T, 1, 8, false>(a, p.row, p.col, last - first, direct, copy, tile, ldo, width, end);
        } else if (from <= first && last <= to) {
          add_rows_tile<T, 2, false>(count, a, p.row, p.col, last - first, Rows<T>{copy, 2 * W, W}, copy, tile, ldo,
                                     width, end);
        } else {
          add_rows_tile<T, 2, true>(count, a, p.row, p.col, last - first, direct, copy, tile, ldo, width, end);
          from = first, to = last;
        }
      }
    }
    n += width;
  }
  for (Index i = 0; i < tiles; ++i) {
    T sum = 0;
    for (Index l = 0; l < W; ++l) sum += bad[i][l];
    for (Index m = tile_start(i); sum != T(0) && m < tile_start(i + 1); ++m)
      sum_row_without_zeros(p.a + m * p.row, p.col, range_of(p.ranges, m, p.K), p.b, p.ldb, p.N, factor,
                            out + m * ldo);
  }
}

// Of a single term: the output is all there is to it.
template <class T>
inline void weighted_row(const WeightedSum<T>& p, T factor, T* out, Index ldo) {
  for (Index m = 0; m < p.M; ++m) {
    const Span own = range_of(p.ranges, m, 1);
    const T x = own.first < own.last ? p.a[m * p.row] : T(0);
    T* row = out + m * ldo;
    if (x == T(0)) {
      std::memset(row, 0, static_cast<std::size_t>(p.N) * sizeof(T));
      continue;
    }
    Index n = 0;
    for (; n + kWidth<T> <= p.N; n += kWidth<T>)
      store<T>(row + n, (Vec<T>{} + broadcast(x) * load<T>(p.b + n)) * factor);
    store_upto<T>(row + n, (Vec<T>{} + broadcast(x) * load_upto<T>(p.b + n, p.N - n)) * factor, p.N - n);
  }
}

template <class T>
inline void weighted_sum(const WeightedSum<T>& p, T factor, T* out, Index ldo) {
  if (p.K == 1) return weighted_row(p, factor, out, ldo);
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
                           Span common, T factor, T* out) {
  T tile[M][N];
  dot_tile<T, M, N>(x + m * ldx, ldx, y + s * n, n, n, tile);
  if (s >= common.first && s + N <= common.last) {
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < N; ++j) out[(m + i) * S + s + j] = tile[i][j] * factor;
    return;
  }
  for (int i = 0; i < M; ++i) {
    const Span own = range_of(ranges, m + i, S);
    for (int j = 0; j < N; ++j)
      if (s + j >= own.first && s + j < own.last) out[(m + i) * S + s + j] = tile[i][j] * factor;
  }
}

constexpr Index kDotBlock = 16;  // keys that stay in L1 while the rows pass over them

template <class T, int R>
inline void dot_block(const T* x, Index ldx, Index m, const T* y, Index s0, Index s1, Index n, Index S, Ranges ranges,
                      T factor, T* out) {
  constexpr int N = R > 1 ? kDotKeys : 4;
  const Span span = span_of(ranges, m, R, S), common = common_span(ranges, m, R, S);
  const Index last = span.last < s1 ? span.last : s1;
  Index s = span.first > s0 ? span.first : s0;
  for (; s + N <= last; s += N) dot_keys<T, R, N>(x, ldx, m, y, s, n, S, ranges, common, factor, out);
  if constexpr (N == 4)
    for (; s + 2 <= last; s += 2) dot_keys<T, R, 2>(x, ldx, m, y, s, n, S, ranges, common, factor, out);
  for (; s < last; ++s) dot_keys<T, R, 1>(x, ldx, m, y, s, n, S, ranges, common, factor, out);
}

// out[m, s] = factor * x_m . y_s for s in the row's range; the rest of the row is left alone.
template <class T>
inline void dot_rows(const T* x, Index ldx, Index M, const T* y, Index S, Index n, Ranges ranges, T factor, T* out) {
  const Span all = span_of(ranges, 0, M, S);
  for (Index s0 = all.first; s0 < all.last; s0 += kDotBlock) {
    const Index s1 = s0 + kDotBlock < all.last ? s0 + kDotBlock : all.last;
    Index m = 0;
    for (; m + 4 <= M; m += 4) dot_block<T, 4>(x, ldx, m, y, s0, s1, n, S, ranges, factor, out);
    switch (M - m) {
      case 3:
        dot_block<T, 3>(x, ldx, m, y, s0, s1, n, S, ranges, factor, out);
        break;
      case 2:
        dot_block<T, 2>(x, ldx, m, y, s0, s1, n, S, ranges, factor, out);
        break;
      case 1:
        dot_block<T, 1>(x, ldx, m, y, s0, s1, n, S, ranges, factor, out);
    }
  }
}

}  // namespace
}  // namespace dhyan

// Weighted sums of rows: context, and the gradients dv, dq and dk of product scores.
//
//   out[m, :] = factor * sum over k with a(m, k) != 0 of a(m, k) * b[k, :]
//
// What has weight 0 must not be seen, NaN included. The tiles multiply by the zeros, which changes no bit of a finite
// sum; an element that comes out infinite or NaN is summed again without them. Where T is more than a few the sums are
// the tensor cores' (tensor_sum.cuh), those in double excepted.
#pragma once

#include "cuda/tensor_sum.cuh"

namespace dhyan::cuda {
namespace {

template <class T>
DHYAN_DEVICE void finish(const SumArguments<T>& in, Index b, Index m, Index n, Weight<T> sum, Index first,
                         Index last) {
  if (!(sum - sum == Weight<T>(0))) sum = in.sum_without_zeros(b, m, n, first, last);
  in.out[(b * in.out_stride + m) * in.N + n] = stored<T>(in.factor * sum);
}

template <class A, class Shape>
struct SumMemory {
  static constexpr int steps = sizeof(A) == 4 ? 32 : 16;
  Panel<A, Shape::rows, steps> a;
  Panel<A, Shape::columns, steps> b;
  Index first[Shape::rows], last[Shape::rows];
};

template <bool Transposed, class A, int N, int K, int Threads>
struct WeightLoader : RowLoader<A, N, K, Threads> {
  DHYAN_DEVICE void load_from(const A* a, Index row, Index, Index rows, Index depth, Index k0) {
    this->load(a, row, rows, depth, k0, in_fours(a, row));
  }
  DHYAN_DEVICE void put(Panel<A, N, K>& panel) const {
    this->store(panel, [](A x) { return x; });
  }
};
template <class A, int N, int K, int Threads>
struct WeightLoader<true, A, N, K, Threads> : ColumnLoader<A, N, K, Threads> {
  DHYAN_DEVICE void load_from(const A* a, Index, Index column, Index rows, Index depth, Index k0) {
    this->load(a, column, rows, depth, k0, in_fours(a, column));
  }
  DHYAN_DEVICE void put(Panel<A, N, K>& panel) const { this->store(panel); }
};

template <class T, class Shape, bool Transposed>
DHYAN_KERNEL(Shape::threads, sizeof(Weight<T>) == 4 ? 512 / Shape::threads : 1) sum_tile(SumArguments<T> in) {
  using A = Weight<T>;
  using Memory = SumMemory<A, Shape>;
  constexpr int K = Memory::steps;
  Memory& m = shared_memory<Memory>();
  const Index n0 = block_index() % in.column_tiles * Shape::columns;
  const Index m0 = block_index() / in.column_tiles % in.row_tiles * Shape::rows;
  const Index b = block_index() / in.column_tiles / in.row_tiles;
  const Index rows = least(Shape::rows, in.M - m0), columns = least(Shape::columns, in.N - n0);
  const Ranges::Span span = in.span_of_rows(b, m0, rows, m.first, m.last);
  const Index first = span.first / 4 * 4, last = span.last;
  const A* a = in.a + b * in.a_next + m0 * in.a_row;
  const T* values = in.b + b * in.K * in.N + n0;
  const bool fours = in_fours(values, in.N);
  WeightLoader<Transposed, A, Shape::rows, K, Shape::threads> a_next;
  ColumnLoader<T, Shape::columns, K, Shape::threads> b_next;
  A acc[Shape::per_row][Shape::per_column] = {};
  const auto load = [&](Index k) {
    a_next.load_from(a, in.a_row, in.a_column, rows, last, k);
    b_next.load(values, in.N, columns, last, k, fours);
  };
  if (first < last) load(first);
  for (Index k = first; k < last; k += K) {
    barrier();
    a_next.put(m.a);
    b_next.store(m.b);
    barrier();
    if (k + K < last) load(k + K);
    if (Shape::works(rows)) multiply<Shape>(m.a, m.b, static_cast<int>(least(K, last - k)), acc);
  }
  const int row = Shape::row(), column = Shape::column();
#pragma unroll
  for (int i = 0; i < Shape::per_row; ++i)
#pragma unroll
    for (int j = 0; j < Shape::per_column; ++j)
      if (row + i < rows && column + j < columns)
        finish(in, b, m0 + row + i, n0 + column + j, acc[i][j], first, last);
}

constexpr int kFewSumThreads = 128;  // four columns each

// At most R rows, a(m, k) with k contiguous: b is read once, four columns a thread.
template <class T, int R>
DHYAN_KERNEL(kFewSumThreads, 4) sum_few(SumArguments<T> in) {
  using A = Weight<T>;
  const Index b = block_index() / in.column_tiles;
  const Index n = (block_index() % in.column_tiles * kFewSumThreads + thread_index()) * 4;
  if (n >= in.N) return;
  Index first = 0, last = in.K;
  if (in.ranges.given()) {
    first = in.K, last = 0;
    for (Index t = 0; t < in.M; ++t) {
      const Ranges::Span span = in.ranges.at(b, t, in.K);
      if (span.first >= span.last) continue;
      first = least(first, span.first);
      last = span.last > last ? span.last : last;
    }
  }
  const A* a = in.a + b * in.a_next;
  const T* values = in.b + b * in.K * in.N + n;
  const bool whole = in_fours(values, in.N) && in.N - n >= 4;
  A acc[R][4] = {};
#pragma unroll 8
  for (Index k = first; k < last; ++k) {
    A v[4];
    load_four(values + k * in.N, in.N - n, whole, v);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const A weight = r < in.M ? a[r * in.a_row + k] : A(0);
      for (int i = 0; i < 4; ++i) acc[r][i] = fused(weight, v[i], acc[r][i]);
    }
  }
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (r < in.M && n + i < in.N) finish(in, b, static_cast<Index>(r), n + i, acc[r][i], first, last);
}

template <class T>
void weighted_sum(const Place& place, const char* op, Index B, SumArguments<T> in) {
  using A = Weight<T>;
  if (in.M == 0 || in.N == 0) return;
  const auto few = [&](auto* kernel) {
    in.column_tiles = (in.N + 4 * kFewSumThreads - 1) / (4 * kFewSumThreads);
    launch(place, op, "sum_few", B * in.column_tiles, kFewSumThreads, 0, kernel, in);
  };
  const auto tiles = [&](auto shape, auto* kernel) {
    using Shape = decltype(shape);
    in.row_tiles = (in.M + Shape::rows - 1) / Shape::rows;
    in.column_tiles = (in.N + Shape::columns - 1) / Shape::columns;
    launch(place, op, "sum_tile", B * in.row_tiles * in.column_tiles, Shape::threads, sizeof(SumMemory<A, Shape>),
           kernel, in);
  };
  const bool transposed = in.a_column != 1;
  if constexpr (sizeof(A) == 4)
    if (in.all_rows > kFewRows)
      return transposed ? sum_tensor_rows<true>(place, op, B, in) : sum_tensor_rows<false>(place, op, B, in);
  if (!transposed && in.all_rows == 1) return few(sum_few<T, 1>);
  if (!transposed && in.all_rows <= kFewRows) return few(sum_few<T, static_cast<int>(kFewRows)>);
  if constexpr (sizeof(A) == 8)
    if (!transposed) return tiles(WideTile{}, sum_tile<T, WideTile, false>);
  tiles(WideTile{}, sum_tile<T, WideTile, true>);
}

}  // namespace
}  // namespace dhyan::cuda

// What the kernels of weighted sums of rows are given (weighted_sum.cuh).
#pragma once

#include "cuda/tiles.cuh"

namespace dhyan::cuda {
namespace {

template <class T>
struct SumArguments {
  using A = Weight<T>;
  const A* a;  // a(m, k) of sentence b at a + b * a_next + m * a_row + k * a_column; one of the two is 1
  const T* b;  // (B, K, N)
  T* out;      // row m of sentence b at out + (b * out_stride + m) * N
  Index a_next, a_row, a_column, out_stride, M, K, N, row_tiles, column_tiles;
  Index all_rows;  // T of the whole call: it chooses the kernel
  A factor;
  Ranges ranges;  // of k, per row m; what lies outside has weight 0

  DHYAN_DEVICE A weight(Index sentence, Index m, Index k) const {
    return a[sentence * a_next + m * a_row + k * a_column];
  }
  // One element step by step, blind where the weight is 0.
  DHYAN_DEVICE A sum_without_zeros(Index sentence, Index m, Index n, Index first, Index last) const {
    A sum = 0;
    for (Index k = first; k < last; ++k) {
      const A x = weight(sentence, m, k);
      if (x != A(0)) sum = fused(x, number(b[(sentence * K + k) * N + n]), sum);
    }
    return sum;
  }
  // What any row of the tile may attend. Asked by all threads of the block, one a row; nobody reads `firsts` and
  // `lasts` after the next barrier.
  DHYAN_DEVICE Ranges::Span span_of_rows(Index sentence, Index m0, Index rows, Index* firsts, Index* lasts) const {
    if (!ranges.given()) return {0, K};
    if (thread_index() < rows) {
      const Ranges::Span span = ranges.at(sentence, m0 + thread_index(), K);
      const bool empty = span.first >= span.last;
      firsts[thread_index()] = empty ? K : span.first;
      lasts[thread_index()] = empty ? 0 : span.last;
    }
    barrier();
    Ranges::Span all{K, 0};
    for (Index i = 0; i < rows; ++i) {
      all.first = least(all.first, firsts[i]);
      all.last = lasts[i] > all.last ? lasts[i] : all.last;
    }
    return all;
  }
};

}  // namespace
}  // namespace dhyan::cuda

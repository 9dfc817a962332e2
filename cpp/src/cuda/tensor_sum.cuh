// Weighted sums of rows (weighted_sum.cuh) on the tensor cores.
//
// A value that is not finite counts as 0 in the tiles, or a weight of 0 would see it. Where a tile met one, each
// element looks whether a weight other than 0 falls on it, and is then summed again step by step.
#pragma once

#include "cuda/sum_arguments.cuh"
#include "cuda/tensor_tiles.cuh"

namespace dhyan::cuda {
namespace {

// Transposed: a's rows are next to each other. 16-bit results are not worth a third part of the weights.
template <class T, class Shape, bool Transposed>
struct TensorSum {
  static constexpr int steps = kTensorSteps<T, Shape>, parts = kParts<T>, weight_parts = parts == 3 ? 3 : 2;
  using Weights = SplitPanel<weight_parts, Shape::rows, steps, !Transposed>;
  using Values = SplitPanel<parts, Shape::columns, steps, false>;
  union Memory {
    TensorMemory<Weights, Values> tensor;
    Index range[2][Shape::rows];
  };
};

template <class T>
DHYAN_DEVICE bool sees_no_number(const SumArguments<T>& in, Index b, Index m, Index n, Index first, Index last) {
#pragma unroll 1
  for (Index k = first; k < last; ++k) {
    const float value = number(in.b[(b * in.K + k) * in.N + n]);
    if (!(value - value == 0.0f) && in.weight(b, m, k) != 0.0f) return true;
  }
  return false;
}

template <class T, class Shape, bool Transposed>
DHYAN_KERNEL(Shape::threads, (kTensorBlocks<T, Shape>))
sum_tensor(SumArguments<T> in) {
  using Tile = TensorSum<T, Shape, Transposed>;
  constexpr int K = Tile::steps;
  auto& memory = shared_memory<typename Tile::Memory>();
  auto& m = memory.tensor;
  const Index n0 = block_index() % in.column_tiles * Shape::columns;
  const Index m0 = block_index() / in.column_tiles % in.row_tiles * Shape::rows;
  const Index b = block_index() / in.column_tiles / in.row_tiles;
  const Index rows = least(Shape::rows, in.M - m0), columns = least(Shape::columns, in.N - n0);
  const Ranges::Span span = in.span_of_rows(b, m0, rows, memory.range[0], memory.range[1]);
  barrier();
  const Index first = span.first / kUnit * kUnit, last = span.last;  // units begin where they do for any tile
  const float* a = in.a + b * in.a_next + m0 * in.a_row;
  const T* values = in.b + b * in.K * in.N + n0;
  const Index a_line = Transposed ? in.a_column : in.a_row;
  SplitLoader<float, typename Tile::Weights, Shape::threads> a_next(a + first * in.a_column, a_line, rows);
  SplitLoader<T, typename Tile::Values, Shape::threads> b_next(values + first * in.N, in.N, columns);
  TensorTile<Shape> tile(rows, columns);
  bool odd = false;
  in_stages<K>(
      last - first,
      [&](Index left) {
        a_next.load(left);
        b_next.load(left);
      },
      [&](int stage) {
        a_next.template store<false>(m.stage[stage].a);
        odd |= b_next.template store<true>(m.stage[stage].b);
      },
      [&](int stage) { tile.template add<Tile::weight_parts - 1, K>(m.stage[stage].a, m.stage[stage].b); });
  const bool found = barrier_any(odd);
  T* out = in.out + (b * in.out_stride + m0) * in.N + n0;
  odd = found;
  tile.write(out, in.N, rows, columns, [&](float sum) {
    const bool sure = fabs(sum) <= kMostSum;
    odd |= !sure;
    return stored<T>(sure ? in.factor * sum : float_of(kNoNumber));
  });
  if (!odd) return;
  tile.again(rows, columns, [&](int r, int c) {
    const float sum = number(out[r * in.N + c]);
    if (!(sum - sum == 0.0f) || (found && sees_no_number(in, b, m0 + r, n0 + c, first, last)))
      out[r * in.N + c] = stored<T>(in.factor * in.sum_without_zeros(b, m0 + r, n0 + c, first, last));
  });
}

template <bool Transposed, class T>
void sum_tensor_rows(const Place& place, const char* op, Index B, SumArguments<T> in) {
  with_tensor_shape(B, in.M, in.N, [&](auto shape) {
    using Shape = decltype(shape);
    in.row_tiles = (in.M + Shape::rows - 1) / Shape::rows;
    in.column_tiles = (in.N + Shape::columns - 1) / Shape::columns;
    launch(place, op, "sum_tensor", B * in.row_tiles * in.column_tiles, Shape::threads,
           sizeof(typename TensorSum<T, Shape, Transposed>::Memory), sum_tensor<T, Shape, Transposed>, in);
  });
}

}  // namespace
}  // namespace dhyan::cuda

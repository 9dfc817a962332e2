// Product scores of more queries than a few: tiles on the tensor cores.
#pragma once

#include "cuda/score_arguments.cuh"
#include "cuda/tensor_tiles.cuh"

namespace dhyan::cuda {
namespace {

template <class T, class Shape>
struct TensorScore {
  static constexpr int steps = kTensorSteps<T, Shape>, parts = kParts<T>, last = parts == 1 ? 0 : 2;
  using Queries = SplitPanel<parts, Shape::rows, steps, true>;
  using Keys = SplitPanel<parts, Shape::columns, steps, true>;
  using Memory = TensorMemory<Queries, Keys>;
};

// Step by step: where the parts' products are not finite this may be, or is infinite and not NaN.
template <class T>
DHYAN_DEVICE Weight<T> plain_score(const T* q, const T* k, Index H) {
  Weight<T> sum = 0;
#pragma unroll 1
  for (Index h = 0; h < H; ++h) sum = fused(number(q[h]), number(k[h]), sum);
  return sum;
}

template <class T, class Shape>
DHYAN_KERNEL(Shape::threads, (kTensorBlocks<T, Shape>))
score_tensor(ScoreArguments<T> in) {
  using Tile = TensorScore<T, Shape>;
  constexpr int K = Tile::steps;
  auto& m = shared_memory<typename Tile::Memory>();
  const Index s0 = block_index() % in.key_tiles * Shape::columns;
  const Index t0 = block_index() / in.key_tiles % in.row_tiles * Shape::rows;
  const Index b = block_index() / in.key_tiles / in.row_tiles;
  const Index rows = least(Shape::rows, in.rows - t0), columns = least(Shape::columns, in.S - s0);
  if (!in.wanted(b, t0, rows, s0, columns)) return;
  const T* q = in.q + (b * in.q_stride + t0) * in.H;
  const T* k = in.k + (b * in.S + s0) * in.H;
  SplitLoader<T, typename Tile::Queries, Shape::threads> q_next(q, in.H, rows);
  SplitLoader<T, typename Tile::Keys, Shape::threads> k_next(k, in.H, columns);
  TensorTile<Shape> tile(rows, columns);
  in_stages<K>(
      in.H,
      [&](Index left) {
        q_next.load(left);
        k_next.load(left);
      },
      [&](int stage) {
        q_next.template store<false>(m.stage[stage].a);
        k_next.template store<false>(m.stage[stage].b);
      },
      [&](int stage) { tile.template add<Tile::last, K>(m.stage[stage].a, m.stage[stage].b); });
  Weight<T>* scores = in.scores + (b * in.scores_stride + t0) * in.S + s0;
  bool odd = false;
  tile.write(scores, in.S, rows, columns, [&](float sum) {
    const bool sure = fabs(sum) <= kMostSum;
    odd |= !sure;
    return sure ? in.scale * sum : float_of(kNoNumber);
  });
  if (!odd) return;
  tile.again(rows, columns, [&](int t, int s) {
    float& score = scores[t * in.S + s];
    if (!(score - score == 0.0f)) score = in.scale * plain_score(q + t * in.H, k + s * in.H, in.H);
  });
}

template <class T>
void score_tensor_rows(const Place& place, const char* op, Index B, ScoreArguments<T> in) {
  with_tensor_shape(B, in.rows, in.S, [&](auto shape) {
    using Shape = decltype(shape);
    in.row_tiles = (in.rows + Shape::rows - 1) / Shape::rows;
    in.key_tiles = (in.S + Shape::columns - 1) / Shape::columns;
    launch(place, op, "score_tensor", B * in.row_tiles * in.key_tiles, Shape::threads,
           sizeof(typename TensorScore<T, Shape>::Memory), score_tensor<T, Shape>, in);
  });
}

}  // namespace
}  // namespace dhyan::cuda

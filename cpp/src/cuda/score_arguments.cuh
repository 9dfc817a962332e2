// What the kernels of scores are given.
#pragma once

#include "cuda/tiles.cuh"

namespace dhyan::cuda {
namespace {

template <class T>
struct ScoreArguments {
  const T* q;         // row (b, t) at q + (b * q_stride + t) * H
  const T* k;         // (B, S, H)
  const T* w;         // (H), tanh only
  Weight<T>* scores;  // row (b, t) at scores + (b * scores_stride + t) * S
  Index q_stride, scores_stride, rows, S, H, row_tiles, key_tiles;
  Index all_rows;  // of the whole call: they choose the kernel, so that pieces have the same bits
  Weight<T> scale;
  Ranges ranges;

  // May any row of the tile look at any of its keys? Asked by all threads of the block, one a row.
  DHYAN_DEVICE bool wanted(Index b, Index t0, Index tile_rows, Index s0, Index columns) const {
    if (!ranges.given()) return true;
    bool found = false;
    if (thread_index() < tile_rows) {
      const Ranges::Span span = ranges.at(b, t0 + thread_index(), S);
      found = span.first < span.last && span.first < s0 + columns && span.last > s0;
    }
    return barrier_any(found);
  }
};

}  // namespace
}  // namespace dhyan::cuda

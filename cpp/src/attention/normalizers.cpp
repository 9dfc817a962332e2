// Sparsemax and monotonic alignment: checks, and how rows and sentences are dealt to threads. Softmax, which the joined
// op needs, is in attention.cpp.
#include <algorithm>

#include "attention/inputs.h"
#include "runtime/memory.h"
#include "runtime/threads.h"
#include "runtime/isa.h"

namespace dhyan {
namespace {

constexpr Index kRowTile = 32;  // target rows a thread takes at a time

template <class F>
void for_row_tiles(Index rows, Index work, F&& f) {
  parallel_for((rows + kRowTile - 1) / kRowTile, work,
               [&](Index i) { f(i * kRowTile, std::min(kRowTile, rows - i * kRowTile)); });
}

template <class T>
void check_like_scores(const char* op, const char* name, View<const T, 3> a, View<const T, 3> scores) {
  check_shape(op, name, a, {{"B", scores[0]}, {"T", scores[1]}, {"S", scores[2]}},
              ("to match scores " + shape_of(scores)).c_str());
}

template <class T>
void check_previous(const char* op, View<const T, 2> previous, View<const T, 3> scores) {
  if (!previous) return;
  check_shape(op, "previous", previous, {{"B", scores[0]}, {"S", scores[2]}},
              ("to match scores " + shape_of(scores)).c_str());
}

}  // namespace

template <class T>
void sparsemax_forward(View<const T, 3> scores, const Restriction& may, View<T, 3> weights) {
  const Index B = scores[0], rows = scores[1], S = scores[2];
  check_restriction("sparsemax_forward", may, B, rows, S);
  const RangeTable ranges(may, B, rows, S);
  const auto& kernels = attention_kernels<T>();
  for_row_tiles(B * rows, B * rows * S * 16, [&](Index row, Index n) {
    if (weights.data != scores.data) std::copy_n(scores.data + row * S, n * S, weights.data + row * S);
    const MaskRows mask(may, S);
    for (Index i = row; i < row + n; ++i) {
      const Index b = i / rows, t = i % rows;
      kernels.sparsemax_rows(weights.data + i * S, 1, S, ranges.begin(b, t), ranges.end(b, t), mask.row(b, t));
    }
  });
}

template <class T>
void sparsemax_backward(View<const T, 3> dweights, View<const T, 3> weights, View<T, 3> dscores) {
  const Index B = weights[0], rows = weights[1], S = weights[2];
  check_shape("sparsemax_backward", "dweights", dweights, {{"B", B}, {"T", rows}, {"S", S}},
              ("to match weights " + shape_of(weights)).c_str());
  const auto& kernels = attention_kernels<T>();
  for_row_tiles(B * rows, B * rows * S * 4, [&](Index row, Index n) {
    std::copy_n(dweights.data + row * S, n * S, dscores.data + row * S);
    kernels.sparsemax_backward_rows(weights.data + row * S, dscores.data + row * S, n, S, nullptr, nullptr);
  });
}

// A row needs the one before it: threads share sentences, not rows.
template <class T>
void monotonic_forward(View<const T, 3> scores, View<const T, 2> previous, const Restriction& may, bool hard,
                       View<T, 3> weights) {
  const char* op = "monotonic_forward";
  const Index B = scores[0], rows = scores[1], S = scores[2];
  check_previous(op, previous, scores);
  check_restriction(op, may, B, rows, S);
  const RangeTable ranges(may, B, rows, S);
  const auto& kernels = attention_kernels<T>();
  parallel_for(B, B * rows * S * 32, [&](Index b) {
    const MaskRows mask(may, S);
    const T* before = previous ? previous.data + b * S : nullptr;
    for (Index t = 0; t < rows; ++t) {
      check_interrupt();
      const Index at = (b * rows + t) * S;
      T* row = weights.data + at;
      if (weights.data != scores.data) std::copy_n(scores.data + at, S, row);
      kernels.monotonic_rows(row, before, 1, S, ranges.begin(b, t), ranges.end(b, t), mask.row(b, t), hard);
      before = row;
    }
  });
}

template <class T>
void monotonic_backward(View<const T, 3> dweights, View<const T, 3> scores, View<const T, 3> weights,
                        View<const T, 2> previous, const Restriction& may, View<T, 3> dscores, View<T, 2> dprevious) {
  const char* op = "monotonic_backward";
  const Index B = scores[0], rows = scores[1], S = scores[2];
  check_like_scores(op, "weights", weights, scores);
  check_like_scores(op, "dweights", dweights, scores);
  check_previous(op, previous, scores);
  check_restriction(op, may, B, rows, S);
  const RangeTable ranges(may, B, rows, S);
  const auto& kernels = attention_kernels<T>();
  parallel_for(B, B * rows * S * 32, [&](Index b) {
    const MaskRows mask(may, S);
    const Buffer<T> unwanted(dprevious ? 0 : S);
    T* dbefore = dprevious ? dprevious.data + b * S : unwanted.get();
    std::fill_n(dbefore, S, T(0));
    for (Index t = rows - 1; t >= 0; --t) {
      check_interrupt();
      const Index at = (b * rows + t) * S;
      std::copy_n(dweights.data + at, S, dscores.data + at);
      kernels.monotonic_backward_rows(weights.data + at, scores.data + at, dscores.data + at, dbefore, 1, S,
                                      ranges.begin(b, t), ranges.end(b, t), mask.row(b, t));
    }
  });
}

#define DHYAN_INSTANTIATE(T)                                                                                           \
  template void sparsemax_forward<T>(View<const T, 3>, const Restriction&, View<T, 3>);                                \
  template void sparsemax_backward<T>(View<const T, 3>, View<const T, 3>, View<T, 3>);                                 \
  template void monotonic_forward<T>(View<const T, 3>, View<const T, 2>, const Restriction&, bool, View<T, 3>);        \
  template void monotonic_backward<T>(View<const T, 3>, View<const T, 3>, View<const T, 3>, View<const T, 2>,          \
                                      const Restriction&, View<T, 3>, View<T, 2>);
DHYAN_INSTANTIATE(float)
DHYAN_INSTANTIATE(double)

}  // namespace dhyan

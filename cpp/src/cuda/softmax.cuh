// Softmax of rows over what they may attend, forward and backward: a warp or a block a row.
#pragma once

#include <math.h>

#include "cuda/score.cuh"

namespace dhyan::cuda {
namespace {

// Rows (b, t) of a chunk; the mask as in Restriction, moved to the chunk's first row.
struct Rows {
  Index count, per_sentence, S;  // count = B * per_sentence
  Ranges ranges;
  const unsigned char* mask = nullptr;
  Index mask_stride[3] = {0, 0, 0};
};

// What one row may attend.
struct Attendable {
  Ranges::Span span;
  const unsigned char* mask;
  Index stride;

  DHYAN_DEVICE Attendable(const Rows& rows, Index b, Index t)
      : span(rows.ranges.at(b, t, rows.S)),
        mask(rows.mask ? rows.mask + b * rows.mask_stride[0] + t * rows.mask_stride[1] : nullptr),
        stride(rows.mask_stride[2]) {}
  DHYAN_DEVICE bool at(Index s) const {
    return s >= span.first && s < span.last && (!mask || mask[s * stride] != 0);
  }
};

constexpr int kSoftmaxThreads = 128;  // of a block: four rows with a warp each, or one

// Sum (or maximum) over the threads of a row, the same for all of them. `memory`: one number a warp.
template <int Warps, class A, class F>
DHYAN_DEVICE A over_row(A x, A* memory, F join) {
  for (int distance = 16; distance > 0; distance /= 2) x = join(x, from_lane(x, distance));
  if (Warps == 1) return x;
  barrier();
  if (thread_index() % 32 == 0) memory[thread_index() / 32] = x;
  barrier();
  x = memory[0];
  for (int i = 1; i < Warps; ++i) x = join(x, memory[i]);
  return x;
}

struct Larger {
  template <class A>
  DHYAN_DEVICE A operator()(A a, A b) const {
    return a > b ? a : b;
  }
};
struct Plus {
  template <class A>
  DHYAN_DEVICE A operator()(A a, A b) const {
    return a + b;
  }
};

// The sum of f(s) over s < S, the same bits whether a warp or a block of four has the row: 128 running sums.
template <int Warps, class A, class F>
DHYAN_DEVICE A sum_over_row(Index S, A* memory, F&& f) {
  constexpr int runs = 4 / Warps;  // of a thread
  A part[runs] = {};
  for (Index s0 = thread_index() % (32 * Warps); s0 < S; s0 += 128)
#pragma unroll
    for (int i = 0; i < runs; ++i)
      if (s0 + 32 * i < S) f(s0 + 32 * i, part[i]);
  A total = over_row<Warps>(part[0], memory, Plus());
  for (int i = 1; i < runs; ++i) total += over_row<Warps>(part[i], memory, Plus());
  return total;
}

// exp(x - shift) with what rounding drops from the difference.
template <class A>
DHYAN_DEVICE A exp_of_difference(A x, A shift) {
  const A d = x - shift, back = d - x;
  const A low = (x - (d - back)) - (shift + back);
  return vexp<A>(d, low == low ? low : A(0));  // infinite x: no low part
}

// weights may be the memory of scores.
template <class A, int Warps>
DHYAN_KERNEL(kSoftmaxThreads, 4) softmax_rows_kernel(const A* scores, Rows rows, A* weights) {
  constexpr int threads = 32 * Warps;
  A* const memory = shared_memory<Packet<A, 4>>().v;
  const Index row = block_index() * (kSoftmaxThreads / threads) + thread_index() / threads;
  if (row >= rows.count) return;  // whole warps; a row of its own has no such block
  const int first = thread_index() % threads;
  const Attendable may(rows, row / rows.per_sentence, row % rows.per_sentence);
  const A* in = scores + row * rows.S;
  A* out = weights + row * rows.S;
  const A lowest = -HUGE_VAL;
  A most = lowest;
  for (Index s = first; s < rows.S; s += threads)
    if (may.at(s)) most = Larger()(most, in[s]);
  most = over_row<Warps>(most, memory, Larger());
  if (most == lowest) most = 0;
  const A total = sum_over_row<Warps, A>(rows.S, memory, [&](Index s, A& part) {
    if (may.at(s)) part += exp_of_difference(in[s], most);
  });
  const A scale = total == A(0) ? A(0) : A(1) / total;  // nothing to attend: all stays 0
  for (Index s = first; s < rows.S; s += threads) out[s] = may.at(s) ? exp_of_difference(in[s], most) * scale : A(0);
}

// dscores = weights * (d - sum_s weights d), d = dots + further; where a weight is 0 its d is not looked at.
template <class A, int Warps>
DHYAN_KERNEL(kSoftmaxThreads, 4)
softmax_backward_kernel(const A* dots, const A* further, const A* weights, Index count, Index S, A* dscores) {
  constexpr int threads = 32 * Warps;
  A* const memory = shared_memory<Packet<A, 4>>().v;
  const Index row = block_index() * (kSoftmaxThreads / threads) + thread_index() / threads;
  if (row >= count) return;
  const int first = thread_index() % threads;
  const A* w = weights + row * S;
  const auto gradient = [&](Index s) { return dots[row * S + s] + (further ? further[row * S + s] : A(0)); };
  const A mean = sum_over_row<Warps, A>(S, memory, [&](Index s, A& part) {
    if (w[s] != A(0)) part = fused(w[s], gradient(s), part);
  });
  for (Index s = first; s < S; s += threads)
    dscores[row * S + s] = w[s] != A(0) ? w[s] * (gradient(s) - mean) : A(0);
}

constexpr Index kLongRow = 1024;  // from here on a block takes a row

template <class A>
void softmax(const Place& place, const char* op, const A* scores, const Rows& rows, A* weights) {
  if (rows.S == 0) return;
  if (rows.S >= kLongRow)
    return launch(place, op, "softmax_rows", rows.count, kSoftmaxThreads, sizeof(Packet<A, 4>),
                  softmax_rows_kernel<A, kSoftmaxThreads / 32>, scores, rows, weights);
  launch(place, op, "softmax_rows", (rows.count + 3) / 4, kSoftmaxThreads, sizeof(Packet<A, 4>),
         softmax_rows_kernel<A, 1>, scores, rows, weights);
}

template <class A>
void softmax_gradient(const Place& place, const char* op, const A* dots, const A* further, const A* weights,
                      Index count, Index S, A* dscores) {
  if (S == 0) return;
  if (S >= kLongRow)
    return launch(place, op, "softmax_backward", count, kSoftmaxThreads, sizeof(Packet<A, 4>),
                  softmax_backward_kernel<A, kSoftmaxThreads / 32>, dots, further, weights, count, S, dscores);
  launch(place, op, "softmax_backward", (count + 3) / 4, kSoftmaxThreads, sizeof(Packet<A, 4>),
         softmax_backward_kernel<A, 1>, dots, further, weights, count, S, dscores);
}

}  // namespace
}  // namespace dhyan::cuda

// The attention ops as sequences of launches on the caller's stream. Shapes have been checked (attention_cuda.cpp).
//
// Scores of a chunk of rows, then their softmax, then what reads it. What is not returned lives in scratch of at most
// kScratchBytes, whatever B and T are (one sentence at least, in the backward pass), and mostly stays in L2.
#pragma once

#include <algorithm>

#include "cuda/backend.h"
#include "cuda/check.h"
#include "cuda/softmax.cuh"
#include "cuda/tanh_gradient.cuh"
#include "cuda/weighted_sum.cuh"

namespace dhyan::cuda {
namespace {

#ifndef DHYAN_CUDA_SCRATCH  // the tests make it small
#define DHYAN_CUDA_SCRATCH (Index(32) << 20)
#endif
constexpr Index kScratchBytes = DHYAN_CUDA_SCRATCH;

template <class T>
const T* moved(const T* p, Index by) {
  return p ? p + by : nullptr;
}

// Sentences [b, b + B) and of each the rows [t, t + T).
struct Chunk {
  Index b, B, t, T;
};

// The problem's sizes.
struct Sizes {
  Index B, T, S, H, D;
};

Ranges ranges_of(const Restriction& may, const Chunk& c, const Sizes& n) {
  const Index first = c.b * n.T + c.t;
  return {moved(may.begin.data, first), moved(may.end.data, first), n.T};
}

Rows rows_of(const Restriction& may, const Chunk& c, const Sizes& n) {
  Rows rows{c.B * c.T, c.T, n.S, ranges_of(may, c, n)};
  rows.mask = moved(may.mask, c.b * may.mask_stride[0] + c.t * may.mask_stride[1]);
  for (int i = 0; i < 3; ++i) rows.mask_stride[i] = may.mask_stride[i];
  return rows;
}

// Rows (B, T, S) of the chunk, one behind the other, at `scores`.
template <class T>
void scores_of(const Place& place, const char* op, const Scoring<T>& in, const Restriction& may, const Chunk& c,
               const Sizes& n, Weight<T>* scores) {
  ScoreArguments<T> a{};
  a.q = moved(in.q.data, (c.b * n.T + c.t) * n.H);
  a.k = moved(in.k.data, c.b * n.S * n.H);
  a.w = in.w.data;
  a.scores = scores;
  a.q_stride = n.T, a.scores_stride = c.T;
  a.rows = c.T, a.all_rows = n.T, a.S = n.S, a.H = n.H;
  a.scale = static_cast<Weight<T>>(in.scale);
  a.ranges = ranges_of(may, c, n);
  if (in.term == Term::tanh) return score_rows<T, true>(place, op, c.B, a);
  score_rows<T, false>(place, op, c.B, a);
}

template <class T>
void weights_of(const Place& place, const char* op, const Scoring<T>& in, const Restriction& may, const Chunk& c,
                const Sizes& n, Weight<T>* weights) {
  scores_of(place, op, in, may, c, n, weights);
  softmax(place, op, static_cast<const Weight<T>*>(weights), rows_of(may, c, n), weights);
}

// context (B, T, D) of the chunk's rows from their weights; `context` is the whole array.
template <class T>
void context_of(const Place& place, const char* op, const Weight<T>* weights, const T* v, const Restriction& may,
                const Chunk& c, const Sizes& n, T* context) {
  SumArguments<T> a{};
  a.a = weights, a.a_next = c.T * n.S, a.a_row = n.S, a.a_column = 1;
  a.b = moved(v, c.b * n.S * n.D);
  a.out = context + (c.b * n.T + c.t) * n.D, a.out_stride = n.T;
  a.M = c.T, a.all_rows = n.T, a.K = n.S, a.N = n.D;
  a.factor = 1;
  a.ranges = ranges_of(may, c, n);
  weighted_sum(place, op, c.B, a);
}

// out (B, S, N) = factor * sum_t a[t, s] b[t, :]
template <class T>
void keys_sum(const Place& place, const char* op, const Weight<T>* weights, const T* rows, Weight<T> factor,
              const Chunk& c, const Sizes& n, Index N, T* out) {
  SumArguments<T> a{};
  a.a = weights, a.a_next = n.T * n.S, a.a_row = 1, a.a_column = n.S;
  a.b = moved(rows, c.b * n.T * N);
  a.out = out + c.b * n.S * N, a.out_stride = n.S;
  a.M = n.S, a.all_rows = n.T, a.K = n.T, a.N = N;
  a.factor = factor;
  weighted_sum(place, op, c.B, a);
}

// dots[t, s] = dcontext_t . v_s of whole sentences
template <class T>
void dots_of(const Place& place, const char* op, View<const T, 3> dcontext, View<const T, 3> v, const Restriction& may,
             const Chunk& c, const Sizes& n, Weight<T>* dots) {
  const Scoring<T> in{dcontext, v, {}, Term::product, 1.0};
  scores_of(place, op, in, may, c, {n.B, n.T, n.S, n.D, n.D}, dots);
}

// Parts of dw: those of sentence b start at b * tiles * H.
template <class T>
class WeightParts {
 public:
  WeightParts(const Place& place, const Scoring<T>& in, const char* op)
      : place_(place), op_(op), tiles_(tiles_of_rows(in.k[1], false)), count_(in.q[0] * tiles_), H_(in.q[2]),
        parts_(place, in.term == Term::tanh ? count_ * H_ : 0, op) {}
  Weight<T>* of(Index b) const { return parts_.get() + b * tiles_ * H_; }
  void add(T* dw) const {
    struct Memory {
      Weight<T> run[32][32];
    };
    launch(place_, op_, "add_parts", (H_ + 31) / 32, 1024, sizeof(Memory), add_parts<T>,
           static_cast<const Weight<T>*>(parts_.get()), count_, H_, dw);
  }

 private:
  Place place_;
  const char* op_;
  Index tiles_, count_, H_;
  Scratch<Weight<T>> parts_;
};

// dq and dk of whole sentences from dscores (chunk), and the parts of dw.
template <class T>
void score_gradients(const Place& place, const char* op, const Scoring<T>& in, const Weight<T>* dscores,
                     const Restriction& may, const Chunk& c, const Sizes& n, T* dq, T* dk,
                     const WeightParts<T>& parts) {
  const T *q = moved(in.q.data, c.b * n.T * n.H), *k = moved(in.k.data, c.b * n.S * n.H);
  T *dq_c = dq + c.b * n.T * n.H, *dk_c = dk + c.b * n.S * n.H;
  const auto scale = static_cast<Weight<T>>(in.scale);
  if (in.term == Term::tanh) {
    tanh_gradient_rows<T, false>(place, op, c.B,
                                 {q, k, in.w.data, dscores, dq_c, nullptr, n.T, n.S, n.H, n.S, 1, 0, 0, scale});
    tanh_gradient_rows<T, true>(place, op, c.B,
                                {k, q, in.w.data, dscores, dk_c, parts.of(c.b), n.S, n.T, n.H, 1, n.S, 0, 0, scale});
    return;
  }
  SumArguments<T> a{};
  a.a = dscores, a.a_next = n.T * n.S, a.a_row = n.S, a.a_column = 1;
  a.b = k;
  a.out = dq_c, a.out_stride = n.T;
  a.M = n.T, a.all_rows = n.T, a.K = n.S, a.N = n.H;
  a.factor = scale;
  a.ranges = ranges_of(may, c, n);
  weighted_sum(place, op, c.B, a);
  keys_sum(place, op, dscores, in.q.data, scale, c, n, n.H, dk);
}

template <class T>
Sizes sizes_of(const Scoring<T>& in, Index D = 0) {
  return {in.q[0], in.q[1], in.k[1], in.q[2], D};
}

}  // namespace

namespace backend {

template <class T>
void score_forward(const Place& place, const Scoring<T>& in, View<Weight<T>, 3> scores) {
  const Current current(place);
  const Sizes n = sizes_of(in);
  scores_of(place, "score_forward", in, Restriction{}, {0, n.B, 0, n.T}, n, scores.data);
}

template <class T>
void score_backward(const Place& place, View<const Weight<T>, 3> dscores, const Scoring<T>& in, View<T, 3> dq,
                    View<T, 3> dk, View<T, 1> dw) {
  const char* op = "score_backward";
  const Current current(place);
  const Sizes n = sizes_of(in);
  const WeightParts<T> parts(place, in, op);
  score_gradients(place, op, in, dscores.data, Restriction{}, {0, n.B, 0, n.T}, n, dq.data, dk.data, parts);
  if (in.term == Term::tanh) parts.add(dw.data);
}

template <class T>
void context_forward(const Place& place, View<const Weight<T>, 3> weights, View<const T, 3> v, View<T, 3> context) {
  const Current current(place);
  const Sizes n{weights[0], weights[1], weights[2], 0, v[2]};
  context_of(place, "context_forward", weights.data, v.data, Restriction{}, {0, n.B, 0, n.T}, n, context.data);
}

template <class T>
void context_backward(const Place& place, View<const T, 3> dcontext, View<const Weight<T>, 3> weights,
                      View<const T, 3> v, View<Weight<T>, 3> dweights, View<T, 3> dv) {
  const char* op = "context_backward";
  const Current current(place);
  const Sizes n{weights[0], weights[1], weights[2], 0, v[2]};
  const Chunk all{0, n.B, 0, n.T};
  dots_of(place, op, dcontext, v, Restriction{}, all, n, dweights.data);
  keys_sum(place, op, weights.data, dcontext.data, Weight<T>(1), all, n, n.D, dv.data);
}

template <class T>
void attention_forward(const Place& place, const Scoring<T>& in, View<const T, 3> v, const Restriction& may,
                       View<T, 3> context, View<Weight<T>, 3> weights) {
  const char* op = "attention_forward";
  using A = Weight<T>;
  const Current current(place);
  const Sizes n = sizes_of(in, v[2]);
  const auto run = [&](const Chunk& c, A* w) {
    weights_of(place, op, in, may, c, n, w);
    context_of(place, op, w, v.data, may, c, n, context.data);
  };
  if (weights) return run({0, n.B, 0, n.T}, weights.data);
  const Index row = n.S > 0 ? n.S * static_cast<Index>(sizeof(A)) : 1, most = kScratchBytes / row + 1;  // rows
  if (most >= n.T) {
    const Index sentences = n.T > 0 ? std::min<Index>(most / n.T, n.B) : n.B;
    const Scratch<A> scratch(place, sentences * n.T * n.S, op);
    for (Index b = 0; b < n.B; b += sentences) run({b, std::min<Index>(sentences, n.B - b), 0, n.T}, scratch.get());
    return;
  }
  const Scratch<A> scratch(place, most * n.S, op);
  for (Index b = 0; b < n.B; ++b)
    for (Index t = 0; t < n.T; t += most) run({b, 1, t, std::min<Index>(most, n.T - t)}, scratch.get());
}

template <class T>
void attention_backward(const Place& place, View<const T, 3> dcontext, View<const Weight<T>, 3> dweights,
                        const Scoring<T>& in, View<const T, 3> v, const Restriction& may,
                        View<const Weight<T>, 3> weights, View<T, 3> dq, View<T, 3> dk, View<T, 3> dv, View<T, 1> dw) {
  const char* op = "attention_backward";
  using A = Weight<T>;
  const Current current(place);
  const Sizes n = sizes_of(in, v[2]);
  const WeightParts<T> parts(place, in, op);
  const Index sentence = n.T * n.S;
  const Index bytes = sentence > 0 ? 2 * sentence * static_cast<Index>(sizeof(A)) : 1;
  const Index sentences = n.B > 0 ? std::min<Index>(kScratchBytes / bytes + 1, n.B) : 1;
  const Scratch<A> gradients(place, sentences * sentence, op), again(place, weights ? 0 : sentences * sentence, op);
  for (Index b = 0; b < n.B; b += sentences) {
    const Chunk c{b, std::min<Index>(sentences, n.B - b), 0, n.T};
    const A* w = weights ? weights.data + b * sentence : again.get();
    if (!weights) weights_of(place, op, in, may, c, n, again.get());
    dots_of(place, op, dcontext, v, may, c, n, gradients.get());
    softmax_gradient(place, op, static_cast<const A*>(gradients.get()), moved(dweights.data, b * sentence), w,
                     c.B * n.T, n.S, gradients.get());
    score_gradients(place, op, in, static_cast<const A*>(gradients.get()), may, c, n, dq.data, dk.data, parts);
    keys_sum(place, op, w, dcontext.data, A(1), c, n, n.D, dv.data);
  }
  if (in.term == Term::tanh) parts.add(dw.data);
}

template <class T>
void softmax_forward(const Place& place, View<const T, 3> scores, const Restriction& may, View<T, 3> weights) {
  const Current current(place);
  const Sizes n{scores[0], scores[1], scores[2], 0, 0};
  softmax(place, "softmax_forward", scores.data, rows_of(may, {0, n.B, 0, n.T}, n), weights.data);
}

template <class T>
void softmax_backward(const Place& place, View<const T, 3> dweights, View<const T, 3> weights, View<T, 3> dscores) {
  const Current current(place);
  softmax_gradient(place, "softmax_backward", dweights.data, static_cast<const T*>(nullptr), weights.data,
                   weights[0] * weights[1], weights[2], dscores.data);
}

}  // namespace backend
}  // namespace dhyan::cuda

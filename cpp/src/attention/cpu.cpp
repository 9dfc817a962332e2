// Checks, and how rows and sentences are dealt to threads; the arithmetic is in kernels.
#include "dhyan/attention.h"

#include <algorithm>
#include <vector>

#include "attention/inputs.h"
#include "runtime/memory.h"
#include "runtime/threads.h"
#include "runtime/isa.h"

namespace dhyan {
namespace {

// ---- threads ----

constexpr Index kRowTile = 32;       // target rows a thread takes at a time
constexpr Index kBackwardRows =
    256;  // target rows whose dscores exist at once; a constant, or bits would follow shapes

// Sentences to threads where there are enough of them; else one after the other, each dealt out by f itself (a
// parallel_for inside a parallel one runs serial).
bool by_sentence(Index B) { return B >= 2 * num_threads(); }
template <class F>
void for_sentences(Index B, Index work, F&& f, bool backwards = false) {
  if (by_sentence(B)) return parallel_for(B, work, f, backwards);
  for (Index b = 0; b < B; ++b) f(b);
}

// Rows of a tile: few where threads share a sentence, else as many as let their scores stay in L2.
Index row_tile(Index B, Index S) {
  return by_sentence(B) ? std::clamp<Index>(65536 / std::max<Index>(S, 1), kRowTile, kBackwardRows) : kRowTile;
}

template <class F>
void for_row_tiles(Index rows, Index tile, Index work, F&& f) {
  parallel_for((rows + tile - 1) / tile, work, [&](Index i) { f(i * tile, std::min(tile, rows - i * tile)); });
}

// ---- pieces of one sentence ----

template <class T>
struct Sentence {
  const AttentionKernels<T>& kernels;
  const Scoring<T>& in;
  const Restriction& may;
  const RangeTable& ranges;
  Index b;
  Buffer<T> keys;
  const T* prepared;

  Sentence(const Scoring<T>& in, const Restriction& may, const RangeTable& ranges, Index b)
      : kernels(attention_kernels<T>()), in(in), may(may), ranges(ranges), b(b),
        prepared(nullptr) {
    if (in.term == Term::tanh && rows() == 1 && H() <= kUnprepared) return;  // read once only
    keys = Buffer<T>(kernels.prepared_size(in.term, S(), H()));
    prepared = keys.get();
    kernels.prepare_keys(in.term, k(), S(), H(), keys.get());
  }

  Index rows() const { return in.q[1]; }
  Index S() const { return in.k[1]; }
  Index H() const { return in.q[2]; }
  const T* q(Index t) const { return in.q.data + (b * rows() + t) * H(); }
  const T* k() const { return in.k.data + b * S() * H(); }
  T scale() const { return static_cast<T>(in.scale); }

  void scores(Index t, Index n, T* out) const {
    kernels.score_rows(in.term, q(t), H(), n, k(), prepared, S(), H(), in.w.data, scale(), ranges.begin(b, t),
                       ranges.end(b, t), out);
  }
  void weights(Index t, Index n, T* out) const {
    scores(t, n, out);
    softmax(t, n, out);
  }
  void softmax(Index t, Index n, T* rows) const { softmax_of(kernels, may, ranges, b, t, n, S(), rows); }

  static void softmax_of(const AttentionKernels<T>& kernels, const Restriction& may, const RangeTable& ranges, Index b,
                         Index t, Index n, Index S, T* rows) {
    if (!may.mask) return kernels.softmax_rows(rows, n, S, ranges.begin(b, t), ranges.end(b, t), nullptr);
    // A broadcast mask is never spread out: one row at a time, copied only where its elements lie apart.
    const Buffer<unsigned char> copy(may.mask_stride[2] == 1 ? 0 : S);
    for (Index i = 0; i < n; ++i) {
      const unsigned char* row = may.mask + b * may.mask_stride[0] + (t + i) * may.mask_stride[1];
      if (may.mask_stride[2] != 1) {
        for (Index s = 0; s < S; ++s) copy.get()[s] = row[s * may.mask_stride[2]];
        row = copy.get();
      }
      kernels.softmax_rows(rows + i * S, 1, S, ranges.begin(b, t + i), ranges.end(b, t + i), row);
    }
  }
};

template <class T>
void add(Index n, const T* x, T* y) {
  for (Index i = 0; i < n; ++i) y[i] += x[i];
}

// Runs compute(target) with the output itself, or, from the second part of a sum on, with memory that is then added.
template <class T, class F>
void accumulate(bool first, Index n, T* out, F&& compute) {
  if (first) return compute(out);
  const Buffer<T> part(n);
  compute(part.get());
  add(n, part.get(), out);
}

// dq (overwritten) of rows [t, t + n), dk and dw (added to; dk overwritten where t is 0), from dscores.
template <class T>
void score_gradients(const Sentence<T>& x, Index t, Index n, const T* dscores, T* dq, T* dk, T* dw) {
  const Index S = x.S(), H = x.H(), *begin = x.ranges.begin(x.b, t), *end = x.ranges.end(x.b, t);
  const Index work = n * S * H;
  if (x.in.term == Term::tanh) {
    const Index slice = by_sentence(x.in.q[0])
                            ? (H + 63) / 64 * 64
                            : 64;  // hidden units; they share nothing, so threads may take them in any order
    if (H > 0 && n > 0)
      parallel_for((H + slice - 1) / slice, work, [&](Index i) {
        x.kernels.tanh_backward(dscores, x.q(t), H, n, x.k(), x.prepared, S, H, x.in.w.data, x.scale(), begin, end,
                                i * slice, std::min(H, (i + 1) * slice), dq, H, dk, t == 0, dw);
      });
    return;
  }
  for_row_tiles(n, row_tile(x.in.q[0], S), work, [&](Index i, Index rows) {
    x.kernels.weighted_sum(dscores + i * S, S, 1, rows, S, x.k(), H, H, begin ? begin + i : nullptr,
                           end ? end + i : nullptr, x.scale(), dq + i * H, H);
  });
  accumulate<T>(t == 0, S * H, dk, [&](T* out) {
    for_row_tiles(S, 2 * kRowTile, work, [&](Index s, Index keys) {
      x.kernels.weighted_sum(dscores + s, 1, S, keys, n, x.q(t), H, H, nullptr, nullptr, x.scale(), out + s * H, H);
    });
  });
}

// Values of one sentence, ready for dweights = dcontext . v, which are product scores.
template <class T>
struct PreparedValues {
  const AttentionKernels<T>& kernels;
  const T* v;
  Index S, D;
  Buffer<T> prepared;

  PreparedValues(const AttentionKernels<T>& kernels, const T* v, Index S, Index D)
      : kernels(kernels), v(v), S(S), D(D), prepared(kernels.prepared_size(Term::product, S, D)) {
    kernels.prepare_keys(Term::product, v, S, D, prepared.get());
  }
  void dweights(const T* dcontext, Index n, const Index* begin, const Index* end, T* out) const {
    kernels.score_rows(Term::product, dcontext, D, n, v, prepared.get(), S, D, nullptr, T(1), begin, end, out);
  }
};

template <class T>
void value_gradients(const AttentionKernels<T>& kernels, Index t, Index n, Index S, Index D, const T* weights,
                     const T* dcontext, T* dv) {
  accumulate<T>(t == 0, S * D, dv, [&](T* out) {
    for_row_tiles(S, 2 * kRowTile, n * S * D, [&](Index s, Index keys) {
      kernels.weighted_sum(weights + s, 1, S, keys, n, dcontext, D, D, nullptr, nullptr, T(1), out + s * D, D);
    });
  });
}

// dw of the sentences, added in their order.
template <class T>
void sum_parts(const std::vector<T>& parts, Index B, View<T, 1> dw) {
  const Index H = dw[0];
  for (Index h = 0; h < H; ++h) {
    double sum = 0;
    for (Index b = 0; b < B; ++b) sum += static_cast<double>(parts[static_cast<std::size_t>(b * H + h)]);
    dw.data[h] = static_cast<T>(sum);
  }
}

template <class T>
std::vector<T> dw_parts(const Scoring<T>& in) {
  return std::vector<T>(in.term == Term::tanh ? static_cast<std::size_t>(in.q[0] * in.q[2]) : 0, T(0));
}

}  // namespace

template <class T>
void score_forward(const Scoring<T>& in, View<T, 3> scores) {
  check_scoring("score_forward", in);
  const Index B = in.q[0], rows = in.q[1], S = in.k[1], H = in.q[2];
  const Restriction all;
  const RangeTable none(all, B, rows, S);
  for_sentences(B, B * rows * S * H, [&](Index b) {
    const Sentence<T> x(in, all, none, b);
    for_row_tiles(rows, row_tile(B, S), rows * S * H,
                  [&](Index t, Index n) { x.scores(t, n, scores.data + (b * rows + t) * S); });
  });
}

template <class T>
void score_backward(View<const T, 3> dscores, const Scoring<T>& in, View<T, 3> dq, View<T, 3> dk, View<T, 1> dw) {
  check_score_backward(dscores, in);
  const Index B = in.q[0], rows = in.q[1], S = in.k[1], H = in.q[2];
  const Restriction all;
  const RangeTable none(all, B, rows, S);
  std::vector<T> parts = dw_parts(in);
  for_sentences(B, B * rows * S * H, [&](Index b) {
    const Sentence<T> x(in, all, none, b);
    T* dk_b = dk.data + b * S * H;
    if (rows == 0) std::fill_n(dk_b, S * H, T(0));
    for (Index t = 0; t < rows; t += kBackwardRows)
      score_gradients(x, t, std::min(kBackwardRows, rows - t), dscores.data + (b * rows + t) * S,
                      dq.data + (b * rows + t) * H, dk_b, parts.data() + b * H);
  });
  if (in.term == Term::tanh) sum_parts(parts, B, dw);
}

template <class T>
void softmax_forward(View<const T, 3> scores, const Restriction& may, View<T, 3> weights) {
  const Index B = scores[0], rows = scores[1], S = scores[2];
  check_restriction("softmax_forward", may, B, rows, S);
  const RangeTable ranges(may, B, rows, S);
  const auto& kernels = attention_kernels<T>();
  for_row_tiles(B * rows, kRowTile, B * rows * S * 16, [&](Index row, Index n) {
    if (weights.data != scores.data) std::copy_n(scores.data + row * S, n * S, weights.data + row * S);
    for (Index i = row; i < row + n; ++i)
      Sentence<T>::softmax_of(kernels, may, ranges, i / rows, i % rows, 1, S, weights.data + i * S);
  });
}

template <class T>
void softmax_backward(View<const T, 3> dweights, View<const T, 3> weights, View<T, 3> dscores) {
  const Index B = weights[0], rows = weights[1], S = weights[2];
  check_softmax_backward(dweights, weights);
  const auto& kernels = attention_kernels<T>();
  for_row_tiles(B * rows, kRowTile, B * rows * S * 4, [&](Index row, Index n) {
    std::copy_n(dweights.data + row * S, n * S, dscores.data + row * S);
    kernels.softmax_backward_rows(weights.data + row * S, dscores.data + row * S, n, S, nullptr, nullptr);
  });
}

template <class T>
void context_forward(View<const T, 3> weights, View<const T, 3> v, View<T, 3> context) {
  const Index B = weights[0], rows = weights[1], S = weights[2], D = v[2];
  check_context("context_forward", weights, v);
  const auto& kernels = attention_kernels<T>();
  for_sentences(B, B * rows * S * D, [&](Index b) {
    for_row_tiles(rows, row_tile(B, S), rows * S * D, [&](Index t, Index n) {
      const Index row = b * rows + t;
      kernels.context_rows(weights.data + row * S, n, v.data + b * S * D, S, D, nullptr, nullptr,
                           context.data + row * D, D);
    });
  });
}

template <class T>
void context_backward(View<const T, 3> dcontext, View<const T, 3> weights, View<const T, 3> v, View<T, 3> dweights,
                      View<T, 3> dv) {
  const Index B = weights[0], rows = weights[1], S = weights[2], D = v[2];
  check_context_backward(dcontext, weights, v);
  const auto& kernels = attention_kernels<T>();
  for_sentences(B, 2 * B * rows * S * D, [&](Index b) {
    const PreparedValues<T> values(kernels, v.data + b * S * D, S, D);
    T* dv_b = dv.data + b * S * D;
    for_row_tiles(rows, row_tile(B, S), rows * S * D, [&](Index t, Index n) {
      const Index row = b * rows + t;
      values.dweights(dcontext.data + row * D, n, nullptr, nullptr, dweights.data + row * S);
    });
    if (rows == 0) std::fill_n(dv_b, S * D, T(0));
    for (Index t = 0; t < rows; t += kBackwardRows)
      value_gradients(kernels, t, std::min(kBackwardRows, rows - t), S, D, weights.data + (b * rows + t) * S,
                      dcontext.data + (b * rows + t) * D, dv_b);
  });
}

template <class T>
void attention_forward(const Scoring<T>& in, View<const T, 3> v, const Restriction& may, View<T, 3> context,
                       View<T, 3> weights) {
  const char* op = "attention_forward";
  check_attention(op, in, v);
  const Index B = in.q[0], rows = in.q[1], S = in.k[1], H = in.q[2], D = v[2];
  check_restriction(op, may, B, rows, S);
  const RangeTable ranges(may, B, rows, S);
  for_sentences(B, B * rows * S * (H + D), [&](Index b) {
    const Sentence<T> x(in, may, ranges, b);
    for_row_tiles(rows, row_tile(B, S), rows * S * (H + D), [&](Index t, Index n) {
      const Index row = b * rows + t;
      const Buffer<T> unkept(weights ? 0 : n * S);
      T* tile = weights ? weights.data + row * S : unkept.get();
      x.weights(t, n, tile);
      x.kernels.context_rows(tile, n, v.data + b * S * D, S, D, ranges.begin(b, t), ranges.end(b, t),
                             context.data + row * D, D);
    });
  });
}

template <class T>
void attention_backward(View<const T, 3> dcontext, View<const T, 3> dweights, const Scoring<T>& in,
                        View<const T, 3> v, const Restriction& may, View<const T, 3> weights, View<T, 3> dq,
                        View<T, 3> dk, View<T, 3> dv, View<T, 1> dw) {
  const char* op = "attention_backward";
  check_attention_backward(dcontext, dweights, in, v, weights);
  const Index B = in.q[0], rows = in.q[1], S = in.k[1], H = in.q[2], D = v[2];
  check_restriction(op, may, B, rows, S);
  const RangeTable ranges(may, B, rows, S);
  std::vector<T> parts = dw_parts(in);
  for_sentences(B, 3 * B * rows * S * (H + D), [&](Index b) {
    const Sentence<T> x(in, may, ranges, b);
    const Index most_rows = std::min(kBackwardRows, rows);
    const Buffer<T> gradients(most_rows * S), again(weights ? 0 : most_rows * S);
    T* dscores = gradients.get();
    T* computed = weights ? nullptr : again.get();
    const PreparedValues<T> values(x.kernels, v.data + b * S * D, S, D);
    T *dk_b = dk.data + b * S * H, *dv_b = dv.data + b * S * D;
    if (rows == 0) std::fill_n(dk_b, S * H, T(0)), std::fill_n(dv_b, S * D, T(0));
    for (Index t0 = 0; t0 < rows; t0 += kBackwardRows) {
      const Index n0 = std::min(kBackwardRows, rows - t0), row0 = b * rows + t0;
      const T* w = weights ? weights.data + row0 * S : computed;
      for_row_tiles(n0, row_tile(B, S), n0 * S * (H + D), [&](Index i, Index n) {
        const Index t = t0 + i, *begin = ranges.begin(b, t), *end = ranges.end(b, t);
        T* d = dscores + i * S;
        if (computed) x.weights(t, n, computed + i * S);
        values.dweights(dcontext.data + (row0 + i) * D, n, begin, end, d);
        for (Index r = 0; dweights && r < n; ++r)
          for (Index s = begin ? begin[r] : 0; s < (end ? end[r] : S); ++s)
            d[r * S + s] += dweights.data[(row0 + i + r) * S + s];
        x.kernels.softmax_backward_rows(w + i * S, d, n, S, begin, end);
      });
      score_gradients(x, t0, n0, dscores, dq.data + row0 * H, dk_b, parts.data() + b * H);
      value_gradients(x.kernels, t0, n0, S, D, w, dcontext.data + row0 * D, dv_b);
    }
  }, true);
  if (in.term == Term::tanh) sum_parts(parts, B, dw);
}

#define DHYAN_INSTANTIATE(T)                                                                                        \
  template void score_forward<T>(const Scoring<T>&, View<T, 3>);                                                    \
  template void score_backward<T>(View<const T, 3>, const Scoring<T>&, View<T, 3>, View<T, 3>, View<T, 1>);         \
  template void softmax_forward<T>(View<const T, 3>, const Restriction&, View<T, 3>);                               \
  template void softmax_backward<T>(View<const T, 3>, View<const T, 3>, View<T, 3>);                                \
  template void context_forward<T>(View<const T, 3>, View<const T, 3>, View<T, 3>);                                 \
  template void context_backward<T>(View<const T, 3>, View<const T, 3>, View<const T, 3>, View<T, 3>, View<T, 3>);  \
  template void attention_forward<T>(const Scoring<T>&, View<const T, 3>, const Restriction&, View<T, 3>,           \
                                     View<T, 3>);                                                                   \
  template void attention_backward<T>(View<const T, 3>, View<const T, 3>, const Scoring<T>&, View<const T, 3>,      \
                                      const Restriction&, View<const T, 3>, View<T, 3>, View<T, 3>, View<T, 3>,     \
                                      View<T, 1>);
DHYAN_INSTANTIATE(float)
DHYAN_INSTANTIATE(double)

}  // namespace dhyan

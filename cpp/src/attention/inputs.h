// What the attention ops check about their inputs, and the ranges as the kernels want them.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "runtime/check.h"
#include "runtime/memory.h"
#include "dhyan/attention.h"

namespace dhyan {

template <class T>
void check_scoring(const char* op, const Scoring<T>& in) {
  const std::string match = "to match q " + shape_of(in.q);
  check_shape(op, "k", in.k, {{"B", in.q[0]}, {"S", -1}, {"H", in.q[2]}}, match.c_str());
  if (in.term == Term::tanh && !in.w)
    fail(std::string(op) + ": w is None, expected shape (H=" + std::to_string(in.q[2]) + ",) for term 'tanh'");
  if (in.term == Term::product && in.w) fail(std::string(op) + ": w is given, expected None for term 'product'");
  if (in.w) check_shape(op, "w", in.w, {{"H", in.q[2]}}, match.c_str());
  if (!std::isfinite(in.scale))
    fail(std::string(op) + ": scale is " + std::to_string(in.scale) + ", expected a finite number");
}

// The shapes of each op, for both sides: W is what weights are made of, T everything else.

template <class W, class T>
void check_score_backward(const View<const W, 3>& dscores, const Scoring<T>& in) {
  check_scoring("score_backward", in);
  check_shape("score_backward", "dscores", dscores, {{"B", in.q[0]}, {"T", in.q[1]}, {"S", in.k[1]}},
              "to match q and k");
}

template <class W>
void check_softmax_backward(const View<const W, 3>& dweights, const View<const W, 3>& weights) {
  check_shape("softmax_backward", "dweights", dweights, {{"B", weights[0]}, {"T", weights[1]}, {"S", weights[2]}},
              ("to match weights " + shape_of(weights)).c_str());
}

template <class W, class T>
void check_context(const char* op, const View<const W, 3>& weights, const View<const T, 3>& v) {
  check_shape(op, "v", v, {{"B", weights[0]}, {"S", weights[2]}, {"D", -1}},
              ("to match weights " + shape_of(weights)).c_str());
}

template <class W, class T>
void check_context_backward(const View<const T, 3>& dcontext, const View<const W, 3>& weights,
                            const View<const T, 3>& v) {
  check_context("context_backward", weights, v);
  check_shape("context_backward", "dcontext", dcontext, {{"B", weights[0]}, {"T", weights[1]}, {"D", v[2]}},
              ("to match weights " + shape_of(weights) + " and v " + shape_of(v)).c_str());
}

template <class T>
void check_attention(const char* op, const Scoring<T>& in, const View<const T, 3>& v) {
  check_scoring(op, in);
  check_shape(op, "v", v, {{"B", in.q[0]}, {"S", in.k[1]}, {"D", -1}}, ("to match k " + shape_of(in.k)).c_str());
}

template <class W, class T>
void check_attention_backward(const View<const T, 3>& dcontext, const View<const W, 3>& dweights,
                              const Scoring<T>& in, const View<const T, 3>& v, const View<const W, 3>& weights) {
  const char* op = "attention_backward";
  const Index B = in.q[0], rows = in.q[1], S = in.k[1];
  check_attention(op, in, v);
  check_shape(op, "dcontext", dcontext, {{"B", B}, {"T", rows}, {"D", v[2]}}, "as the context of the forward call");
  if (dweights)
    check_shape(op, "dweights", dweights, {{"B", B}, {"T", rows}, {"S", S}}, "as the weights of the forward call");
  if (weights) check_shape(op, "weights", weights, {{"B", B}, {"T", rows}, {"S", S}}, "to match q and k");
}

inline std::string at(const char* op, const char* name, Index b, Index t) {
  return std::string(op) + ": " + name + "[" + std::to_string(b) + ", " + std::to_string(t) + "] is ";
}

inline void check_range_shapes(const char* op, const Restriction& may, Index B, Index T) {
  if (may.begin) check_shape(op, "begin", may.begin, {{"B", B}, {"T", T}});
  if (may.end) check_shape(op, "end", may.end, {{"B", B}, {"T", T}});
}

inline void check_restriction(const char* op, const Restriction& may, Index B, Index T, Index S) {
  check_range_shapes(op, may, B, T);
  for (Index i = 0; i < B * T; ++i) {
    const Index first = may.begin ? may.begin.data[i] : 0, last = may.end ? may.end.data[i] : S;
    const bool good = 0 <= first && first <= last && last <= S;
    if (good) continue;
    if (!may.end || first < 0)
      fail(at(op, "begin", i / T, i % T) + std::to_string(first) + ", expected 0 <= begin <= " +
           (may.end ? "end" : "S=" + std::to_string(S)));
    fail(at(op, "end", i / T, i % T) + std::to_string(last) + ", expected begin=" + std::to_string(first) +
         " <= end <= S=" + std::to_string(S));
  }
}

// Both ends of the ranges as the kernels want them: both given, or neither.
class RangeTable {
 public:
  RangeTable(const Restriction& may, Index B, Index T, Index S) : T_(T), begin_(may.begin.data), end_(may.end.data) {
    if (!may.begin && !may.end) return;
    if (!may.begin) begin_ = fill(B * T, 0);
    if (!may.end) end_ = fill(B * T, S);
  }
  const Index* begin(Index b, Index t) const { return begin_ ? begin_ + b * T_ + t : nullptr; }
  const Index* end(Index b, Index t) const { return end_ ? end_ + b * T_ + t : nullptr; }

 private:
  const Index* fill(Index n, Index value) {
    filled_.assign(static_cast<std::size_t>(std::max<Index>(n, 1)), value);
    return filled_.data();
  }
  Index T_;
  const Index* begin_;
  const Index* end_;
  std::vector<Index> filled_;
};

// Rows of the mask as the kernels want them. A broadcast mask is never spread out: one row at a time is copied, and
// only where its elements lie apart. A row is valid until the next is asked for.
class MaskRows {
 public:
  MaskRows(const Restriction& may, Index S) : may_(may), S_(S), copy_(apart() ? S : 0) {}
  const unsigned char* row(Index b, Index t) const {
    if (!may_.mask) return nullptr;
    const unsigned char* row = may_.mask + b * may_.mask_stride[0] + t * may_.mask_stride[1];
    if (!apart()) return row;
    for (Index s = 0; s < S_; ++s) copy_.get()[s] = row[s * may_.mask_stride[2]];
    return copy_.get();
  }

 private:
  bool apart() const { return may_.mask && may_.mask_stride[2] != 1; }
  const Restriction& may_;
  Index S_;
  Buffer<unsigned char> copy_;
};

}  // namespace dhyan

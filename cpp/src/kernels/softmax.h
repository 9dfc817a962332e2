// Softmax of rows over a range and a mask, and its gradient.
//
// Accuracy: what rounding takes from x - max is carried into exp, and the denominator is summed in double: 2 eps per
// weight instead of the 34 of the plain form when scores spread widely.
#pragma once

#include "kernels/lanes.h"

namespace dhyan {
namespace {

template <class T>
inline void zero_outside(T* row, Index S, Index begin, Index end) {
  if (begin >= end) begin = end = S;
  for (Index s = 0; s < begin; ++s) row[s] = T(0);
  for (Index s = end; s < S; ++s) row[s] = T(0);
}

// 16 elements of a row that start at a multiple of 16; those outside [begin, end) read as `other`.
template <class T>
struct Block {
  Vec<T> v[kParts<T>];
};
template <class T>
DHYAN_INLINE Block<T> load_block(const T* row, Index s0, Index begin, Index end, T other) {
  Block<T> b;
  for (Index i = 0; i < kParts<T>; ++i) {
    const Index s = s0 + i * kWidth<T>;
    b.v[i] = load_upto<T>(row + s, end - s);
    if (begin > s || end < s + kWidth<T>) b.v[i] = between<T>(b.v[i], begin - s, end - s, other);
  }
  return b;
}
// Elements before `begin` are written too: they must be the zeros that stand there.
template <class T>
DHYAN_INLINE void store_block(T* row, Index s0, Index end, const Block<T>& b) {
  for (Index i = 0; i < kParts<T>; ++i) store_upto<T>(row + s0 + i * kWidth<T>, b.v[i], end - s0 - i * kWidth<T>);
}

template <class T>
inline T largest(const T* row, Index begin, Index end) {
  const T lowest = -__builtin_huge_val();
  Vec<T> most = broadcast(lowest);
  for (Index s0 = begin / kLanes * kLanes; s0 < end; s0 += kLanes) {
    const Block<T> x = load_block<T>(row, s0, begin, end, lowest);
    for (Index i = 0; i < kParts<T>; ++i) most = x.v[i] > most ? x.v[i] : most;
  }
  return largest_lane<T>(most);
}

// exp(x - most) with the rounding error of the difference carried along.
template <class V>
DHYAN_INLINE V exp_difference(V x, V most) {
  using T = ScalarOf<V>;
  const V d = x - most;
  const V back = d - x;
  const V low = (x - (d - back)) - (most + back);
  const V zero{};
  return vexp<V>(d, d < T(-1000) ? zero : low);  // infinities: low would be NaN where the result is 0
}

// 16 running sums in double, whatever the type of the terms.
struct DoubleSums {
  Vec<double> v[kParts<double>] = {};

  void add(const Block<double>& b) {
    for (Index i = 0; i < kParts<double>; ++i) v[i] += b.v[i];
  }
  void add(const Block<float>& b) {
    for (Index i = 0; i < kParts<float>; ++i) {
      v[2 * i] += half<0>(b.v[i], std::make_index_sequence<kWidth<double>>());
      v[2 * i + 1] += half<kWidth<double>>(b.v[i], std::make_index_sequence<kWidth<double>>());
    }
  }
  double total() const { return sum_lanes<double>(v); }

 private:
  template <Index First, std::size_t... I>
  static DHYAN_INLINE Vec<double> half(Vec<float> x, std::index_sequence<I...>) {
    return __builtin_convertvector(__builtin_shufflevector(x, x, static_cast<int>(First + I)...), Vec<double>);
  }
};

template <class T>
inline void softmax_row(T* row, Index S, Index begin, Index end, const unsigned char* mask) {
  if (mask)
    for (Index s = begin; s < end; ++s)
      if (!mask[s]) row[s] = -__builtin_huge_val();
  zero_outside(row, S, begin, end);
  const T most = largest(row, begin, end);
  const Vec<T> shift = broadcast(most == T(-__builtin_huge_val()) ? T(0) : most);
  DoubleSums sums;
  Block<T> last;  // a partial last block is not read back from memory
  for (Index s0 = begin / kLanes * kLanes; s0 < end; s0 += kLanes) {
    last = load_block<T>(row, s0, begin, end, T(-__builtin_huge_val()));
    for (Index i = 0; i < kParts<T>; ++i) last.v[i] = exp_difference<Vec<T>>(last.v[i], shift);
    sums.add(last);
    if (s0 + kLanes <= end) store_block<T>(row, s0, end, last);
  }
  const double total = sums.total(), scale = total == 0.0 ? 0.0 : 1.0 / total;  // nothing to attend: all stays 0
  const T high = static_cast<T>(scale), low = static_cast<T>(scale - static_cast<double>(high));
  const Vec<T> zero{};
  for (Index s0 = begin / kLanes * kLanes; s0 < end; s0 += kLanes) {
    Block<T> x = s0 + kLanes <= end ? load_block<T>(row, s0, s0, end, T(0)) : last;
    for (Index i = 0; i < kParts<T>; ++i)  // what is masked stays 0 even where the row came out NaN
      x.v[i] = x.v[i] == zero ? zero : x.v[i] * high + x.v[i] * low;
    store_block<T>(row, s0, end, x);
  }
}

template <class T>
void softmax_rows(T* scores, Index rows, Index S, const Index* begin, const Index* end, const unsigned char* mask) {
  for (Index t = 0; t < rows; ++t)
    softmax_row(scores + t * S, S, begin ? begin[t] : 0, end ? end[t] : S, mask ? mask + t * S : nullptr);
}

// dscores = weights * (dweights - sum_s weights dweights); where a weight is 0 its dweights is not looked at.
template <class T>
inline void softmax_backward_row(const T* weights, T* dweights, Index S, Index begin, Index end) {
  zero_outside(dweights, S, begin, end);
  Vec<T> lanes[kParts<T>] = {};
  const Vec<T> zero{};
  for (Index s0 = begin / kLanes * kLanes; s0 < end; s0 += kLanes) {
    const Block<T> w = load_block<T>(weights, s0, begin, end, T(0)), d = load_block<T>(dweights, s0, begin, end, T(0));
    for (Index i = 0; i < kParts<T>; ++i) lanes[i] += w.v[i] * (w.v[i] == T(0) ? zero : d.v[i]);
  }
  const T mean = sum_lanes<T>(lanes);
  for (Index s0 = begin / kLanes * kLanes; s0 < end; s0 += kLanes) {
    const Block<T> w = load_block<T>(weights, s0, begin, end, T(0));
    Block<T> d = load_block<T>(dweights, s0, begin, end, T(0));
    for (Index i = 0; i < kParts<T>; ++i) d.v[i] = w.v[i] == T(0) ? zero : w.v[i] * (d.v[i] - mean);
    store_block<T>(dweights, s0, end, d);
  }
}

template <class T>
void softmax_backward_rows(const T* weights, T* dweights, Index rows, Index S, const Index* begin, const Index* end) {
  for (Index t = 0; t < rows; ++t)
    softmax_backward_row(weights + t * S, dweights + t * S, S, begin ? begin[t] : 0, end ? end[t] : S);
}

}  // namespace
}  // namespace dhyan

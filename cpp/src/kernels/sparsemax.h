// Sparsemax of rows over a range and a mask, and its gradient (Martins and Astudillo 2016): the point of the simplex
// that is nearest to the scores.
//
// weight = max(score - tau, 0), with the tau for which the row sums to 1. That sum is convex and piecewise linear in
// tau, so Newton's method from below never oversteps and ends on the exact support, without sorting and without memory.
// A step halves the excess or the number of positions above tau, if not both: a few dozen passes at the very worst.
// Random rows of up to 1,000 positions took 3 to 5 on average and 9 at most, of 100,000 positions 14 at most.
#pragma once

#include "kernels/double_blocks.h"

namespace dhyan {
namespace {

// The row relative to its largest score, less a threshold in two parts: the second is what the first cannot hold.
struct Threshold {
  double most, tau, low;

  template <class V>
  DHYAN_INLINE V above(V x) const {  // NaN stays NaN
    const V d = ((x - most) - tau) - low, zero{};
    return (x == kNothing) | (d <= 0.0) ? zero : d;
  }
};

struct Excess {
  double total = 0.0, positions = 0.0;  // of the weights; above the threshold
};

// The total with what rounding drops carried along: nearly equal weights all round the same way, and 65,536 of them
// came out 11 eps off in plain sums, 8 eps in sums of sums of 1,024.
template <class T>
inline Excess weights_above(const Threshold& at, const T* row, Index begin, Index end) {
  const Vec<double> zero{}, one = broadcast(1.0);
  DoubleSums total, dropped, positions;
  for (Index s0 = begin / kLanes * kLanes; s0 < end; s0 += kLanes) {
    const Block<double> x = load_double_block<T>(row, s0, begin, end, T(kNothing));
    for (Index i = 0; i < kParts<double>; ++i) {
      const Vec<double> weight = at.above(x.v[i]), sum = total.v[i] + weight, added = sum - total.v[i];
      dropped.v[i] += (total.v[i] - (sum - added)) + (weight - added);
      total.v[i] = sum;
      positions.v[i] += weight == zero ? zero : one;
    }
  }
  return {total.total() + dropped.total(), positions.total()};
}

template <class T>
inline Threshold find_threshold(const T* row, Index begin, Index end) {
  const double most = largest(row, begin, end);
  Threshold at{most == kNothing ? 0.0 : most, -1.0, 0.0};  // the largest score alone has weight 1 at tau = -1
  for (double before = __builtin_huge_val();;) {
    const Excess now = weights_above(at, row, begin, end);
    const double step = (now.total - 1.0) / now.positions;
    // At the end of the way, up to rounding. Written so that NaN gets here too; with nothing to attend the row is 0
    // whatever the threshold.
    if (!(step > 0.0 && now.positions < before)) {
      at.low = step;
      return at;
    }
    at.tau += step;
    before = now.positions;
  }
}

template <class T>
inline void sparsemax_row(T* row, Index S, Index begin, Index end, const unsigned char* mask) {
  if (mask)
    for (Index s = begin; s < end; ++s)
      if (!mask[s]) row[s] = T(kNothing);
  zero_outside(row, S, begin, end);
  const Threshold at = find_threshold(row, begin, end);
  for (Index s0 = begin / kLanes * kLanes; s0 < end; s0 += kLanes) {
    Block<double> x = load_double_block<T>(row, s0, begin, end, T(kNothing));
    for (Index i = 0; i < kParts<double>; ++i) x.v[i] = at.above(x.v[i]);
    store_double_block<T>(row, s0, end, x);
  }
}

template <class T>
void sparsemax_rows(T* scores, Index rows, Index S, const Index* begin, const Index* end, const unsigned char* mask) {
  for (Index t = 0; t < rows; ++t)
    sparsemax_row(scores + t * S, S, begin ? begin[t] : 0, end ? end[t] : S, mask ? mask + t * S : nullptr);
}

// dscores = dweights - their mean over the support; 0 where a weight is 0, and its dweights is not looked at there.
template <class T>
inline void sparsemax_backward_row(const T* weights, T* dweights, Index S, Index begin, Index end) {
  zero_outside(dweights, S, begin, end);
  DoubleSums total, positions;
  const Vec<double> zero{}, one = broadcast(1.0);
  for (Index s0 = begin / kLanes * kLanes; s0 < end; s0 += kLanes) {
    const Block<double> w = load_double_block<T>(weights, s0, begin, end, T(0));
    Block<double> d = load_double_block<T>(dweights, s0, begin, end, T(0)), count{};
    for (Index i = 0; i < kParts<double>; ++i) {
      d.v[i] = w.v[i] > 0.0 ? d.v[i] : zero;
      count.v[i] = w.v[i] > 0.0 ? one : zero;
    }
    total.add(d);
    positions.add(count);
  }
  const double n = positions.total(), mean = n > 0.0 ? total.total() / n : 0.0;
  for (Index s0 = begin / kLanes * kLanes; s0 < end; s0 += kLanes) {
    const Block<double> w = load_double_block<T>(weights, s0, begin, end, T(0));
    Block<double> d = load_double_block<T>(dweights, s0, begin, end, T(0));
    for (Index i = 0; i < kParts<double>; ++i)  // a row that came out NaN has gradients of NaN
      d.v[i] = w.v[i] > 0.0 ? d.v[i] - mean : w.v[i] * 0.0;
    store_double_block<T>(dweights, s0, end, d);
  }
}

template <class T>
void sparsemax_backward_rows(const T* weights, T* dweights, Index rows, Index S, const Index* begin, const Index* end) {
  for (Index t = 0; t < rows; ++t)
    sparsemax_backward_row(weights + t * S, dweights + t * S, S, begin ? begin[t] : 0, end ? end[t] : S);
}

}  // namespace
}  // namespace dhyan

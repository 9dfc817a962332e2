// Monotonic alignment and its gradient (Raffel et al. 2017): a row starts where the row before it stopped, walks to the
// right and stops at s with probability p_s = logistic(score_s).
//
// A recurrence over s instead of the paper's cumulative products and quotients: nothing is divided, so nothing overflows
// however long the row. What walks on is held in double; 1 - p_s is computed as itself, not as a difference.
#pragma once

#include "cpu/kernels/double_blocks.h"

namespace dhyan {
namespace {

// Of 16 positions: to stop there, and to walk on. 0 and 1 where the row may not attend; such a score is never looked at.
struct Steps {
  double stop[kLanes], pass[kLanes];
};

template <class T>
inline Steps steps_of(const T* scores, Index s0, Index begin, Index end, const unsigned char* mask, bool hard) {
  const Vec<double> zero{}, one = broadcast(1.0);
  const Block<double> loaded = load_double_block<T>(scores, s0, begin, end, T(kNothing));
  Steps steps;
  double x[kLanes];
  for (Index i = 0; i < kParts<double>; ++i) store<double>(x + i * kWidth<double>, loaded.v[i]);
  if (mask)
    for (Index l = 0; l < kLanes && s0 + l < end; ++l)
      if (!mask[s0 + l]) x[l] = kNothing;
  for (Index l = 0; l < kLanes; l += kWidth<double>) {
    const Vec<double> score = load<double>(x + l);
    const Vec<double> small = vexp<Vec<double>>(-magnitude(score)), whole = small + 1.0;
    const auto negative = score < 0.0;
    Vec<double> stop = (negative ? small : one) / whole, pass = (negative ? one : small) / whole;
    if (hard) {
      stop = score > 0.0 ? one : score <= 0.0 ? zero : score;  // NaN stays NaN
      pass = 1.0 - stop;
    }
    store<double>(steps.stop + l, stop);
    store<double>(steps.pass + l, pass);
  }
  return steps;
}

// Scores to weights, in place. arriving_s = pass_{s-1} arriving_{s-1} + before_s, weight_s = stop_s arriving_s.
template <class T>
inline void monotonic_row(T* row, const T* before, Index S, Index begin, Index end, const unsigned char* mask,
                          bool hard) {
  zero_outside(row, S, begin, end);
  double arriving = before ? 0.0 : 1.0, pass = 1.0;  // without a row before, all starts at position 0
  for (Index s = 0; before && s < begin && begin < end; ++s) arriving += before[s];
  for (Index s0 = begin / kLanes * kLanes; s0 < end; s0 += kLanes) {
    const Steps steps = steps_of(row, s0, begin, end, mask, hard);
    for (Index s = s0 < begin ? begin : s0; s < end && s < s0 + kLanes; ++s) {
      arriving = pass * arriving + (before ? static_cast<double>(before[s]) : 0.0);
      const double stop = steps.stop[s - s0];
      row[s] = stop == 0.0 ? T(0) : static_cast<T>(stop * arriving);
      pass = steps.pass[s - s0];
    }
  }
}

template <class T>
void monotonic_rows(T* scores, const T* previous, Index rows, Index S, const Index* begin, const Index* end,
                    const unsigned char* mask, bool hard) {
  for (Index t = 0; t < rows; ++t)
    monotonic_row(scores + t * S, t > 0 ? scores + (t - 1) * S : previous, S, begin ? begin[t] : 0, end ? end[t] : S,
                  mask ? mask + t * S : nullptr, hard);
}

// From the right to the left, with d the whole gradient of a weight, from outside (dweights) and from the row after it
// (dbefore, replaced by what flows on to the row before):
//   weight_s = stop_s arriving_s, arriving_{s+1} = pass_s arriving_s + before_{s+1}
//   darriving_s = stop_s d_s + pass_s darriving_{s+1},  dbefore_s = darriving_s
//   dscore_s = stop_s pass_s arriving_s (d_s - darriving_{s+1}) = weight_s pass_s (d_s - darriving_{s+1})
// dscores overwrites dweights. Where the row cannot stop its dweights is not looked at.
template <class T>
inline void monotonic_backward_row(const T* weights, const T* scores, T* dweights, T* dbefore, Index S, Index begin,
                                   Index end, const unsigned char* mask) {
  zero_outside(dweights, S, begin, end);
  if (begin >= end) begin = end = 0;
  double darriving = 0.0;
  for (Index s = end; s < S; ++s) dbefore[s] = T(0);  // what arrives there is never read
  for (Index s0 = (end - 1) / kLanes * kLanes; begin < end && s0 + kLanes > begin; s0 -= kLanes) {
    const Steps steps = steps_of(scores, s0, begin, end, mask, false);
    const Index first = s0 < begin ? begin : s0, last = s0 + kLanes < end ? s0 + kLanes : end;
    for (Index s = last - 1; s >= first; --s) {
      const double stop = steps.stop[s - s0], pass = steps.pass[s - s0], w = weights[s];
      const double d = stop == 0.0 ? 0.0 : static_cast<double>(dweights[s]) + static_cast<double>(dbefore[s]);
      dweights[s] = w == 0.0 ? T(0) : static_cast<T>(w * pass * (d - darriving));
      darriving = stop * d + pass * darriving;
      dbefore[s] = static_cast<T>(darriving);
    }
  }
  for (Index s = 0; s < begin; ++s) dbefore[s] = static_cast<T>(darriving);
}

// The last row first. dprevious: in, what flows into the last row from rows after these; out, into the row before them.
template <class T>
void monotonic_backward_rows(const T* weights, const T* scores, T* dweights, T* dprevious, Index rows, Index S,
                             const Index* begin, const Index* end, const unsigned char* mask) {
  for (Index t = rows - 1; t >= 0; --t)
    monotonic_backward_row(weights + t * S, scores + t * S, dweights + t * S, dprevious, S, begin ? begin[t] : 0,
                           end ? end[t] : S, mask ? mask + t * S : nullptr);
}

}  // namespace
}  // namespace dhyan

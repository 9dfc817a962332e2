// Monotonic alignment and its gradient (Raffel et al. 2017): a row starts where the row before it stopped, walks to the
// right and stops at s with probability p_s = logistic(score_s).
//
// A recurrence over s instead of the paper's cumulative products and quotients: nothing is divided by what may vanish,
// so nothing overflows however long the row. What walks on is held in double; 1 - p_s is computed as itself, not as a
// difference. Only the recurrence is scalar; with all of it in one loop rows of 1,000 took 1.4 to 1.6 times as long.
#pragma once

#include "kernels/double_blocks.h"

namespace dhyan {
namespace {

// Of 16 positions: to stop there, and to walk on. 0 and 1 where the row may not attend, whatever the score.
struct Steps {
  double stop[kLanes], pass[kLanes];
};

template <class T>
inline Steps steps_of(const T* scores, Index s0, Index begin, Index end, const unsigned char* mask, bool hard) {
  Steps steps;
  double x[kLanes];
  store_lanes(x, load_double_block<T>(scores, s0, begin, end, T(kNothing)));
  if (mask)
    for (Index l = 0; l < kLanes && s0 + l < end; ++l)
      if (!mask[s0 + l]) x[l] = kNothing;
  const Vec<double> zero{}, one = broadcast(1.0);
  for (Index l = 0; l < kLanes; l += kWidth<double>) {
    const Vec<double> score = load<double>(x + l);
    if (hard) {
      const Vec<double> stop = score > 0.0 ? one : score <= 0.0 ? zero : score;  // NaN stays NaN
      store<double>(steps.stop + l, stop);
      store<double>(steps.pass + l, one - stop);
    } else {
      const Vec<double> small = vexp<Vec<double>>(-magnitude(score)), whole = small + 1.0;
      const auto negative = score < 0.0;
      store<double>(steps.stop + l, (negative ? small : one) / whole);
      store<double>(steps.pass + l, (negative ? one : small) / whole);
    }
  }
  return steps;
}

// Scores to weights, in place. arriving_s = pass_{s-1} arriving_{s-1} + before_s, weight_s = stop_s arriving_s.
template <class T>
inline void monotonic_row(T* row, const T* before, Index S, Index begin, Index end, const unsigned char* mask,
                          bool hard) {
  zero_outside(row, S, begin, end);
  if (begin >= end) return;
  const Vec<double> zero{};
  const Index first = begin / kLanes * kLanes;
  double arriving = before ? 0.0 : 1.0, pass = 1.0;  // without a row before, all starts at position 0
  for (Index s = 0; before && s < first; ++s) arriving += before[s];
  for (Index s0 = first; s0 < end; s0 += kLanes) {
    const Steps steps = steps_of(row, s0, begin, end, mask, hard);
    double lanes[kLanes] = {};
    if (before) store_lanes(lanes, load_double_block<T>(before, s0, s0, end, T(0)));
    for (Index l = 0; l < kLanes; ++l) {
      lanes[l] = arriving = pass * arriving + lanes[l];
      pass = steps.pass[l];
    }
    for (Index l = 0; l < kLanes; l += kWidth<double>) {
      const Vec<double> stop = load<double>(steps.stop + l);
      store<double>(lanes + l, stop == 0.0 ? zero : stop * load<double>(lanes + l));
    }
    store_double_block<T>(row, s0, end, lanes);
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
  for (Index s = end; s < S; ++s) dbefore[s] = T(0);  // what arrives there is never read
  const Vec<double> zero{};
  const Index first = begin / kLanes * kLanes;
  double darriving = 0.0;
  for (Index s0 = (end - 1) / kLanes * kLanes; s0 >= first && s0 < end; s0 -= kLanes) {
    const Steps steps = steps_of(scores, s0, begin, end, mask, false);
    const Block<double> w = load_double_block<T>(weights, s0, begin, end, T(0));
    const Block<double> outside = load_double_block<T>(dweights, s0, begin, end, T(0));
    const Block<double> after = load_double_block<T>(dbefore, s0, begin, end, T(0));
    double d[kLanes], to_left[kLanes], from_right[kLanes];  // darriving of s and of s + 1
    for (Index i = 0, l = 0; i < kParts<double>; ++i, l += kWidth<double>)
      store<double>(d + l, load<double>(steps.stop + l) == 0.0 ? zero : outside.v[i] + after.v[i]);
    for (Index l = kLanes - 1; l >= 0; --l) {
      from_right[l] = darriving;
      to_left[l] = darriving = steps.stop[l] * d[l] + steps.pass[l] * darriving;
    }
    for (Index i = 0, l = 0; i < kParts<double>; ++i, l += kWidth<double>) {
      const Vec<double> difference = load<double>(d + l) - load<double>(from_right + l);
      store<double>(d + l, w.v[i] == 0.0 ? zero : w.v[i] * load<double>(steps.pass + l) * difference);
    }
    store_double_block<T>(dweights, s0, end, d);
    store_double_block<T>(dbefore, s0, end, to_left);
  }
  for (Index s = 0; s < first; ++s) dbefore[s] = static_cast<T>(darriving);
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

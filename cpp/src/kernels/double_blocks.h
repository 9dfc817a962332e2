// Blocks of 16 elements worked on in double, whatever the type of the row.
#pragma once

#include "kernels/softmax.h"

namespace dhyan {
namespace {

constexpr double kNothing = -__builtin_huge_val();  // the score of what may not be attended

template <Index First, std::size_t... I>
DHYAN_INLINE Vec<double> widened(Vec<float> x, std::index_sequence<I...>) {
  return __builtin_convertvector(__builtin_shufflevector(x, x, static_cast<int>(First + I)...), Vec<double>);
}
DHYAN_INLINE Block<double> in_double(const Block<double>& b) { return b; }
DHYAN_INLINE Block<double> in_double(const Block<float>& b) {
  constexpr auto lanes = std::make_index_sequence<kWidth<double>>();
  Block<double> wide;
  for (Index i = 0; i < kParts<float>; ++i) {
    wide.v[2 * i] = widened<0>(b.v[i], lanes);
    wide.v[2 * i + 1] = widened<kWidth<double>>(b.v[i], lanes);
  }
  return wide;
}

template <class T>
DHYAN_INLINE Block<double> load_double_block(const T* row, Index s0, Index begin, Index end, T other) {
  return in_double(load_block<T>(row, s0, begin, end, other));
}
// As store_block: elements before `begin` are written too.
template <class T>
DHYAN_INLINE void store_double_block(T* row, Index s0, Index end, const double* lanes) {
  T narrow[kLanes];
  for (Index l = 0; l < kLanes; ++l) narrow[l] = static_cast<T>(lanes[l]);
  store_block<T>(row, s0, end, load_block<T>(narrow, 0, 0, kLanes, T(0)));
}
DHYAN_INLINE void store_lanes(double* lanes, const Block<double>& b) {
  for (Index i = 0; i < kParts<double>; ++i) store<double>(lanes + i * kWidth<double>, b.v[i]);
}
template <class T>
DHYAN_INLINE void store_double_block(T* row, Index s0, Index end, const Block<double>& b) {
  double lanes[kLanes];
  store_lanes(lanes, b);
  store_double_block<T>(row, s0, end, lanes);
}

}  // namespace
}  // namespace dhyan

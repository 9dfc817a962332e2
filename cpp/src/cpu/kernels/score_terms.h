// The tanh term, factorised: with Eq = e^2q and Ek = e^2k, one multiply-add and a share of one division per element
// replace the hyperbolic tangent.
//
//   tanh(q + k)  = 1 - 2 y,          y = 1 / (1 + Eq Ek)
//   tanh'(q + k) = 4 (y - y^2)       (absolute error of 4 eps; 1 - tanh^2 has no better)
//
// Ranges, per (query, key) and never per row or batch, so that no other key can change the bits of a score:
//   pairs   max|q| + max|k| <= 21    two denominators share a division, their product stays finite
//   single  max|q|, max|k|  <= 43    one division each; Eq Ek may overflow, y is then 0, as it should be
//   direct  anything else, infinities and NaN included: e^-2|q + k|
#pragma once

#include "cpu/kernels/elementary.h"

namespace dhyan {
namespace {

enum class Path { pairs, single, direct };

template <class T>
DHYAN_INLINE Path choose_path(T q_most, T k_most) {
  if (q_most + k_most <= T(21)) return Path::pairs;
  return q_most <= T(43) && k_most <= T(43) ? Path::single : Path::direct;
}

// e^2x where |x| <= 43; whatever it is elsewhere is never read.
template <class V>
DHYAN_INLINE V exp_twice(V x) {
  return vexp_normal<V>(x + x);
}

// w0 y0 + w1 y1 with one division.
template <class V>
DHYAN_INLINE V pair_term(V eq0, V ek0, V w0, V eq1, V ek1, V w1) {
  using T = ScalarOf<V>;
  const V d0 = eq0 * ek0 + T(1), d1 = eq1 * ek1 + T(1);
  return (w0 * d1 + w1 * d0) / (d0 * d1);
}
template <class V>
DHYAN_INLINE V single_term(V eq, V ek, V w) {
  return w / (eq * ek + ScalarOf<V>(1));
}
template <class V>
DHYAN_INLINE V direct_term(V q, V k, V w) {
  return w * vtanh<V>(q + k);
}

// y of two elements with one division, for the backward pass.
template <class V>
struct Pair {
  V first, second;
};
template <class V>
DHYAN_INLINE Pair<V> pair_y(V eq0, V ek0, V eq1, V ek1) {
  using T = ScalarOf<V>;
  const V d0 = eq0 * ek0 + T(1), d1 = eq1 * ek1 + T(1);
  const V r = T(1) / (d0 * d1);
  return {r * d1, r * d0};
}
template <class V>
DHYAN_INLINE V single_y(V eq, V ek) {
  using T = ScalarOf<V>;
  return T(1) / (eq * ek + T(1));
}
// y and y - y^2 from x = q + k.
template <class V>
DHYAN_INLINE Pair<V> direct_y(V x) {
  using T = ScalarOf<V>;
  const V e = vexp<V>(magnitude(x) * T(-2));
  const V far = T(1) / (e + T(1)), near = e * far;
  return {x < T(0) ? far : near, near * far};
}

}  // namespace
}  // namespace dhyan

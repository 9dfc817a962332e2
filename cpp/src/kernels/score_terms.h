// The tanh term, factorised: with Eq = e^2q and Ek = e^2k, one multiply-add and a share of one division per element
// replace the hyperbolic tangent.
//
//   tanh(q + k)  = 1 - 2 y,          y = 1 / (1 + Eq Ek)
//   tanh'(q + k) = 4 (y - y^2)       (absolute error of 4 eps; 1 - tanh^2 has no better)
//
// Ranges, per (query, key) and never per row or batch, so that no other key can change the bits of a score:
//   quads   max|q| + max|k| <= 10.5  four denominators share a division, their product stays finite
//   pairs   max|q| + max|k| <= 21    two do
//   single  max|q|, max|k|  <= 43    one division each; Eq Ek may overflow, y is then 0, as it should be
//   direct  anything else, infinities and NaN included: e^-2|q + k|
// Measured on Sapphire Rapids (AVX-512, one core, G elements/s): pairs 10.9, quads 19.1, quads with a reciprocal
// estimate and a Newton step 20.2, not worth the intrinsics.
#pragma once

#include "kernels/elementary.h"

namespace dhyan {
namespace {

enum class Path { quads, pairs, single, direct };

// Largest max|q| + max|k| of the shared divisions. In the forward pass w is multiplied by up to three denominators, so
// a huge w narrows the choice.
template <class T>
struct PathLimits {
  T quads = T(10.5), pairs = T(21);

  static PathLimits for_weights(T w_most) {
    PathLimits limits;
    if (!(w_most <= T(1e10))) limits.quads = T(-1);
    if (!(w_most <= T(1e19))) limits.pairs = T(-1);
    return limits;
  }
  Path choose(T q_most, T k_most) const {
    const T reach = q_most + k_most;  // NaN fails every comparison
    if (reach <= quads) return Path::quads;
    if (reach <= pairs) return Path::pairs;
    return q_most <= T(43) && k_most <= T(43) ? Path::single : Path::direct;
  }
};

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
// The same for four.
template <class V>
DHYAN_INLINE V quad_term(V e0, V w0, V e1, V w1, V e2, V w2, V e3, V w3) {
  using T = ScalarOf<V>;
  const V d0 = e0 + T(1), d1 = e1 + T(1), d2 = e2 + T(1), d3 = e3 + T(1);
  const V d01 = d0 * d1, d23 = d2 * d3;
  return ((w0 * d1 + w1 * d0) * d23 + (w2 * d3 + w3 * d2) * d01) / (d01 * d23);
}
template <class V>
DHYAN_INLINE V single_term(V eq, V ek, V w) {
  return w / (eq * ek + ScalarOf<V>(1));
}
template <class V>
DHYAN_INLINE V direct_term(V q, V k, V w) {
  return w * vtanh<V>(q + k);
}

// For the backward pass, e = Eq Ek: y of two and of four elements with one division.
template <class V>
DHYAN_INLINE void pair_y(const V* e, V* y) {
  using T = ScalarOf<V>;
  const V d0 = e[0] + T(1), d1 = e[1] + T(1);
  const V r = T(1) / (d0 * d1);
  y[0] = r * d1;
  y[1] = r * d0;
}
template <class V>
DHYAN_INLINE void quad_y(const V* e, V* y) {
  using T = ScalarOf<V>;
  const V d0 = e[0] + T(1), d1 = e[1] + T(1), d2 = e[2] + T(1), d3 = e[3] + T(1);
  const V d01 = d0 * d1, d23 = d2 * d3;
  const V r = T(1) / (d01 * d23);
  const V r01 = r * d23, r23 = r * d01;
  y[0] = r01 * d1;
  y[1] = r01 * d0;
  y[2] = r23 * d3;
  y[3] = r23 * d2;
}
template <class V>
DHYAN_INLINE V single_y(V e) {
  using T = ScalarOf<V>;
  return T(1) / (e + T(1));
}
// y and y - y^2 from x = q + k.
template <class V>
struct Slope {
  V y, slope;
};
template <class V>
DHYAN_INLINE Slope<V> direct_y(V x) {
  using T = ScalarOf<V>;
  const V e = vexp<V>(magnitude(x) * T(-2));
  const V far = T(1) / (e + T(1)), near = e * far;
  return {x < T(0) ? far : near, near * far};
}

// ---- on the GPU: ranges per element ----
// There the units of a triple (forward) or a pair (backward) choose for themselves: nothing else may change the bits of
// a score, and no pass over the keys is needed first. Beyond `far`, e^2x or the weight would overflow: direct_y. Within
// it denominators are cut at a power of two, where y is far below an eps; within `near` they cannot reach it, and the
// cut is left out without changing a bit.
template <class T>
struct UnitLimits {
  static constexpr T far = T(43), weight = T(1e10);
  static constexpr T near_triple = T(7), near_pair = T(10.5);
  static constexpr bool single = sizeof(T) == 4;
  static constexpr T cut_pair = single ? 0x1p61 : 0x1p120;
  static constexpr T cut_triple = single ? 0x1p41 : 0x1p120;
  static constexpr T cut_quad = single ? 0x1p30 : 0x1p120;
};

template <class T>
DHYAN_INLINE T cut(T d, T most) {
  return d > most ? most : d;  // written so that NaN passes through
}
// a b + c with one rounding, and 1 / x to 1 ULP: one instruction each on a GPU.
DHYAN_INLINE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DHYAN_INLINE double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
DHYAN_INLINE double reciprocal(double x) { return 1.0 / x; }
DHYAN_INLINE float reciprocal(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return 1.0f / x;
#endif
}

// acc + w0 y0 + w1 y1 + w2 y2 from three denominators.
template <class T>
DHYAN_INLINE T add_triple(const T* d, const T* w, T acc) {
  const T d01 = d[0] * d[1];
  const T top = fused(fused(w[0], d[1], w[1] * d[0]), d[2], w[2] * d01);
  return fused(top, reciprocal(d01 * d[2]), acc);
}
// The same for four.
template <class T>
DHYAN_INLINE T add_quad(const T* d, const T* w, T acc) {
  const T d01 = d[0] * d[1], d23 = d[2] * d[3];
  const T left = fused(w[0], d[1], w[1] * d[0]), right = fused(w[2], d[3], w[3] * d[2]);
  return fused(fused(left, d23, right * d01), reciprocal(d01 * d23), acc);
}
// y of two denominators.
template <class T>
DHYAN_INLINE void two_y(T d0, T d1, T* y) {
  const T r = reciprocal(d0 * d1);
  y[0] = r * d1;
  y[1] = r * d0;
}

}  // namespace
}  // namespace dhyan

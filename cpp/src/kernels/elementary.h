// exp, tanh and the logistic function without branches or tables, so that loops over them become vector code.
//
// The same template serves float, double and the vectors of lanes.h. No fused multiply-add is assumed: the gates
// (exp 1 ULP, tanh 1.5 ULP, subnormal results included) hold with and without. Everything here has internal linkage:
// the linker must never merge the AVX-512 copy of a function into the baseline path.
#pragma once

#include <cstdint>

namespace dhyan {
namespace {

#ifdef __CUDACC__
#define DHYAN_INLINE __host__ __device__ __forceinline__
#else
#define DHYAN_INLINE inline __attribute__((always_inline))
#endif

// What a vector type is made of: its element, and the integer vectors of the same width.
template <class V>
struct Elements;
template <>
struct Elements<float> {
  using Scalar = float;
  using Bits = std::int32_t;
  using Unsigned = std::uint32_t;
};
template <>
struct Elements<double> {
  using Scalar = double;
  using Bits = std::int64_t;
  using Unsigned = std::uint64_t;
};

template <class V>
using ScalarOf = typename Elements<V>::Scalar;
template <class V>
using BitsOf = typename Elements<V>::Bits;
template <class V>
using UnsignedOf = typename Elements<V>::Unsigned;

template <class V>
DHYAN_INLINE V splat(ScalarOf<V> x) {
  return x - V{};
}
template <class To, class From>
DHYAN_INLINE To bit_cast(From x) {
  return __builtin_bit_cast(To, x);
}

template <class T>
struct ExpConstants;
template <>
struct ExpConstants<float> {
  static constexpr float lowest = -104.0f, highest = 89.0f;  // exp is 0 below, infinite above
  static constexpr float log2e = 1.44269504f;
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;  // n * ln2_high is exact
  static constexpr float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  static constexpr int bias = 127, mantissa = 23;
};
template <>
struct ExpConstants<double> {
  static constexpr double lowest = -746.0, highest = 710.0;
  static constexpr double log2e = 1.4426950408889634074;
  static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
  static constexpr double magic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int bias = 1023, mantissa = 52;
};

// (exp(r) - 1 - r) / r^2 on |r| <= ln(2) / 2; minimax for the relative error of exp (2^-28 and 2^-58).
template <class V>
DHYAN_INLINE V exp_tail(V r, float) {
  V p = splat<V>(0.0013814319445f);
  p = p * r + 0.00836885111095f;
  p = p * r + 0.0416684011122f;
  p = p * r + 0.166665195236f;
  return p * r + 0.499999933729f;
}
template <class V>
DHYAN_INLINE V exp_tail(V r, double) {
  V p = splat<V>(2.4999857450895106044e-8);
  p = p * r + 2.7630523564333794408e-7;
  p = p * r + 2.7557588424812580022e-6;
  p = p * r + 2.4801492388017267465e-5;
  p = p * r + 1.9841269502735432231e-4;
  p = p * r + 1.3888888944249451854e-3;
  p = p * r + 8.333333333496927275e-3;
  p = p * r + 4.1666666666528102836e-2;
  p = p * r + 1.6666666666666407662e-1;
  return p * r + 0.50000000000000108262;
}

// exp(x + low) = 2^n (high + rest), |low| tiny; `shifted` holds n in its low bits. What rounding drops from the reduced
// argument and from 1 + r is kept in `rest`: 0.55 ULP instead of 0.99.
template <class V>
struct ExpParts {
  V high, rest, n, shifted;
};
template <class V>
DHYAN_INLINE ExpParts<V> exp_parts(V x, V low) {
  using T = ScalarOf<V>;
  using C = ExpConstants<T>;
  ExpParts<V> e;
  e.shifted = x * C::log2e + C::magic;
  e.n = e.shifted - C::magic;
  const V exact = x - e.n * C::ln2_high;
  const V r = exact - (e.n * C::ln2_low - low);
  const V dropped = (exact - r) - (e.n * C::ln2_low - low);
  e.high = r + T(1);
  e.rest = (r - (e.high - T(1))) + ((r * r) * exp_tail<V>(r, T{}) + dropped);
  return e;
}

// 2^n for a number whose low bits are n, -bias < n <= bias. Unsigned: the shift drops what is above n, and of a number
// without such bits, as NaN, it makes any.
template <class V>
DHYAN_INLINE V power_of_two(V shifted) {
  using C = ExpConstants<ScalarOf<V>>;
  return bit_cast<V>((bit_cast<UnsignedOf<V>>(shifted) + C::bias) << C::mantissa);
}

// exp(x + low) for every x, to subnormal results and infinity. Two factors of 2^(n/2), since 2^n itself may not exist.
// What is below them all is 0 by a select: a product that underflows costs 150 cycles on Intel.
template <class V>
DHYAN_INLINE V vexp(V x, V low) {
  using T = ScalarOf<V>;
  using C = ExpConstants<T>;
  const V wanted = x;
  x = x < C::lowest ? V{} : x;  // written so that NaN passes through
  x = x > C::highest ? splat<V>(C::highest) : x;
  const ExpParts<V> e = exp_parts<V>(x, low);
  const V half = e.n * T(0.5) + C::magic;
  const V remainder = (e.n - (half - C::magic)) + C::magic;
  const V y = ((e.high + e.rest) * power_of_two(half)) * power_of_two(remainder);
  return wanted < C::lowest ? V{} : y;
}
template <class V>
DHYAN_INLINE V vexp(V x) {
  return vexp<V>(x, V{});
}

// exp(x) where the result is a normal number; anything else is garbage. 1 ULP, without the corrections of exp_parts.
template <class V>
DHYAN_INLINE V vexp_normal(V x) {
  using T = ScalarOf<V>;
  using C = ExpConstants<T>;
  const V shifted = x * C::log2e + C::magic;
  const V n = shifted - C::magic;
  const V r = (x - n * C::ln2_high) - n * C::ln2_low;
  const V p = r + (r * r) * exp_tail<V>(r, T{});
  return (p + T(1)) * power_of_two(shifted);
}

// |x| with the sign kept apart: bit for bit odd functions are made of these.
template <class V>
DHYAN_INLINE V sign_of(V x) {
  return bit_cast<V>(bit_cast<BitsOf<V>>(x) & bit_cast<BitsOf<V>>(splat<V>(ScalarOf<V>(-0.0))));
}
template <class V>
DHYAN_INLINE V magnitude(V x) {
  return bit_cast<V>(bit_cast<BitsOf<V>>(x) & ~bit_cast<BitsOf<V>>(splat<V>(ScalarOf<V>(-0.0))));
}
template <class V>
DHYAN_INLINE V with_sign(V x, V sign) {
  return bit_cast<V>(bit_cast<BitsOf<V>>(x) | bit_cast<BitsOf<V>>(sign));
}

// (tanh(x) - x) / x^3 as a polynomial in z = x^2, |x| <= 0.625; relative error of tanh 2^-32 and 2^-61.
template <class V>
DHYAN_INLINE V tanh_tail(V z, float) {
  V p = splat<V>(0.00213961225018f);
  p = p * z - 0.00817384958036f;
  p = p * z + 0.0216993156344f;
  p = p * z - 0.0539465191013f;
  p = p * z + 0.133332041583f;
  return p * z - 0.333333307578f;
}
template <class V>
DHYAN_INLINE V tanh_tail(V z, double) {
  V p = splat<V>(6.0247677598837138572e-6);
  p = p * z - 3.0147533646705396552e-5;
  p = p * z + 9.1519584116764244318e-5;
  p = p * z - 2.3698997508428315623e-4;
  p = p * z + 5.8944409721488926415e-4;
  p = p * z - 1.4557241552453223153e-3;
  p = p * z + 3.5921137230703894265e-3;
  p = p * z - 8.8632342846627519932e-3;
  p = p * z + 2.1869488466950929278e-2;
  p = p * z - 5.3968253965994344689e-2;
  p = p * z + 0.13333333333329625496;
  return p * z - 0.33333333333333312077;
}

// tanh|x| = 1 - 2 / (1 + e^2|x|) beyond 0.625, the odd polynomial before it. The low parts that rounding drops from
// e and 1 + e are put back to first order: 1.0 ULP instead of 1.9.
template <class V>
DHYAN_INLINE V vtanh(V x) {
  using T = ScalarOf<V>;
  const V sign = sign_of(x);
  const V a = magnitude(x);
  const V z = a * a;
  const V small = a + (a * z) * tanh_tail<V>(z, T{});
  constexpr T limit = sizeof(T) == 4 ? T(10) : T(20);  // tanh rounds to 1 there
  const V clamped = a > limit ? splat<V>(limit) : a;
  const ExpParts<V> e = exp_parts<V>(clamped + clamped, V{});
  const V sum = e.high + e.rest;
  const V scale = power_of_two(e.shifted);
  const V big = sum * scale;  // exact: a power of two
  const V d = big + T(1);
  const V low = (T(1) - (d - big)) + (e.rest - (sum - e.high)) * scale;
  const V q = T(2) / d;
  const V large = T(1) - (q - (q * q) * (low * T(0.5)));
  return with_sign<V>(a < T(0.625) ? small : large, sign);
}

// 1 / (1 + e^-x), from e^-|x| so that nothing overflows.
template <class V>
DHYAN_INLINE V vsigmoid(V x) {
  using T = ScalarOf<V>;
  const V e = vexp<V>(-magnitude(x));
  const V top = x < T(0) ? e : splat<V>(T(1));
  return top / (e + T(1));
}

}  // namespace
}  // namespace dhyan

// A linear layer in bytes, to find which outputs can be the largest: weights rounded to 8 bits a column, inputs to 14,
// sums exact in 32-bit integers, and for every output an interval that holds what `gemm` computes for it.
//
//     w_k = s q_k + e_k, |q| <= 127      x_k = t p_k + f_k, |p| <= top      y = b + s t sum p q  +-  |x| error + |b|
//     gamma error = |e| + (|w| + |e|) (sqrt(K) / (2 top) + gamma), norms over k; gamma covers the rounding of gemm
//     itself
#pragma once

#include "kernels/dense_table.h"

#if defined(__AVX512BW__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace dhyan {
namespace {

constexpr Index kScreenColumns = ScreenKernels::columns;

// Rounds to the nearest integer, |x| < 2^22.
inline std::int32_t rounded(float x) {
  const float magic = 12582912.0f;
  return __builtin_bit_cast(std::int32_t, x + magic) - __builtin_bit_cast(std::int32_t, magic);
}

// Columns [0, width) of w -> codes[pair][column][2], scale and error of each. False where a weight is not finite or
// huge.
bool screen_quantize(const float* w, Index ldw, Index K, Index width, float spread, float gamma, std::int8_t* codes,
                     float* scale, float* error) {
  constexpr Index C = kScreenColumns;
  float most[C] = {}, inverse[C] = {}, squares[C] = {}, missed[C] = {};
  for (Index k = 0; k < K; ++k)
#pragma omp simd
    for (Index n = 0; n < width; ++n) {
      const float x = __builtin_fabsf(w[k * ldw + n]);
      most[n] = x > most[n] ? x : most[n];
      squares[n] += x * x;  // NaN shows here
    }
  for (Index n = 0; n < C; ++n) {
    scale[n] = most[n] / 127.0f;
    inverse[n] = scale[n] > 1e-30f ? 1.0f / scale[n] : 0.0f;
    if (inverse[n] == 0.0f) scale[n] = 0.0f;
  }
  for (Index k = 0; k < K; k += 2) {
    std::int8_t* out = codes + k * C;
    for (Index half = 0; half < 2; ++half) {
      std::int8_t q[C] = {};
      if (k + half < K) {
        const float* row = w + (k + half) * ldw;
#pragma omp simd
        for (Index n = 0; n < width; ++n) {
          const std::int32_t code = rounded(row[n] * inverse[n]);
          const float e = row[n] - scale[n] * static_cast<float>(code);
          q[n] = static_cast<std::int8_t>(code);
          missed[n] += e * e;
        }
      }
      for (Index n = 0; n < C; ++n) out[2 * n + half] = q[n];
    }
  }
  bool good = true;
  for (Index n = 0; n < C; ++n) {
    // Sums of K squares in float, and squares that underflow: a little more, and a floor.
    const float slack = 1.0f + static_cast<float>(K) * 2.4e-7f;
    const float e = __builtin_sqrtf(missed[n] * slack) + 1e-18f, size = __builtin_sqrtf(squares[n] * slack) + 1e-18f;
    error[n] = e + (size + e) * (spread + gamma);
    good = good && size < 1e15f;
  }
  return good;
}

// Exact sums of codes times inputs for one panel; x holds pairs of 16-bit inputs.
inline void screen_sums(const std::int16_t* x, Index pairs, const std::int8_t* codes, std::int32_t* sums) {
  constexpr Index C = kScreenColumns;
#if defined(__AVX512BW__)
  __m512i sum[C / 16];
  for (Index j = 0; j < C / 16; ++j) sum[j] = _mm512_setzero_si512();
  for (Index k = 0; k < pairs; ++k) {
    std::int32_t both;
    __builtin_memcpy(&both, x + 2 * k, sizeof both);
    const __m512i input = _mm512_set1_epi32(both);
#pragma GCC unroll 8
    for (Index j = 0; j < C / 16; ++j) {
      const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + k * 2 * C + j * 32));
      sum[j] = _mm512_add_epi32(sum[j], _mm512_madd_epi16(_mm512_cvtepi8_epi16(bytes), input));
    }
  }
  for (Index j = 0; j < C / 16; ++j) _mm512_storeu_si512(sums + j * 16, sum[j]);
#elif defined(__AVX2__)
  for (Index part = 0; part < C; part += 32) {
    __m256i sum[4];
    for (Index j = 0; j < 4; ++j) sum[j] = _mm256_setzero_si256();
    for (Index k = 0; k < pairs; ++k) {
      std::int32_t both;
      __builtin_memcpy(&both, x + 2 * k, sizeof both);
      const __m256i input = _mm256_set1_epi32(both);
#pragma GCC unroll 4
      for (Index j = 0; j < 4; ++j) {
        const __m128i bytes =
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + k * 2 * C + part * 2 + j * 16));
        sum[j] = _mm256_add_epi32(sum[j], _mm256_madd_epi16(_mm256_cvtepi8_epi16(bytes), input));
      }
    }
    for (Index j = 0; j < 4; ++j) _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + part + j * 8), sum[j]);
  }
#else
  for (Index n = 0; n < C; ++n) sums[n] = 0;
  for (Index k = 0; k < pairs; ++k) {
    const std::int32_t first = x[2 * k], second = x[2 * k + 1];
    const std::int8_t* row = codes + k * 2 * C;
#pragma omp simd
    for (Index n = 0; n < C; ++n) sums[n] += row[2 * n] * first + row[2 * n + 1] * second;
  }
#endif
}

// Upper ends of the intervals of one panel into `high`, its largest into *top; returns the largest lower end.
float screen_panel(const std::int16_t* x, Index pairs, const std::int8_t* codes, const float* scale, const float* error,
                   const float* bias, Index width, float step, float norm, float gamma, float* high, float* top) {
  constexpr Index C = kScreenColumns;
  std::int32_t sums[C];
  float low[C] = {};
  screen_sums(x, pairs, codes, sums);
#pragma omp simd
  for (Index n = 0; n < width; ++n) {
    const float middle = bias[n] + step * scale[n] * static_cast<float>(sums[n]);
    const float reach = norm * error[n] + __builtin_fabsf(bias[n]) * gamma;
    low[n] = middle - reach;
    high[n] = middle + reach;
  }
  float largest = low[0], highest = high[0];
  for (Index n = 1; n < width; ++n) {
    largest = low[n] > largest ? low[n] : largest;
    highest = high[n] > highest ? high[n] : highest;
  }
  *top = highest;
  return largest;
}

float screen_least(Index n, const float* y, const float* error, const float* size, const float* slack, float norm,
                   float lost) {
  float largest = -__builtin_inff();
#pragma omp simd reduction(max : largest)
  for (Index i = 0; i < n; ++i) {
    const float low = y[i] - (norm * error[i] + lost * size[i] + slack[i]);
    largest = low > largest ? low : largest;
  }
  return largest;
}

Index screen_reaching(Index n, const float* y, const float* error, const float* size, const float* slack, float norm,
                      float lost, float least, Index columns, Index* groups) {
  Index found = 0;
  for (Index first = 0; first < n; first += columns) {
    const Index last = first + columns < n ? first + columns : n;
    int any = 0;
#pragma omp simd reduction(| : any)
    for (Index i = first; i < last; ++i) any |= y[i] + (norm * error[i] + lost * size[i] + slack[i]) >= least;
    groups[found] = first / columns;
    found += any;
  }
  return found;
}

}  // namespace
}  // namespace dhyan

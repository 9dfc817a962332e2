// C = start + A B with A and B rounded to bfloat16 and the sums in float: VDPBF16PS multiplies two k at a time. As in
// gemm.h every output element is the same chain whatever M is, and K is cut into the same blocks.
//
// B is packed once as pairs of k: panel[k / 2][n] holds B[k, n] in its lower and B[k + 1, n] in its upper half. A is
// rounded block by block beside the product: 2 % of its time, and no second copy of the activations.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/gemm.h"

namespace dhyan {
namespace {

using Pair = std::uint32_t;  // two neighbours along k

// The bits of the nearest bfloat16, ties to even, in the upper half; a NaN stays one.
inline Pair rounded_bits(float x) {
  const Pair bits = __builtin_bit_cast(Pair, x);
  const Pair nearest = bits + 0x7fff + ((bits >> 16) & 1);
  return (bits & 0x7fffffff) > 0x7f800000 ? bits | 0x400000 : nearest;
}
inline Pair pair_of(float first, float second) {
  return (rounded_bits(first) >> 16) | (rounded_bits(second) & 0xffff0000);
}

void pack_pairs(const float* b, Index row, Index col, Index K, Index N, Index first, Index last, Pair* out) {
  constexpr Index nr = kPanel<float>;
  const Index pairs = (K + 1) / 2;
  for (Index j = first; j < last; ++j) {
    Pair* panel = out + j * pairs * nr;
    const float* from = b + j * nr * col;
    const Index width = N - j * nr < nr ? N - j * nr : nr;
    if (col == 1) {
      for (Index p = 0; p < pairs; ++p) {
        const float* k0 = from + 2 * p * row;
        const float* k1 = 2 * p + 1 < K ? k0 + row : nullptr;
        Pair* to = panel + p * nr;
#pragma omp simd
        for (Index n = 0; n < width; ++n) to[n] = pair_of(k0[n], k1 ? k1[n] : 0.0f);
      }
    } else {
      // A transposed source: short runs along k of each column keep both sides in L1.
      constexpr Index run = 16;
      for (Index p0 = 0; p0 < pairs; p0 += run) {
        const Index p1 = p0 + run < K / 2 ? p0 + run : K / 2, end = p0 + run < pairs ? p0 + run : pairs;
        for (Index n = 0; n < width; ++n) {
          const float* k = from + n * col;
          Pair line[run];
#pragma omp simd
          for (Index p = p0; p < p1; ++p) line[p - p0] = pair_of(k[2 * p * row], k[(2 * p + 1) * row]);
          if (p1 < end) line[p1 - p0] = pair_of(k[2 * p1 * row], 0.0f);
          for (Index p = p0; p < end; ++p) panel[p * nr + n] = line[p - p0];
        }
      }
    }
    for (Index p = 0; p < pairs; ++p)
      for (Index n = width; n < nr; ++n) panel[p * nr + n] = 0;
  }
}

// Rows m0..m1 of A over k0..k1: packed[row][k / 2], or of a transposed A in tiles, packed[tile][k / 2][row].
void pack_row_pairs(Operand<float> a, Index m0, Index m1, Index k0, Index k1, Pair* packed) {
  const Index pairs = (k1 - k0 + 1) / 2, whole = (k1 - k0) / 2;
  if (a.row != 1) {
    for (Index m = m0; m < m1; ++m) {
      const float* from = a.data + m * a.row + k0;
      Pair* to = packed + (m - m0) * pairs;
#pragma omp simd
      for (Index p = 0; p < whole; ++p) to[p] = pair_of(from[2 * p], from[2 * p + 1]);
      if (pairs > whole) to[whole] = pair_of(from[2 * whole], 0.0f);
    }
    return;
  }
  for (Index m = m0; m < m1; m += kTileM) {
    const Index rows = m1 - m < kTileM ? m1 - m : kTileM;
    Pair* to = packed + (m - m0) * pairs;
    for (Index p = 0; p < pairs; ++p) {
      const float* from = a.data + m + (k0 + 2 * p) * a.col;
      for (Index i = 0; i < rows; ++i) to[p * rows + i] = pair_of(from[i], p < whole ? from[i + a.col] : 0.0f);
    }
  }
}

template <int MR, bool Tiled>
inline __attribute__((always_inline)) void pair_tile(Index pairs, const Pair* a, const Pair* panel, float* c, Index ldc,
                                                     Index width, const float* bias, bool from_c) {
  constexpr Index L = Lanes<float>::count;
  Lanes<float>::type acc[MR][2];
#pragma GCC unroll 12
  for (int i = 0; i < MR; ++i) acc[i][0] = acc[i][1] = Lanes<float>::type{};
  for (Index p = 0; p < pairs; ++p) {
    const __m512bh b0 = (__m512bh)_mm512_loadu_si512(panel + p * 2 * L);
    const __m512bh b1 = (__m512bh)_mm512_loadu_si512(panel + p * 2 * L + L);
    __builtin_prefetch(panel + (p + 16) * 2 * L);
    __builtin_prefetch(panel + (p + 16) * 2 * L + L);
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i) {
      const __m512bh x = (__m512bh)_mm512_set1_epi32(static_cast<int>(Tiled ? a[p * MR + i] : a[i * pairs + p]));
      acc[i][0] = (Lanes<float>::type)_mm512_dpbf16_ps((__m512)acc[i][0], x, b0);
      acc[i][1] = (Lanes<float>::type)_mm512_dpbf16_ps((__m512)acc[i][1], x, b1);
    }
  }
  store_tile<float, MR>(acc, c, ldc, width, bias, from_c);
}

template <bool Tiled, int MR = kTileM>
inline void pair_tile_rows(Index rows, Index pairs, const Pair* a, const Pair* panel, float* c, Index ldc, Index width,
                           const float* bias, bool from_c) {
  if constexpr (MR > 1)
    if (rows < MR) return pair_tile_rows<Tiled, MR - 1>(rows, pairs, a, panel, c, ldc, width, bias, from_c);
  pair_tile<MR, Tiled>(pairs, a, panel, c, ldc, width, bias, from_c);
}

void gemm_pairs(Index M, Operand<float> a, PairPanels b, Index first, Index last, float* c, Index ldc,
                const float* bias, bool accumulate, float* scratch) {
  constexpr Index nr = kPanel<float>;
  Pair* packed = reinterpret_cast<Pair*>(scratch);
  const Index K = b.K, all = (K + 1) / 2;
  if (K == 0) return gemm<float>(M, a, {nullptr, 0, b.N, nr}, first, last, c, ldc, bias, accumulate, scratch);
  for (Index k0 = 0; k0 < K; k0 += kBlockK) {
    const Index k1 = k0 + kBlockK < K ? k0 + kBlockK : K, pairs = (k1 - k0 + 1) / 2;
    const bool from_c = accumulate || k0 > 0;
    for (Index m0 = 0; m0 < M; m0 += kBlockM) {
      const Index m1 = m0 + kBlockM < M ? m0 + kBlockM : M;
      pack_row_pairs(a, m0, m1, k0, k1, packed);
      for (Index j = first; j < last; ++j) {
        const Pair* panel = b.data + (j * all + k0 / 2) * nr;
        const Index width = b.N - j * nr < nr ? b.N - j * nr : nr;
        const auto tiles = a.row == 1 ? pair_tile_rows<true> : pair_tile_rows<false>;
        for (Index m = m0; m < m1; m += kTileM)
          tiles(m1 - m < kTileM ? m1 - m : kTileM, pairs, packed + (m - m0) * pairs, panel, c + m * ldc + j * nr, ldc,
                width, bias ? bias + j * nr : nullptr, from_c);
      }
    }
  }
}

}  // namespace
}  // namespace dhyan

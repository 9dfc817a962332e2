// C = start + A B on packed panels of B. Lanes run along N, never along K, and K is cut into fixed blocks: every output
// element is the same chain of multiply-adds whatever M is, so a row's bits do not depend on the rows beside it.
//
// One file, as packed and thin products must stay the same chain, and are read beside each other for that.
#pragma once

#include <cstring>
#include <type_traits>

#include "kernels/dense_table.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace dhyan {
namespace {

// GCC/Clang vector types: the compiler keeps these accumulators in registers, which it does not do reliably for a
// plain array tile of this size.
template <class T>
struct Lanes {
  typedef T type __attribute__((vector_size(DHYAN_VECTOR_BYTES), aligned(alignof(T)), may_alias));
  static constexpr Index count = DHYAN_VECTOR_BYTES / sizeof(T);
};

constexpr Index kBlockK = 512;  // a tile of A (24 KiB) stays in L1, a block of B comes from L2
constexpr Index kBlockM = 120;  // rows of a transposed A packed at a time: whole tiles of 12, 8 and 6
#if DHYAN_VECTOR_BYTES == 64
// 24 accumulators of 32 registers. Share of the FMA peak on a core with 2 MiB of L2, large products: 8 rows 79 %,
// 12 rows 84 %, 14 rows 81 %; blocks of 256 or 384 k 76 to 80 %.
constexpr int kTileM = 12;
#elif defined(__aarch64__)
constexpr int kTileM = 8;  // 16 accumulators of 32 registers
#else
constexpr int kTileM = 6;  // 12 accumulators of 16 registers
#endif

template <class T>
constexpr Index kPanel = 2 * Lanes<T>::count;

#if DHYAN_VECTOR_BYTES == 64
// x[i][j] <-> x[j][i]: off-diagonal blocks of 1, 2, 4 ... lanes change places. Packing so takes half of the time of
// single elements (0.32 -> 0.15 ns each).
template <class T>
inline void transpose(typename Lanes<T>::type (&x)[Lanes<T>::count]) {
  constexpr Index L = Lanes<T>::count;
  using Bits = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  typedef Bits Order __attribute__((vector_size(DHYAN_VECTOR_BYTES), may_alias));
  alignas(DHYAN_VECTOR_BYTES) static const Bits lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const Order lane = *reinterpret_cast<const Order*>(lanes);
#pragma GCC unroll 4
  for (Bits s = 1; s < L; s *= 2) {
    const Order upper = (lane & s) != 0;  // all ones in the lanes that change places
    const Order first = lane + (upper & Bits(L - s)), second = lane + s + (upper & Bits(L - s));
#pragma GCC unroll 16
    for (Index i = 0; i < L; ++i) {
      if (i & s) continue;
      const auto a = x[i], b = x[i + s];
      x[i] = __builtin_shuffle(a, b, first);
      x[i + s] = __builtin_shuffle(a, b, second);
    }
  }
}
#endif

// Rows k0..k1 of a whole panel from columns that are contiguous along k, `col` apart.
template <class T>
inline void pack_transposed(const T* from, Index col, Index k0, Index k1, T* panel) {
  constexpr Index nr = kPanel<T>;
  Index k = k0;
#if DHYAN_VECTOR_BYTES == 64
  using V = typename Lanes<T>::type;
  constexpr Index L = Lanes<T>::count;
  for (; k + L <= k1; k += L)
    for (Index n = 0; n < nr; n += L) {
      V x[L];
#pragma GCC unroll 16
      for (Index i = 0; i < L; ++i) x[i] = *reinterpret_cast<const V*>(from + (n + i) * col + k);
      transpose<T>(x);
#pragma GCC unroll 16
      for (Index i = 0; i < L; ++i) *reinterpret_cast<V*>(panel + (k + i) * nr + n) = x[i];
    }
#endif
  for (Index n = 0; n < nr; ++n)
    for (Index i = k; i < k1; ++i) panel[i * nr + n] = from[n * col + i];
}

template <class T>
void pack_panels(const T* b, Index row, Index col, Index K, Index N, Index first, Index last, T* out) {
  constexpr Index nr = kPanel<T>;
  const Index whole = col == 1 ? (last < N / nr ? last : N / nr) : first;  // panels of full width, rows contiguous
  if (whole > first) {
    // All panels of a row at once: a panel at a time would touch a new page for every 128 bytes.
    for (Index k = 0; k < K; ++k)
      for (Index j = first; j < whole; ++j) {
        const T* from = b + k * row + j * nr;
        T* to = out + j * K * nr + k * nr;
        for (Index n = 0; n < nr; ++n) to[n] = from[n];
      }
  }
  for (Index j = whole > first ? whole : first; j < last; ++j) {
    T* panel = out + j * K * nr;
    const T* from = b + j * nr * col;
    const Index width = N - j * nr < nr ? N - j * nr : nr;
    // Transposed source: short runs of k per column keep both sides in L1.
    for (Index k0 = 0; k0 < K; k0 += 16) {
      const Index k1 = k0 + 16 < K ? k0 + 16 : K;
      if (row == 1 && width == nr) {
        pack_transposed(from, col, k0, k1, panel);
        continue;
      }
      for (Index n = 0; n < width; ++n)
        for (Index k = k0; k < k1; ++k) panel[k * nr + n] = from[k * row + n * col];
      for (Index n = width; n < nr; ++n)
        for (Index k = k0; k < k1; ++k) panel[k * nr + n] = T(0);
    }
  }
}

// A tile of sums into C: start + sum, start being C itself, the bias, or nothing. Columns beyond `width` do not exist.
template <class T, int MR>
inline __attribute__((always_inline)) void store_tile(const typename Lanes<T>::type (&acc)[MR][2], T* c, Index ldc,
                                                      Index width, const T* bias, bool from_c) {
  using V = typename Lanes<T>::type;
  constexpr Index L = Lanes<T>::count;
  if (width == 2 * L) {
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i) {
      V* out = reinterpret_cast<V*>(c + i * ldc);
      V* out1 = reinterpret_cast<V*>(c + i * ldc + L);
      if (from_c) {
        *out = *out + acc[i][0];
        *out1 = *out1 + acc[i][1];
      } else if (bias) {
        *out = *reinterpret_cast<const V*>(bias) + acc[i][0];
        *out1 = *reinterpret_cast<const V*>(bias + L) + acc[i][1];
      } else {
        *out = acc[i][0];
        *out1 = acc[i][1];
      }
    }
  } else {
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i) {  // unrolled here too: an index at run time would put the accumulators in memory
      T row_values[2 * L];
      *reinterpret_cast<V*>(row_values) = acc[i][0];
      *reinterpret_cast<V*>(row_values + L) = acc[i][1];
      for (Index n = 0; n < width; ++n) {
        const T start = from_c ? c[i * ldc + n] : bias ? bias[n] : T(0);
        c[i * ldc + n] = start + row_values[n];
      }
    }
  }
}

// MR rows of A against one panel over K elements. Packed: a(i, k) at a[k * MR + i], else at a[i * row + k].
template <class T, int MR, bool Packed>
inline __attribute__((always_inline)) void tile(Index K, const T* a, Index row, const T* panel, T* c, Index ldc,
                                                Index width, const T* bias, bool from_c) {
  using V = typename Lanes<T>::type;
  constexpr Index L = Lanes<T>::count;
  V acc[MR][2];
#pragma GCC unroll 12
  for (int i = 0; i < MR; ++i) acc[i][0] = acc[i][1] = V{};
  for (int i = 0; i < MR; ++i) {  // rows of C are pages apart: asked for at the end they cost 3 % of the output layer
    __builtin_prefetch(c + i * ldc, 1);
    __builtin_prefetch(c + i * ldc + L, 1);
  }
  for (Index k = 0; k < K; ++k) {
    const V b0 = *reinterpret_cast<const V*>(panel + k * 2 * L);
    const V b1 = *reinterpret_cast<const V*>(panel + k * 2 * L + L);
    // For few rows a panel comes from the third-level cache: 6 % of decoding 64 sentences at H = 512 on
    // Zen 4; large products do not care.
    __builtin_prefetch(panel + (k + 16) * 2 * L);
    __builtin_prefetch(panel + (k + 16) * 2 * L + L);
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i) {
      const T x = Packed ? a[k * MR + i] : a[i * row + k];
      acc[i][0] += x * b0;
      acc[i][1] += x * b1;
    }
  }
  store_tile<T, MR>(acc, c, ldc, width, bias, from_c);
}

template <class T, bool Packed, int MR = kTileM>
inline void tile_rows(Index rows, Index K, const T* a, Index row, const T* panel, T* c, Index ldc, Index width,
                      const T* bias, bool from_c) {
  // Remainders by template, not by mask: the same code with fewer rows.
  if constexpr (MR > 1)
    if (rows < MR) return tile_rows<T, Packed, MR - 1>(rows, K, a, row, panel, c, ldc, width, bias, from_c);
  tile<T, MR, Packed>(K, a, row, panel, c, ldc, width, bias, from_c);
}

// Rows of A into tiles, k-major inside a tile: packed[tile][k][i].
template <class T>
void pack_rows(Operand<T> a, Index m0, Index m1, Index k0, Index k1, T* packed) {
  const Index K = k1 - k0;
  for (Index m = m0; m < m1; m += kTileM) {
    const Index rows = m1 - m < kTileM ? m1 - m : kTileM;
    T* to = packed + (m - m0) * K;
    if (a.row == 1 && rows == kTileM) {  // of constant length a copy is two moves
      const T* from = a.data + m + k0 * a.col;
      for (Index k = 0; k < K; ++k) std::memcpy(to + k * kTileM, from + k * a.col, kTileM * sizeof(T));
    } else if (a.row == 1) {
      for (Index k = 0; k < K; ++k)
        for (Index i = 0; i < rows; ++i) to[k * rows + i] = a.data[(m + i) + (k0 + k) * a.col];
    } else {
      for (Index i = 0; i < rows; ++i)
        for (Index k = 0; k < K; ++k) to[k * rows + i] = a.data[(m + i) * a.row + (k0 + k) * a.col];
    }
  }
}

template <class T>
void gemm(Index M, Operand<T> a, Panels<T> b, Index first, Index last, T* c, Index ldc, const T* bias, bool accumulate,
          T* scratch) {
  constexpr Index nr = kPanel<T>;
  const Index K = b.K;
  if (K == 0) {
    if (accumulate) return;
    for (Index m = 0; m < M; ++m)
      for (Index n = first * nr; n < (last * nr < b.N ? last * nr : b.N); ++n) c[m * ldc + n] = bias ? bias[n] : T(0);
    return;
  }
  // Rows are read in place (packing them cost 5 to 10 % on AVX-512); only a transposed A is packed. Rows a multiple of
  // 4 KiB apart share a set of the first-level cache: 99 instead of 109 GFLOP/s on Zen 4, and tiles of the eight that
  // fit 90.
  const bool pack = a.col != 1;
  // k outside, rows inside: a block of B (kBlockK x the caller's columns) stays in L2 while all rows pass over it.
  for (Index k0 = 0; k0 < K; k0 += kBlockK) {
    const Index k1 = k0 + kBlockK < K ? k0 + kBlockK : K;
    const bool from_c = accumulate || k0 > 0;
    for (Index m0 = 0; m0 < M; m0 += kBlockM) {
      const Index m1 = m0 + kBlockM < M ? m0 + kBlockM : M;
      if (pack) pack_rows(a, m0, m1, k0, k1, scratch);
      for (Index j = first; j < last; ++j) {
        const T* panel = b.panel(j) + k0 * nr;
        const Index width = b.N - j * nr < nr ? b.N - j * nr : nr;
        const T* start = bias ? bias + j * nr : nullptr;
        for (Index m = m0; m < m1; m += kTileM) {
          const Index rows = m1 - m < kTileM ? m1 - m : kTileM;
          T* out = c + m * ldc + j * nr;
          if (pack)
            tile_rows<T, true>(rows, k1 - k0, scratch + (m - m0) * (k1 - k0), 0, panel, out, ldc, width, start, from_c);
          else
            tile_rows<T, false>(rows, k1 - k0, a.data + m * a.row + k0, a.row, panel, out, ldc, width, start, from_c);
        }
      }
    }
  }
}

// The same product with B (K,N) read where it lies, rows `ld` apart: a few rows of A do not earn back a packing.
// Columns first..last of C. Every element is the chain of multiply-adds of `tile`, its links kept in `sums` between
// groups of kGroupK rows of B, which are read as that many forward streams: memory is what limits this form.
constexpr Index kGroupK = 8;
constexpr Index kStrip = 512;  // columns whose sums stay in L1

template <class T>
struct WholeRows {
  using Scalar = T;
  const T* data;
  Index ld;
  typename Lanes<T>::type load(Index k, Index n) const {
    return *reinterpret_cast<const typename Lanes<T>::type*>(data + k * ld + n);
  }
  T at(Index k, Index n) const { return data[k * ld + n]; }
  WholeRows from(Index k, Index n) const { return {data + k * ld + n, ld}; }
  T sum_of(T sum, Index) const { return sum; }  // from a chain of column n to its share of C
};
// The upper halves of floats whose lower halves are 0: bfloat16, half the bytes and the same products.
struct HalfRows {
  using Scalar = float;
  const std::uint16_t* data;
  Index ld;
  Lanes<float>::type load(Index k, Index n) const {
    constexpr Index L = Lanes<float>::count;
    typedef std::uint16_t Half __attribute__((vector_size(L * 2), aligned(2), may_alias));
    typedef std::uint32_t Whole __attribute__((vector_size(L * 4)));
    const Half half = *reinterpret_cast<const Half*>(data + k * ld + n);
    return (Lanes<float>::type)(__builtin_convertvector(half, Whole) << 16);
  }
  float at(Index k, Index n) const {
    return __builtin_bit_cast(float, static_cast<std::uint32_t>(data[k * ld + n]) << 16);
  }
  HalfRows from(Index k, Index n) const { return {data + k * ld + n, ld}; }
  float sum_of(float sum, Index) const { return sum; }
};
// Codes of floats that are code * scale, scale a power of two for each column: a quarter of the bytes, and since such a
// factor changes no rounding, the same products.
struct ByteRows {
  using Scalar = float;
  const std::int8_t* data;
  Index ld;
  const float* scale;  // of the column at data
  Lanes<float>::type load(Index k, Index n) const {
    const std::int8_t* from = data + k * ld + n;
    // GCC 12 takes a generic conversion of bytes apart, lane by lane: three times the time of floats.
#if DHYAN_VECTOR_BYTES == 64
    return (Lanes<float>::type)_mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#elif DHYAN_VECTOR_BYTES == 32
    return (Lanes<float>::type)_mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
    constexpr Index L = Lanes<float>::count;
    float some[L];
    for (Index l = 0; l < L; ++l) some[l] = from[l];
    return *reinterpret_cast<const typename Lanes<float>::type*>(some);
#endif
  }
  float at(Index k, Index n) const { return data[k * ld + n]; }
  ByteRows from(Index k, Index n) const { return {data + k * ld + n, ld, scale + n}; }
  float sum_of(float sum, Index n) const { return sum * scale[n]; }
};

template <int MR, Index G, class B, class T = typename B::Scalar>
inline __attribute__((always_inline)) void add_group(const T* a, Index row, B b, Index width, T* sums) {
  using V = typename Lanes<T>::type;
  constexpr Index L = Lanes<T>::count;
  T x[MR][G];
#pragma GCC unroll 4
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (Index g = 0; g < G; ++g) x[i][g] = a[i * row + g];
  Index n = 0;
  for (; n + L <= width; n += L) {
    V w[G];
#pragma GCC unroll 8
    for (Index g = 0; g < G; ++g) {
      w[g] = b.load(g, n);
      // Several rows compute long enough for the next group to arrive: beam 4 at H = 512 1.0 -> 0.72 ms a token. One
      // row waits for memory alone, which the hardware foresees as well.
      if (MR > 1) __builtin_prefetch(b.data + (G + g) * b.ld + n);
    }
#pragma GCC unroll 4
    for (int i = 0; i < MR; ++i) {
      V* at = reinterpret_cast<V*>(sums + i * kStrip + n);
      V sum = *at;
#pragma GCC unroll 8
      for (Index g = 0; g < G; ++g) sum += x[i][g] * w[g];
      *at = sum;
    }
  }
  if (n == width) return;
  V w[G];  // the last columns in whole vectors too: scalar code could be contracted otherwise
  for (Index g = 0; g < G; ++g) {
    T some[L] = {};
    for (Index l = 0; l < width - n; ++l) some[l] = b.at(g, n + l);
    w[g] = *reinterpret_cast<const V*>(some);
  }
  for (int i = 0; i < MR; ++i) {
    V* at = reinterpret_cast<V*>(sums + i * kStrip + n);
    V sum = *at;
    for (Index g = 0; g < G; ++g) sum += x[i][g] * w[g];
    *at = sum;
  }
}

template <int MR, class B, class T = typename B::Scalar>
inline void thin_rows(const T* a, Index row, B b, Index K, Index width, T* sums) {
  for (Index i = 0; i < MR * kStrip; ++i) sums[i] = T(0);
  Index k = 0;
  for (; k + kGroupK <= K; k += kGroupK) add_group<MR, kGroupK>(a + k, row, b.from(k, 0), width, sums);
  for (; k < K; ++k) add_group<MR, 1>(a + k, row, b.from(k, 0), width, sums);
}

template <class B, class T = typename B::Scalar>
void thin(Index M, const T* a, Index row, B b, Index K, Index first, Index last, T* c, Index ldc, const T* bias,
          bool accumulate, T* sums) {
  for (Index n0 = first; n0 < last; n0 += kStrip) {
    const Index width = last - n0 < kStrip ? last - n0 : kStrip;
    Index k0 = 0;
    do {
      const Index depth = K - k0 < kBlockK ? K - k0 : kBlockK;
      const B block = b.from(k0, n0);
      for (Index m = 0; m < M;) {
        const T* rows = a + m * row + k0;
        const Index count = M - m < 4 ? M - m : 4;
        if (count == 4)
          thin_rows<4>(rows, row, block, depth, width, sums);
        else if (count == 3)
          thin_rows<3>(rows, row, block, depth, width, sums);
        else if (count == 2)
          thin_rows<2>(rows, row, block, depth, width, sums);
        else
          thin_rows<1>(rows, row, block, depth, width, sums);
        for (Index i = 0; i < count; ++i) {
          T* out = c + (m + i) * ldc + n0;
          const T* sum = sums + i * kStrip;
          if (accumulate || k0 > 0)
            for (Index n = 0; n < width; ++n) out[n] += block.sum_of(sum[n], n);
          else if (bias)
            for (Index n = 0; n < width; ++n) out[n] = bias[n0 + n] + block.sum_of(sum[n], n);
          else
            for (Index n = 0; n < width; ++n) out[n] = block.sum_of(sum[n], n);
        }
        m += count;
      }
      k0 += depth;
    } while (k0 < K);
  }
}

template <class T>
void gemm_thin(Index M, const T* a, Index row, const T* b, Index ldb, Index K, Index first, Index last, T* c, Index ldc,
               const T* bias, bool accumulate, T* sums) {
  thin(M, a, row, WholeRows<T>{b, ldb}, K, first, last, c, ldc, bias, accumulate, sums);
}
void gemm_thin_halves(Index M, const float* a, Index row, const std::uint16_t* b, Index ldb, Index K, Index first,
                      Index last, float* c, Index ldc, const float* bias, bool accumulate, float* sums) {
  thin(M, a, row, HalfRows{b, ldb}, K, first, last, c, ldc, bias, accumulate, sums);
}
void gemm_thin_bytes(Index M, const float* a, Index row, const std::int8_t* b, Index ldb, const float* scale, Index K,
                     Index first, Index last, float* c, Index ldc, const float* bias, bool accumulate, float* sums) {
  thin(M, a, row, ByteRows{b, ldb, scale}, K, first, last, c, ldc, bias, accumulate, sums);
}

}  // namespace
}  // namespace dhyan

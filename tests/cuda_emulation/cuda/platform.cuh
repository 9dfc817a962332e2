// The stand-in for cpp/src/cuda/platform.cuh: the same kernels as plain C++, run on the CPU by emulation.h.
#pragma once

#include <math.h>

#include <cstring>

#include "cuda/check.h"
#include "dhyan/cuda.h"
#include "emulation.h"

namespace dhyan::cuda {
namespace {

#define DHYAN_DEVICE inline
#define DHYAN_KERNEL(threads, blocks) void

inline float number(float x) { return x; }
inline double number(double x) { return x; }
inline float number(Half x) { return static_cast<float>(__builtin_bit_cast(_Float16, x.bits)); }
inline float number(Bfloat16 x) { return __builtin_bit_cast(float, static_cast<std::uint32_t>(x.bits) << 16); }

template <class T>
inline T stored(Weight<T> x) {
  return x;
}
template <>
inline Half stored<Half>(float x) {
  return {__builtin_bit_cast(std::uint16_t, static_cast<_Float16>(x))};
}
template <>
inline Bfloat16 stored<Bfloat16>(float x) {
  const auto bits = __builtin_bit_cast(std::uint32_t, x);
  if (x != x) return {0x7fff};
  return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

inline std::uint32_t bits_of(float x) { return __builtin_bit_cast(std::uint32_t, x); }
inline float float_of(std::uint32_t bits) { return __builtin_bit_cast(float, bits); }
inline std::uint32_t bfloat16_pair(float low, float high) {
  return stored<Bfloat16>(low).bits | static_cast<std::uint32_t>(stored<Bfloat16>(high).bits) << 16;
}

template <class S>
inline S& shared_memory() {
  emulation::expect(sizeof(S) <= emulation::block().shared_size, "a kernel uses more shared memory than its launch gave");
  return *reinterpret_cast<S*>(emulation::block().shared);
}
inline int thread_index() { return emulation::block().thread; }
inline Index block_index() { return emulation::block().index; }
inline void barrier() { emulation::barrier(false); }
inline bool barrier_any(bool x) { return emulation::barrier(x); }
template <class A>
inline A from_lane(A x, int distance) {
  return emulation::from_lane(x, distance);
}

// ---- tensor cores, by the definitions of PTX ----
struct Factor {
  std::uint32_t x[4];
};
struct FactorRead {
  Factor* to;
  const Bfloat16* row;
};
template <bool Columns>
void read_factor(Factor& to, const Bfloat16* row) {
  emulation::expect(reinterpret_cast<std::uintptr_t>(row) % 16 == 0, "a row of ldmatrix is not aligned to 16 bytes");
  FactorRead mine{&to, row};
  emulation::warp_together(&mine, [](void* const* lanes) {
    const auto lane = [&](int l) { return static_cast<FactorRead*>(lanes[l]); };
    for (int l = 0; l < 32; ++l)
      for (int i = 0; i < 4; ++i) {
        const auto element = [&](int line, int at) -> std::uint32_t {
          return Columns ? lane(8 * i + at)->row[line].bits : lane(8 * i + line)->row[at].bits;
        };
        lane(l)->to->x[i] = element(l / 4, l % 4 * 2) | element(l / 4, l % 4 * 2 + 1) << 16;
      }
  });
}

// A sum as the hardware was measured to form it: eight exact products and the sum so far, cut below the 25th bit of the
// largest of them, their sum cut to a float. A product of two bfloat16 numbers is exact in double.
inline float tensor_sum(float sum, const double (&terms)[8]) {
  double most = fabs(sum), plain = sum;
  for (const double x : terms) most = fabs(x) > most ? fabs(x) : most, plain += x;
  if (!(plain - plain == 0) || most == 0) return static_cast<float>(plain);
  const int low = ilogb(most) - 24;
  const auto cut = [low](double x) { return ldexp(trunc(ldexp(x, -low)), low); };
  double total = cut(sum);
  for (const double x : terms) total += cut(x);
  const auto rounded = static_cast<float>(total);
  if (fabs(rounded) <= fabs(total)) return rounded;
  return float_of(bits_of(rounded) - 1);  // towards 0; the largest number where it would be infinite
}
struct MultiplyAdd {
  float* sum;
  const Factor* left;
  std::uint32_t low, high;
};
inline void multiply_add(float* sum, const Factor& left, std::uint32_t low, std::uint32_t high) {
  MultiplyAdd mine{sum, &left, low, high};
  emulation::warp_together(&mine, [](void* const* lanes) {
    const auto lane = [&](int l) { return static_cast<const MultiplyAdd*>(lanes[l]); };
    const auto half = [](std::uint32_t pair, int i) { return float_of(i == 0 ? pair << 16 : pair & 0xffff0000u); };
    float a[16][16], b[16][8];
    for (int l = 0; l < 32; ++l)
      for (int i = 0; i < 2; ++i) {
        const int g = l / 4, c = l % 4 * 2 + i;
        a[g][c] = half(lane(l)->left->x[0], i), a[g + 8][c] = half(lane(l)->left->x[1], i);
        a[g][c + 8] = half(lane(l)->left->x[2], i), a[g + 8][c + 8] = half(lane(l)->left->x[3], i);
        b[c][g] = half(lane(l)->low, i), b[c + 8][g] = half(lane(l)->high, i);
      }
    for (int l = 0; l < 32; ++l)
      for (int e = 0; e < 4; ++e) {
        const int row = l / 4 + e / 2 * 8, column = l % 4 * 2 + e % 2;
        for (int k = 0; k < 16; k += 8) {
          double terms[8];
          for (int i = 0; i < 8; ++i) terms[i] = static_cast<double>(a[row][k + i]) * b[k + i][column];
          lane(l)->sum[e] = tensor_sum(lane(l)->sum[e], terms);
        }
      }
  });
}

template <class T>
inline const T* unknown(const T* p) {
  return p;
}

template <class... P, class... A>
void launch(const Place&, const char* op, const char* name, Index blocks, int threads, std::size_t shared,
            void (*kernel)(P...), const A&... arguments) {
  if (emulation::fails_next_launch()) check_launch(cudaErrorLaunchFailure, op, name);
  if (blocks > 2147483647) too_many_blocks(op, name, blocks);
  emulation::run(blocks, threads, shared, [&] { kernel(arguments...); });
}

}  // namespace
}  // namespace dhyan::cuda

// Gradients of tanh scores. One kernel serves both sides: its block owns rows x of one operand and 64 hidden units, and
// passes over all rows z of the other, so that nothing is added to from two places:
//
//   dx[x, h] = 4 scale w_h sum_z g (y - y^2),   y = 1 / (1 + e^2(x + z)),   g = dscores
//   dw[h]    = scale sum_x,z g (1 - 2 y)        (where it is asked for: parts, one a block, then added in order)
//
// Its kernel for few rows x serves dq alone: how the sums of dk are cut must not depend on how far S is padded.
// A thread has two hidden units, which share a reciprocal, and eight rows. y is computed once for each side: a third
// more work than one pass for both, in which dx of one side would have to cross warps.
#pragma once

#include "cuda/score.cuh"

namespace dhyan::cuda {
namespace {

constexpr int kGradientThreads = 256;
constexpr int kOwnRows = 8;    // of a warp
constexpr int kPassRows = 32;  // rows z in shared memory at a time
constexpr int kUnits = 64;     // of a block; lane l has units l and l + 32

template <class T>
struct GradientArguments {
  const T* x;  // (B, X, H)
  const T* z;  // (B, Z, H)
  const T* w;  // (H)
  const Weight<T>* g;  // of (x, z) in sentence b at g + b * X * Z + x * g_x + z * g_z
  T* dx;               // (B, X, H)
  Weight<T>* parts;    // (B, x_tiles, H)
  Index X, Z, H, g_x, g_z, x_tiles, h_tiles;
  Weight<T> scale;
};

// Warps next to each other own different rows x (ZWarps 1), or share eight rows and split the rows z.
template <class A, int ZWarps>
struct GradientMemory {
  static constexpr int own = kOwnRows * (kGradientThreads / 32 / ZWarps);
  A z[kPassRows][kUnits];
  A g[kPassRows][own + 4];
  A parts[kGradientThreads / 32][kUnits];
};

template <class A>
struct TwoUnits {
  A v[2];
};

// y - y^2 and y of units whose e^2x and e^2z are given.
template <bool Cut, class A>
DHYAN_DEVICE void slopes(const TwoUnits<A>& ex, const TwoUnits<A>& ez, A (&y)[2], A (&slope)[2]) {
  A d[2];
  for (int i = 0; i < 2; ++i) {
    d[i] = fused(ex.v[i], ez.v[i], A(1));
    if (Cut) d[i] = cut(d[i], UnitLimits<A>::cut_pair);
  }
  two_y(d[0], d[1], y);
  for (int i = 0; i < 2; ++i) slope[i] = fused(-y[i], y[i], y[i]);
}
// The same from x and z themselves, whatever they are.
template <class A>
DHYAN_DEVICE void far_slopes(const TwoUnits<A>& x, const TwoUnits<A>& z, A (&y)[2], A (&slope)[2]) {
  constexpr A far = UnitLimits<A>::far;
  if (fabs(x.v[0]) <= far && fabs(x.v[1]) <= far && fabs(z.v[0]) <= far && fabs(z.v[1]) <= far)
    return slopes<true, A>({exp_twice_of(x.v[0]), exp_twice_of(x.v[1])}, {exp_twice_of(z.v[0]), exp_twice_of(z.v[1])},
                           y, slope);
  for (int i = 0; i < 2; ++i) {
    const Slope<A> direct = direct_y<A>(x.v[i] + z.v[i]);
    y[i] = direct.y;
    slope[i] = direct.slope;
  }
}

template <class A>
struct GradientSums {
  A dx[kOwnRows][2] = {};
  A dw[2] = {};

  template <bool WithW>
  DHYAN_DEVICE void add(int i, A g, const A (&y)[2], const A (&slope)[2]) {
    for (int u = 0; u < 2; ++u) {
      dx[i][u] = fused(g, slope[u], dx[i][u]);
      if (WithW) dw[u] = fused(g, y[u], dw[u]);
    }
  }
};

template <class A>
DHYAN_DEVICE void read_eight(const A* from, A (&to)[kOwnRows]) {
  for (int i = 0; i < kOwnRows; i += 4) {
    const Packet<A, 4> packet = *reinterpret_cast<const Packet<A, 4>*>(from + i);
    for (int j = 0; j < 4; ++j) to[i + j] = packet.v[j];
  }
}

template <class T, int ZWarps, bool WithW>
DHYAN_KERNEL(kGradientThreads, sizeof(Weight<T>) == 4 ? 2 : 1) tanh_gradient(GradientArguments<T> in) {
  using A = Weight<T>;
  using Memory = GradientMemory<A, ZWarps>;
  using Limits = UnitLimits<A>;
  constexpr int warps = kGradientThreads / 32;
  Memory& m = shared_memory<Memory>();
  const int thread = thread_index(), lane = thread % 32, warp = thread / 32;
  const int own = ZWarps == 1 ? warp * kOwnRows : 0, z_first = ZWarps == 1 ? 0 : warp;
  const Index h0 = block_index() % in.h_tiles * kUnits;
  const Index x0 = block_index() / in.h_tiles % in.x_tiles * Memory::own;
  const Index b = block_index() / in.h_tiles / in.x_tiles;
  const T* x = in.x + (b * in.X + x0 + own) * in.H + h0 + lane;
  const T* z = in.z + b * in.Z * in.H;
  const A* g = in.g + b * in.X * in.Z + x0 * in.g_x;

  // element (own row i, unit u of this lane), 0 beyond the array
  const int own_rows = static_cast<int>(least(kOwnRows, in.X - x0 - own)),
            units = static_cast<int>(least(kUnits, in.H - h0));
  const auto at = [&](const T* first, int i, int u) {
    return i < own_rows && lane + 32 * u < units ? number(first[i * in.H + 32 * u]) : A(0);
  };
  TwoUnits<A> ex[kOwnRows];
  bool own_near = true, own_close = true;
#pragma unroll
  for (int i = 0; i < kOwnRows; ++i)
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      const A value = at(x, i, u);
      own_near &= fabs(value) <= Limits::near_pair;
      own_close &= fabs(value) <= Limits::far;
      ex[i].v[u] = exp_twice_of(value);
    }

  GradientSums<A> sums;
  A g_sum = 0;
  for (Index z0 = 0; z0 < in.Z; z0 += kPassRows) {
    constexpr int g_each = kPassRows * Memory::own / kGradientThreads, z_each = kPassRows * kUnits / kGradientThreads;
    bool any = false;
    barrier();  // the former rows have been read
    {  // neighbours in memory go to neighbouring threads; running indices, or the addresses fill the registers
      const bool along_x = in.g_x == 1;
      int zi = along_x ? thread / Memory::own : thread % kPassRows,
          xi = along_x ? thread % Memory::own : thread / kPassRows;
      const int dz = along_x ? kGradientThreads / Memory::own : 0, dx = along_x ? 0 : kGradientThreads / kPassRows;
      const A* from = unknown(g) + xi * in.g_x + (z0 + zi) * in.g_z;
#pragma unroll
      for (int i = 0; i < g_each; ++i, zi += dz, xi += dx, from += dx * in.g_x + dz * in.g_z) {
        const A value = x0 + xi < in.X && z0 + zi < in.Z ? *from : A(0);
        any |= value != A(0);
        if (WithW) g_sum += value;
        m.g[zi][xi] = value;
      }
    }
    if (!barrier_any(any)) continue;
    bool near = own_near, close = own_close;
    const int hi = thread % kUnits;
    const T* from = unknown(z) + (z0 + thread / kUnits) * in.H + h0 + hi;
#pragma unroll
    for (int i = 0; i < z_each; ++i, from += kGradientThreads / kUnits * in.H) {
      const int zi = thread / kUnits + i * (kGradientThreads / kUnits);
      const A value = z0 + zi < in.Z && hi < units ? number(*from) : A(0);
      near &= fabs(value) <= Limits::near_pair;
      close &= fabs(value) <= Limits::far;
      m.z[zi][hi] = value;
    }
    Reach reach = Reach::near;
    if (barrier_any(!near)) reach = barrier_any(!close) ? Reach::far : Reach::cut;
    if (reach != Reach::far) {  // each thread its own
#pragma unroll
      for (int i = 0; i < z_each; ++i) {
        const int v = thread + i * kGradientThreads;
        m.z[v / kUnits][v % kUnits] = exp_twice_of(m.z[v / kUnits][v % kUnits]);
      }
    }
    barrier();
    if (own_rows <= 0) continue;  // only the barriers need this warp
    const int rows = static_cast<int>(least(kPassRows, in.Z - z0));
    const auto pass = [&](auto&& slopes_of) {
#pragma unroll 1
      for (int zi = z_first; zi < rows; zi += ZWarps) {
        const TwoUnits<A> ez{m.z[zi][lane], m.z[zi][lane + 32]};
        A g8[kOwnRows];
        read_eight(&m.g[zi][own], g8);
#pragma unroll
        for (int i = 0; i < kOwnRows; ++i) {
          if (ZWarps > 1 && i >= own_rows) break;  // one query of a decoder has not the time of eight
          A y[2], slope[2];
          if (slopes_of(i, g8[i], ez, y, slope)) sums.template add<WithW>(i, g8[i], y, slope);
        }
      }
    };
    if (reach == Reach::near)
      pass([&](int i, A, const TwoUnits<A>& ez, A(&y)[2], A(&slope)[2]) {
        slopes<false>(ex[i], ez, y, slope);
        return true;
      });
    else if (reach == Reach::cut)
      pass([&](int i, A, const TwoUnits<A>& ez, A(&y)[2], A(&slope)[2]) {
        slopes<true>(ex[i], ez, y, slope);
        return true;
      });
    else
      pass([&](int i, A gradient, const TwoUnits<A>& far_z, A(&y)[2], A(&slope)[2]) {
        if (gradient == A(0)) return false;  // NaN there must not be seen
        const T* first = unknown(x);
        far_slopes<A>({at(first, i, 0), at(first, i, 1)}, far_z, y, slope);
        return true;
      });
  }

  // The warps' sums, added in their order.
  const auto over_warps = [&](A value, int u) {
    m.parts[warp][lane + 32 * u] = value;
    barrier();
    A sum = 0;
    if (warp == 0)
      for (int i = 0; i < warps; ++i) sum += m.parts[i][lane + 32 * u];
    barrier();
    return sum;
  };
  barrier();
  T* dx = const_cast<T*>(unknown(in.dx)) + (b * in.X + x0 + own) * in.H + h0 + lane;
#pragma unroll
  for (int u = 0; u < 2; ++u) {
    const bool inside = lane + 32 * u < units;
    const A factor = inside ? A(4) * (in.scale * number(in.w[h0 + lane + 32 * u])) : A(0);
#pragma unroll
    for (int i = 0; i < kOwnRows; ++i) {
      const A sum = ZWarps == 1 ? sums.dx[i][u] : over_warps(sums.dx[i][u], u);
      if (i < own_rows && inside && (ZWarps == 1 || warp == 0)) dx[i * in.H + 32 * u] = stored<T>(factor * sum);
    }
  }
  if (!WithW) return;
  g_sum = sum_of_warp(g_sum);
  A total = 0;
  for (int u = 0; u < 2; ++u) {
    const A g_all = over_warps(g_sum, u);  // every lane of a warp holds the same
    total = over_warps(sums.dw[u], u);
    const Index h = h0 + lane + 32 * u;
    if (warp == 0 && h < in.H)
      in.parts[(b * in.x_tiles + x0 / Memory::own) * in.H + h] = in.scale * (g_all - A(2) * total);
  }
}

// dw[h] = sum of the parts, in 32 fixed runs that are then added in order.
template <class T>
DHYAN_KERNEL(1024, 1) add_parts(const Weight<T>* parts, Index count, Index H, T* dw) {
  using A = Weight<T>;
  struct Memory {
    A run[32][32];
  };
  Memory& m = shared_memory<Memory>();
  const int lane = thread_index() % 32, run = thread_index() / 32;
  const Index h = block_index() * 32 + lane;
  A sum = 0;
  if (h < H)
    for (Index i = run; i < count; i += 32) sum += parts[i * H + h];
  m.run[run][lane] = sum;
  barrier();
  if (run != 0 || h >= H) return;
  sum = 0;
  for (int i = 0; i < 32; ++i) sum += m.run[i][lane];
  dw[h] = stored<T>(sum);
}

constexpr Index kSharedRows = 2 * kOwnRows;  // up to this many rows x the warps split z instead

inline Index tiles_of_rows(Index X, bool shared) {
  const Index own = shared ? kOwnRows : kOwnRows * kGradientThreads / 32;
  return (X + own - 1) / own;
}

template <class T, bool WithW>
void tanh_gradient_rows(const Place& place, const char* op, Index B, GradientArguments<T> in) {
  using A = Weight<T>;
  const bool shared = !WithW && in.X <= kSharedRows;
  in.x_tiles = tiles_of_rows(in.X, shared);
  in.h_tiles = (in.H + kUnits - 1) / kUnits;
  const Index blocks = B * in.x_tiles * in.h_tiles;
  if constexpr (!WithW)
    if (shared)
      return launch(place, op, "tanh_gradient", blocks, kGradientThreads, sizeof(GradientMemory<A, 8>),
                    tanh_gradient<T, 8, false>, in);
  launch(place, op, "tanh_gradient", blocks, kGradientThreads, sizeof(GradientMemory<A, 1>),
         tanh_gradient<T, 1, WithW>, in);
}

}  // namespace
}  // namespace dhyan::cuda

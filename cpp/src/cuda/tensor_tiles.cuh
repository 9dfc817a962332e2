// Products of float matrices on the tensor cores, as exact as float: out(m, n) = sum over k of a(m, k) b(n, k).
//
// A float is the sum of three bfloat16 numbers (8 bits each, the same range): x = x0 + x1 + x2, each rounded to
// nearest, so that the rests have either sign. The products x0 y0, x0 y1, x1 y0, x1 y1, x0 y2, x2 y0 are exact; what is
// left out is below half an eps of |x y|. Six products at twice the rate of tf32 take the time of three in tf32
// (3xTF32), whose error is eight times that, and the parts are made once, on the way to shared memory, not by each warp
// that reads them. float16 is two parts, bfloat16 is itself. Elements below 2^-102 lose bits, absolutely less than
// 2^-126.
//
// Tensor cores cut what does not fit where they add: a long sum would drift towards 0. So they add 16 elements at a
// time, the small products first, and the processor adds these steps, rounding to nearest. For each element of the
// output the steps are the same whatever the tile: tiles may be chosen by B and S too.
//
// Expected of an H100, forward, not measured: at 60 % of its bfloat16 rate (a sixth of that in float products) and
// 3.3 TB/s (B,T,S,H) = (64,200,200,1024) takes 115 us for arithmetic, units beyond the matrix included, and 64 us for
// bytes; (32,74,75,1024) 8 us and 12 us. Read from the machine code: in the large tile's loop 96 of some 385
// instructions are products, which take 600 clocks a warp; shared memory is busy for 70 % of that.
#pragma once

#include "cuda/tiles.cuh"

namespace dhyan::cuda {
namespace {

constexpr int kUnit = 16;  // rows, columns and steps that a warp multiplies at once

// Bfloat16 numbers a number is the sum of.
template <class T>
constexpr int kParts = 1;
template <>
constexpr int kParts<float> = 3;
template <>
constexpr int kParts<Half> = 2;

// Warps of a block, and how many units of the output each has.
template <int WarpRows, int WarpColumns, int Down, int Across>
struct TensorShape {
  static constexpr int down = Down, across = Across, warps = WarpRows * WarpColumns, threads = 32 * warps;
  static constexpr int rows = kUnit * Down * WarpRows, columns = kUnit * Across * WarpColumns;
  static DHYAN_DEVICE int row() { return thread_index() / 32 / WarpColumns * Down * kUnit; }
  static DHYAN_DEVICE int column() { return thread_index() / 32 % WarpColumns * Across * kUnit; }
};
using LargeTensor = TensorShape<2, 2, 4, 2>;   // 128 x 64; 64 x 32 a warp, or shared memory is slower than products
using MediumTensor = TensorShape<2, 2, 2, 2>;  // 64 x 64
using SmallTensor = TensorShape<2, 2, 1, 1>;   // 32 x 32: many blocks of few elements

using FlatTensor = TensorShape<1, 2, 1, 1>;  // 16 x 32: up to 16 rows, where reading the other factor is all the time

// Steps of the sum in shared memory at a time; of flat tiles more, for many reads on their way.
template <class T, class Shape>
constexpr int kTensorSteps = Shape::threads == 64                ? 64
                             : sizeof(T) == 4 && Shape::down > 1 ? 16
                                                                 : 32;
// Blocks of a multiprocessor: as many as have registers enough.
template <class T, class Shape>
constexpr int kTensorBlocks = Shape::threads == 64                 ? 6
                              : Shape::down == 1                   ? 4
                              : Shape::down == 2 || sizeof(T) == 4 ? 3
                                                                   : 2;

// N rows (or columns) of the output by K steps, in parts; AlongK: steps next to each other. The eight elements between
// lines keep the eight lines that are read at once in different banks.
template <int Parts, int N, int K, bool AlongK>
struct alignas(32) SplitPanel {
  static constexpr int parts = Parts, lines = AlongK ? N : K, length = AlongK ? K : N, ld = length + 8;
  static constexpr bool along_k = AlongK;
  Bfloat16 x[Parts][lines][ld];

  // Where a line is written from: those that are written at once meet different banks.
  static DHYAN_DEVICE int line_of(int i) {
    static_assert(lines % 8 == 0, "eight lines change places");
    if (length >= 64) return i;
    const int of_eight = i % 8;
    return i - of_eight + (length == 16 ? of_eight % 4 * 2 + of_eight / 4 : of_eight / 2 + of_eight % 2 * 4);
  }
  // The line's eight elements this lane brings to a unit of left factors (rows of the output) and of right ones
  // (columns): four matrices, rows or columns first, steps second; of right factors the other way round.
  static constexpr bool by_columns = !AlongK;
  DHYAN_DEVICE const Bfloat16* at(int part, int n, int k) const { return AlongK ? &x[part][n][k] : &x[part][k][n]; }
  DHYAN_DEVICE const Bfloat16* left(int part, int n, int k) const {
    const int lane = thread_index() % 32, r = lane % 8, far_n = lane / 8 % 2 * 8, far_k = lane / 16 * 8;
    return at(part, n + far_n + (AlongK ? r : 0), k + far_k + (AlongK ? 0 : r));
  }
  DHYAN_DEVICE const Bfloat16* right(int part, int n, int k) const {
    const int lane = thread_index() % 32, r = lane % 8, far_n = lane / 16 * 8, far_k = lane / 8 % 2 * 8;
    return at(part, n + far_n + (AlongK ? r : 0), k + far_k + (AlongK ? 0 : r));
  }
};

// Beyond this a sum is made again step by step: how tensor cores overflow is written nowhere.
constexpr float kMostSum = 1.7e38f;
constexpr std::uint32_t kNoNumber = 0x7fc00000u;  // a quiet NaN stands there until then

// Two floats as the nearest bfloat16 numbers, and what is left of them.
DHYAN_DEVICE std::uint32_t split_pair(float& low, float& high) {
  const std::uint32_t pair = bfloat16_pair(low, high);
  low -= float_of(pair << 16);
  high -= float_of(pair & 0xffff0000u);
  return pair;
}
// The same, where rounding must not be trusted: what it would make infinite is cut, and of what is not finite nothing
// is left.
DHYAN_DEVICE std::uint32_t odd_part(float& x) {
  float none = 0, rest = x;
  const std::uint32_t nearest = split_pair(rest, none);
  const bool is_number = x - x == 0.0f, cut = is_number && !(rest - rest == 0.0f);
  const std::uint32_t part = cut ? bits_of(x) >> 16 : nearest;
  x = cut ? x - float_of(part << 16) : is_number ? rest : 0.0f;
  return part;
}
DHYAN_DEVICE std::uint32_t odd_pair(float& low, float& high) {
  const std::uint32_t first = odd_part(low);
  return first | odd_part(high) << 16;
}

// A thread's part of the next panel in registers: lines of the panel are lines of the matrix. Steps beyond the matrix
// are 0; rows and columns beyond it are anything, for what comes of them is nobody's.
template <class T, class Panel, int Threads>
struct SplitLoader {
  static constexpr int per_line = Panel::length / 4, each = Panel::lines * per_line / Threads;
  static constexpr bool along_k = Panel::along_k;
  static constexpr int K = along_k ? Panel::length : Panel::lines;
  static_assert(Panel::lines * per_line % Threads == 0, "the same for every thread");
  static constexpr int jump = Threads / per_line;  // lines from one packet of a thread to its next
  static_assert(Threads % per_line == 0 && (Panel::length >= 64 || jump % 8 == 0 || each == 1 || along_k));
  const T* next[along_k ? each : 1];
  Packet<T, 4> held[each];
  Index ld;
  int others;
  bool fours;

  static DHYAN_DEVICE int line(int i) { return Panel::line_of((thread_index() + i * Threads) / per_line); }
  static DHYAN_DEVICE int place() { return thread_index() % per_line * 4; }

  // Lines of the matrix are `ld` apart; `others` rows or columns are there.
  DHYAN_DEVICE SplitLoader(const T* base, Index ld, Index others_there)
      : ld(ld), others(static_cast<int>(others_there)), fours(in_fours(base, ld)) {
    if (along_k) {
#pragma unroll
      for (int i = 0; i < each; ++i) next[along_k ? i : 0] = base + (line(i) < others ? line(i) : 0) * ld + place();
    } else {
      next[0] = base + line(0) * ld + (place() < others ? place() : 0);
    }
  }
  DHYAN_DEVICE const T* packet(int i) const { return along_k ? next[along_k ? i : 0] : next[0] + i * jump * ld; }
  // The next K of so many steps that are left.
  DHYAN_DEVICE void load(Index steps_left) {
    const int steps = static_cast<int>(least(K, steps_left));
    if (fours && steps == K) {
#pragma unroll
      for (int i = 0; i < each; ++i) held[i] = *reinterpret_cast<const Packet<T, 4>*>(packet(i));
    } else {
      const int n = place() < others ? place() : 0;
#pragma unroll
      for (int i = 0; i < each; ++i)
        for (int j = 0; j < 4; ++j) {
          const bool there = along_k ? place() + j < steps : line(i) < steps && n + j < others;
          held[i].v[j] = there ? packet(i)[j] : T{};
        }
    }
#pragma unroll
    for (int i = 0; i < (along_k ? each : 1); ++i) next[i] += along_k ? K : K * ld;
  }
  // FiniteOnly: what is not becomes 0. Was there such a thing?
  template <bool FiniteOnly>
  DHYAN_DEVICE bool store(Panel& panel) const {
    float left_over = 0;  // finite where the parts are
#pragma unroll
    for (int i = 0; i < each; ++i) {
      float x[4];
      for (int j = 0; j < 4; ++j) x[j] = number(held[i].v[j]);
#pragma unroll
      for (int part = 0; part < Panel::parts; ++part) {
        put(panel, part, i, split_pair(x[0], x[1]), split_pair(x[2], x[3]));
        if (part == 0) left_over += (x[0] + x[1]) + (x[2] + x[3]);
      }
    }
    return left_over - left_over == 0.0f ? false : store_odd<FiniteOnly>(panel);
  }

 private:
  static DHYAN_DEVICE void put(Panel& panel, int part, int i, std::uint32_t low, std::uint32_t high) {
    const Packet<std::uint32_t, 2> packet{{low, high}};
    *reinterpret_cast<Packet<std::uint32_t, 2>*>(&panel.x[part][line(i)][place()]) = packet;
  }
  // The same where something is not finite, or is not once it is rounded.
  template <bool FiniteOnly>
  DHYAN_DEVICE bool store_odd(Panel& panel) const {
    bool found = false;
#pragma unroll
    for (int i = 0; i < each; ++i)
#pragma unroll 1
      for (int half = 0; half < 2; ++half) {
        float x[2];
        for (int j = 0; j < 2; ++j) {
          x[j] = number(half == 0 ? held[i].v[j] : held[i].v[j + 2]);
          if (FiniteOnly && !(x[j] - x[j] == 0.0f)) x[j] = 0, found = true;
        }
        for (int part = 0; part < Panel::parts; ++part)
          *reinterpret_cast<std::uint32_t*>(&panel.x[part][line(i)][place() + 2 * half]) =
              part == 0 ? odd_pair(x[0], x[1]) : split_pair(x[0], x[1]);
      }
    return found;
  }
};

// A sum of `steps` steps in two stages: the block works on one while it fills the other from registers, and those from
// memory. load: the next K of so many steps that are left.
template <int K, class Load, class Put, class Work>
DHYAN_DEVICE void in_stages(Index steps, Load&& load, Put&& put, Work&& work) {
  if (steps <= 0) return;
  load(steps);
  put(0);
  if (steps > K) load(steps - K);
  barrier();
  int stage = 0;
#pragma unroll 1
  while (true) {
    if (steps > K) {
      put(stage ^ 1);
      if (steps > 2 * K) load(steps - 2 * K);
    }
    work(stage);
    barrier();
    steps -= K;
    if (steps <= 0) return;
    stage ^= 1;
  }
}

template <class Shape>
struct TensorTile {
  float sum[Shape::down][Shape::across][8] = {};  // the lane's: two mma of eight columns, see multiply_add
  int down, across;                               // units of this warp that have rows and columns

  DHYAN_DEVICE TensorTile(Index rows, Index columns)
      : down(units(rows - Shape::row(), Shape::down)), across(units(columns - Shape::column(), Shape::across)) {}
  static DHYAN_DEVICE int units(Index left, int most) {
    return left <= 0 ? 0 : static_cast<int>(least(most, (left + kUnit - 1) / kUnit));
  }

  // sum += a b of one stage; parts i and j are multiplied where i + j <= Last, the smallest first.
  template <int Last, int K, class A, class B>
  DHYAN_DEVICE void add(const A& a, const B& b) {
    if (down == 0 || across == 0) return;
    if (across == Shape::across)
      add_across<Last, K, Shape::across>(a, b);
    else
      add_across<Last, K, Shape::across / 2>(a, b);
  }

  // To out, rows of it ld apart: f(sum) of every element. Two neighbours are written at once where they may.
  template <class T, class F>
  DHYAN_DEVICE void write(T* out, Index ld, Index rows, Index columns, F&& f) const {
    const bool twos = ld % 2 == 0 && reinterpret_cast<std::uintptr_t>(out) % alignof(Packet<T, 2>) == 0;
#pragma unroll
    for (int i = 0; i < Shape::down; ++i)
#pragma unroll
      for (int j = 0; j < Shape::across; ++j)
#pragma unroll
        for (int e = 0; e < 8; e += 2) {
          const int m = row_of(i, e), n = column_of(j, e);
          if (m >= rows || n >= columns) continue;
          const Packet<T, 2> two{{f(sum[i][j][e]), f(sum[i][j][e + 1])}};
          T* p = out + m * ld + n;
          if (twos) {
            *reinterpret_cast<Packet<T, 2>*>(p) = two;
          } else {
            p[0] = two.v[0];
            if (n + 1 < columns) p[1] = two.v[1];
          }
        }
  }
  // f(row, column) for the same elements, in a loop.
  template <class F>
  static DHYAN_DEVICE void again(Index rows, Index columns, F&& f) {
#pragma unroll 1
    for (int i = 0; i < Shape::down * Shape::across * 8; ++i) {
      const int m = row_of(i / 8 / Shape::across, i % 8), n = column_of(i / 8 % Shape::across, i % 8);
      if (m < rows && n < columns) f(m, n);
    }
  }

 private:
  static_assert(Shape::across <= 2, "all units across or one");
  static DHYAN_DEVICE int row_of(int i, int e) {
    return Shape::row() + i * kUnit + e / 2 % 2 * 8 + thread_index() % 32 / 4;
  }
  static DHYAN_DEVICE int column_of(int j, int e) {
    return Shape::column() + j * kUnit + e / 4 * 8 + thread_index() % 4 * 2 + e % 2;
  }

  template <int Last, int K, int Across, class A, class B>
  DHYAN_DEVICE void add_across(const A& a, const B& b) {
#pragma unroll
    for (int k = 0; k < K; k += kUnit) {
      Factor right[Across == 0 ? 1 : Across][B::parts];
#pragma unroll
      for (int j = 0; j < Across; ++j)
#pragma unroll
        for (int part = 0; part < B::parts; ++part)
          read_factor<B::by_columns>(right[j][part], b.right(part, Shape::column() + j * kUnit, k));
#pragma unroll
      for (int i = 0; i < Shape::down; ++i) {
        if (i >= down) continue;
        Factor left[A::parts];
#pragma unroll
        for (int part = 0; part < A::parts; ++part)
          read_factor<A::by_columns>(left[part], a.left(part, Shape::row() + i * kUnit, k));
        float step[Across == 0 ? 1 : Across][8] = {};
#pragma unroll
        for (int order = Last; order >= 0; --order)
#pragma unroll
          for (int l = 0; l < A::parts; ++l)
            if (order - l >= 0 && order - l < B::parts)
#pragma unroll
              for (int j = 0; j < Across; ++j) {
                const Factor& r = right[j][order - l];
                multiply_add(step[j], left[l], r.x[0], r.x[1]);
                multiply_add(step[j] + 4, left[l], r.x[2], r.x[3]);
              }
#pragma unroll
        for (int j = 0; j < Across; ++j)
#pragma unroll
          for (int e = 0; e < 8; ++e) sum[i][j][e] += step[j][e];
      }
    }
  }
};

// One is read while the other is written.
template <class A, class B>
struct TensorMemory {
  struct {
    A a;
    B b;
  } stage[2];
};

#ifndef DHYAN_CUDA_MULTIPROCESSORS  // the tests have few tiles, and are to meet all shapes
#define DHYAN_CUDA_MULTIPROCESSORS 132
#endif

// Calls f with the shape that should take least for `batch` outputs of rows by columns: what an element costs in it (an
// estimate from what is read for it), a share of that beyond the matrix, more where there are too few warps. It changes
// no bit.
template <class F>
void with_tensor_shape(Index batch, Index rows, Index columns, F&& f) {
  if (rows <= FlatTensor::rows) return f(FlatTensor{});
  const auto cost = [&](auto shape, double element) {
    using Shape = decltype(shape);
    const auto cover = [](Index n, int of) { return static_cast<double>((n + of - 1) / of * of); };
    const double there = cover(rows, kUnit) * cover(columns, kUnit);
    const double tiles = cover(rows, Shape::rows) * cover(columns, Shape::columns);
    const double warps = static_cast<double>(batch) * cover(rows, kUnit * Shape::down) *
                         cover(columns, kUnit * Shape::across) / (kUnit * kUnit * Shape::down * Shape::across);
    const double missing = 8.0 * DHYAN_CUDA_MULTIPROCESSORS / warps;
    return element * (0.7 * there + 0.3 * tiles) * (missing > 1 ? missing : 1);
  };
  const double large = cost(LargeTensor{}, 1.0), medium = cost(MediumTensor{}, 1.15), small = cost(SmallTensor{}, 1.8);
  if (small < large && small < medium) return f(SmallTensor{});
  if (medium < large) return f(MediumTensor{});
  f(LargeTensor{});
}

}  // namespace
}  // namespace dhyan::cuda

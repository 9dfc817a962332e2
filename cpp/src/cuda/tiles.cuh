// Tiles of matrices in shared memory, and how they get there: N columns by K steps of the sum, k-major, so that a
// thread reads its few columns of one k at once.
//
// A loader holds a thread's part of the next tile in registers, so that its reads are in flight while the block works
// on the present one. Beyond the matrix a tile is 0.
#pragma once

#include "cuda/platform.cuh"

namespace dhyan::cuda {
namespace {

template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Packet {
  T v[N];
};

DHYAN_DEVICE Index least(Index a, Index b) { return a < b ? a : b; }

// Groups of four columns change places from run to run of k: a column of the source, written down k, meets different
// banks. Within a run they stay, so that one address serves all its rows: working out one for each row took a tenth of
// the instructions of the tanh loop, a fifth of the product's.
template <class A, int N, int K, int Run = 4>
struct Panel {
  static_assert(K % Run == 0 && Run % 4 == 0, "whole runs, written in fours");
  A x[K][N];

  static DHYAN_DEVICE int place(int k, int n) {
    constexpr int mask = N / 4 < 8 ? N / 4 - 1 : 7;
    return n ^ ((k / Run & mask) << 2);
  }
  DHYAN_DEVICE A& at(int k, int n) { return x[k][place(k, n)]; }
  // Column n of the run that starts at k.
  DHYAN_DEVICE const A* run(int k, int n) const { return &x[k][place(k, n)]; }
  // P columns of a row of the run, from the one that run() was asked for, a multiple of P, P 2 or 4
  template <int P>
  static DHYAN_DEVICE void read(const A* run, int row, A (&to)[P]) {
    const Packet<A, P> packet = *reinterpret_cast<const Packet<A, P>*>(run + row * N);
    for (int i = 0; i < P; ++i) to[i] = packet.v[i];
  }
};

// May rows of this matrix be read four elements at once?
template <class T>
DHYAN_DEVICE bool in_fours(const T* base, Index ld) {
  return ld % 4 == 0 && reinterpret_cast<std::uintptr_t>(base) % alignof(Packet<T, 4>) == 0;
}

// Four elements from p on, of which the first `left` are there. whole: all are, and may be read at once.
template <class T>
DHYAN_DEVICE void load_four(const T* p, Index left, bool whole, Weight<T> (&to)[4]) {
  if (whole) {
    const Packet<T, 4> packet = *reinterpret_cast<const Packet<T, 4>*>(p);
    for (int i = 0; i < 4; ++i) to[i] = number(packet.v[i]);
    return;
  }
  for (int i = 0; i < 4; ++i) to[i] = i < left ? number(p[i]) : Weight<T>(0);
}

// N rows that are contiguous in k: element (n, k) at base + n * ld + k.
template <class T, int N, int K, int Threads>
struct RowLoader {
  using A = Weight<T>;
  static constexpr int vectors = N * (K / 4), each = (vectors + Threads - 1) / Threads;
  A held[each][4];

  DHYAN_DEVICE void load(const T* base, Index ld, Index rows, Index width, Index k0, bool fours) {
#pragma unroll
    for (int i = 0; i < each; ++i) {
      const int v = thread_index() + i * Threads, n = v / (K / 4), k = v % (K / 4) * 4;
      const Index left = n < rows && v < vectors ? width - k0 - k : 0;
      load_four(base + n * ld + k0 + k, left, fours && left >= 4, held[i]);
    }
  }
  template <int Run, class F>
  DHYAN_DEVICE void store(Panel<A, N, K, Run>& panel, F&& f) const {
#pragma unroll
    for (int i = 0; i < each; ++i) {
      const int v = thread_index() + i * Threads, n = v / (K / 4), k = v % (K / 4) * 4;
      if (vectors % Threads != 0 && v >= vectors) continue;
      for (int j = 0; j < 4; ++j) panel.at(k + j, n) = f(held[i][j]);
    }
  }
  // Is any element beyond this magnitude, or NaN?
  DHYAN_DEVICE bool beyond(A limit) const {
    bool found = false;
#pragma unroll
    for (int i = 0; i < each; ++i)
      for (int j = 0; j < 4; ++j) found |= !(fabs(held[i][j]) <= limit);
    return found;
  }
};

// N columns of which each k holds a contiguous row: element (n, k) at base + k * ld + n.
template <class T, int N, int K, int Threads>
struct ColumnLoader {
  using A = Weight<T>;
  static constexpr int vectors = K * (N / 4), each = (vectors + Threads - 1) / Threads;
  A held[each][4];

  DHYAN_DEVICE void load(const T* base, Index ld, Index columns, Index depth, Index k0, bool fours) {
#pragma unroll
    for (int i = 0; i < each; ++i) {
      const int v = thread_index() + i * Threads, k = v / (N / 4), n = v % (N / 4) * 4;
      const Index left = k0 + k < depth && v < vectors ? columns - n : 0;
      load_four(base + (k0 + k) * ld + n, left, fours && left >= 4, held[i]);
    }
  }
  DHYAN_DEVICE void store(Panel<A, N, K>& panel) const {
#pragma unroll
    for (int i = 0; i < each; ++i) {
      const int v = thread_index() + i * Threads, k = v / (N / 4), n = v % (N / 4) * 4;
      if (vectors % Threads != 0 && v >= vectors) continue;
      Packet<A, 4> packet;
      for (int j = 0; j < 4; ++j) packet.v[j] = held[i][j];
      *reinterpret_cast<Packet<A, 4>*>(&panel.at(k, n)) = packet;
    }
  }
};

// Rows by columns of an output tile, and the part of it one thread computes.
template <int Rows, int Columns, int PerRow, int PerColumn>
struct TileShape {
  static constexpr int rows = Rows, columns = Columns, per_row = PerRow, per_column = PerColumn;
  static constexpr int across = Columns / PerColumn, threads = Rows / PerRow * across;
  static DHYAN_DEVICE int row() { return thread_index() / across * PerRow; }
  static DHYAN_DEVICE int column() { return thread_index() % across * PerColumn; }
  // Has this thread's warp a row among the first so many? The others leave the processor to those that have.
  static DHYAN_DEVICE bool works(Index of) { return thread_index() / 32 * 32 / across * PerRow < of; }
};
using WideTile = TileShape<64, 64, 4, 4>;
using MiddleTile = TileShape<32, 32, 4, 2>;
using FlatTile = TileShape<16, 32, 2, 2>;
constexpr Index kFewRows = 4;  // up to this many, no tile at all

// acc += rows of x times columns of y, n steps; up to three more find zeros there.
template <class Shape, class A, int K>
DHYAN_DEVICE void multiply(const Panel<A, Shape::rows, K>& x, const Panel<A, Shape::columns, K>& y, int n,
                           A (&acc)[Shape::per_row][Shape::per_column]) {
  using X = Panel<A, Shape::rows, K>;
  using Y = Panel<A, Shape::columns, K>;
  const int row = Shape::row(), column = Shape::column();
#pragma unroll 2
  for (int k = 0; k < n; k += 4) {
    const A *x_run = x.run(k, row), *y_run = y.run(k, column);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      A a[Shape::per_row], b[Shape::per_column];
      X::template read<Shape::per_row>(x_run, step, a);
      Y::template read<Shape::per_column>(y_run, step, b);
#pragma unroll
      for (int i = 0; i < Shape::per_row; ++i)
#pragma unroll
        for (int j = 0; j < Shape::per_column; ++j) acc[i][j] = fused(a[i], b[j], acc[i][j]);
    }
  }
}

// Half-open ranges of the rows of a chunk: row (b, t) at [b * stride + t]; absent: all of [0, S).
struct Ranges {
  const Index* begin = nullptr;
  const Index* end = nullptr;
  Index stride = 0;

  struct Span {
    Index first, last;
  };
  DHYAN_DEVICE bool given() const { return begin || end; }
  DHYAN_DEVICE Span at(Index b, Index t, Index S) const {  // within [0, S) whatever the arrays hold
    Index first = begin ? begin[b * stride + t] : 0, last = end ? end[b * stride + t] : S;
    first = first < 0 ? 0 : first;
    return {first, last > S ? S : last};
  }
};

}  // namespace
}  // namespace dhyan::cuda

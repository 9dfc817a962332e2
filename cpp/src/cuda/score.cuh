// Scores of every query of a chunk of rows against every key: tiles, or a warp a key where there are few queries.
// Products of more queries than a few are the tensor cores' (tensor_score.cuh), those in double excepted.
#pragma once

#include <type_traits>

#include "kernels/score_terms.h"
#include "cuda/tensor_score.cuh"

namespace dhyan::cuda {
namespace {

template <class T>
DHYAN_DEVICE T exp_twice_of(T x) {
  return exp(x + x);
}

// Which formula a step of the sum needs, for all of the tile (see UnitLimits): the second and third give the pairs that
// could have taken an earlier one the same bits.
enum class Reach { near, cut, far };

constexpr int kTanhRun = 12;  // a multiple of 3 and of 4
template <class A, int N, int K>
using TanhPanel = Panel<A, N, K, kTanhRun>;

// sum_h w_h / (1 + e^2(q + k)) over one step of the sum. `far`: q and k are as they came, else exponentiated.
template <class Shape, class A, int K, bool Cut>
DHYAN_DEVICE void add_tanh(const TanhPanel<A, Shape::rows, K>& q, const TanhPanel<A, Shape::columns, K>& k, const A* w,
                           A (&acc)[Shape::per_row][Shape::per_column]) {
  using Queries = TanhPanel<A, Shape::rows, K>;
  using Keys = TanhPanel<A, Shape::columns, K>;
  const int row = Shape::row(), column = Shape::column();
#pragma unroll 1
  for (int h = 0; h < K; h += kTanhRun) {
    const A *q_run = q.run(h, row), *k_run = k.run(h, column);
#pragma unroll
    for (int t = 0; t < kTanhRun; t += 3) {
      A eq[3][Shape::per_row], ek[3][Shape::per_column], u[3];
#pragma unroll
      for (int i = 0; i < 3; ++i) {
        Queries::template read<Shape::per_row>(q_run, t + i, eq[i]);
        Keys::template read<Shape::per_column>(k_run, t + i, ek[i]);
        u[i] = w[h + t + i];
      }
#pragma unroll
      for (int i = 0; i < Shape::per_row; ++i)
#pragma unroll
        for (int j = 0; j < Shape::per_column; ++j) {
          A d[3];
#pragma unroll
          for (int l = 0; l < 3; ++l) {
            d[l] = fused(eq[l][i], ek[l][j], A(1));
            if (Cut) d[l] = cut(d[l], UnitLimits<A>::cut_triple);
          }
          acc[i][j] = add_triple(d, u, acc[i][j]);
        }
    }
  }
}

template <class A>
DHYAN_DEVICE A add_far_triple(const A* q, const A* k, const A* w, A acc) {
  using Limits = UnitLimits<A>;
  bool close = true;
  for (int i = 0; i < 3; ++i)
    close &= fabs(q[i]) <= Limits::far && fabs(k[i]) <= Limits::far && fabs(w[i]) <= Limits::weight;
  if (close) {
    A d[3];
    for (int i = 0; i < 3; ++i)
      d[i] = cut(fused(exp_twice_of(q[i]), exp_twice_of(k[i]), A(1)), Limits::cut_triple);
    return add_triple(d, w, acc);
  }
  for (int i = 0; i < 3; ++i) acc = fused(w[i], direct_y<A>(q[i] + k[i]).y, acc);
  return acc;
}
template <class Shape, class A, int K>
DHYAN_DEVICE void add_far_tanh(TanhPanel<A, Shape::rows, K>& q, TanhPanel<A, Shape::columns, K>& k, const A* w,
                               A (&acc)[Shape::per_row][Shape::per_column]) {
  const int row = Shape::row(), column = Shape::column();
#pragma unroll
  for (int i = 0; i < Shape::per_row; ++i)
#pragma unroll
    for (int j = 0; j < Shape::per_column; ++j)
#pragma unroll 1
      for (int h = 0; h < K; h += 3) {
        const A x[3] = {q.at(h, row + i), q.at(h + 1, row + i), q.at(h + 2, row + i)};
        const A y[3] = {k.at(h, column + j), k.at(h + 1, column + j), k.at(h + 2, column + j)};
        acc[i][j] = add_far_triple(x, y, w + h, acc[i][j]);
      }
}

template <class A, class Shape, bool Tanh>
struct ScoreMemory {
  static constexpr int steps = sizeof(A) == 4 ? 48 : 24;  // of the sum at a time
  static constexpr int run = Tanh ? kTanhRun : 4;
  Panel<A, Shape::rows, steps, run> q;
  Panel<A, Shape::columns, steps, run> k;
  A w[steps];
};

template <class T, class Shape, bool Tanh>
DHYAN_KERNEL(Shape::threads, sizeof(Weight<T>) == 4 ? 512 / Shape::threads : 1) score_tile(ScoreArguments<T> in) {
  using A = Weight<T>;
  using Memory = ScoreMemory<A, Shape, Tanh>;
  using Limits = UnitLimits<A>;
  constexpr int K = Memory::steps;
  static_assert(!Tanh || Shape::threads >= K, "a thread a weight");
  Memory& m = shared_memory<Memory>();
  const int thread = thread_index();
  const Index s0 = block_index() % in.key_tiles * Shape::columns;
  const Index t0 = block_index() / in.key_tiles % in.row_tiles * Shape::rows;
  const Index b = block_index() / in.key_tiles / in.row_tiles;
  const Index rows = least(Shape::rows, in.rows - t0), columns = least(Shape::columns, in.S - s0);
  if (!in.wanted(b, t0, rows, s0, columns)) return;
  const T* q = in.q + (b * in.q_stride + t0) * in.H;
  const T* k = in.k + (b * in.S + s0) * in.H;
  const bool q_fours = in_fours(q, in.H), k_fours = in_fours(k, in.H);
  RowLoader<T, Shape::rows, K, Shape::threads> q_next;
  RowLoader<T, Shape::columns, K, Shape::threads> k_next;
  A w_next = 0, w_sum = 0;
  A acc[Shape::per_row][Shape::per_column] = {};
  const auto load = [&](Index h) {
    q_next.load(q, in.H, rows, in.H, h, q_fours);
    k_next.load(k, in.H, columns, in.H, h, k_fours);
    if (Tanh && thread < K) w_next = h + thread < in.H ? number(in.w[h + thread]) : A(0);
  };
  load(0);
  for (Index h = 0; h < in.H; h += K) {
    const auto as_is = [](A x) { return x; };
    const auto exponential = [](A x) { return exp_twice_of(x); };
    Reach reach = Reach::near;
    if (Tanh) {  // both barriers also say that the former step has been read
      const bool heavy = !(fabs(w_next) <= Limits::weight);
      if (barrier_any(heavy || q_next.beyond(Limits::near_triple) || k_next.beyond(Limits::near_triple)))
        reach =
            barrier_any(heavy || q_next.beyond(Limits::far) || k_next.beyond(Limits::far)) ? Reach::far : Reach::cut;
      if (thread < K) m.w[thread] = w_next, w_sum += w_next;
    } else {
      barrier();
    }
    if (Tanh && reach != Reach::far) {
      q_next.store(m.q, exponential);
      k_next.store(m.k, exponential);
    } else {
      q_next.store(m.q, as_is);
      k_next.store(m.k, as_is);
    }
    barrier();
    if (h + K < in.H) load(h + K);
    if (!Shape::works(rows)) continue;
    if constexpr (!Tanh)
      multiply<Shape>(m.q, m.k, static_cast<int>(least(K, in.H - h)), acc);
    else if (reach == Reach::near)
      add_tanh<Shape, A, K, false>(m.q, m.k, m.w, acc);
    else if (reach == Reach::cut)
      add_tanh<Shape, A, K, true>(m.q, m.k, m.w, acc);
    else
      add_far_tanh<Shape>(m.q, m.k, m.w, acc);
  }
  if (Tanh) {  // sum_h w_h, by the same additions in every block
    barrier();
    if (thread < K) m.w[thread] = w_sum;
    barrier();
    w_sum = 0;
    for (int i = 0; i < K; ++i) w_sum += m.w[i];
  }
  const int row = Shape::row(), column = Shape::column();
#pragma unroll
  for (int i = 0; i < Shape::per_row; ++i)
#pragma unroll
    for (int j = 0; j < Shape::per_column; ++j)
      if (row + i < rows && column + j < columns)
        in.scores[(b * in.scores_stride + t0 + row + i) * in.S + s0 + column + j] =
            in.scale * (Tanh ? w_sum - A(2) * acc[i][j] : acc[i][j]);
}

template <class A>
DHYAN_DEVICE A sum_of_warp(A x) {
  for (int distance = 16; distance > 0; distance /= 2) x += from_lane(x, distance);
  return x;
}

// Four elements of a row of which `left` are there, 0 beyond; in fours the row ends with a four.
template <bool Fours, class T>
DHYAN_DEVICE void load_of_row(const T* p, Index left, Weight<T> (&to)[4]) {
  if (Fours && left <= 0) {
    for (int i = 0; i < 4; ++i) to[i] = 0;
    return;
  }
  load_four(p, left, Fours, to);
}

constexpr int kWarps = 8;  // of a block that gives each warp something of its own

// At most R rows: a warp reads its key once. tanh takes e^2(q + k) of each element, four to a reciprocal; whatever q
// and k are it cannot overflow, so that only the weights are looked at.
template <class T, int R, bool Tanh>
DHYAN_KERNEL(32 * kWarps, 2)
score_few(ScoreArguments<T> in, Index warps) {
  using A = Weight<T>;
  using Limits = UnitLimits<A>;
  const Index warp = block_index() * kWarps + thread_index() / 32;
  if (warp >= warps) return;
  const Index b = warp / in.S, s = warp % in.S;
  if (in.ranges.given()) {
    bool wanted = false;
    for (Index t = 0; t < in.rows; ++t) {
      const Ranges::Span span = in.ranges.at(b, t, in.S);
      wanted |= span.first <= s && s < span.last;
    }
    if (!wanted) return;
  }
  const int lane = thread_index() % 32;
  const T* q = in.q + b * in.q_stride * in.H;
  const T* k = in.k + (b * in.S + s) * in.H;
  A acc[R] = {}, w_sum = 0;
  const auto add = [&](const A(&y)[4], Index h, auto fours) {
    constexpr bool F = decltype(fours)::value;
    A w[4];
    bool heavy = false;
    if (Tanh) {
      load_of_row<F>(in.w + h, in.H - h, w);
      for (int i = 0; i < 4; ++i) w_sum += w[i], heavy |= !(fabs(w[i]) <= Limits::weight);
    }
#pragma unroll
    for (int r = 0; r < R; ++r) {
      if (r >= in.rows) break;
      A x[4];
      load_of_row<F>(q + r * in.H + h, in.H - h, x);
      if (!Tanh) {
        for (int i = 0; i < 4; ++i) acc[r] = fused(x[i], y[i], acc[r]);
      } else if (heavy) {
        for (int i = 0; i < 4; ++i) acc[r] = fused(w[i], direct_y<A>(x[i] + y[i]).y, acc[r]);
      } else {
        A d[4];
        for (int i = 0; i < 4; ++i) d[i] = cut(exp_twice_of(x[i] + y[i]) + A(1), Limits::cut_quad);
        acc[r] = add_quad(d, w, acc[r]);
      }
    }
  };
  // Keys are read two fours ahead: nothing else here waits for memory. What is not there is 0.
  const auto run = [&](auto fours) {
    A next[2][4];
    const auto fetch = [&](Index h) {
#pragma unroll
      for (int i = 0; i < 2; ++i) load_of_row<decltype(fours)::value>(k + h + 128 * i, in.H - h - 128 * i, next[i]);
    };
    fetch(4 * lane);
#pragma unroll 1
    for (Index h = 4 * lane; h < in.H; h += 256) {
      A now[2][4];
      for (int i = 0; i < 8; ++i) now[i / 4][i % 4] = next[i / 4][i % 4];
      fetch(h + 256);
#pragma unroll
      for (int i = 0; i < 2; ++i) add(now[i], h + 128 * i, fours);
    }
  };
  if (in_fours(k, in.H) && in_fours(q, in.H) && (!Tanh || in_fours(in.w, in.H)))
    run(std::true_type{});
  else
    run(std::false_type{});
  if (Tanh) w_sum = sum_of_warp(w_sum);
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const A sum = sum_of_warp(acc[r]);
    if (lane == 0 && r < in.rows)
      in.scores[(b * in.scores_stride + r) * in.S + s] = in.scale * (Tanh ? w_sum - A(2) * sum : sum);
  }
}

// What a tile shape would take for B sentences, in arbitrary units: its elements, those beyond the matrix included, by
// what one costs in it (an estimate from its loads and exponentials), more where few warps leave processors waiting.
template <class Shape>
double tile_cost(double element, Index B, Index rows, Index S) {
  const double blocks = static_cast<double>(B) * static_cast<double>((rows + Shape::rows - 1) / Shape::rows) *
                        static_cast<double>((S + Shape::columns - 1) / Shape::columns);
  const double missing = 12.0 * DHYAN_CUDA_MULTIPROCESSORS / (blocks * (Shape::threads / 32));
  return blocks * Shape::rows * Shape::columns * element * (missing > 1 ? missing : 1);
}

// Every shape adds in the same order: the choice changes no bit, that of score_few does.
template <class T, bool Tanh>
void score_rows(const Place& place, const char* op, Index B, ScoreArguments<T> in) {
  using A = Weight<T>;
  const auto tiles = [&](auto shape) {
    using Shape = decltype(shape);
    in.row_tiles = (in.rows + Shape::rows - 1) / Shape::rows;
    in.key_tiles = (in.S + Shape::columns - 1) / Shape::columns;
    launch(place, op, "score_tile", B * in.row_tiles * in.key_tiles, Shape::threads,
           sizeof(ScoreMemory<A, Shape, Tanh>), score_tile<T, Shape, Tanh>, in);
  };
  const auto few = [&](auto* kernel) {
    const Index warps = B * in.S;
    launch(place, op, "score_few", (warps + kWarps - 1) / kWarps, 32 * kWarps, 0, kernel, in, warps);
  };
  if (in.rows == 0 || in.S == 0) return;
  if (in.all_rows == 1) return few(score_few<T, 1, Tanh>);
  if (in.all_rows <= kFewRows) return few(score_few<T, static_cast<int>(kFewRows), Tanh>);
  if constexpr (!Tanh && sizeof(A) == 4) return score_tensor_rows(place, op, B, in);
  const double wide = tile_cost<WideTile>(1.0, B, in.rows, in.S), flat = tile_cost<FlatTile>(1.45, B, in.rows, in.S);
  const double middle = tile_cost<MiddleTile>(1.2, B, in.rows, in.S);
  if (flat <= middle && flat <= wide) return tiles(FlatTile{});
  if (middle <= wide) return tiles(MiddleTile{});
  tiles(WideTile{});
}

}  // namespace
}  // namespace dhyan::cuda

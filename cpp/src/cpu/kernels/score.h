// Scores of one sentence and their gradients: all target rows against all keys, nothing of size T*S*H anywhere.
//
// A score depends on its query and its key alone, to the last bit: the tile it is computed in, the other rows of the
// call and the other keys never matter (see choose_path). Gradients of a row add the keys in order, in blocks that
// start at multiples of 64.
#pragma once

#include "cpu/kernels/context.h"
#include "cpu/kernels/score_terms.h"

namespace dhyan {
namespace {

constexpr Index kPair = 2 * kLanes;       // hidden units that share divisions: unit l and unit l + 16 of a block
constexpr Index kHiddenBlock = 1024;      // e^2q of a tile of rows lives on the stack, this many units at a time
constexpr Index kKeyBlock = 64;           // keys whose gradients are collected on the stack

inline Index pairs_of(Index H) { return (H + kPair - 1) / kPair; }
inline Index smaller(Index a, Index b) { return a < b ? a : b; }

// ---- keys, prepared once per sentence ----
// tanh:    e^2k as [H/32][S][32], tails 0, then the largest |k| of each key [S]
// product: k transposed into panels of one vector of keys, [S/W][H][W], tails 0

template <class T>
Index prepared_size(Term term, Index S, Index H) {
  if (term == Term::tanh) return pairs_of(H) * kPair * S + S;
  return (S + kWidth<T> - 1) / kWidth<T> * kWidth<T> * H;
}

template <class T>
inline void exponentiate_keys(const T* k, Index S, Index H, T* prepared) {
  for (Index s = 0; s < S; ++s) {
    for (Index h = 0; h < pairs_of(H) * kPair; h += kWidth<T>) {
      T* to = prepared + (h / kPair * S + s) * kPair + h % kPair;
      const Index n = H - h;
      if (n >= kWidth<T>) {
        store<T>(to, exp_twice<Vec<T>>(load<T>(k + s * H + h)));
      } else {
        T buffer[kWidth<T>];
        store<T>(buffer, exp_twice<Vec<T>>(load_upto<T>(k + s * H + h, n)));
        for (Index i = 0; i < kWidth<T>; ++i) to[i] = i < n ? buffer[i] : T(0);
      }
    }
    prepared[pairs_of(H) * kPair * S + s] = largest_magnitude(k + s * H, H);
  }
}

template <class T>
inline void transpose_keys(const T* k, Index S, Index H, T* prepared) {
  constexpr Index W = kWidth<T>;
  for (Index s0 = 0; s0 < S; s0 += W) {
    T* panel = prepared + s0 * H;
    const Index n = smaller(W, S - s0);
    for (Index h0 = 0; h0 < H; h0 += 16) {  // short runs keep the W source rows in L1
      const Index h1 = smaller(h0 + 16, H);
      for (Index j = 0; j < W; ++j)
        for (Index h = h0; h < h1; ++h) panel[h * W + j] = j < n ? k[(s0 + j) * H + h] : T(0);
    }
  }
}

template <class T>
void prepare_keys(Term term, const T* k, Index S, Index H, T* prepared) {
  if (term == Term::tanh)
    exponentiate_keys(k, S, H, prepared);
  else
    transpose_keys(k, S, H, prepared);
}

// ---- forward ----

// Everything a score function reads.
template <class T>
struct ScoreInputs {
  const T* q;
  Index ldq, rows;
  const T* k;
  const T* prepared;
  Index S, H;
  const T* w;
  T scale;
  Ranges ranges;

  const T* keys_of(Index pair) const { return prepared + pair * S * kPair; }
  const T* key_magnitudes() const { return prepared + pairs_of(H) * kPair * S; }
};

// A block of hidden units: queries exponentiated, w padded with zeros.
template <class T, int M>
struct HiddenBlock {
  Index first_pair, pairs;
  T eq[M][kHiddenBlock];
  T w[kHiddenBlock];
  T w_sum;

  void load_weights(const ScoreInputs<T>& in, Index first) {
    first_pair = first;
    pairs = smaller(kHiddenBlock / kPair, pairs_of(in.H) - first);
    Vec<T> sum[kParts<T>] = {};
    for (Index h = 0; h < pairs * kPair; h += kWidth<T>) {
      const Vec<T> v = load_upto<T>(in.w + first * kPair + h, in.H - first * kPair - h);
      store<T>(w + h, v);
      sum[h % kLanes / kWidth<T>] += v;
    }
    w_sum = sum_lanes<T>(sum);
  }
  void load_queries(const ScoreInputs<T>& in, Index t, Index rows) {
    for (Index i = 0; i < rows; ++i)
      for (Index h = 0; h < pairs * kPair; h += kWidth<T>) {
        const Index at = first_pair * kPair + h;
        store<T>(eq[i] + h, exp_twice<Vec<T>>(load_upto<T>(in.q + (t + i) * in.ldq + at, in.H - at)));
      }
  }
};

// sum_h w_h / (1 + Eq_h Ek_h) of M rows and N keys; lane l adds the pairs in order.
template <class T, int M, int N>
inline __attribute__((noinline)) void tanh_tile(const T* eq, const T* w, Index pairs, const T* ek, Index S,
                                                T (&out)[M][N]) {
  Vec<T> lanes[M][N][kParts<T>];
  for (Index part = 0; part < kParts<T>; ++part) {
    const Index at = part * kWidth<T>;
    Vec<T> acc[M][N];
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < N; ++j) acc[i][j] = Vec<T>{};
    for (Index p = 0; p < pairs; ++p) {
      const Vec<T> w0 = load<T>(w + p * kPair + at), w1 = load<T>(w + p * kPair + kLanes + at);
      Vec<T> k0[N], k1[N];
      for (int j = 0; j < N; ++j) {
        const T* key = ek + (p * S + j) * kPair + at;
        k0[j] = load<T>(key);
        k1[j] = load<T>(key + kLanes);
      }
      for (int i = 0; i < M; ++i) {
        const T* query = eq + i * kHiddenBlock + p * kPair + at;
        const Vec<T> q0 = load<T>(query), q1 = load<T>(query + kLanes);
        for (int j = 0; j < N; ++j) acc[i][j] += pair_term<Vec<T>>(q0, k0[j], w0, q1, k1[j], w1);
      }
    }
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < N; ++j) lanes[i][j][part] = acc[i][j];
  }
  sum_tile_lanes<T, M, N>(lanes, out);
}

// The same sum where the pairs of a tile could overflow: one division an element.
template <class T>
inline T single_sum(const T* eq, const T* w, Index pairs, const T* ek, Index S) {
  Vec<T> lanes[kParts<T>] = {};
  for (Index p = 0; p < pairs; ++p)
    for (Index h = 0; h < kPair; h += kWidth<T>)
      lanes[h % kLanes / kWidth<T>] += single_term<Vec<T>>(load<T>(eq + p * kPair + h),
                                                          load<T>(ek + p * S * kPair + h), load<T>(w + p * kPair + h));
  return sum_lanes<T>(lanes);
}

// sum_h w_h tanh(q_h + k_h) for any q and k.
template <class T>
inline T direct_sum(const T* q, const T* k, const T* w, Index n) {
  Vec<T> lanes[kParts<T>] = {};
  for (Index h = 0; h < n; h += kWidth<T>)
    lanes[h % kLanes / kWidth<T>] += direct_term<Vec<T>>(load_upto<T>(q + h, n - h), load_upto<T>(k + h, n - h),
                                                         load_upto<T>(w + h, n - h));
  return sum_lanes<T>(lanes);
}

template <class T, int M>
struct TanhScores {
  const ScoreInputs<T>& in;
  HiddenBlock<T, M>& block;
  const T* q_most;  // of the M rows
  Index t;

  // Adds this block's part of score (t + i, s), by the path its magnitudes ask for.
  T one(Index i, Index s) const {
    const Index h = block.first_pair * kPair;
    const T* ek = in.keys_of(block.first_pair) + s * kPair;
    switch (choose_path(q_most[i], in.key_magnitudes()[s])) {
      case Path::pairs: {
        T sum[1][1];
        tanh_tile<T, 1, 1>(block.eq[i], block.w, block.pairs, ek, in.S, sum);
        return block.w_sum - T(2) * sum[0][0];
      }
      case Path::single:
        return block.w_sum - T(2) * single_sum(block.eq[i], block.w, block.pairs, ek, in.S);
      default:
        return direct_sum(in.q + (t + i) * in.ldq + h, in.k + s * in.H + h, in.w + h,
                          smaller(kHiddenBlock, in.H - h));
    }
  }

  template <int R, int N>
  void tile(Index s, T (&out)[M][N]) const {
    bool pairs = true;
    for (int i = 0; i < R; ++i)
      for (int j = 0; j < N; ++j) pairs &= choose_path(q_most[i], in.key_magnitudes()[s + j]) == Path::pairs;
    if (!pairs) {
      for (int i = 0; i < R; ++i)
        for (int j = 0; j < N; ++j) out[i][j] = one(i, s + j);
      return;
    }
    T sum[R][N];
    tanh_tile<T, R, N>(block.eq[0], block.w, block.pairs, in.keys_of(block.first_pair) + s * kPair, in.S, sum);
    for (int i = 0; i < R; ++i)
      for (int j = 0; j < N; ++j) out[i][j] = block.w_sum - T(2) * sum[i][j];
  }

  // `rows` is R: the caller's tile is full (M rows) or a single row.
  template <int R, int N>
  Index sweep(Index s, Index last, T* scores) const {
    for (; s + N <= last; s += N) {
      T out[M][N];
      tile<R, N>(s, out);
      for (int i = 0; i < R; ++i) {
        const Span own = range_of(in.ranges, t + i, in.S);
        T* row = scores + (t + i) * in.S;
        for (int j = 0; j < N; ++j)
          if (s + j >= own.first && s + j < own.last)
            row[s + j] = block.first_pair == 0 ? out[i][j] : row[s + j] + out[i][j];
      }
    }
    return s;
  }
};

template <class T>
inline void tanh_scores(const ScoreInputs<T>& in, T* scores) {
  constexpr int M = 4;
  HiddenBlock<T, M> block;
  for (Index first = 0; first < pairs_of(in.H); first += kHiddenBlock / kPair) {
    block.load_weights(in, first);
    for (Index t = 0; t < in.rows;) {
      const Index rows = in.rows - t >= M ? M : 1;
      T q_most[M];
      for (Index i = 0; i < rows; ++i) q_most[i] = largest_magnitude(in.q + (t + i) * in.ldq, in.H);
      const Span span = span_of(in.ranges, t, rows, in.S);
      if (span.first < span.last) {
        block.load_queries(in, t, rows);
        const TanhScores<T, M> part{in, block, q_most, t};
        if (rows == M) {
          const Index s = part.template sweep<M, 2>(span.first, span.last, scores);
          part.template sweep<M, 1>(s, span.last, scores);
        } else {
          const Index s = part.template sweep<1, 4>(span.first, span.last, scores);
          part.template sweep<1, 1>(s, span.last, scores);
        }
      }
      t += rows;
    }
  }
  for (Index t = 0; t < in.rows; ++t) {
    const Span own = range_of(in.ranges, t, in.S);
    T* row = scores + t * in.S;
    for (Index s = own.first; s < own.last; ++s) row[s] = in.H == 0 ? T(0) : in.scale * row[s];
  }
}

constexpr Index kProductBlock = 64;  // additions in a row before the partial sum joins the total

// Rows t.. of a tile against N panels of keys: out[i][j*W + l] = q_i . k_l.
template <class T, int M, int N>
inline __attribute__((noinline)) void product_tile(const ScoreInputs<T>& in, Index t, const T* panel, T* out) {
  Vec<T> total[M][N];
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) total[i][j] = Vec<T>{};
  for (Index h = 0; h < in.H; h += kProductBlock) {
    Vec<T> acc[M][N];
    sum_tile<T, M, N>(in.q + t * in.ldq + h, in.ldq, 1, smaller(kProductBlock, in.H - h),
                      Rows<T>{panel + h * kWidth<T>, kWidth<T>, in.H * kWidth<T>}, acc);
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < N; ++j) total[i][j] += acc[i][j];
  }
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) store<T>(out + (i * N + j) * kWidth<T>, total[i][j] * in.scale);
}

template <class T, int M, int N>
inline void product_sweep(const ScoreInputs<T>& in, Index t, Index& s, Index last, T* scores) {
  constexpr Index W = kWidth<T>;
  // More than one panel only while all of them hold keys that are wanted.
  for (; N == 1 ? s < last : s + (N - 1) * W < last; s += N * W) {
    T out[M * N * W];
    product_tile<T, M, N>(in, t, in.prepared + s * in.H, out);
    for (int i = 0; i < M; ++i) {
      const Span own = range_of(in.ranges, t + i, in.S);
      const Index from = own.first > s ? own.first : s, to = smaller(own.last, s + N * W);
      T* row = scores + (t + i) * in.S;
      if (to - from == N * W)
        std::memcpy(row + s, out + i * N * W, sizeof(T) * N * W);
      else
        for (Index k = from; k < to; ++k) row[k] = out[i * N * W + k - s];
    }
  }
}

template <class T, int M>
inline void product_rows(const ScoreInputs<T>& in, Index t, T* scores) {
  const Span span = span_of(in.ranges, t, M, in.S);
  Index s = span.first / kWidth<T> * kWidth<T>;
  if (span.first >= span.last) return;
  if (M == 1) product_sweep<T, M, 4>(in, t, s, span.last, scores);
  product_sweep<T, M, 2>(in, t, s, span.last, scores);
  product_sweep<T, M, 1>(in, t, s, span.last, scores);
}

template <class T>
inline void product_scores(const ScoreInputs<T>& in, T* scores) {
  Index t = 0;
  for (; t + kRows <= in.rows; t += kRows) product_rows<T, kRows>(in, t, scores);
  for (; t + 2 <= in.rows; t += 2) product_rows<T, 2>(in, t, scores);
  if (t < in.rows) product_rows<T, 1>(in, t, scores);
}

template <class T>
void score_rows(Term term, const T* q, Index ldq, Index rows, const T* k, const T* prepared, Index S, Index H,
                const T* w, T scale, const Index* begin, const Index* end, T* scores) {
  const ScoreInputs<T> in{q, ldq, rows, k, prepared, S, H, w, scale, {begin, end}};
  if (term == Term::tanh)
    tanh_scores(in, scores);
  else
    product_scores(in, scores);
}

// ---- backward ----

// Hidden units [first, last), `first` a multiple of 32, and where their gradients go; any of them may be null.
// dq is overwritten; dk and dw are added to.
template <class T>
struct ScoreGradients {
  Index first, last;
  T* dq;
  Index lddq;
  T* dk;  // rows H apart
  T* dw;
};

// One pair of hidden vectors of one key block, all of the keys' gradients on the stack.
template <class T>
struct TanhBackward {
  const ScoreInputs<T>& in;
  const T* dscores;
  const ScoreGradients<T>& out;
  Index pair, at;     // hidden units pair * 32 + at + [0, W) and the same + 16
  Index s0, s1;       // keys of the block
  T block_most;       // largest |k| of the block's keys
  Vec<T> (*dk)[2];    // [kKeyBlock]
  Vec<T> dw[2];       // sum of dscores * y

  Index unit(int half) const { return pair * kPair + half * kLanes + at; }
  Vec<T> query(Index t, int half) const {
    return load_upto<T>(in.q + t * in.ldq + unit(half), in.H - unit(half));
  }
  Vec<T> key(Index s, int half) const { return load_upto<T>(in.k + s * in.H + unit(half), in.H - unit(half)); }

  // y and y - y^2 times the score's gradient join the sums.
  DHYAN_INLINE void join(Vec<T> g, Vec<T> y, Vec<T>& dq, Vec<T>& dy, Vec<T>& dk_s) {
    const Vec<T> gy = g * y;
    const Vec<T> slope = gy - gy * y;
    dq += slope;
    dy += gy;
    dk_s += slope;
  }

  template <int M>
  void fast(Index t, Index first, Index last, Vec<T> (&dq)[M][2]) {
    const T* ek = in.keys_of(pair) + at;
    Vec<T> eq[M][2], dy[2] = {};
    for (int i = 0; i < M; ++i) {
      eq[i][0] = exp_twice<Vec<T>>(query(t + i, 0));
      eq[i][1] = exp_twice<Vec<T>>(query(t + i, 1));
    }
    for (Index s = first; s < last; ++s) {
      const Vec<T> k0 = load<T>(ek + s * kPair), k1 = load<T>(ek + s * kPair + kLanes);
      Vec<T> dk0 = dk[s - s0][0], dk1 = dk[s - s0][1];
      for (int i = 0; i < M; ++i) {
        const Vec<T> g = broadcast(dscores[(t + i) * in.S + s]);
        const Pair<Vec<T>> y = pair_y<Vec<T>>(eq[i][0], k0, eq[i][1], k1);
        join(g, y.first, dq[i][0], dy[0], dk0);
        join(g, y.second, dq[i][1], dy[1], dk1);
      }
      dk[s - s0][0] = dk0;
      dk[s - s0][1] = dk1;
    }
    dw[0] += dy[0];
    dw[1] += dy[1];
  }

  // One element by the path its magnitudes ask for, into the sums of its row and its key.
  void join_by_path(Index t, Index s, T g_ts, T q_most, const Vec<T> (&eq)[2], Vec<T> (&dq)[2], Vec<T> (&dy)[2]) {
    const Vec<T> g = broadcast(g_ts);
    Vec<T>(&dk_s)[2] = dk[s - s0];
    const T* ek = in.keys_of(pair) + s * kPair + at;
    const Path path = choose_path(q_most, in.key_magnitudes()[s]);
    if (path == Path::pairs) {
      const Pair<Vec<T>> y = pair_y<Vec<T>>(eq[0], load<T>(ek), eq[1], load<T>(ek + kLanes));
      join(g, y.first, dq[0], dy[0], dk_s[0]);
      join(g, y.second, dq[1], dy[1], dk_s[1]);
      return;
    }
    for (int half = 0; half < 2; ++half) {
      if (path == Path::single) {
        join(g, single_y<Vec<T>>(eq[half], load<T>(ek + half * kLanes)), dq[half], dy[half], dk_s[half]);
      } else {
        const Pair<Vec<T>> y = direct_y<Vec<T>>(query(t, half) + key(s, half));
        const Vec<T> slope = g * y.second;
        dq[half] += slope;
        dy[half] += g * y.first;
        dk_s[half] += slope;
      }
    }
  }

  // The same sums in the same order, element by element; what has no gradient is not looked at.
  template <int M>
  void careful(Index t, const T* q_most, Index first, Index last, Vec<T> (&dq)[M][2]) {
    Vec<T> eq[M][2], dy[2] = {};
    for (int i = 0; i < M; ++i)
      for (int half = 0; half < 2; ++half) eq[i][half] = exp_twice<Vec<T>>(query(t + i, half));
    for (Index s = first; s < last; ++s)
      for (int i = 0; i < M; ++i) {
        const T g = dscores[(t + i) * in.S + s];
        if (g != T(0)) join_by_path(t + i, s, g, q_most[i], eq[i], dq[i], dy);
      }
    dw[0] += dy[0];
    dw[1] += dy[1];
  }

  template <int M>
  void add_rows(Index t, const T* q_most) {
    const Span span = span_of(in.ranges, t, M, in.S);
    const Index first = span.first > s0 ? span.first : s0, last = smaller(span.last, s1);
    if (first >= last) return;
    Vec<T> dq[M][2] = {};
    bool pairs = true;
    for (int i = 0; i < M; ++i) pairs &= choose_path(q_most[i], block_most) == Path::pairs;
    if (pairs)
      fast<M>(t, first, last, dq);
    else
      careful<M>(t, q_most, first, last, dq);
    if (!out.dq) return;
    for (int i = 0; i < M; ++i)
      for (int half = 0; half < 2; ++half) {
        T* p = out.dq + (t + i) * out.lddq + unit(half);
        const Index n = in.H - unit(half);
        store_upto<T>(p, load_upto<T>(p, n) + dq[i][half], n);
      }
  }
};

constexpr Index kBackwardRows = 64;  // target rows whose largest |q| is kept on the stack

// Rows [t0, t1), at most kBackwardRows.
template <class T>
inline void tanh_backward_rows(const ScoreInputs<T>& in, const T* dscores, const ScoreGradients<T>& out, Index t0,
                               Index t1) {
  constexpr int M = 2;
  T q_most[kBackwardRows];
  for (Index t = t0; t < t1; ++t) q_most[t - t0] = largest_magnitude(in.q + t * in.ldq, in.H);
  const Span all = span_of(in.ranges, t0, t1 - t0, in.S);
  for (Index s0 = all.first / kKeyBlock * kKeyBlock; s0 < all.last; s0 += kKeyBlock) {
    const Index first = s0 > all.first ? s0 : all.first, s1 = smaller(s0 + kKeyBlock, all.last);
    const T most = largest_magnitude(in.key_magnitudes() + first, s1 - first);
    for (Index pair = out.first / kPair; pair < pairs_of(out.last); ++pair)
      for (Index at = 0; at < kLanes; at += kWidth<T>) {
        Vec<T> dk[kKeyBlock][2] = {};
        TanhBackward<T> part{in, dscores, out, pair, at, s0, s1, most, dk, {}};
        Index t = t0;
        for (; t + M <= t1; t += M) part.template add_rows<M>(t, q_most + t - t0);
        for (; t < t1; ++t) part.template add_rows<1>(t, q_most + t - t0);
        for (int half = 0; half < 2; ++half) {
          const Index h = part.unit(half), n = in.H - h;
          if (n <= 0) continue;
          const Vec<T> factor = load_upto<T>(in.w + h, n) * (T(4) * in.scale);
          for (Index s = first; out.dk && s < s1; ++s) {
            T* p = out.dk + s * in.H + h;
            store_upto<T>(p, load_upto<T>(p, n) + factor * dk[s - s0][half], n);
          }
          if (out.dw)
            store_upto<T>(out.dw + h, load_upto<T>(out.dw + h, n) - part.dw[half] * (T(2) * in.scale), n);
        }
      }
  }
}

// dq_t = 4 scale w * sum_s g (y - y^2), dk_s the same over t, dw = scale * sum g (1 - 2 y).
template <class T>
inline void tanh_backward(const ScoreInputs<T>& in, const T* dscores, const ScoreGradients<T>& out) {
  if (out.dq)
    for (Index t = 0; t < in.rows; ++t)
      std::memset(out.dq + t * out.lddq + out.first, 0, static_cast<std::size_t>(out.last - out.first) * sizeof(T));
  if (out.dw) {
    double total = 0;
    for (Index t = 0; t < in.rows; ++t) {
      const Span own = range_of(in.ranges, t, in.S);
      for (Index s = own.first; s < own.last; ++s) total += static_cast<double>(dscores[t * in.S + s]);
    }
    for (Index h = out.first; h < out.last; ++h) out.dw[h] += static_cast<T>(total * static_cast<double>(in.scale));
  }
  for (Index t = 0; t < in.rows; t += kBackwardRows)
    tanh_backward_rows(in, dscores, out, t, smaller(t + kBackwardRows, in.rows));
  if (!out.dq) return;
  for (Index t = 0; t < in.rows; ++t)
    for (Index h = out.first; h < out.last; h += kWidth<T>) {
      T* p = out.dq + t * out.lddq + h;
      const Index n = out.last - h;
      store_upto<T>(p, load_upto<T>(p, n) * (load_upto<T>(in.w + h, n) * (T(4) * in.scale)), n);
    }
}

// dq_t = scale * sum_s g k_s
template <class T>
inline void product_backward_query(const ScoreInputs<T>& in, const T* dscores, T* dq, Index lddq) {
  weighted_sum(WeightedSum<T>{dscores, in.S, 1, in.rows, in.S, in.k, in.H, in.H, in.ranges}, in.scale, dq, lddq);
}
// dk_s = scale * sum_t g q_t
template <class T>
inline void product_backward_keys(const ScoreInputs<T>& in, const T* dscores, T* dk) {
  weighted_sum(WeightedSum<T>{dscores, 1, in.S, in.S, in.rows, in.q, in.ldq, in.H, {}}, in.scale, dk, in.H);
}

template <class T>
void score_backward_query_rows(Term term, const T* dscores, const T* q, Index ldq, Index rows, const T* k,
                               const T* prepared, Index S, Index H, const T* w, T scale, const Index* begin,
                               const Index* end, T* dq, Index lddq) {
  const ScoreInputs<T> in{q, ldq, rows, k, prepared, S, H, w, scale, {begin, end}};
  if (term == Term::tanh)
    tanh_backward(in, dscores, ScoreGradients<T>{0, H, dq, lddq, nullptr, nullptr});
  else
    product_backward_query(in, dscores, dq, lddq);
}

template <class T>
void score_backward_keys(Term term, const T* dscores, const T* q, Index ldq, Index rows, const T* k, const T* prepared,
                         Index S, Index H, const T* w, T scale, const Index* begin, const Index* end, T* dk, T* dw) {
  const ScoreInputs<T> in{q, ldq, rows, k, prepared, S, H, w, scale, {begin, end}};
  if (dw) std::memset(dw, 0, static_cast<std::size_t>(H) * sizeof(T));
  if (term != Term::tanh) return product_backward_keys(in, dscores, dk);
  std::memset(dk, 0, static_cast<std::size_t>(S * H) * sizeof(T));
  tanh_backward(in, dscores, ScoreGradients<T>{0, H, nullptr, 0, dk, dw});
}

}  // namespace
}  // namespace dhyan

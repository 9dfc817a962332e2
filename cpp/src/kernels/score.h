// Scores of one sentence: all target rows against all keys, nothing of size T*S*H anywhere.
//
// A score depends on its query and its key alone, to the last bit: the tile it is computed in, the other rows of the
// call and the other keys never matter (see PathLimits).
#pragma once

#include "kernels/context.h"
#include "kernels/score_terms.h"

namespace dhyan {
namespace {

constexpr Index kPair = 2 * kLanes;       // hidden units that share divisions: unit l and unit l + 16 of a block
constexpr Index kHiddenBlock = 1024;      // e^2q of a tile of rows lives on the stack, this many units at a time
constexpr Index kKeyBlock = 64;           // keys whose gradients are collected on the stack

inline Index pairs_of(Index H) { return (H + kPair - 1) / kPair; }
inline Index smaller(Index a, Index b) { return a < b ? a : b; }

// ---- keys, prepared once per sentence ----
// tanh:    e^2k as [H/32][S][32], tails 0, then the largest |k| of each key [S]
// product: narrow keys transposed into panels of one vector of keys, [S/W][H][W], tails 0; wide ones are read as they
// are

// Up to this width summing 16 lanes costs more than the products, and lanes run along the keys instead. Measured at
// S = T = 1000, H = 64: about four times as fast.
constexpr Index kNarrow = 64;

template <class T>
Index prepared_size(Term term, Index S, Index H) {
  if (term == Term::tanh) return pairs_of(H) * kPair * S + S;
  return H <= kNarrow ? (S + kWidth<T> - 1) / kWidth<T> * kWidth<T> * H : 0;
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
  else if (H <= kNarrow)
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

// sum_h w_h / (1 + Eq_h Ek_h) of M rows and N keys; lane l adds quads of units (or pairs), the odd pair last.
template <class T, int M, int N, bool Quads>
inline __attribute__((noinline)) void tanh_tile(const T* eq, const T* w, Index pairs, const T* ek, Index S,
                                                T (&out)[M][N]) {
  using V = Vec<T>;
  V lanes[M][N][kParts<T>];
  const Index next = S * kPair;  // from a pair of keys to the one behind it
  for (Index part = 0; part < kParts<T>; ++part) {
    const Index at = part * kWidth<T>;
    V acc[M][N];
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < N; ++j) acc[i][j] = V{};
    Index p = 0;
    for (; Quads && p + 2 <= pairs; p += 2) {
      const T* wp = w + p * kPair + at;
      const V w0 = load<T>(wp), w1 = load<T>(wp + kLanes), w2 = load<T>(wp + kPair), w3 = load<T>(wp + kPair + kLanes);
      for (int j = 0; j < N; ++j) {
        const T* key = ek + p * next + j * kPair + at;
        const V k0 = load<T>(key), k1 = load<T>(key + kLanes), k2 = load<T>(key + next),
                k3 = load<T>(key + next + kLanes);
        for (int i = 0; i < M; ++i) {
          const T* q = eq + i * kHiddenBlock + p * kPair + at;
          acc[i][j] += quad_term<V>(load<T>(q) * k0, w0, load<T>(q + kLanes) * k1, w1, load<T>(q + kPair) * k2, w2,
                                    load<T>(q + kPair + kLanes) * k3, w3);
        }
      }
    }
    for (; p < pairs; ++p) {
      const V w0 = load<T>(w + p * kPair + at), w1 = load<T>(w + p * kPair + kLanes + at);
      for (int j = 0; j < N; ++j) {
        const T* key = ek + p * next + j * kPair + at;
        const V k0 = load<T>(key), k1 = load<T>(key + kLanes);
        for (int i = 0; i < M; ++i) {
          const T* q = eq + i * kHiddenBlock + p * kPair + at;
          acc[i][j] += pair_term<V>(load<T>(q), k0, w0, load<T>(q + kLanes), k1, w1);
        }
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
  PathLimits<T> limits;
  Index t;

  // This block's part of score (t + i, s), by the path its magnitudes ask for.
  T one(Index i, Index s) const {
    const Index h = block.first_pair * kPair;
    const T* ek = in.keys_of(block.first_pair) + s * kPair;
    T sum[1][1];
    switch (limits.choose(q_most[i], in.key_magnitudes()[s])) {
      case Path::quads:
        tanh_tile<T, 1, 1, true>(block.eq[i], block.w, block.pairs, ek, in.S, sum);
        break;
      case Path::pairs:
        tanh_tile<T, 1, 1, false>(block.eq[i], block.w, block.pairs, ek, in.S, sum);
        break;
      case Path::single:
        sum[0][0] = single_sum(block.eq[i], block.w, block.pairs, ek, in.S);
        break;
      default:
        return direct_sum(in.q + (t + i) * in.ldq + h, in.k + s * in.H + h, in.w + h,
                          smaller(kHiddenBlock, in.H - h));
    }
    return block.w_sum - T(2) * sum[0][0];
  }

  template <int R, int N>
  void tile(Index s, T (&out)[M][N]) const {
    const Path path = limits.choose(q_most[0], in.key_magnitudes()[s]);
    bool same = path <= Path::pairs;
    for (int i = 0; i < R; ++i)
      for (int j = 0; j < N; ++j) same &= limits.choose(q_most[i], in.key_magnitudes()[s + j]) == path;
    if (!same) {
      for (int i = 0; i < R; ++i)
        for (int j = 0; j < N; ++j) out[i][j] = one(i, s + j);
      return;
    }
    T sum[R][N];
    const T* ek = in.keys_of(block.first_pair) + s * kPair;
    if (path == Path::quads)
      tanh_tile<T, R, N, true>(block.eq[0], block.w, block.pairs, ek, in.S, sum);
    else
      tanh_tile<T, R, N, false>(block.eq[0], block.w, block.pairs, ek, in.S, sum);
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

// e^2k of units [h, h + W) of one key, 0 behind the last, as exponentiate_keys leaves them.
template <class T>
DHYAN_INLINE Vec<T> exp_units(const T* key, Index h, Index H) {
  if (h + kWidth<T> <= H) return exp_twice<Vec<T>>(load<T>(key + h));
  return between<T>(exp_twice<Vec<T>>(load_upto<T>(key + h, H - h)), 0, H - h, T(0));
}

// One row whose keys were not prepared: four keys at a time pass through the first-level cache.
template <class T>
inline void tanh_scores_of_one(const ScoreInputs<T>& in, T* scores) {
  constexpr int N = 4;
  static_assert(kUnprepared <= kHiddenBlock, "all units of a query must fit one block");
  HiddenBlock<T, 1> block;
  T buffer[(kUnprepared + 1) * N];
  const PathLimits<T> limits = PathLimits<T>::for_weights(largest_magnitude(in.w, in.H));
  const T q_most = largest_magnitude(in.q, in.H);
  block.load_weights(in, 0);
  block.load_queries(in, 0, 1);
  const Span own = range_of(in.ranges, 0, in.S);
  for (Index s = own.first; s < own.last; s += N) {
    ScoreInputs<T> few = in;
    few.k = in.k + s * in.H;
    few.S = smaller(N, own.last - s);
    few.prepared = buffer;
    exponentiate_keys(few.k, few.S, in.H, buffer);
    const TanhScores<T, 1> part{few, block, &q_most, limits, 0};
    T out[1][N];
    if (few.S == N)
      part.template tile<1, N>(0, out);
    else
      for (Index j = 0; j < few.S; ++j) out[0][j] = part.one(0, j);
    for (Index j = 0; j < few.S; ++j) scores[s + j] = in.H == 0 ? T(0) : in.scale * out[0][j];
  }
}

template <class T>
inline void tanh_scores(const ScoreInputs<T>& in, T* scores) {
  if (!in.prepared) return tanh_scores_of_one(in, scores);
  constexpr int M = 4;
  HiddenBlock<T, M> block;
  const PathLimits<T> limits = PathLimits<T>::for_weights(largest_magnitude(in.w, in.H));
  for (Index first = 0; first < pairs_of(in.H); first += kHiddenBlock / kPair) {
    block.load_weights(in, first);
    for (Index t = 0; t < in.rows;) {
      const Index rows = in.rows - t >= M ? M : 1;
      T q_most[M];
      for (Index i = 0; i < rows; ++i) q_most[i] = largest_magnitude(in.q + (t + i) * in.ldq, in.H);
      const Span span = span_of(in.ranges, t, rows, in.S);
      if (span.first < span.last) {
        block.load_queries(in, t, rows);
        const TanhScores<T, M> part{in, block, q_most, limits, t};
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

// Rows t.. of a tile against N panels of keys: out[i*ldo + j*W + l] = q_i . k_l.
template <class T, int M, int N>
inline __attribute__((noinline)) void product_tile(const ScoreInputs<T>& in, Index t, const T* panel, T* out,
                                                   Index ldo) {
  Vec<T> acc[M][N];
  sum_tile<T, M, N, false>(in.q + t * in.ldq, in.ldq, 1, in.H, Rows<T>{panel, kWidth<T>, in.H * kWidth<T>}, nullptr,
                           acc);
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) store<T>(out + i * ldo + j * kWidth<T>, acc[i][j] * in.scale);
}

template <class T, int M, int N>
inline void product_sweep(const ScoreInputs<T>& in, Index t, Index& s, Index last, T* scores) {
  constexpr Index W = kWidth<T>;
  const Span common = common_span(in.ranges, t, M, in.S);
  // More than one panel only while all of them hold keys that are wanted.
  for (; N == 1 ? s < last : s + (N - 1) * W < last; s += N * W) {
    if (s >= common.first && s + N * W <= common.last) {
      product_tile<T, M, N>(in, t, in.prepared + s * in.H, scores + t * in.S + s, in.S);
      continue;
    }
    T out[M * N * W];
    product_tile<T, M, N>(in, t, in.prepared + s * in.H, out, N * W);
    for (int i = 0; i < M; ++i) {
      const Span own = range_of(in.ranges, t + i, in.S);
      const Index from = own.first > s ? own.first : s, to = smaller(own.last, s + N * W);
      T* row = scores + (t + i) * in.S;
      for (Index k = from; k < to; ++k) row[k] = out[i * N * W + k - s];
    }
  }
}

template <class T, int M>
inline void product_rows(const ScoreInputs<T>& in, Index t, T* scores) {
  const Span span = span_of(in.ranges, t, M, in.S);
  Index s = span.first / kWidth<T> * kWidth<T>;
  if (span.first >= span.last) return;
  if (M <= 2) product_sweep<T, M, 4>(in, t, s, span.last, scores);
  product_sweep<T, M, 2>(in, t, s, span.last, scores);
  product_sweep<T, M, 1>(in, t, s, span.last, scores);
}

template <class T>
inline void product_scores(const ScoreInputs<T>& in, T* scores) {
  if (in.H > kNarrow) return dot_rows(in.q, in.ldq, in.rows, in.k, in.S, in.H, in.ranges, in.scale, scores);
  Index t = 0;
  for (; t + kRows <= in.rows; t += kRows) product_rows<T, kRows>(in, t, scores);
  for (; t + 4 <= in.rows; t += 4) product_rows<T, 4>(in, t, scores);
  for (; t < in.rows; ++t) product_rows<T, 1>(in, t, scores);
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

}  // namespace
}  // namespace dhyan

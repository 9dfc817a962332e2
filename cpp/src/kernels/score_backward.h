// Gradients of the scores of one sentence. Gradients of a row add the keys in order, in blocks that start at multiples
// of 64 (tanh) or of kSumBlock (product), so that no other row, and no padding, changes a bit.
#pragma once

#include "kernels/score.h"

namespace dhyan {
namespace {

// Hidden units [first, last), `first` a multiple of 64, and where their gradients go; any of them may be null.
// dq is overwritten, dk too if fresh; else dk, and dw, are added to.
template <class T>
struct ScoreGradients {
  Index first, last;
  T* dq;
  Index lddq;
  T* dk;  // rows H apart
  bool fresh;
  T* dw;
};

// G vectors of hidden units (a quad, or the odd pair at the end) against one block of keys, whose gradients are
// collected on the stack. One target row at a time: two at once measured no faster and need more registers.
// Prepared: e^2k is read; else made from k on the way.
template <class T, int G, bool Prepared>
struct TanhBackward {
  using V = Vec<T>;
  const ScoreInputs<T>& in;
  const T* dscores;
  Index pair, at;   // hidden units pair * 32 + at + [0, W), and the same + 16, 32, 48
  Index s0;         // first key of the block
  const T* k_most;  // [kKeyBlock] largest |k| of each
  V (*dk)[G];       // [kKeyBlock]
  V dw[G];          // sum of dscores * y

  Index unit(int g) const { return pair * kPair + g * kLanes + at; }
  V query(Index t, int g) const { return load_upto<T>(in.q + t * in.ldq + unit(g), in.H - unit(g)); }
  V key(Index s, int g) const { return load_upto<T>(in.k + s * in.H + unit(g), in.H - unit(g)); }
  DHYAN_INLINE V exp_key(Index s, int g) const {
    if constexpr (Prepared) return load<T>(in.keys_of(pair + g / 2) + s * kPair + g % 2 * kLanes + at);
    return exp_units<T>(in.k + s * in.H, unit(g), in.H);
  }

  template <Path P>
  static DHYAN_INLINE void all_y(const V (&e)[G], V (&y)[G]) {
    if constexpr (P == Path::quads && G == 4) {
      quad_y<V>(e, y);
    } else {
      for (int g = 0; g < G; g += 2) pair_y<V>(e + g, y + g);
    }
  }

  // y and the slope y - y^2, times the score's gradient, join the sums of the row, of w and of the key.
  DHYAN_INLINE void join(V gradient, const V (&y)[G], V (&dq)[G], V (&dy)[G], V (&dk_s)[G]) {
    for (int g = 0; g < G; ++g) {
      const V slope = y[g] - y[g] * y[g];
      dq[g] += gradient * slope;
      dy[g] += gradient * y[g];
      dk_s[g] += gradient * slope;
    }
  }

  template <Path P>
  DHYAN_INLINE void join_key(const T* row, Index s, const V (&eq)[G], V (&dq)[G], V (&dy)[G]) {
    // First all keys, whose tails branch, then the products: the compiler fuses 1 + eq ek only within one basic block,
    // and prepared or not the bits are to be the same.
    V ek[G], e[G], y[G];
    for (int g = 0; g < G; ++g) ek[g] = exp_key(s, g);
    for (int g = 0; g < G; ++g) e[g] = eq[g] * ek[g];
    all_y<P>(e, y);
    join(broadcast(row[s]), y, dq, dy, dk[s - s0]);
  }

  // Keys [first, last) of row t, all on the same path.
  template <Path P>
  inline __attribute__((noinline)) void sweep(Index t, Index first, Index last, V (&dq)[G]) {
    const T* row = dscores + t * in.S;
    V eq[G], sum[G] = {}, dy[G] = {};
    for (int g = 0; g < G; ++g) eq[g] = exp_twice<V>(query(t, g));
    for (Index s = first; s < last; ++s) join_key<P>(row, s, eq, sum, dy);
    for (int g = 0; g < G; ++g) dq[g] = sum[g], dw[g] += dy[g];
  }

  // The same sums in the same order, each key by the path its magnitude asks for; what has no gradient is not looked
  // at.
  inline __attribute__((noinline)) void careful(Index t, T q_most, Index first, Index last, V (&dq)[G]) {
    const T* row = dscores + t * in.S;
    V eq[G], dy[G] = {};
    for (int g = 0; g < G; ++g) eq[g] = exp_twice<V>(query(t, g)), dq[g] = V{};
    for (Index s = first; s < last; ++s) {
      if (row[s] == T(0)) continue;
      switch (PathLimits<T>().choose(q_most, k_most[s - s0])) {
        case Path::quads:
          join_key<Path::quads>(row, s, eq, dq, dy);
          break;
        case Path::pairs:
          join_key<Path::pairs>(row, s, eq, dq, dy);
          break;
        case Path::single: {
          V y[G];
          for (int g = 0; g < G; ++g) {
            const V ek = exp_key(s, g);
            y[g] = single_y<V>(eq[g] * ek);
          }
          join(broadcast(row[s]), y, dq, dy, dk[s - s0]);
          break;
        }
        default:
          for (int g = 0; g < G; ++g) {
            const Slope<V> x = direct_y<V>(query(t, g) + key(s, g));
            dy[g] += broadcast(row[s]) * x.y;
            dq[g] += broadcast(row[s]) * x.slope;
            dk[s - s0][g] += broadcast(row[s]) * x.slope;
          }
      }
    }
    for (int g = 0; g < G; ++g) dw[g] += dy[g];
  }
};

constexpr Index kBackwardRows = 64;  // target rows whose largest |q| is kept on the stack

// The path all keys of [first, last) take with a query of this magnitude, or direct where they differ.
template <class T>
inline Path common_path(T q_most, T k_least, T k_most) {
  const Path path = PathLimits<T>().choose(q_most, k_most);
  return path <= Path::pairs && PathLimits<T>().choose(q_most, k_least) == path ? path : Path::direct;
}

// Rows [t0, t1) (at most kBackwardRows) against keys [s0, s1) of one block.
template <class T>
struct BackwardBlock {
  Index t0, t1, s0, s1;
  bool fresh;
  T q_most[kBackwardRows];
  const T* k_mosts;  // of the keys from s0 on
  T k_least, k_most;
};

template <class T, int G, bool Prepared>
inline void tanh_backward_units(const ScoreInputs<T>& in, const T* dscores, const ScoreGradients<T>& out,
                                const BackwardBlock<T>& block, Index pair) {
  for (Index at = 0; at < kLanes; at += kWidth<T>) {
    Vec<T> dk[kKeyBlock][G];
    const Index s0 = block.s0;
    for (Index s = s0; s < block.s1; ++s)
      for (int g = 0; g < G; ++g) dk[s - s0][g] = Vec<T>{};
    TanhBackward<T, G, Prepared> part{in, dscores, pair, at, s0, block.k_mosts, dk, {}};
    for (Index t = block.t0; t < block.t1; ++t) {
      const Span own = range_of(in.ranges, t, in.S);
      const Index first = own.first > s0 ? own.first : s0, last = smaller(own.last, block.s1);
      if (first >= last) continue;
      const T q_most = block.q_most[t - block.t0];
      Vec<T> dq[G];
      switch (common_path(q_most, block.k_least, block.k_most)) {
        case Path::quads:
          part.template sweep<Path::quads>(t, first, last, dq);
          break;
        case Path::pairs:
          part.template sweep<Path::pairs>(t, first, last, dq);
          break;
        default:
          part.careful(t, q_most, first, last, dq);
      }
      for (int g = 0; out.dq && g < G; ++g) {
        T* p = out.dq + t * out.lddq + part.unit(g);
        const Index n = in.H - part.unit(g);
        Vec<T> total = (own.first >= s0 ? Vec<T>{} : load_upto<T>(p, n)) + dq[g];
        if (own.last <= block.s1) total = total * (load_upto<T>(in.w + part.unit(g), n) * (T(4) * in.scale));
        store_upto<T>(p, total, n);
      }
    }
    for (int g = 0; g < G; ++g) {
      const Index h = part.unit(g), n = in.H - h;
      if (n <= 0) continue;
      const Vec<T> factor = load_upto<T>(in.w + h, n) * (T(4) * in.scale);
      for (Index s = s0; out.dk && s < block.s1; ++s) {
        T* p = out.dk + s * in.H + h;
        store_upto<T>(p, (block.fresh ? Vec<T>{} : load_upto<T>(p, n)) + factor * dk[s - s0][g], n);
      }
      if (out.dw) store_upto<T>(out.dw + h, load_upto<T>(out.dw + h, n) - part.dw[g] * (T(2) * in.scale), n);
    }
  }
}

template <class T>
inline void zero_units(const ScoreInputs<T>& in, const ScoreGradients<T>& out, Index s0, Index s1) {
  for (Index s = s0; s < s1; ++s)
    std::memset(out.dk + s * in.H + out.first, 0, static_cast<std::size_t>(out.last - out.first) * sizeof(T));
}

template <class T, bool Prepared>
inline void tanh_backward_rows(const ScoreInputs<T>& in, const T* dscores, const ScoreGradients<T>& out, Index t0,
                               Index t1) {
  BackwardBlock<T> block;
  block.t0 = t0, block.t1 = t1, block.fresh = out.dk && out.fresh && t0 == 0;
  T k_mosts[kKeyBlock];
  for (Index t = t0; t < t1; ++t) block.q_most[t - t0] = largest_magnitude(in.q + t * in.ldq, in.H);
  const Span all = span_of(in.ranges, t0, t1 - t0, in.S);
  if (block.fresh) {  // what no block of keys covers
    const bool empty = all.first >= all.last;
    zero_units(in, out, 0, empty ? in.S : all.first / kKeyBlock * kKeyBlock);
    if (!empty) zero_units(in, out, all.last, in.S);
  }
  for (Index s0 = all.first / kKeyBlock * kKeyBlock; s0 < all.last; s0 += kKeyBlock) {
    const Index first = s0 > all.first ? s0 : all.first;
    block.s0 = s0, block.s1 = smaller(s0 + kKeyBlock, all.last);
    block.k_mosts = Prepared ? in.key_magnitudes() + s0 : k_mosts;
    for (Index s = first; !Prepared && s < block.s1; ++s) k_mosts[s - s0] = largest_magnitude(in.k + s * in.H, in.H);
    block.k_least = block.k_most = block.k_mosts[first - s0];
    for (Index s = first; s < block.s1; ++s) {
      const T k = block.k_mosts[s - s0];
      if (!(k >= block.k_least)) block.k_least = k;
      if (!(k <= block.k_most)) block.k_most = k;
      if (k != k) break;  // a NaN anywhere: every row takes the careful way
    }
    Index pair = out.first / kPair;
    for (; pair + 2 <= pairs_of(out.last); pair += 2)
      tanh_backward_units<T, 4, Prepared>(in, dscores, out, block, pair);
    if (pair < pairs_of(out.last)) tanh_backward_units<T, 2, Prepared>(in, dscores, out, block, pair);
  }
}

// dq_t = 4 scale w * sum_s g (y - y^2), dk_s the same over t, dw = scale * sum g (1 - 2 y).
template <class T>
inline void tanh_backward(const ScoreInputs<T>& in, const T* dscores, const ScoreGradients<T>& out) {
  for (Index t = 0; out.dq && t < in.rows; ++t)  // the other rows are written by their first block of keys
    if (const Span own = range_of(in.ranges, t, in.S); own.first >= own.last)
      std::memset(out.dq + t * out.lddq + out.first, 0, static_cast<std::size_t>(out.last - out.first) * sizeof(T));
  if (out.dw) {
    double total = 0;
    for (Index t = 0; t < in.rows; ++t) {
      const Span own = range_of(in.ranges, t, in.S);
      const T* row = dscores + t * in.S;
      Vec<T> sum{};
      for (Index s = own.first; s < own.last; s += kWidth<T>) sum += load_upto<T>(row + s, own.last - s);
      for (Index i = 0; i < kWidth<T>; ++i) total += static_cast<double>(sum[i]);
    }
    for (Index h = out.first; h < out.last; ++h) out.dw[h] += static_cast<T>(total * static_cast<double>(in.scale));
  }
  for (Index t = 0; t < in.rows; t += kBackwardRows) {
    const Index t1 = smaller(t + kBackwardRows, in.rows);
    if (in.prepared)
      tanh_backward_rows<T, true>(in, dscores, out, t, t1);
    else
      tanh_backward_rows<T, false>(in, dscores, out, t, t1);
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
    tanh_backward(in, dscores, ScoreGradients<T>{0, H, dq, lddq, nullptr, false, nullptr});
  else
    product_backward_query(in, dscores, dq, lddq);
}

template <class T>
void score_backward_keys(Term term, const T* dscores, const T* q, Index ldq, Index rows, const T* k, const T* prepared,
                         Index S, Index H, const T* w, T scale, const Index* begin, const Index* end, T* dk, T* dw) {
  const ScoreInputs<T> in{q, ldq, rows, k, prepared, S, H, w, scale, {begin, end}};
  if (dw) std::memset(dw, 0, static_cast<std::size_t>(H) * sizeof(T));
  if (term != Term::tanh) return product_backward_keys(in, dscores, dk);
  if (rows == 0) std::memset(dk, 0, static_cast<std::size_t>(S * H) * sizeof(T));
  tanh_backward(in, dscores, ScoreGradients<T>{0, H, nullptr, 0, dk, true, dw});
}

}  // namespace
}  // namespace dhyan

// Recurrent cells over the rows of one step. Gates arrive as pre-activations and leave as activations, which is all
// that the backward pass needs besides the states.
#pragma once

#include "cpu/kernels/dense_table.h"
#include "cpu/kernels/elementary.h"

namespace dhyan {
namespace {

// h = tanh(gates)
template <class T>
void rnn_forward(Index rows, Index H, T* gates, Index ldg, T* h, Index ldh) {
  for (Index r = 0; r < rows; ++r) {
    T* g = gates + r * ldg;
    T* out = h + r * ldh;
#pragma omp simd
    for (Index i = 0; i < H; ++i) out[i] = g[i] = vtanh(g[i]);
  }
}

// dgates = dh (1 - h^2)
template <class T>
void rnn_backward(Index rows, Index H, const T* h, Index ldh, const T* dh, T* dgates, Index ldg) {
  for (Index r = 0; r < rows; ++r) {
    const T* y = h + r * ldh;
    const T* d = dh + r * H;
    T* out = dgates + r * ldg;
#pragma omp simd
    for (Index i = 0; i < H; ++i) out[i] = d[i] * (T(1) - y[i] * y[i]);
  }
}

// i, f, o = sigmoid; g = tanh; c' = f c + i g; h' = o tanh(c')
template <class T>
void lstm_forward(Index rows, Index H, T* gates, Index ldg, const T* c_in, Index ldci, T* c_out, Index ldco, T* h,
                  Index ldh) {
  for (Index r = 0; r < rows; ++r) {
    T* gi = gates + r * ldg;
    T* gf = gi + H;
    T* gg = gi + 2 * H;
    T* go = gi + 3 * H;
    const T* c0 = c_in + r * ldci;
    T* c1 = c_out + r * ldco;
    T* out = h + r * ldh;
#pragma omp simd
    for (Index i = 0; i < H; ++i) {
      gi[i] = vsigmoid(gi[i]);
      gf[i] = vsigmoid(gf[i]);
      gg[i] = vtanh(gg[i]);
      go[i] = vsigmoid(go[i]);
      const T c = gf[i] * c0[i] + gi[i] * gg[i];
      c1[i] = c;
      out[i] = go[i] * vtanh(c);
    }
  }
}

template <class T>
void lstm_backward(Index rows, Index H, const T* gates, Index ldg, const T* c_in, Index ldci, const T* c_out,
                   Index ldco, const T* dh, T* dc, T* dgates, Index lddg) {
  for (Index r = 0; r < rows; ++r) {
    const T* gi = gates + r * ldg;
    const T* gf = gi + H;
    const T* gg = gi + 2 * H;
    const T* go = gi + 3 * H;
    const T* c0 = c_in + r * ldci;
    const T* c1 = c_out + r * ldco;
    const T* d = dh + r * H;
    T* carry = dc + r * H;
    T* di = dgates + r * lddg;
    T* df = di + H;
    T* dg = di + 2 * H;
    T* dO = di + 3 * H;
#pragma omp simd
    for (Index i = 0; i < H; ++i) {
      const T y = vtanh(c1[i]);  // recomputed: cheaper than a fifth saved array
      dO[i] = d[i] * y * go[i] * (T(1) - go[i]);
      const T dcell = carry[i] + d[i] * go[i] * (T(1) - y * y);
      di[i] = dcell * gg[i] * gi[i] * (T(1) - gi[i]);
      df[i] = dcell * c0[i] * gf[i] * (T(1) - gf[i]);
      dg[i] = dcell * gi[i] * (T(1) - gg[i] * gg[i]);
      carry[i] = dcell * gf[i];
    }
  }
}

// r, z = sigmoid(gates + hidden); n = tanh(gates_n + r hidden_n); h' = (1 - z) n + z h   (reset after the product)
template <class T>
void gru_forward(Index rows, Index H, T* gates, Index ldg, const T* hidden_part, Index ldp, const T* h_in, Index ldhi,
                 T* candidate_part, Index ldn, T* h, Index ldh) {
  for (Index r = 0; r < rows; ++r) {
    T* gr = gates + r * ldg;
    T* gz = gr + H;
    T* gn = gr + 2 * H;
    const T* hr = hidden_part + r * ldp;
    const T* hz = hr + H;
    const T* hn = hr + 2 * H;
    const T* h0 = h_in + r * ldhi;
    T* kept = candidate_part + r * ldn;
    T* out = h + r * ldh;
#pragma omp simd
    for (Index i = 0; i < H; ++i) {
      const T reset = vsigmoid(gr[i] + hr[i]);
      const T update = vsigmoid(gz[i] + hz[i]);
      const T candidate = vtanh(gn[i] + reset * hn[i]);
      const T before = h0[i];
      gr[i] = reset;
      gz[i] = update;
      gn[i] = candidate;
      kept[i] = hn[i];
      out[i] = (T(1) - update) * candidate + update * before;
    }
  }
}

template <class T>
void gru_backward(Index rows, Index H, const T* gates, Index ldg, const T* candidate_part, Index ldn, const T* h_in,
                  Index ldhi, const T* dh, T* dgates, Index lddg, T* dhidden_part, Index lddp, T* dh_prev) {
  for (Index r = 0; r < rows; ++r) {
    const T* gr = gates + r * ldg;
    const T* gz = gr + H;
    const T* gn = gr + 2 * H;
    const T* kept = candidate_part + r * ldn;
    const T* h0 = h_in + r * ldhi;
    const T* d = dh + r * H;
    T* dr = dgates + r * lddg;
    T* dz = dr + H;
    T* dn = dr + 2 * H;
    T* pr = dhidden_part + r * lddp;
    T* pz = pr + H;
    T* pn = pr + 2 * H;
    T* back = dh_prev + r * H;
#pragma omp simd
    for (Index i = 0; i < H; ++i) {
      const T dcandidate = d[i] * (T(1) - gz[i]) * (T(1) - gn[i] * gn[i]);
      const T dupdate = d[i] * (h0[i] - gn[i]) * gz[i] * (T(1) - gz[i]);
      const T dreset = dcandidate * kept[i] * gr[i] * (T(1) - gr[i]);
      dn[i] = dcandidate;
      pn[i] = dcandidate * gr[i];
      dz[i] = pz[i] = dupdate;
      dr[i] = pr[i] = dreset;
      back[i] = d[i] * gz[i];
    }
  }
}

template <class T>
void tanh_rows(Index rows, Index n, T* x, Index ld) {
  for (Index r = 0; r < rows; ++r) {
    T* row = x + r * ld;
#pragma omp simd
    for (Index i = 0; i < n; ++i) row[i] = vtanh(row[i]);
  }
}

template <class T>
void tanh_backward_rows(Index rows, Index n, const T* y, Index ldy, T* dy, Index ldd) {
  for (Index r = 0; r < rows; ++r) {
    const T* value = y + r * ldy;
    T* d = dy + r * ldd;
#pragma omp simd
    for (Index i = 0; i < n; ++i) d[i] *= T(1) - value[i] * value[i];
  }
}

}  // namespace
}  // namespace dhyan

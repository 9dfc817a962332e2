// Recurrent cells, one row of one step. `pre` is the input's part of the gates with the biases, `fed` a second part of
// it (or null), `hidden` h W_hh; `gates` receives the activations (and may be `pre`), which are all that backward needs
// besides the states. Backward adds `above` and `carry`, what the output and the next step say about h.
#pragma once

#include "kernels/dense_table.h"
#include "kernels/elementary.h"

namespace dhyan {
namespace {

// f(sum) with sum(i) = pre[i] + fed[i], in a loop of its own where nothing is fed.
template <class T, class F>
inline __attribute__((always_inline)) void with_input(const T* pre, const T* fed, F&& f) {
  if (fed)
    f([=](Index i) { return pre[i] + fed[i]; });
  else
    f([=](Index i) { return pre[i]; });
}

// h = tanh(pre + hidden)
template <class T>
void rnn_forward(Index H, const T* pre, const T* fed, const T* hidden, T* gates, T* h) {
  with_input(pre, fed, [=](auto input) {
#pragma omp simd
    for (Index i = 0; i < H; ++i) h[i] = gates[i] = vtanh(input(i) + hidden[i]);
  });
}

// dgates = dh (1 - h^2)
template <class T>
void rnn_backward(Index H, const T* h, const T* above, const T* carry, T* dgates) {
#pragma omp simd
  for (Index i = 0; i < H; ++i) dgates[i] = (above[i] + carry[i]) * (T(1) - h[i] * h[i]);
}

// i, f, o = sigmoid; g = tanh; c' = f c + i g; h' = o tanh(c')
template <class T>
void lstm_forward(Index H, const T* pre, const T* fed, const T* hidden, const T* c_in, T* gates, T* c_out, T* h) {
  with_input(pre, fed, [=](auto input) {
#pragma omp simd
    for (Index i = 0; i < H; ++i) {
      const T enter = vsigmoid(input(i) + hidden[i]);
      const T forget = vsigmoid(input(H + i) + hidden[H + i]);
      const T candidate = vtanh(input(2 * H + i) + hidden[2 * H + i]);
      const T out = vsigmoid(input(3 * H + i) + hidden[3 * H + i]);
      const T c = forget * c_in[i] + enter * candidate;
      gates[i] = enter;
      gates[H + i] = forget;
      gates[2 * H + i] = candidate;
      gates[3 * H + i] = out;
      c_out[i] = c;
      h[i] = out * vtanh(c);
    }
  });
}

template <class T>
void lstm_backward(Index H, const T* gates, const T* c_in, const T* c_out, const T* above, const T* carry, T* dc,
                   T* dgates) {
#pragma omp simd
  for (Index i = 0; i < H; ++i) {
    const T enter = gates[i], forget = gates[H + i], candidate = gates[2 * H + i], out = gates[3 * H + i];
    const T d = above[i] + carry[i];
    const T y = vtanh(c_out[i]);  // recomputed: cheaper than a fifth saved array
    dgates[3 * H + i] = d * y * out * (T(1) - out);
    const T dcell = dc[i] + d * out * (T(1) - y * y);
    dgates[i] = dcell * candidate * enter * (T(1) - enter);
    dgates[H + i] = dcell * c_in[i] * forget * (T(1) - forget);
    dgates[2 * H + i] = dcell * enter * (T(1) - candidate * candidate);
    dc[i] = dcell * forget;
  }
}

// r, z = sigmoid(pre + hidden); n = tanh(pre_n + r hidden_n); h' = (1 - z) n + z h   (reset after the product)
template <class T>
void gru_forward(Index H, const T* pre, const T* fed, const T* hidden, const T* h_in, T* gates, T* kept, T* h) {
  with_input(pre, fed, [=](auto input) {
#pragma omp simd
    for (Index i = 0; i < H; ++i) {
      const T reset = vsigmoid(input(i) + hidden[i]);
      const T update = vsigmoid(input(H + i) + hidden[H + i]);
      const T candidate = vtanh(input(2 * H + i) + reset * hidden[2 * H + i]);
      const T before = h_in[i];
      gates[i] = reset;
      gates[H + i] = update;
      gates[2 * H + i] = candidate;
      kept[i] = hidden[2 * H + i];
      h[i] = (T(1) - update) * candidate + update * before;
    }
  });
}

// `carry` leaves with what passes the gates by, h's own share of h'.
template <class T>
void gru_backward(Index H, const T* gates, const T* kept, const T* h_in, const T* above, T* carry, T* dgates,
                  T* dhidden) {
#pragma omp simd
  for (Index i = 0; i < H; ++i) {
    const T reset = gates[i], update = gates[H + i], candidate = gates[2 * H + i];
    const T d = above[i] + carry[i];
    const T dcandidate = d * (T(1) - update) * (T(1) - candidate * candidate);
    const T dupdate = d * (h_in[i] - candidate) * update * (T(1) - update);
    const T dreset = dcandidate * kept[i] * reset * (T(1) - reset);
    dgates[i] = dhidden[i] = dreset;
    dgates[H + i] = dhidden[H + i] = dupdate;
    dgates[2 * H + i] = dcandidate;
    dhidden[2 * H + i] = dcandidate * reset;
    carry[i] = d * update;
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

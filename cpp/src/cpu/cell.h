// One step of a recurrent cell for a few rows, forward and backward: shared by the encoder's layers and the decoder loop.
#pragma once

#include <algorithm>
#include <vector>

#include "check.h"
#include "cpu/cell_norm.h"
#include "cpu/dense.h"
#include "dhyan/recurrent.h"

namespace dhyan {

// The recurrent half of a cell, for steps of so many rows. The input half differs: one product for all steps, or a product a step.
template <class T>
struct CellWeights {
  Cell cell;
  Index H;
  Weights<T> hidden;       // W_hh
  Buffer<T> input_bias;    // what an input product starts from: bias_ih, for rnn and lstm plus bias_hh
  Buffer<T> hidden_bias;   // gru: bias_hh stays inside the reset product
  CellParameters<T> norm;  // layer normalisation, where it is normalized(): the biases come after it, and above are zeros
  Index width() const { return gates_of(cell) * H; }
};

template <class T>
CellWeights<T> cell_weights(Cell cell, const CellParameters<T>& p, Index rows) {
  CellWeights<T> w{cell, p.weight_hh[0], Weights<T>(p.weight_hh.data, p.weight_hh[0], p.weight_hh[1], rows),
                   Buffer<T>(p.bias_ih[0]), Buffer<T>(p.bias_hh[0]), p};
  if (p.normalized()) {
    w.input_bias.fill(T(0));
    w.hidden_bias.fill(T(0));
    return w;
  }
  for (Index i = 0; i < p.bias_ih[0]; ++i) {
    w.input_bias.get()[i] = p.bias_ih.data[i] + (cell == Cell::gru ? T(0) : p.bias_hh.data[i]);
    w.hidden_bias.get()[i] = p.bias_hh.data[i];
  }
  return w;
}

template <class T>
void check_cell(const char* op, const char* name, Cell cell, const CellParameters<T>& p, Index I, Index H) {
  const std::string at = std::string(name) + (*name ? "." : "");
  const Index width = gates_of(cell) * H;
  check_shape(op, (at + "weight_ih").c_str(), p.weight_ih, {{"I", I}, {"G*H", width}});
  check_shape(op, (at + "weight_hh").c_str(), p.weight_hh, {{"H", H}, {"G*H", width}});
  check_shape(op, (at + "bias_ih").c_str(), p.bias_ih, {{"G*H", width}});
  check_shape(op, (at + "bias_hh").c_str(), p.bias_hh, {{"G*H", width}});
  if (!p.normalized()) return;
  check_shape(op, (at + "gain_ih").c_str(), p.gain_ih, {{"G*H", width}});
  check_shape(op, (at + "gain_hh").c_str(), p.gain_hh, {{"G*H", width}});
}

// Variational dropout of the recurrent state (Gal & Ghahramani 2016): h W_hh reads h times a mask that is the same at every
// step of a sentence; h itself is handed on whole. Without masks it is empty and changes nothing.
template <class T>
struct StateMask {
  Buffer<T> rows, read;  // (rows,H) the slice's masks; what the product reads
  Index H = 0;

  // masks (B,H) or null, one row a sentence; row i of the slice is sentence order[i].
  void take(const T* masks, const std::vector<Index>& order, Index width) {
    if (!masks) return;
    H = width;
    rows = Buffer<T>(Index(order.size()) * H);
    read = Buffer<T>(Index(order.size()) * H);
    for (Index i = 0; i < Index(order.size()); ++i) std::copy_n(masks + order[i] * H, H, rows.get() + i * H);
  }
  explicit operator bool() const { return H > 0; }
  const T* apply(Index n, const T* h) const {
    if (!*this) return h;
    std::copy_n(h, n * H, read.get());
    dense_kernels<T>().multiply(n * H, rows.get(), read.get());
    return read.get();
  }
  void apply_row(Index i, T* row) const {
    if (*this) dense_kernels<T>().multiply(H, rows.get() + i * H, row);
  }
  void apply_here(Index n, T* x) const {
    if (*this) dense_kernels<T>().multiply(n * H, rows.get(), x);
  }
};

// Working memory of one slice of rows.
template <class T>
struct CellStep {
  Buffer<T> gates, hidden, candidate, h, c;  // (rows,G*H) (rows,G*H) (rows,H) (rows,H) (rows,H)
  StateMask<T> mask;
  CellNorm<T> norm;

  CellStep(Cell cell, Index rows, Index H, bool normalized)
      : gates(rows * gates_of(cell) * H),
        hidden(cell == Cell::gru || normalized ? rows * gates_of(cell) * H : 0),
        candidate(cell == Cell::gru ? rows * H : 0),
        h(rows * H),
        c(cell == Cell::lstm ? rows * H : 0),
        norm(normalized, rows, gates_of(cell) * H) {}

  // gates: input part with bias in, activations out; h, c: previous state in, next state out.
  void forward(const CellWeights<T>& w, Index rows, T* scratch) {
    const Index H = w.H, width = w.width();
    const auto& k = dense_kernels<T>();
    const Operand<T> state = rows_of<T>(mask.apply(rows, h.get()), H);
    if (norm) {
      norm.forward(input_sum, rows, gates.get(), w.norm.gain_ih.data, w.norm.bias_ih.data);
      product_here(rows, state, w.hidden, hidden.get(), width, scratch, static_cast<const T*>(nullptr));
      norm.forward(state_sum, rows, hidden.get(), w.norm.gain_hh.data, w.norm.bias_hh.data);
      if (w.cell != Cell::gru) k.axpy(rows * width, T(1), hidden.get(), gates.get());
    }
    switch (w.cell) {
      case Cell::rnn:
        if (!norm)
          product_here(rows, state, w.hidden, gates.get(), width, scratch, static_cast<const T*>(nullptr), true);
        return k.rnn_forward(rows, H, gates.get(), width, h.get(), H);
      case Cell::lstm:
        if (!norm)
          product_here(rows, state, w.hidden, gates.get(), width, scratch, static_cast<const T*>(nullptr), true);
        return k.lstm_forward(rows, H, gates.get(), width, c.get(), H, c.get(), H, h.get(), H);
      case Cell::gru:
        if (!norm) product_here(rows, state, w.hidden, hidden.get(), width, scratch, w.hidden_bias.get());
        return k.gru_forward(rows, H, gates.get(), width, hidden.get(), width, h.get(), H, candidate.get(), H, h.get(),
                             H);
    }
  }
};

// Whether the two sums of a cell have different gradients.
inline bool two_gradients(Cell cell, bool normalized) { return cell == Cell::gru || normalized; }

// What backward reads of one step, rows gathered from the cache.
template <class T>
struct CellStepBackward {
  Buffer<T> gates, candidate, h_in, h_out, c_in, c_out;    // activations
  Buffer<T> dgates, dhidden;                               // (rows,G*H); dhidden is dgates where it is empty
  Buffer<T> dh, dc, dh_prev;                               // dh in; dc in and out; dh_prev out
  StateMask<T> mask;
  CellNorm<T> norm;

  CellStepBackward(Cell cell, Index rows, Index H, bool normalized)
      : gates(rows * gates_of(cell) * H),
        candidate(cell == Cell::gru ? rows * H : 0),
        h_in(rows * H),
        h_out(cell == Cell::rnn ? rows * H : 0),
        c_in(cell == Cell::lstm ? rows * H : 0),
        c_out(cell == Cell::lstm ? rows * H : 0),
        dgates(rows * gates_of(cell) * H),
        dhidden(two_gradients(cell, normalized) ? rows * gates_of(cell) * H : 0),
        dh(rows * H),
        dc(cell == Cell::lstm ? rows * H : 0),
        dh_prev(rows * H),
        norm(normalized, rows, gates_of(cell) * H) {
    norm.outer = Buffer<T>(2 * rows * norm.width);
    dc.fill(T(0));
  }

  // `back` is W_hh transposed; p: the cell's parameters.
  void backward(Cell cell, Index H, const CellParameters<T>& p, const Packed<T>& back, Index rows, T* scratch) {
    const Index width = gates_of(cell) * H;
    const auto& k = dense_kernels<T>();
    switch (cell) {
      case Cell::rnn:
        k.rnn_backward(rows, H, h_out.get(), H, dh.get(), dgates.get(), width);
        break;
      case Cell::lstm:
        k.lstm_backward(rows, H, gates.get(), width, c_in.get(), H, c_out.get(), H, dh.get(), dc.get(), dgates.get(),
                        width);
        break;
      case Cell::gru:
        k.gru_backward(rows, H, gates.get(), width, candidate.get(), H, h_in.get(), H, dh.get(), dgates.get(), width,
                       dhidden.get(), width, dh_prev.get());
    }
    if (norm) {
      if (cell != Cell::gru) std::copy_n(dgates.get(), rows * width, dhidden.get());
      norm.backward(input_sum, rows, dgates.get(), p.gain_ih.data);
      norm.backward(state_sum, rows, dhidden.get(), p.gain_hh.data);
    }
    const Operand<T> d = rows_of<T>(dhidden.size() ? dhidden.get() : dgates.get(), width);
    const bool adds = cell == Cell::gru;  // then dh_prev holds what passes the gates by
    const T* none = nullptr;
    if (!mask) return product_here(rows, d, back, dh_prev.get(), H, scratch, none, adds);
    T* through = adds ? mask.read.get() : dh_prev.get();
    product_here(rows, d, back, through, H, scratch);
    mask.apply_here(rows, through);
    if (adds) k.axpy(rows * H, T(1), through, dh_prev.get());
  }
};

// What every step leaves behind for backward, one row a token.
template <class T>
struct CellTrace {
  Buffer<T> gates, candidate, h, c;
  CellNorm<T> norm;
  CellTrace() = default;
  CellTrace(Cell cell, Index N, Index H, bool normalized)
      : gates(N * gates_of(cell) * H),
        candidate(cell == Cell::gru ? N * H : 0),
        h(N * H),
        c(cell == Cell::lstm ? N * H : 0),
        norm(normalized, N, gates_of(cell) * H) {}

  void keep(Cell cell, Index H, Index row, const CellStep<T>& step, Index i) const {
    const Index width = gates_of(cell) * H;
    std::copy_n(step.gates.get() + i * width, width, gates.get() + row * width);
    std::copy_n(step.h.get() + i * H, H, h.get() + row * H);
    if (cell == Cell::lstm) std::copy_n(step.c.get() + i * H, H, c.get() + row * H);
    if (cell == Cell::gru) std::copy_n(step.candidate.get() + i * H, H, candidate.get() + row * H);
    if (norm) step.norm.keep(i, norm, row);
  }
  // `before` < 0: the step started from h0, c0 (null: zeros).
  void recall(Cell cell, Index H, Index row, Index before, const T* h0, const T* c0, const CellStepBackward<T>& step,
              Index i) const {
    const Index width = gates_of(cell) * H;
    std::copy_n(gates.get() + row * width, width, step.gates.get() + i * width);
    copy_or_zero(before < 0 ? h0 : h.get() + before * H, H, step.h_in.get() + i * H);
    if (cell == Cell::rnn) std::copy_n(h.get() + row * H, H, step.h_out.get() + i * H);
    if (cell == Cell::gru) std::copy_n(candidate.get() + row * H, H, step.candidate.get() + i * H);
    if (cell == Cell::lstm) {
      std::copy_n(c.get() + row * H, H, step.c_out.get() + i * H);
      copy_or_zero(before < 0 ? c0 : c.get() + before * H, H, step.c_in.get() + i * H);
    }
    if (norm) norm.keep(row, step.norm, i);
  }
  static void copy_or_zero(const T* from, Index n, T* to) {
    if (from)
      std::copy_n(from, n, to);
    else
      std::fill_n(to, n, T(0));
  }
};

template <class T>
T* thread_scratch() {
  static thread_local Buffer<T> scratch;
  const Index need = dense_kernels<T>().gemm_scratch;
  if (scratch.size() < need) scratch = Buffer<T>(need);
  return scratch.get();
}

}  // namespace dhyan

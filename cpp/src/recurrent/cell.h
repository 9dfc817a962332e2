// One step of a recurrent cell for a few rows, forward and backward: shared by the encoder's layers and the decoder
// loop.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "runtime/check.h"
#include "recurrent/cell_norm.h"
#include "dense/product.h"
#include "dhyan/recurrent.h"

namespace dhyan {

// The recurrent half of a cell, for steps of so many rows. The input half differs: one product for all steps, or a
// product a step.
template <class T>
struct CellWeights {
  Cell cell;
  Index H;
  Weights<T> hidden;       // W_hh
  Buffer<T> input_bias;    // what an input product starts from: bias_ih, for rnn and lstm plus bias_hh
  Buffer<T> hidden_bias;   // gru: bias_hh stays inside the reset product; empty for the others
  CellParameters<T>
      norm;  // layer normalisation, where it is normalized(): the biases come after it, and above are zeros
  Index width() const { return gates_of(cell) * H; }
};

template <class T>
CellWeights<T> cell_weights(Cell cell, const CellParameters<T>& p, Index rows) {
  CellWeights<T> w{cell,
                   p.weight_hh[0],
                   Weights<T>(p.weight_hh.data, p.weight_hh[0], p.weight_hh[1], rows),
                   Buffer<T>(p.bias_ih[0]),
                   Buffer<T>(cell == Cell::gru ? p.bias_hh[0] : 0),
                   p};
  if (p.normalized()) {
    w.input_bias.fill(T(0));
    return w;
  }
  for (Index i = 0; i < p.bias_ih[0]; ++i) {
    w.input_bias.get()[i] = p.bias_ih.data[i] + (cell == Cell::gru ? T(0) : p.bias_hh.data[i]);
    if (cell == Cell::gru) w.hidden_bias.get()[i] = p.bias_hh.data[i];
  }
  return w;
}

// N tokens as rows of `width` (-1: any).
template <class T>
void check_tokens(const char* op, const char* name, const Tokens<T>& tokens, Index N, const Axis& width,
                  const char* why) {
  if (!tokens.index) return check_shape(op, name, tokens.x, {{"N", N}, width}, why);
  check_shape(op, name, tokens.x, {{"R", -1}, width});
  check_shape(op, (std::string(name) + " index").c_str(), tokens.index, {{"N", N}}, why);
  for (Index n = 0; n < N; ++n)
    if (tokens.index.data[n] < 0 || tokens.index.data[n] >= tokens.x[0])
      throw std::out_of_range(std::string(op) + ": " + name + " index[" + std::to_string(n) + "] is " +
                              std::to_string(tokens.index.data[n]) + ", expected a row < " +
                              std::to_string(tokens.x[0]));
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

// Variational dropout of the recurrent state (Gal & Ghahramani 2016): h W_hh reads h times a mask that is the same at
// every step of a sentence; h itself is handed on whole. Without masks it is empty and changes nothing.
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

// Where a row of a step leaves what backward reads: rows of a trace, worked on in place (copies were 8 % of a small
// training step), or of the step itself, whose h and c are already there.
template <class T>
struct CellRow {
  T *gates, *candidate, *h, *c;
};

// Working memory of one slice of rows.
template <class T>
struct CellStep {
  Cell cell;
  Index H, width;
  Buffer<T> gates, hidden, candidate, h, c;  // (rows,G*H) (rows,G*H) (rows,H) (rows,H) (rows,H)
  StateMask<T> mask;
  CellNorm<T> norm;

  CellStep(Cell cell_, Index rows, Index H_, bool normalized)
      : cell(cell_),
        H(H_),
        width(gates_of(cell) * H),
        gates(rows * width),
        hidden(rows * width),
        candidate(cell == Cell::gru ? rows * H : 0),
        h(rows * H),
        c(cell == Cell::lstm ? rows * H : 0),
        norm(normalized, rows, width) {}

  CellRow<T> own(Index i) const { return {gates.get() + i * width, candidate.get() + i * H, nullptr, nullptr}; }

  // Row i of the step reads its input part (G*H) at input(i), plus, where there is one, row i of `fed`, and leaves its
  // activations at place(i), which may be the same. h, c: previous state in, next state out.
  template <class Input, class Place>
  void forward(const CellWeights<T>& w, Index rows, Input&& input, const T* fed, Place&& place, T* scratch) {
    const Operand<T> state = rows_of<T>(mask.apply(rows, h.get()), H);
    if (norm) {
      for (Index i = 0; i < rows; ++i)
        if (input(i) != gates.get() + i * width) std::copy_n(input(i), width, gates.get() + i * width);
      if (fed) dense_kernels<T>().axpy(rows * width, T(1), fed, gates.get());
      norm.forward(input_sum, rows, gates.get(), w.norm.gain_ih.data, w.norm.bias_ih.data);
      fed = nullptr;
    }
    const T* bias = cell == Cell::gru && !norm ? w.hidden_bias.get() : nullptr;
    product_here(rows, state, w.hidden, hidden.get(), width, scratch, bias);
    if (norm) norm.forward(state_sum, rows, hidden.get(), w.norm.gain_hh.data, w.norm.bias_hh.data);
    for (Index i = 0; i < rows; ++i) {
      const CellRow<T> row = place(i);
      one(norm ? gates.get() + i * width : input(i), fed ? fed + i * width : nullptr, i, row);
      if (row.h) std::copy_n(h.get() + i * H, H, row.h);
      if (row.c) std::copy_n(c.get() + i * H, H, row.c);
    }
  }

 private:
  void one(const T* pre, const T* fed, Index i, const CellRow<T>& row) const {
    const auto& k = dense_kernels<T>();
    T *state = h.get() + i * H, *memory = c.get() + i * H;
    const T* product = hidden.get() + i * width;
    switch (cell) {
      case Cell::rnn:
        return k.rnn_forward(H, pre, fed, product, row.gates, state);
      case Cell::lstm:
        return k.lstm_forward(H, pre, fed, product, memory, row.gates, memory, state);
      case Cell::gru:
        return k.gru_forward(H, pre, fed, product, state, row.gates, row.candidate, state);
    }
  }
};

// Whether the two sums of a cell have different gradients.
inline bool two_gradients(Cell cell, bool normalized) { return cell == Cell::gru || normalized; }

// What backward reads of a row of a step, where the trace keeps it.
template <class T>
struct CellMemory {
  const T *gates, *candidate, *h_in, *h_out, *c_in, *c_out;
};

// Working memory of one slice of rows.
template <class T>
struct CellStepBackward {
  Cell cell;
  Index H, width;
  Buffer<T> dgates, dhidden;  // (rows,G*H); dhidden is dgates where it is empty
  Buffer<T> dc, dh_prev;      // from the next step in, for the previous one out
  Buffer<T> zeros;            // (H) the state before the first
  StateMask<T> mask;
  CellNorm<T> norm;

  CellStepBackward(Cell cell_, Index rows, Index H_, bool normalized)
      : cell(cell_),
        H(H_),
        width(gates_of(cell) * H),
        dgates(rows * width),
        dhidden(two_gradients(cell, normalized) ? rows * width : 0),
        dc(cell == Cell::lstm ? rows * H : 0),
        dh_prev(rows * H),
        zeros(H),
        norm(normalized, rows, width) {
    norm.outer = Buffer<T>(2 * rows * norm.width);
    dc.fill(T(0));
    zeros.fill(T(0));
  }

  // memory(i): row i of the step; above(i): its dh from outside the cell. `back` is W_hh transposed; p: the cell's
  // parameters.
  template <class Remembered, class Above>
  void backward(const CellParameters<T>& p, const Packed<T>& back, Index rows, Remembered&& memory, Above&& above,
                T* scratch) {
    for (Index i = 0; i < rows; ++i) one(memory(i), above(i), i);
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
    if (adds) dense_kernels<T>().axpy(rows * H, T(1), through, dh_prev.get());
  }

 private:
  void one(const CellMemory<T>& m, const T* above, Index i) const {
    const auto& k = dense_kernels<T>();
    T *carry = dh_prev.get() + i * H, *out = dgates.get() + i * width;
    switch (cell) {
      case Cell::rnn:
        return k.rnn_backward(H, m.h_out, above, carry, out);
      case Cell::lstm:
        return k.lstm_backward(H, m.gates, m.c_in, m.c_out, above, carry, dc.get() + i * H, out);
      case Cell::gru:
        return k.gru_backward(H, m.gates, m.candidate, m.h_in, above, carry, out, dhidden.get() + i * width);
    }
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

  CellRow<T> row(const CellStep<T>& step, Index row) const {
    return {gates.get() + row * step.width, candidate.get() + row * step.H, h.get() + row * step.H,
            c.size() ? c.get() + row * step.H : nullptr};
  }
  // `before` < 0: the step started from h0, c0 (null: zeros).
  CellMemory<T> memory(const CellStepBackward<T>& step, Index row, Index before, const T* h0, const T* c0) const {
    const Index H = step.H;
    const auto previous = [&](const Buffer<T>& all, const T* first) {
      return before >= 0 ? all.get() + before * H : first ? first : step.zeros.get();
    };
    return {gates.get() + row * step.width,
            candidate.get() + row * H,
            previous(h, h0),
            h.get() + row * H,
            previous(c, c0),
            c.get() + row * H};
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

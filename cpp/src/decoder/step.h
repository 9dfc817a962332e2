// One decoder step for a few rows: the code that training, greedy and beam search share, so that they agree bit by bit.
#pragma once

#include <cmath>

#include "recurrent/cell.h"
#include "dhyan/decoder.h"

namespace dhyan {

template <class T>
struct DecoderShape {
  Index L, E, H, U, D, S;
  explicit DecoderShape(const DecoderParameters<T>& p, const Memory<T>& m, Index longest)
      : L(p.cells.size()),
        E(p.readout[1]),
        H(p.cells[0].weight_hh[0]),
        U(p.scorer.fixed() ? 0 : m.keys[1]),
        D(m.values[1]),
        S(longest) {}
};

// The sentences to read, keys prepared once.
template <class T>
struct PreparedMemory {
  Memory<T> memory;
  Ragged sources;
  std::vector<Index> offset;
  Buffer<T> prepared;

  PreparedMemory(const Scorer<T>& scorer, const Memory<T>& m)
      : memory(m), sources(m.lengths.data, m.lengths[0]), offset(m.lengths[0] + 1) {
    if (scorer.fixed()) return;
    const auto& kernels = attention_kernels<T>();
    const Index U = m.keys[1];
    for (Index b = 0; b < sources.B; ++b)
      offset[b + 1] = offset[b] + (kernels.prepared_size(scorer.term, sources.length[b], U) + 15) / 16 * 16;
    prepared = Buffer<T>(offset[sources.B]);
    parallel_for(sources.B, 16 * sources.total * U, [&](Index b) {
      kernels.prepare_keys(scorer.term, keys(b), sources.length[b], U, prepared_keys(b));
    });
  }
  const T* keys(Index b) const { return memory.keys.data + sources.start[b] * memory.keys[1]; }
  const T* values(Index b) const { return memory.values.data + sources.start[b] * memory.values[1]; }
  T* prepared_keys(Index b) const { return prepared.get() + offset[b]; }
};

struct Range {
  Index begin, end;
};
// Luong's local-m: the window's centre walks with the target position and stops at the last source position.
inline Range attended(Index length, Index position, Index radius) {
  if (radius < 0 || length == 0) return {0, length};
  const Index centre = std::min(position, length - 1);
  return {std::max<Index>(0, centre - std::min(radius, centre)),
          std::min(length, centre + 1 + std::min(radius, length))};
}

// Rows [first, first + rows) of a weight matrix as B of products of M rows, straight and transposed.
template <class T>
Weights<T> part(View<const T, 2> w, Index first, Index rows, Index M) {
  return Weights<T>(w.data + first * w[1], rows, w[1], M);
}
template <class T>
Packed<T> pack_part_transposed(View<const T, 2> w, Index first, Index rows) {
  return Packed<T>::transposed(w.data + first * w[1], w[1], rows);
}

// All weights of a decoder for steps of at most `rows` rows; `all`: rows of the products outside the loop.
template <class T>
struct DecoderWeights {
  std::vector<CellWeights<T>> cells;
  std::vector<Weights<T>> below;  // W_ih of layers 1..L-1 at [l]; [0] unused
  Weights<T> token, fed;          // W_ih of layer 0, split: embedding | context (Bahdanau) or readout (feeding)
  Weights<T> query, from_token, from_state, from_context;

  DecoderWeights(const DecoderParameters<T>& p, const DecoderShape<T>& z, Index rows, Index all) : below(z.L) {
    for (const auto& cell : p.cells) cells.push_back(cell_weights(p.cell, cell, rows));
    for (Index l = 1; l < z.L; ++l) below[l] = part(p.cells[l].weight_ih, 0, z.H, rows);
    token = part(p.cells[0].weight_ih, 0, z.E, all);
    if (p.bahdanau) fed = part(p.cells[0].weight_ih, z.E, z.D, rows);
    if (p.feeds_readout()) fed = part(p.cells[0].weight_ih, z.E, z.E, rows);
    if (p.scorer.query) query = part(p.scorer.query, 0, z.H, rows);
    const Index state = p.bahdanau ? z.E : 0, out = p.feeds_readout() ? rows : all;
    if (p.bahdanau) from_token = part(p.readout, 0, z.E, out);
    from_state = part(p.readout, state, z.H, out);
    from_context = part(p.readout, state + z.H, z.D, out);
  }
  void shrink() {
    for (auto& cell : cells) cell.hidden.shrink();
    for (auto& weights : below) weights.shrink();
    for (auto* weights : {&token, &fed, &query, &from_token, &from_state, &from_context}) weights->shrink();
  }
};

// q / |q| a row; a zero row stays zero.
template <class T>
void normalize_row(const T* q, Index n, T* out) {
  double squares = 0;
  for (Index i = 0; i < n; ++i) squares += double(q[i]) * double(q[i]);
  const double inverse = squares > 0 ? 1.0 / std::sqrt(squares) : 0.0;
  for (Index i = 0; i < n; ++i) out[i] = static_cast<T>(q[i] * inverse);
}
// dq = (dunit - unit (unit . dunit)) / |q|
template <class T>
void normalize_row_backward(const T* q, const T* unit, const T* dunit, Index n, T* dq) {
  double squares = 0, along = 0;
  for (Index i = 0; i < n; ++i) {
    squares += double(q[i]) * double(q[i]);
    along += double(unit[i]) * double(dunit[i]);
  }
  const double inverse = squares > 0 ? 1.0 / std::sqrt(squares) : 0.0;
  for (Index i = 0; i < n; ++i) dq[i] = static_cast<T>((dunit[i] - unit[i] * along) * inverse);
}

template <class T>
struct DecoderStep {
  const DecoderParameters<T>& p;
  const DecoderWeights<T>& weights;
  const PreparedMemory<T>& memory;
  DecoderShape<T> z;
  std::vector<CellStep<T>> cells;
  Buffer<T> query, context, readout, attended_weights;  // (rows,U) (rows,D) (rows,E) (rows,S)
  Buffer<T> fed;                                        // (rows,G*H) what the first layer's gates are fed
  Buffer<T> input, output;                              // (rows,H) what the top layer reads; residual: what it hands on

  DecoderStep(const DecoderParameters<T>& p_, const DecoderWeights<T>& w, const PreparedMemory<T>& m,
              const DecoderShape<T>& shape, Index rows)
      : p(p_),
        weights(w),
        memory(m),
        z(shape),
        query(rows * shape.U),
        context(rows * shape.D),
        readout(rows * shape.E),
        attended_weights(rows * shape.S),
        fed(p.bahdanau || p.feeding ? rows * cell_width() : 0),
        input(shape.L > 1 ? rows * shape.H : 0),
        output(residual() ? rows * shape.H : 0) {
    for (Index l = 0; l < z.L; ++l) cells.emplace_back(p.cell, rows, z.H, p.cells[l].normalized());
    readout.fill(T(0));
  }

  // Row i starts with the state of its sentence in h0, c0 (L,B,H).
  void start(View<const T, 3> h0, View<const T, 3> c0, const std::vector<Index>& sentence) {
    for (Index l = 0; l < z.L; ++l)
      for (Index i = 0; i < Index(sentence.size()); ++i) {
        const Index first = (l * h0[1] + sentence[i]) * z.H;
        std::copy_n(h0.data + first, z.H, cells[l].h.get() + i * z.H);
        if (p.cell == Cell::lstm) std::copy_n(c0.data + first, z.H, cells[l].c.get() + i * z.H);
      }
  }

  CellStep<T>& top() { return cells.back(); }
  bool residual() const { return p.residual && z.L > 1; }
  // What the readout reads of the layers; the query is the state itself.
  const T* handed_on() { return residual() ? output.get() : top().h.get(); }

  // sentence(i), position(i) and mask(l, i) (or null) describe row i; token(i) is its token's part of the gates, and
  // place(l, i) where its cells keep what they compute.
  template <class Sentence, class Position, class Mask, class Token, class Place>
  void run(Index rows, Sentence&& sentence, Position&& position, Mask&& mask, Token&& token, Place&& place,
           T* scratch) {
    if (p.bahdanau) {
      read(rows, sentence, position, scratch);
      product_here(rows, rows_of<T>(context.get(), z.D), weights.fed, fed.get(), cell_width(), scratch);
      run_cells(rows, mask, token, place, scratch);
    } else {
      if (p.feeding) product_here(rows, rows_of<T>(readout.get(), z.E), weights.fed, fed.get(), cell_width(), scratch);
      run_cells(rows, mask, token, place, scratch);
      read(rows, sentence, position, scratch);
    }
  }

  // readout = tanh([y;] state; context); in the Bahdanau order `readout` holds the token's part with the bias.
  void read_out(Index rows, T* scratch) {
    product_here(rows, rows_of<T>(handed_on(), z.H), weights.from_state, readout.get(), z.E, scratch,
                 p.readout_bias.data, p.bahdanau);
    product_here(rows, rows_of<T>(context.get(), z.D), weights.from_context, readout.get(), z.E, scratch, null(), true);
    dense_kernels<T>().tanh_rows(rows, z.E, readout.get(), z.E);
  }

 private:
  static const T* null() { return nullptr; }
  Index cell_width() const { return gates_of(p.cell) * z.H; }

  template <class Mask, class Token, class Place>
  void run_cells(Index rows, Mask&& mask, Token&& token, Place&& place, T* scratch) {
    const auto in_layer = [&](Index l) { return [&place, l](Index i) { return place(l, i); }; };
    cells[0].forward(weights.cells[0], rows, token, fed.size() ? fed.get() : null(), in_layer(0), scratch);
    for (Index l = 1; l < z.L; ++l) {
      const bool adds = p.residual && l > 1;  // the first layer reads [y; ...], which has another width
      for (Index i = 0; i < rows; ++i) {
        T* to = (adds ? output : input).get() + i * z.H;
        std::copy_n(cells[l - 1].h.get() + i * z.H, z.H, to);
        if (const T* m = mask(l - 1, i)) dense_kernels<T>().multiply(z.H, m, to);
      }
      if (adds) dense_kernels<T>().axpy(rows * z.H, T(1), output.get(), input.get());
      product_here(rows, rows_of<T>(input.get(), z.H), weights.below[l], cells[l].gates.get(), cell_width(), scratch,
                   static_cast<const T*>(weights.cells[l].input_bias.get()));
      const auto below = [&](Index i) { return cells[l].gates.get() + i * cell_width(); };
      cells[l].forward(weights.cells[l], rows, below, null(), in_layer(l), scratch);
    }
    if (!residual()) return;
    std::copy_n(top().h.get(), rows * z.H, output.get());
    dense_kernels<T>().axpy(rows * z.H, T(1), input.get(), output.get());
  }

  template <class Sentence, class Position>
  void read(Index rows, Sentence&& sentence, Position&& position, T* scratch) {
    const auto& k = attention_kernels<T>();
    const Scorer<T>& scorer = p.scorer;
    if (!scorer.fixed()) {
      if (scorer.query)
        product_here(rows, rows_of<T>(top().h.get(), z.H), weights.query, query.get(), z.U, scratch);
      else
        for (Index i = 0; i < rows; ++i) {
          if (scorer.normalize_query)
            normalize_row(top().h.get() + i * z.H, z.H, query.get() + i * z.U);
          else
            std::copy_n(top().h.get() + i * z.H, z.H, query.get() + i * z.U);
        }
    }
    if (scorer.rule == Rule::read) return read_outside(rows, sentence, position);
    parallel_for(rows, 8 * rows * z.S * (z.U + z.D), [&](Index i) {
      const Index b = sentence(i), t = position(i), S = memory.sources.length[b];
      T* row = attended_weights.get() + i * z.S;
      const Range range = attended(S, t, scorer.radius);
      std::fill_n(row, z.S, T(0));
      if (scorer.rule == Rule::last) {
        if (range.begin < range.end) row[range.end - 1] = T(1);
      } else if (scorer.rule == Rule::mean) {
        std::fill(row + range.begin, row + range.end, T(1) / static_cast<T>(range.end - range.begin));
      } else if (scorer.rule == Rule::given) {
        const auto& given = memory.memory.weights;
        const T* from = given.data + (b * given[1] + std::min(t, given[1] - 1)) * given[2];
        std::copy(from + range.begin, from + range.end, row + range.begin);
      } else {
        k.score_rows(scorer.term, query.get() + i * z.U, z.U, 1, memory.keys(b), memory.prepared_keys(b), S, z.U,
                     scorer.w.data, scorer.scale, &range.begin, &range.end, row);
        (scorer.sparsemax ? k.sparsemax_rows : k.softmax_rows)(row, 1, S, &range.begin, &range.end, nullptr);
      }
      k.context_rows(row, 1, memory.values(b), S, z.D, &range.begin, &range.end, context.get() + i * z.D, z.D);
    });
  }

  template <class Sentence, class Position>
  void read_outside(Index rows, Sentence&& sentence, Position&& position) {
    std::vector<Index> sentences(rows), positions(rows);
    for (Index i = 0; i < rows; ++i) sentences[i] = sentence(i), positions[i] = position(i);
    p.scorer.reader->read({sentences.data(), {rows}}, {positions.data(), {rows}}, {top().h.get(), {rows, z.H}},
                          {context.get(), {rows, z.D}}, {attended_weights.get(), {rows, z.S}});
  }
};

template <class T>
void check_masks(const char* op, const DecoderShape<T>& z, Index B, Index N, const DecoderMasks<T>& masks) {
  if (masks.between) check_shape(op, "masks", masks.between, {{"L-1", z.L - 1}, {"N", N}, {"H", z.H}});
  if (masks.state) check_shape(op, "state_masks", masks.state, {{"L", z.L}, {"B", B}, {"H", z.H}});
}

// Every shape of a decoder call, checked once.
template <class T>
void check_decoder(const char* op, const DecoderParameters<T>& p, const Memory<T>& m, Index B, View<const T, 3> h0,
                   View<const T, 3> c0, Index longest) {
  if (p.cells.empty()) fail(std::string(op) + ": there are no cells, expected at least one layer");
  const DecoderShape<T> z(p, m, longest);
  check_shape(op, "memory lengths", m.lengths, {{"B", B}});
  const Index first = z.E + (p.bahdanau ? z.D : p.feeding ? z.E : 0);
  for (Index l = 0; l < z.L; ++l)
    check_cell(op, ("cells[" + std::to_string(l) + "]").c_str(), p.cell, p.cells[l], l ? z.H : first, z.H);
  check_shape(op, "readout", p.readout, {{"[E+]H+D", (p.bahdanau ? z.E : 0) + z.H + z.D}, {"E", z.E}});
  check_shape(op, "readout bias", p.readout_bias, {{"E", z.E}});
  check_shape(op, "h0", h0, {{"L", z.L}, {"B", B}, {"H", z.H}});
  if (p.cell == Cell::lstm) check_shape(op, "c0", c0, {{"L", z.L}, {"B", B}, {"H", z.H}});
  Index positions = 0;
  for (Index b = 0; b < B; ++b) positions += m.lengths.data[b];
  check_shape(op, "values", m.values, {{"N_s", positions}, {"D", -1}}, "one row a source position");
  if (p.scorer.fixed()) {
    if (p.scorer.rule != Rule::given) return;
    if (m.weights[0] != B || m.weights[1] < 1 || m.weights[2] < longest)
      fail(std::string(op) + ": weights have shape " + shape_of(m.weights) + ", expected (B=" + std::to_string(B) +
           ", 1 or T, S=" + std::to_string(longest) + ")");
    return;
  }
  check_shape(op, "keys", m.keys, {{"N_s", positions}, {"U", -1}}, "one row a source position");
  if (p.scorer.query)
    check_shape(op, "query", p.scorer.query, {{"H", z.H}, {"U", z.U}});
  else if (z.U != z.H)
    fail(std::string(op) + ": keys have shape " + shape_of(m.keys) + ", expected (N_s, H=" + std::to_string(z.H) +
         ") to match the decoder state");
  if (p.scorer.term == Term::tanh) check_shape(op, "w", p.scorer.w, {{"U", z.U}}, "to match keys");
}

// f(slice) of a step loop: on all threads, or, where a reader is asked, here.
template <class T, class F>
void for_slices(const Scorer<T>& scorer, Index slices, Index work, F&& f) {
  if (scorer.rule != Rule::read) return parallel_for(slices, work, f);
  for (Index s = 0; s < slices; ++s) f(s);
}
template <class T>
Index step_slices(const Scorer<T>& scorer, Index rows, Index work) {
  return scorer.rule == Rule::read ? 1 : slice_count(rows, work);
}

template <class T>
Index loop_work(const DecoderShape<T>& z, Cell cell, Index N) {
  return 2 * N * (z.H + z.D) * gates_of(cell) * z.H;
}

}  // namespace dhyan

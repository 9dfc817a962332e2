// Backward of forward.cpp. The loop over steps computes only what the previous step needs (dh, dq, the fed-back
// readout); the gradients of all weights, keys and values wait until every step is known and are one product or one
// tiled pass each.
//
// One file of more than 400 lines, because it is read from its end: decoder_backward calls what stands above it in
// turn.
#include "decoder/cache.h"

namespace dhyan {
namespace {

// Everything backward needs, filled row by row in the loop and multiplied out after it.
template <class T>
struct Deferred {
  std::vector<Buffer<T>> dgates, dhidden, before;  // a layer: (N,G*H) (N,G*H where it differs) (N,H)
  std::vector<Buffer<T>> outer;                    // a layer: (N,2,G*H) before its normalisation
  Buffer<T> dreadout, dstate, dcontext;            // (N,E) before tanh, (N,H) and (N,D) from the readout
  Buffer<T> dscores, dquery, fed;                  // (N,S) (N,U) (N,E)
  Buffer<T> masked_query;                          // (N,H) the state that asks, where `before` holds it with a mask
  const T* asked = nullptr;                        // (N,H) the states that ask
};

template <class T>
struct BackwardWeights {
  std::vector<Packed<T>> hidden, below;
  Packed<T> fed, query, to_state, to_context;
};

template <class T>
void add(Index n, const T* x, T* y) {
  dense_kernels<T>().axpy(n, T(1), x, y);
}

// One call of decoder_backward.
template <class T>
struct Backward {
  const DecoderCache<T>& cache;
  const DecoderInputs<T>& in;
  View<const T, 2> dreadout, dweights;
  PreparedMemory<T> memory;
  BackwardWeights<T> weights;
  Deferred<T> d;

  const DecoderParameters<T>& p() const { return in.parameters; }
  const DecoderShape<T>& z() const { return cache.z; }
  Index N() const { return cache.targets.total; }
  Index width() const { return gates_of(p().cell) * z().H; }
  Index state() const { return p().bahdanau ? z().E : 0; }  // where the readout's weights of the state begin
};

template <class T>
BackwardWeights<T> backward_weights(const DecoderParameters<T>& p, const DecoderShape<T>& z, Index state) {
  BackwardWeights<T> back;
  back.below.resize(z.L);
  for (Index l = 0; l < z.L; ++l) {
    back.hidden.push_back(pack_part_transposed(p.cells[l].weight_hh, 0, z.H));
    if (l) back.below[l] = pack_part_transposed(p.cells[l].weight_ih, 0, z.H);
  }
  if (p.bahdanau || p.feeding) back.fed = pack_part_transposed(p.cells[0].weight_ih, z.E, p.bahdanau ? z.D : z.E);
  if (p.scorer.query) back.query = pack_part_transposed(p.scorer.query, 0, z.H);
  back.to_state = pack_part_transposed(p.readout, state, z.H);
  back.to_context = pack_part_transposed(p.readout, state + z.H, z.D);
  return back;
}

template <class T>
Deferred<T> deferred(const DecoderCache<T>& cache, const DecoderInputs<T>& in) {
  const auto& p = in.parameters;
  const auto& z = cache.z;
  const Index N = cache.targets.total, width = gates_of(p.cell) * z.H;
  Deferred<T> d;
  for (Index l = 0; l < z.L; ++l) {
    d.dgates.emplace_back(N * width);
    d.dhidden.emplace_back(two_gradients(p.cell, p.cells[l].normalized()) ? N * width : 0);
    d.outer.emplace_back(2 * N * cache.cells[l].norm.width);
    d.before.emplace_back(N * z.H);
  }
  d.dreadout = Buffer<T>(N * z.E);
  d.dcontext = Buffer<T>(N * z.D);
  d.dscores = Buffer<T>(p.scorer.fixed() ? 0 : N * z.S);
  d.dquery = Buffer<T>(N * z.U);
  d.masked_query = Buffer<T>(p.bahdanau && in.masks.state ? N * z.H : 0);
  d.asked = !p.bahdanau ? cache.cells.back().h.get() : in.masks.state ? d.masked_query.get() : d.before.back().get();
  if (p.feeds_readout()) d.fed = Buffer<T>(N * z.E);
  return d;
}

// The readouts of all steps, backward, where no step reads the one before.
template <class T>
void read_out_backward(Backward<T>& b) {
  const auto& z = b.z();
  const Index N = b.N();
  b.d.dstate = Buffer<T>(N * z.H);
  parallel_for((N + 15) / 16, N * z.E, [&](Index c) {
    const Index first = c * 16, rows = std::min<Index>(16, N - first);
    T* dr = b.d.dreadout.get() + first * z.E;
    std::copy_n(b.dreadout.data + first * z.E, rows * z.E, dr);
    dense_kernels<T>().tanh_backward_rows(rows, z.E, b.cache.readout.get() + first * z.E, z.E, dr, z.E);
  });
  product(N, rows_of<T>(b.d.dreadout.get(), z.E), b.weights.to_state, b.d.dstate.get(), z.H);
  product(N, rows_of<T>(b.d.dreadout.get(), z.E), b.weights.to_context, b.d.dcontext.get(), z.D);
}

// The steps of the sentences of a slice, from the last to the first.
template <class T>
class SliceBackward {
 public:
  SliceBackward(const Backward<T>& pass, const std::vector<Index>& sentences)
      : b(pass),
        order(sentences),
        rows(sentences.size()),
        dquery(rows * z.U),
        dstate(rows * z.H),
        dcontext(rows * z.D),
        dbelow(rows * z.H),
        dfed(rows * z.E),
        dpre(rows * z.E),
        dpassed(p.residual && z.L > 1 ? rows * z.H : 0),
        scratch(thread_scratch<T>()) {
    for (Index l = 0; l < z.L; ++l) {
      cells.emplace_back(p.cell, rows, z.H, p.cells[l].normalized());
      cells[l].mask.take(b.in.masks.states(l), order, z.H);
    }
    for (auto& cell : cells) cell.dh_prev.fill(T(0));
    dfed.fill(T(0));
  }

  void run(View<T, 3> dh0, View<T, 3> dc0) {
    for (t = rows ? b.cache.targets.length[order[0]] - 1 : -1; t >= 0; --t) {
      check_interrupt();
      while (active < rows && b.cache.targets.length[order[active]] > t) ++active;
      step();
    }
    const Index B = b.cache.targets.B;
    for (Index l = 0; l < z.L; ++l)
      for (Index i = 0; i < rows; ++i) {
        std::copy_n(cells[l].dh_prev.get() + i * z.H, z.H, dh0.data + (l * B + order[i]) * z.H);
        if (p.cell == Cell::lstm) std::copy_n(cells[l].dc.get() + i * z.H, z.H, dc0.data + (l * B + order[i]) * z.H);
      }
  }

 private:
  Index row(Index i) const { return b.cache.row(order[i], t); }

  void step() {
    if (p.feeds_readout())
      read_out_step();
    else
      for (Index i = 0; i < active; ++i) std::copy_n(b.d.dstate.get() + row(i) * z.H, z.H, dstate.get() + i * z.H);
    if (residual())
      std::copy_n(dstate.get(), active * z.H, dpassed.get());  // of what the top layer read, as it handed it on
    if (!p.bahdanau) read(dstate.get());
    for (Index l = z.L - 1; l >= 0; --l) {
      layer(l);
      if (l) below(l);
    }
    const auto dgates = rows_of<T>(cells[0].dgates.get(), b.width());
    if (p.bahdanau) {
      product_here(active, dgates, b.weights.fed, dcontext.get(), z.D, scratch);
      for (Index i = 0; i < active; ++i) add(z.D, dcontext.get() + i * z.D, b.d.dcontext.get() + row(i) * z.D);
      read(cells.back().dh_prev.get());
    } else if (p.feeds_readout()) {
      product_here(active, dgates, b.weights.fed, dfed.get(), z.E, scratch);
    }
  }
  bool residual() const { return dpassed.size() > 0; }

  // r_t = tanh(s; c): what the output layer and, fed back, the next step say about state and context.
  void read_out_step() {
    const T* none = nullptr;
    for (Index i = 0; i < active; ++i) {
      T* to = dpre.get() + i * z.E;
      std::copy_n(b.dreadout.data + row(i) * z.E, z.E, to);
      add(z.E, dfed.get() + i * z.E, to);
      dense_kernels<T>().tanh_backward_rows(1, z.E, b.cache.readout.get() + row(i) * z.E, z.E, to, z.E);
      std::copy_n(to, z.E, b.d.dreadout.get() + row(i) * z.E);
      CellTrace<T>::copy_or_zero(t > 0 ? b.cache.readout.get() + (row(i) - 1) * z.E : none, z.E,
                                 b.d.fed.get() + row(i) * z.E);
    }
    product_here(active, rows_of<T>(dpre.get(), z.E), b.weights.to_state, dstate.get(), z.H, scratch);
    product_here(active, rows_of<T>(dpre.get(), z.E), b.weights.to_context, dcontext.get(), z.D, scratch);
    for (Index i = 0; i < active; ++i) std::copy_n(dcontext.get() + i * z.D, z.D, b.d.dcontext.get() + row(i) * z.D);
  }

  // The read, backward: context -> weights -> scores -> query. dasked (rows,H) receives what flows into the state that
  // asked (added).
  void read(T* dasked) {
    if (p.scorer.rule == Rule::read) return read_outside(dasked);
    if (p.scorer.fixed()) return;
    for (Index i = 0; i < active; ++i) read_row(i);
    if (p.scorer.query)
      return product_here(active, rows_of<T>(dquery.get(), z.U), b.weights.query, dasked, z.H, scratch,
                          static_cast<const T*>(nullptr), true);
    Buffer<T> through(z.H);
    for (Index i = 0; i < active; ++i) {
      const T* from = dquery.get() + i * z.U;
      if (p.scorer.normalize_query) {
        normalize_row_backward(b.d.asked + row(i) * z.H, b.cache.query.get() + row(i) * z.U, from, z.H, through.get());
        from = through.get();
      }
      add(z.H, from, dasked + i * z.H);
    }
  }

  // dquery of row i.
  void read_row(Index i) {
    const auto& k = attention_kernels<T>();
    const Index sentence = order[i], r = row(i), S = b.memory.sources.length[sentence];
    const Range range = attended(S, t, p.scorer.radius);
    T* ds = b.d.dscores.get() + r * z.S;
    std::fill_n(ds, z.S, T(0));
    k.context_backward_rows(b.d.dcontext.get() + r * z.D, z.D, 1, b.memory.values(sentence), S, z.D, &range.begin,
                            &range.end, ds);
    if (b.dweights)
      for (Index s = range.begin; s < range.end; ++s) ds[s] += b.dweights.data[r * z.S + s];
    (p.scorer.sparsemax ? k.sparsemax_backward_rows : k.softmax_backward_rows)(b.cache.weights.get() + r * z.S, ds, 1,
                                                                               S, &range.begin, &range.end);
    T* dq = b.d.dquery.get() + r * z.U;
    k.score_backward_query_rows(p.scorer.term, ds, b.cache.query.get() + r * z.U, z.U, 1, b.memory.keys(sentence),
                                b.memory.prepared_keys(sentence), S, z.U, p.scorer.w.data, p.scorer.scale, &range.begin,
                                &range.end, dq, z.U);
    std::copy_n(dq, z.U, dquery.get() + i * z.U);
  }

  // The reader's step, backward.
  void read_outside(T* dasked) {
    const Buffer<T> dread(active * z.D), dgiven(b.dweights ? active * z.S : 0), answer(active * z.H);
    for (Index i = 0; i < active; ++i) {
      std::copy_n(b.d.dcontext.get() + row(i) * z.D, z.D, dread.get() + i * z.D);
      if (b.dweights) std::copy_n(b.dweights.data + row(i) * z.S, z.S, dgiven.get() + i * z.S);
    }
    p.scorer.reader->read_backward(t, {dread.get(), {active, z.D}},
                                   {b.dweights ? dgiven.get() : nullptr, {active, z.S}}, {answer.get(), {active, z.H}});
    add(active * z.H, static_cast<const T*>(answer.get()), dasked);
  }

  // The cells of layer l; what the gradients of its weights need is put off.
  void layer(Index l) {
    const Index B = b.cache.targets.B, width = b.width(), top = z.L - 1;
    const T* above = l == top ? dstate.get() : dbelow.get();
    const T* none = nullptr;
    const auto remembered = [&](Index i) {
      const Index start = (l * B + order[i]) * z.H;
      return b.cache.cells[l].memory(cells[l], row(i), t > 0 ? row(i) - 1 : -1, b.in.h0.data + start,
                                     b.in.c0 ? b.in.c0.data + start : none);
    };
    for (Index i = 0; i < active && cells[l].norm; ++i) b.cache.cells[l].norm.keep(row(i), cells[l].norm, i);
    cells[l].backward(
        p.cells[l], b.weights.hidden[l], active, remembered, [&](Index i) { return above + i * z.H; }, scratch);
    for (Index i = 0; i < active; ++i) {
      const Index r = row(i);
      std::copy_n(cells[l].dgates.get() + i * width, width, b.d.dgates[l].get() + r * width);
      if (b.d.dhidden[l].size())
        std::copy_n(cells[l].dhidden.get() + i * width, width, b.d.dhidden[l].get() + r * width);
      if (cells[l].norm) cells[l].norm.keep_outer(i, b.d.outer[l], r);
      std::copy_n(remembered(i).h_in, z.H, b.d.before[l].get() + r * z.H);
      if (l == top && b.d.masked_query.size()) std::copy_n(remembered(i).h_in, z.H, b.d.masked_query.get() + r * z.H);
      cells[l].mask.apply_row(i, b.d.before[l].get() + r * z.H);
    }
  }

  // dbelow: what flows from layer l into the one below.
  void below(Index l) {
    product_here(active, rows_of<T>(cells[l].dgates.get(), b.width()), b.weights.below[l], dbelow.get(), z.H, scratch);
    if (residual()) {
      add(active * z.H, static_cast<const T*>(dpassed.get()), dbelow.get());
      std::copy_n(dbelow.get(), active * z.H, dpassed.get());
    }
    if (b.in.masks.between)
      for (Index i = 0; i < active; ++i)
        dense_kernels<T>().multiply(z.H, b.in.masks.between_row(l - 1, row(i)), dbelow.get() + i * z.H);
  }

  const Backward<T>& b;
  const DecoderParameters<T>& p = b.p();
  const DecoderShape<T>& z = b.z();
  const std::vector<Index>& order;
  Index rows, active = 0, t = 0;  // of the slice, of those the sentences that have a step t, and t
  std::vector<CellStepBackward<T>> cells;
  Buffer<T> dquery, dstate, dcontext, dbelow, dfed, dpre, dpassed;
  T* scratch;
};

// dkeys, dvalues and dw: one tiled pass over all steps of a sentence.
template <class T>
void memory_backward(const Backward<T>& pass, View<T, 2> dkeys, View<T, 2> dvalues, View<T, 1> dw) {
  const auto& cache = pass.cache;
  const auto& memory = pass.memory;
  const auto& d = pass.d;
  const auto& p = pass.p();
  const auto& z = pass.z();
  const auto& k = attention_kernels<T>();
  const Index B = cache.targets.B;
  if (p.scorer.rule == Rule::read)
    return void(std::fill_n(dvalues.data, dvalues.count(), T(0)));  // the reader keeps its own
  const bool wants_w = !p.scorer.fixed() && p.scorer.term == Term::tanh;
  const Buffer<T> dw_parts(wants_w ? B * z.U : 0);
  parallel_for(B, cache.targets.total * z.S * (z.U + z.D), [&](Index b) {
    const Index S = memory.sources.length[b], steps = cache.targets.length[b], first = cache.targets.start[b];
    std::vector<Index> begin(steps), end(steps);
    std::vector<T> weights(steps * S), dscores(p.scorer.fixed() ? 0 : steps * S);
    for (Index t = 0; t < steps; ++t) {
      const Range range = attended(S, t, p.scorer.radius);
      begin[t] = range.begin;
      end[t] = range.end;
      std::copy_n(cache.weights.get() + (first + t) * z.S, S, weights.data() + t * S);
      if (!p.scorer.fixed()) std::copy_n(d.dscores.get() + (first + t) * z.S, S, dscores.data() + t * S);
    }
    k.context_backward_values(weights.data(), d.dcontext.get() + first * z.D, z.D, steps, S, z.D, begin.data(),
                              end.data(), dvalues.data + memory.sources.start[b] * z.D);
    if (p.scorer.fixed()) return;
    k.score_backward_keys(p.scorer.term, dscores.data(), cache.query.get() + first * z.U, z.U, steps, memory.keys(b),
                          memory.prepared_keys(b), S, z.U, p.scorer.w.data, p.scorer.scale, begin.data(), end.data(),
                          dkeys.data + memory.sources.start[b] * z.U, wants_w ? dw_parts.get() + b * z.U : nullptr);
  });
  if (wants_w) column_sums(B, z.U, static_cast<const T*>(dw_parts.get()), dw.data);
}

// Of what the tokens put into the gates: the gradients of their rows of W_ih, and of the tokens. `panels`: dgates,
// packed; null: they are first summed over the steps that read the same token.
template <class T>
void token_gradients(const Backward<T>& b, const Packed<T>* panels, T* dw_ih, View<T, 2> dy) {
  const auto& y = b.in.y;
  const Index R = y.x[0], E = b.z().E, width = b.width();
  const T* dinputs = b.d.dgates[0].get();
  const Buffer<T> sums(panels ? 0 : R * width);
  Packed<T> of_sums;
  if (!panels) {
    sums_by_row(b.N(), width, dinputs, y.index.data, R, sums.get());
    dinputs = sums.get();
    of_sums = Packed<T>::of(dinputs, R, width);
    panels = &of_sums;
  }
  product(E, columns_of(y.x.data, E), *panels, dw_ih, width);
  product(R, rows_of(dinputs, width), pack_part_transposed(b.p().cells[0].weight_ih, 0, E), dy.data, E);
}

// Of what layer l > 0 reads, W_ih. read_below: what the layer below read with what it handed on, both summed here.
template <class T>
void input_gradient(const Backward<T>& b, Index l, const Buffer<T>& read_below, const CellGradients<T>& gradients) {
  const Index N = b.N(), H = b.z().H;
  const bool adds = b.p().residual && l > 1;
  const Buffer<T> handed_on(adds ? N * H : 0);
  const Buffer<T>& to = adds ? handed_on : read_below;
  std::copy_n(b.cache.cells[l - 1].h.get(), N * H, to.get());
  if (b.in.masks.between) dense_kernels<T>().multiply(N * H, b.in.masks.between_row(l - 1, 0), to.get());
  if (adds) add(N * H, static_cast<const T*>(to.get()), read_below.get());
  weight_gradient<T>(N, read_below.get(), H, H, b.d.dgates[l].get(), b.width(), gradients.weight_ih.data, nullptr);
}

// The gradients of cells, query and scale, one product each over all steps.
template <class T>
void weight_gradients(const Backward<T>& b, View<T, 2> dy, DecoderGradients<T>& gradients) {
  const auto& cache = b.cache;
  const auto& p = b.p();
  const auto& z = b.z();
  const auto& d = b.d;
  const Index N = b.N(), width = b.width();
  T* dw_ih = gradients.cells[0].weight_ih.data;
  const T* dgates = d.dgates[0].get();
  const bool shared = bool(b.in.y.index);
  if (shared) token_gradients<T>(b, nullptr, dw_ih, dy);  // first, and gone before the panels of all steps are there
  const Packed<T> gates_panels = Packed<T>::of(dgates, N, width);
  if (!shared) token_gradients<T>(b, &gates_panels, dw_ih, dy);
  if (p.bahdanau)
    product(z.D, columns_of<T>(cache.context.get(), z.D), gates_panels, dw_ih + z.E * width, width);
  else if (p.feeding)
    product(z.E, columns_of<T>(d.fed.get(), z.E), gates_panels, dw_ih + z.E * width, width);
  const Buffer<T> input(z.L > 1 ? N * z.H : 0);
  for (Index l = 0; l < z.L; ++l) {
    const CellGradients<T>& g = gradients.cells[l];
    const T* dl = d.dgates[l].get();
    column_sums(N, width, dl, g.bias_ih.data);
    if (l > 0) input_gradient(b, l, input, g);
    const T* dhidden = d.dhidden[l].size() ? d.dhidden[l].get() : dl;
    const bool packed = l == 0 && dhidden == dgates;
    if (packed) weight_gradient<T>(d.before[l].get(), z.H, z.H, gates_panels, g.weight_hh.data);
    weight_gradient<T>(N, d.before[l].get(), z.H, z.H, dhidden, width, packed ? nullptr : g.weight_hh.data,
                       g.bias_hh.data);
    if (cache.cells[l].norm) norm_gradients(N, cache.cells[l].norm, d.outer[l], g);
  }
  if (p.scorer.query) weight_gradient<T>(N, d.asked, z.H, z.H, d.dquery.get(), z.U, gradients.query.data, nullptr);
  if (!p.scorer.fixed() && p.scorer.normalize_query)
    for (Index i = 0; i < N * z.U; ++i) gradients.log_scale += double(cache.query.get()[i]) * double(d.dquery.get()[i]);
}

// The gradients of readout and readout bias; Bahdanau: adds to dy.
template <class T>
void readout_gradients(const Backward<T>& b, View<T, 2> dy, DecoderGradients<T>& gradients) {
  const auto& z = b.z();
  const auto& y = b.in.y;
  const Index N = b.N(), R = y.x[0], state = b.state();
  const Packed<T> panels = Packed<T>::of(b.d.dreadout.get(), N, z.E);
  T* dw = gradients.readout.data;
  if (b.p().bahdanau) {
    const T* dtokens = b.d.dreadout.get();
    const Buffer<T> sums(y.index ? R * z.E : 0);
    if (y.index) {
      sums_by_row(N, z.E, dtokens, y.index.data, R, sums.get());
      dtokens = sums.get();
      product(z.E, columns_of(y.x.data, z.E), Packed<T>::of(dtokens, R, z.E), dw, z.E);
    } else {
      product(z.E, columns_of(y.x.data, z.E), panels, dw, z.E);
    }
    product(R, rows_of<T>(dtokens, z.E), pack_part_transposed(b.p().readout, 0, z.E), dy.data, z.E,
            static_cast<const T*>(nullptr), true);
  }
  product(z.H, columns_of<T>(b.cache.handed_on(), z.H), panels, dw + state * z.E, z.E);
  product(z.D, columns_of<T>(b.cache.context.get(), z.D), panels, dw + (state + z.H) * z.E, z.E);
  column_sums(N, z.E, static_cast<const T*>(b.d.dreadout.get()), gradients.readout_bias.data);
}

}  // namespace

template <class T>
void decoder_backward(const DecoderCache<T>& cache, const DecoderInputs<T>& in, View<const T, 2> dreadout,
                      View<const T, 2> dweights, const DecoderInputGradients<T>& inputs,
                      DecoderGradients<T>& gradients) {
  const char* op = "decoder_backward";
  const auto& p = in.parameters;
  const auto& z = cache.z;
  const Index N = cache.targets.total, B = cache.targets.B;
  check_decoder(op, p, in.memory, B, in.h0, in.c0, z.S);
  if (!std::equal(cache.sources.length.begin(), cache.sources.length.end(), in.memory.lengths.data))
    fail(std::string(op) + ": memory lengths have changed since the forward call");
  check_tokens(op, "y", in.y, N, {"E", z.E}, "one row a decoder step");
  check_shape(op, "dreadout", dreadout, {{"N", N}, {"E", z.E}});
  if (dweights) check_shape(op, "dweights", dweights, {{"N", N}, {"S", z.S}});
  check_masks(op, z, B, N, in.masks);

  Backward<T> b{cache,
                in,
                dreadout,
                dweights,
                PreparedMemory<T>(p.scorer, in.memory),
                backward_weights(p, z, p.bahdanau ? z.E : 0),
                deferred(cache, in)};
  if (!p.feeds_readout()) read_out_backward(b);
  const Index work = loop_work(z, p.cell, N);
  const auto slices = cache.targets.slices(step_slices(p.scorer, B, work));
  for_slices(p.scorer, slices.size(), work,
             [&](Index s) { SliceBackward<T>(b, slices[s]).run(inputs.dh0, inputs.dc0); });
  memory_backward(b, inputs.dkeys, inputs.dvalues, gradients.w);
  // What only the loop and the memory read makes room for the packed gradients of the gates: the peak of a step is
  // here.
  b.weights = {};
  for (Buffer<T>* done : {&b.memory.prepared, &b.d.dcontext, &b.d.dscores, &b.d.dstate}) *done = {};
  weight_gradients(b, inputs.dy, gradients);
  readout_gradients(b, inputs.dy, gradients);
}

#define DHYAN_INSTANTIATE(T)                                                                           \
  template void decoder_backward<T>(const DecoderCache<T>&, const DecoderInputs<T>&, View<const T, 2>, \
                                    View<const T, 2>, const DecoderInputGradients<T>&, DecoderGradients<T>&);
DHYAN_INSTANTIATE(float)
DHYAN_INSTANTIATE(double)
#undef DHYAN_INSTANTIATE

}  // namespace dhyan

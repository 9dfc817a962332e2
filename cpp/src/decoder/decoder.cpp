// The attention decoder over whole target sequences: one parallel region forward and one backward, threads own sentences.
// One file, because backward mirrors forward line by line and is read beside it.
//
// Backward inside the loop computes only what the previous step needs (dh, dq, the fed-back readout); the gradients of
// all weights, keys and values wait until every step is known and are one product or one tiled pass each.
#include "dhyan/decoder.h"

#include "decoder/step.h"

namespace dhyan {

template <class T>
struct DecoderCache {
  DecoderShape<T> z;
  Ragged sources, targets;
  std::vector<CellTrace<T>> cells;
  Buffer<T> query, context, weights, readout;  // (N,U) (N,D) (N,S) (N,E)
  Buffer<T> output;                            // (N,H) what the layers hand on, where they are residual
  const T* handed_on() const { return output.size() ? output.get() : cells.back().h.get(); }
  Index row(Index b, Index t) const { return targets.start[b] + t; }
};

template <class T>
std::shared_ptr<DecoderCache<T>> decoder_forward(const DecoderParameters<T>& p, const Memory<T>& memory,
                                                 const Tokens<T>& y, View<const Index, 1> steps, View<const T, 3> h0,
                                                 View<const T, 3> c0, const DecoderMasks<T>& masks, View<T, 2> readout,
                                                 View<T, 2> weights) {
  const char* op = "decoder_forward";
  const Index B = steps[0];
  const Ragged targets(steps.data, B);
  const Ragged sources(memory.lengths.data, memory.lengths[0]);
  check_decoder(op, p, memory, B, h0, c0, sources.longest);
  if (p.scorer.rule == Rule::read && !p.scorer.reader) fail(std::string(op) + ": there is no reader");
  const DecoderShape<T> z(p, memory, sources.longest);
  const Index N = targets.total, width = gates_of(p.cell) * z.H;
  check_tokens(op, "y", y, N, {"E", z.E}, "one row a decoder step");
  check_masks(op, z, B, N, masks);

  auto cache = std::make_shared<DecoderCache<T>>(DecoderCache<T>{
      z, sources, targets, {}, Buffer<T>(N * z.U), Buffer<T>(N * z.D), Buffer<T>(N * z.S), Buffer<T>(N * z.E),
      Buffer<T>(p.residual && z.L > 1 ? N * z.H : 0)});
  for (Index l = 0; l < z.L; ++l) cache->cells.emplace_back(p.cell, N, z.H, p.cells[l].normalized());
  const PreparedMemory<T> prepared(p.scorer, memory);
  const auto slices = targets.slices(step_slices(p.scorer, B, loop_work(z, p.cell, N)));
  // A slice a thread: thin products would only share the columns of a slice that is alone.
  const DecoderWeights<T> packed(p, z, slices.size() > 1 ? kThinRows + 1 : loop_rows(B), N);
  const Index R = y.x[0];
  const Buffer<T> shared(y.index ? R * width : 0);  // what tokens that are read several times put into the gates
  T* token_part = y.index ? shared.get() : cache->cells[0].gates.get();
  product(R, y.x.data, z.E, packed.token, token_part, width, static_cast<const T*>(packed.cells[0].input_bias.get()));

  const bool in_loop = !p.bahdanau && p.feeding;  // otherwise no step reads the readout, and it is one product
  for_slices(p.scorer, slices.size(), loop_work(z, p.cell, N), [&](Index s) {
    const auto& order = slices[s];
    Index active = order.size();
    DecoderStep<T> step(p, packed, prepared, z, active);
    for (Index l = 0; l < z.L; ++l) step.cells[l].mask.take(masks.states(l), order, z.H);
    for (Index l = 0; l < z.L; ++l)
      for (Index i = 0; i < active; ++i) {
        std::copy_n(h0.data + (l * B + order[i]) * z.H, z.H, step.cells[l].h.get() + i * z.H);
        if (p.cell == Cell::lstm)
          std::copy_n(c0.data + (l * B + order[i]) * z.H, z.H, step.cells[l].c.get() + i * z.H);
      }
    T* scratch = thread_scratch<T>();
    for (Index t = 0;; ++t) {
      while (active > 0 && targets.length[order[active - 1]] <= t) --active;
      if (active == 0) break;
      check_interrupt();
      const auto row = [&](Index i) { return cache->row(order[i], t); };
      step.run(
          active, [&](Index i) { return order[i]; }, [&](Index) { return t; },
          [&](Index l, Index i) { return masks.between_row(l, row(i)); },
          [&](Index i) { return token_part + y.row(row(i)) * width; },
          [&](Index l, Index i) { return cache->cells[l].row(step.cells[l], row(i)); }, scratch);
      if (in_loop) step.read_out(active, scratch);
      for (Index i = 0; i < active; ++i) {
        const Index r = row(i);
        for (Index l = 0; l < z.L; ++l)
          if (step.cells[l].norm) step.cells[l].norm.keep(i, cache->cells[l].norm, r);
        std::copy_n(step.query.get() + i * z.U, z.U, cache->query.get() + r * z.U);
        std::copy_n(step.context.get() + i * z.D, z.D, cache->context.get() + r * z.D);
        std::copy_n(step.attended_weights.get() + i * z.S, z.S, cache->weights.get() + r * z.S);
        if (step.residual()) std::copy_n(step.output.get() + i * z.H, z.H, cache->output.get() + r * z.H);
        if (in_loop) std::copy_n(step.readout.get() + i * z.E, z.E, cache->readout.get() + r * z.E);
      }
    }
  });

  if (!in_loop) {
    T* r = cache->readout.get();
    const T* bias = p.readout_bias.data;
    if (p.bahdanau) {
      const Buffer<T> rows(y.index ? R * z.E : 0);
      product(R, y.x.data, z.E, packed.from_token, y.index ? rows.get() : r, z.E, bias);
      for (Index n = 0; n < N && y.index; ++n) std::copy_n(rows.get() + y.row(n) * z.E, z.E, r + n * z.E);
    }
    product<T>(N, cache->handed_on(), z.H, packed.from_state, r, z.E, bias, p.bahdanau);
    product<T>(N, cache->context.get(), z.D, packed.from_context, r, z.E, static_cast<const T*>(nullptr),
            true);
    parallel_for((N + 15) / 16, 16 * N * z.E, [&](Index c) {
      dense_kernels<T>().tanh_rows(std::min<Index>(16, N - c * 16), z.E, r + c * 16 * z.E, z.E);
    });
  }
  std::copy_n(cache->readout.get(), N * z.E, readout.data);
  std::copy_n(cache->weights.get(), N * z.S, weights.data);
  return cache;
}

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

// The reader's step, backward. dstate (rows,H) receives what flows into the state that asked (added).
template <class T>
void read_backward_outside(const DecoderCache<T>& cache, const Reader<T>& reader, View<const T, 2> dweights,
                           const Deferred<T>& d, const std::vector<Index>& order, Index active, Index t, T* dstate) {
  const auto& z = cache.z;
  const Buffer<T> dcontext(active * z.D), asked(dweights ? active * z.S : 0), answer(active * z.H);
  for (Index i = 0; i < active; ++i) {
    const Index row = cache.row(order[i], t);
    std::copy_n(d.dcontext.get() + row * z.D, z.D, dcontext.get() + i * z.D);
    if (dweights) std::copy_n(dweights.data + row * z.S, z.S, asked.get() + i * z.S);
  }
  reader.read_backward(t, {dcontext.get(), {active, z.D}}, {dweights ? asked.get() : nullptr, {active, z.S}},
                       {answer.get(), {active, z.H}});
  add(active * z.H, static_cast<const T*>(answer.get()), dstate);
}

// The read of one slice, backward: context -> weights -> scores -> query. dstate (rows,H) receives what flows into the
// state that asked (added).
template <class T>
void read_backward(const DecoderCache<T>& cache, const DecoderParameters<T>& p, const PreparedMemory<T>& memory,
                   const Packed<T>& query_back, View<const T, 2> dweights, const Deferred<T>& d,
                   const std::vector<Index>& order, Index active, Index t, const Buffer<T>& dquery, T* dstate,
                   T* scratch) {
  if (p.scorer.rule == Rule::read)
    return read_backward_outside(cache, *p.scorer.reader, dweights, d, order, active, t, dstate);
  if (p.scorer.fixed()) return;
  const auto& z = cache.z;
  const auto& k = attention_kernels<T>();
  for (Index i = 0; i < active; ++i) {
    const Index b = order[i], row = cache.row(b, t), S = memory.sources.length[b];
    const Range range = attended(S, t, p.scorer.radius);
    T* ds = d.dscores.get() + row * z.S;
    std::fill_n(ds, z.S, T(0));
    k.context_backward_rows(d.dcontext.get() + row * z.D, z.D, 1, memory.values(b), S, z.D, &range.begin, &range.end, ds);
    if (dweights)
      for (Index s = range.begin; s < range.end; ++s) ds[s] += dweights.data[row * z.S + s];
    (p.scorer.sparsemax ? k.sparsemax_backward_rows : k.softmax_backward_rows)(cache.weights.get() + row * z.S, ds, 1,
                                                                              S, &range.begin, &range.end);
    T* dq = d.dquery.get() + row * z.U;
    k.score_backward_query_rows(p.scorer.term, ds, cache.query.get() + row * z.U, z.U, 1, memory.keys(b),
                                memory.prepared_keys(b), S, z.U, p.scorer.w.data, p.scorer.scale, &range.begin,
                                &range.end, dq, z.U);
    std::copy_n(dq, z.U, dquery.get() + i * z.U);
  }
  if (p.scorer.query)
    return product_here(active, rows_of<T>(dquery.get(), z.U), query_back, dstate, z.H, scratch,
                        static_cast<const T*>(nullptr), true);
  Buffer<T> through(z.H);
  for (Index i = 0; i < active; ++i) {
    const Index row = cache.row(order[i], t);
    const T* from = dquery.get() + i * z.U;
    if (p.scorer.normalize_query) {
      normalize_row_backward(d.asked + row * z.H, cache.query.get() + row * z.U, from, z.H, through.get());
      from = through.get();
    }
    add(z.H, from, dstate + i * z.H);
  }
}

template <class T>
void loop_backward(const DecoderCache<T>& cache, const DecoderParameters<T>& p, const PreparedMemory<T>& memory,
                   const BackwardWeights<T>& back, View<const T, 3> h0, View<const T, 3> c0, const DecoderMasks<T>& masks,
                   View<const T, 2> dreadout, View<const T, 2> dweights, const std::vector<Index>& order,
                   const Deferred<T>& d, View<T, 3> dh0, View<T, 3> dc0) {
  const auto& z = cache.z;
  const Index rows = order.size(), B = cache.targets.B;
  const Index width = gates_of(p.cell) * z.H, top = z.L - 1;
  const bool in_loop = !p.bahdanau && p.feeding, residual = p.residual && z.L > 1;
  std::vector<CellStepBackward<T>> cells;
  for (Index l = 0; l < z.L; ++l) {
    cells.emplace_back(p.cell, rows, z.H, p.cells[l].normalized());
    cells[l].mask.take(masks.states(l), order, z.H);
  }
  for (auto& cell : cells) cell.dh_prev.fill(T(0));
  Buffer<T> dquery(rows * z.U), dstate(rows * z.H), dcontext(rows * z.D), dbelow(rows * z.H);
  Buffer<T> dfed(rows * z.E), dpre(rows * z.E), dpassed(residual ? rows * z.H : 0);
  dfed.fill(T(0));
  T* scratch = thread_scratch<T>();
  const T* none = nullptr;

  Index active = 0;
  for (Index t = rows ? cache.targets.length[order[0]] - 1 : -1; t >= 0; --t) {
    check_interrupt();
    while (active < rows && cache.targets.length[order[active]] > t) ++active;
    const auto row = [&](Index i) { return cache.row(order[i], t); };
    const auto memory_of = [&](Index l, Index i) {
      return cache.cells[l].memory(cells[l], row(i), t > 0 ? row(i) - 1 : -1, h0.data + (l * B + order[i]) * z.H,
                                   c0 ? c0.data + (l * B + order[i]) * z.H : none);
    };

    // r_t = tanh([y;] s; c): what the output layer and, fed back, the next step say about state and context.
    if (in_loop) {
      for (Index i = 0; i < active; ++i) {
        T* to = dpre.get() + i * z.E;
        std::copy_n(dreadout.data + row(i) * z.E, z.E, to);
        add(z.E, dfed.get() + i * z.E, to);
        dense_kernels<T>().tanh_backward_rows(1, z.E, cache.readout.get() + row(i) * z.E, z.E, to, z.E);
        std::copy_n(to, z.E, d.dreadout.get() + row(i) * z.E);
        CellTrace<T>::copy_or_zero(t > 0 ? cache.readout.get() + (row(i) - 1) * z.E : none, z.E,
                                   d.fed.get() + row(i) * z.E);
      }
      product_here(active, rows_of<T>(dpre.get(), z.E), back.to_state, dstate.get(), z.H, scratch);
      product_here(active, rows_of<T>(dpre.get(), z.E), back.to_context, dcontext.get(), z.D, scratch);
      for (Index i = 0; i < active; ++i) std::copy_n(dcontext.get() + i * z.D, z.D, d.dcontext.get() + row(i) * z.D);
    } else {
      for (Index i = 0; i < active; ++i)
        std::copy_n(d.dstate.get() + row(i) * z.H, z.H, dstate.get() + i * z.H);
    }
    if (residual) std::copy_n(dstate.get(), active * z.H, dpassed.get());  // of what the top layer read, as it handed it on
    if (!p.bahdanau)
      read_backward(cache, p, memory, back.query, dweights, d, order, active, t, dquery, dstate.get(), scratch);

    for (Index l = top; l >= 0; --l) {
      const T* above = l == top ? dstate.get() : dbelow.get();
      const auto remembered = [&](Index i) { return memory_of(l, i); };
      for (Index i = 0; i < active && cells[l].norm; ++i) cache.cells[l].norm.keep(row(i), cells[l].norm, i);
      cells[l].backward(
          p.cells[l], back.hidden[l], active, remembered, [&](Index i) { return above + i * z.H; }, scratch);
      for (Index i = 0; i < active; ++i) {
        std::copy_n(cells[l].dgates.get() + i * width, width, d.dgates[l].get() + row(i) * width);
        if (d.dhidden[l].size())
          std::copy_n(cells[l].dhidden.get() + i * width, width, d.dhidden[l].get() + row(i) * width);
        if (cells[l].norm) cells[l].norm.keep_outer(i, d.outer[l], row(i));
        std::copy_n(remembered(i).h_in, z.H, d.before[l].get() + row(i) * z.H);
        if (l == top && d.masked_query.size())
          std::copy_n(remembered(i).h_in, z.H, d.masked_query.get() + row(i) * z.H);
        cells[l].mask.apply_row(i, d.before[l].get() + row(i) * z.H);
      }
      if (l == 0) break;
      product_here(active, rows_of<T>(cells[l].dgates.get(), width), back.below[l], dbelow.get(), z.H, scratch);
      if (residual) {
        add(active * z.H, static_cast<const T*>(dpassed.get()), dbelow.get());
        std::copy_n(dbelow.get(), active * z.H, dpassed.get());
      }
      if (masks.between)
        for (Index i = 0; i < active; ++i)
          dense_kernels<T>().multiply(z.H, masks.between_row(l - 1, row(i)), dbelow.get() + i * z.H);
    }

    if (p.bahdanau) {
      product_here(active, rows_of<T>(cells[0].dgates.get(), width), back.fed, dcontext.get(), z.D, scratch);
      for (Index i = 0; i < active; ++i) add(z.D, dcontext.get() + i * z.D, d.dcontext.get() + row(i) * z.D);
      read_backward(cache, p, memory, back.query, dweights, d, order, active, t, dquery, cells[top].dh_prev.get(),
                    scratch);
    } else if (in_loop) {
      product_here(active, rows_of<T>(cells[0].dgates.get(), width), back.fed, dfed.get(), z.E, scratch);
    }
  }
  for (Index l = 0; l < z.L; ++l)
    for (Index i = 0; i < rows; ++i) {
      std::copy_n(cells[l].dh_prev.get() + i * z.H, z.H, dh0.data + (l * B + order[i]) * z.H);
      if (p.cell == Cell::lstm) std::copy_n(cells[l].dc.get() + i * z.H, z.H, dc0.data + (l * B + order[i]) * z.H);
    }
}

// dkeys, dvalues and dw: one tiled pass over all steps of a sentence.
template <class T>
void memory_backward(const DecoderCache<T>& cache, const DecoderParameters<T>& p, const PreparedMemory<T>& memory,
                     const Deferred<T>& d, View<T, 2> dkeys, View<T, 2> dvalues, View<T, 1> dw) {
  const auto& z = cache.z;
  const auto& k = attention_kernels<T>();
  const Index B = cache.targets.B;
  if (p.scorer.rule == Rule::read) return void(std::fill_n(dvalues.data, dvalues.count(), T(0)));  // the reader keeps its own
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

}  // namespace

template <class T>
void decoder_backward(const DecoderCache<T>& cache, const DecoderParameters<T>& p, const Memory<T>& memory,
                      const Tokens<T>& y, View<const T, 3> h0, View<const T, 3> c0, const DecoderMasks<T>& masks,
                      View<const T, 2> dreadout, View<const T, 2> dweights, View<T, 2> dy, View<T, 3> dh0,
                      View<T, 3> dc0, View<T, 2> dkeys, View<T, 2> dvalues, DecoderGradients<T>& gradients) {
  const char* op = "decoder_backward";
  const auto& z = cache.z;
  const Index N = cache.targets.total, B = cache.targets.B, width = gates_of(p.cell) * z.H;
  check_decoder(op, p, memory, B, h0, c0, z.S);
  if (!std::equal(cache.sources.length.begin(), cache.sources.length.end(), memory.lengths.data))
    fail(std::string(op) + ": memory lengths have changed since the forward call");
  check_tokens(op, "y", y, N, {"E", z.E}, "one row a decoder step");
  check_shape(op, "dreadout", dreadout, {{"N", N}, {"E", z.E}});
  if (dweights) check_shape(op, "dweights", dweights, {{"N", N}, {"S", z.S}});
  check_masks(op, z, B, N, masks);
  const bool in_loop = !p.bahdanau && p.feeding;
  const Index state = p.bahdanau ? z.E : 0;

  PreparedMemory<T> prepared(p.scorer, memory);
  BackwardWeights<T> back;
  back.below.resize(z.L);
  for (Index l = 0; l < z.L; ++l) {
    back.hidden.push_back(pack_part_transposed(p.cells[l].weight_hh, 0, z.H));
    if (l) back.below[l] = pack_part_transposed(p.cells[l].weight_ih, 0, z.H);
  }
  if (p.bahdanau || p.feeding)
    back.fed = pack_part_transposed(p.cells[0].weight_ih, z.E, p.bahdanau ? z.D : z.E);
  if (p.scorer.query) back.query = pack_part_transposed(p.scorer.query, 0, z.H);
  back.to_state = pack_part_transposed(p.readout, state, z.H);
  back.to_context = pack_part_transposed(p.readout, state + z.H, z.D);

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
  d.masked_query = Buffer<T>(p.bahdanau && masks.state ? N * z.H : 0);
  d.asked = !p.bahdanau ? cache.cells.back().h.get() : masks.state ? d.masked_query.get() : d.before.back().get();
  if (in_loop) {
    d.fed = Buffer<T>(N * z.E);
  } else {
    d.dstate = Buffer<T>(N * z.H);
    parallel_for((N + 15) / 16, N * z.E, [&](Index c) {
      const Index first = c * 16, rows = std::min<Index>(16, N - first);
      std::copy_n(dreadout.data + first * z.E, rows * z.E, d.dreadout.get() + first * z.E);
      dense_kernels<T>().tanh_backward_rows(rows, z.E, cache.readout.get() + first * z.E, z.E,
                                            d.dreadout.get() + first * z.E, z.E);
    });
    product(N, rows_of<T>(d.dreadout.get(), z.E), back.to_state, d.dstate.get(), z.H);
    product(N, rows_of<T>(d.dreadout.get(), z.E), back.to_context, d.dcontext.get(), z.D);
  }

  const auto slices = cache.targets.slices(step_slices(p.scorer, B, loop_work(z, p.cell, N)));
  for_slices(p.scorer, slices.size(), loop_work(z, p.cell, N), [&](Index s) {
    loop_backward(cache, p, prepared, back, h0, c0, masks, dreadout, dweights, slices[s], d, dh0, dc0);
  });
  memory_backward(cache, p, prepared, d, dkeys, dvalues, gradients.w);
  // What only the loop and the memory read makes room for the packed gradients of the gates: the peak of a step is here.
  back = {};
  for (Buffer<T>* done : {&prepared.prepared, &d.dcontext, &d.dscores, &d.dstate}) *done = {};

  // The weights' gradients, one product each over all steps.
  const T* null = nullptr;
  T* dw_ih = gradients.cells[0].weight_ih.data;
  const T* dgates = d.dgates[0].get();
  const Index R = y.x[0];
  const auto token_gradients = [&](const T* dinputs, const Packed<T>& panels) {
    product(z.E, columns_of(y.x.data, z.E), panels, dw_ih, width);
    product(R, rows_of(dinputs, width), pack_part_transposed(p.cells[0].weight_ih, 0, z.E), dy.data, z.E);
  };
  if (y.index) {  // first, and gone before the panels of all steps are there
    const Buffer<T> sums(R * width);
    sums_by_row(N, width, dgates, y.index.data, R, sums.get());
    token_gradients(sums.get(), Packed<T>::of(sums.get(), R, width));
  }
  const Packed<T> gates_panels = Packed<T>::of(dgates, N, width);
  if (!y.index) token_gradients(dgates, gates_panels);
  if (p.bahdanau)
    product(z.D, columns_of<T>(cache.context.get(), z.D), gates_panels, dw_ih + z.E * width, width);
  else if (p.feeding)
    product(z.E, columns_of<T>(d.fed.get(), z.E), gates_panels, dw_ih + z.E * width, width);
  Buffer<T> input(z.L > 1 ? N * z.H : 0), handed_on(p.residual && z.L > 2 ? N * z.H : 0);
  for (Index l = 0; l < z.L; ++l) {
    const CellGradients<T>& g = gradients.cells[l];
    const T* dl = d.dgates[l].get();
    column_sums(N, width, dl, g.bias_ih.data);
    if (l > 0) {
      const bool adds = p.residual && l > 1;
      const Buffer<T>& to = adds ? handed_on : input;
      std::copy_n(cache.cells[l - 1].h.get(), N * z.H, to.get());
      if (masks.between) dense_kernels<T>().multiply(N * z.H, masks.between_row(l - 1, 0), to.get());
      if (adds) add(N * z.H, static_cast<const T*>(to.get()), input.get());
      weight_gradient<T>(N, input.get(), z.H, z.H, dl, width, g.weight_ih.data, nullptr);
    }
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

  const Packed<T> readout_panels = Packed<T>::of(d.dreadout.get(), N, z.E);
  T* dw = gradients.readout.data;
  if (p.bahdanau) {
    const T* dtokens = d.dreadout.get();
    const Buffer<T> sums(y.index ? R * z.E : 0);
    if (y.index) {
      sums_by_row(N, z.E, dtokens, y.index.data, R, sums.get());
      dtokens = sums.get();
      product(z.E, columns_of(y.x.data, z.E), Packed<T>::of(dtokens, R, z.E), dw, z.E);
    } else {
      product(z.E, columns_of(y.x.data, z.E), readout_panels, dw, z.E);
    }
    product(R, rows_of<T>(dtokens, z.E), pack_part_transposed(p.readout, 0, z.E), dy.data, z.E, null, true);
  }
  product(z.H, columns_of<T>(cache.handed_on(), z.H), readout_panels, dw + state * z.E, z.E);
  product(z.D, columns_of<T>(cache.context.get(), z.D), readout_panels, dw + (state + z.H) * z.E, z.E);
  column_sums(N, z.E, static_cast<const T*>(d.dreadout.get()), gradients.readout_bias.data);
}

#define DHYAN_INSTANTIATE(T)                                                                                      \
  template std::shared_ptr<DecoderCache<T>> decoder_forward<T>(                                                   \
      const DecoderParameters<T>&, const Memory<T>&, const Tokens<T>&, View<const Index, 1>, View<const T, 3>,    \
      View<const T, 3>, const DecoderMasks<T>&, View<T, 2>, View<T, 2>);                                          \
  template void decoder_backward<T>(const DecoderCache<T>&, const DecoderParameters<T>&, const Memory<T>&,        \
                                    const Tokens<T>&, View<const T, 3>, View<const T, 3>, const DecoderMasks<T>&, \
                                    View<const T, 2>, View<const T, 2>, View<T, 2>, View<T, 3>, View<T, 3>,       \
                                    View<T, 2>, View<T, 2>, DecoderGradients<T>&);
DHYAN_INSTANTIATE(float)
DHYAN_INSTANTIATE(double)
#undef DHYAN_INSTANTIATE

}  // namespace dhyan

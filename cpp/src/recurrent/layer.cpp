// Recurrent layers: the input projection of all tokens is one product; the loop adds only h @ W_hh and the gates.
// One parallel region for the whole sequence: threads own sentences, so no step waits for another thread.
#include "dhyan/recurrent.h"

#include "recurrent/cell.h"

namespace dhyan {

Cell cell_named(const std::string& name) {
  if (name == "rnn") return Cell::rnn;
  if (name == "lstm") return Cell::lstm;
  if (name == "gru") return Cell::gru;
  fail("cell is '" + name + "', expected rnn, lstm or gru");
}

Index gates_of(Cell cell) { return cell == Cell::rnn ? 1 : cell == Cell::lstm ? 4 : 3; }

template <class T>
struct RecurrentCache {
  Cell cell;
  bool reverse;
  Index H;
  Ragged sentences;
  CellTrace<T> trace;

  Index row(Index b, Index step) const {
    return sentences.start[b] + (reverse ? sentences.length[b] - 1 - step : step);
  }
};

namespace {

template <class T>
void check(const char* op, Cell cell, const Tokens<T>& x, const Ragged& r, const CellParameters<T>& p,
           View<const T, 2> h0, View<const T, 2> c0, View<const T, 2> state_mask) {
  const Index H = p.weight_hh[0];
  check_tokens(op, "x", x, r.total, {"I", -1}, "one row a token, N = the sum of the lengths");
  check_cell(op, "", cell, p, x.x[1], H);
  if (h0) check_shape(op, "h0", h0, {{"B", r.B}, {"H", H}});
  if (c0) check_shape(op, "c0", c0, {{"B", r.B}, {"H", H}});
  if (state_mask) check_shape(op, "state_mask", state_mask, {{"B", r.B}, {"H", H}});
}

// The first of `order` whose sentence is over before `step`.
Index running(const std::vector<Index>& order, const Ragged& r, Index step, Index bound) {
  while (bound > 0 && r.length[order[bound - 1]] <= step) --bound;
  return bound;
}

// output: rows `ldo` apart, as a direction is part of a wider memory.
template <class T>
std::shared_ptr<RecurrentCache<T>> run_forward(const char* op, Cell cell, bool reverse, const Tokens<T>& x,
                                               View<const Index, 1> lengths, const CellParameters<T>& p,
                                               View<const T, 2> h0, View<const T, 2> c0, View<const T, 2> state_mask,
                                               T* output, Index ldo, View<T, 2> final_h, View<T, 2> final_c) {
  const Ragged sentences(lengths.data, lengths[0]);
  check(op, cell, x, sentences, p, h0, c0, state_mask);
  const Index N = x.count(), R = x.x[0], I = x.x[1], H = p.weight_hh[0], width = gates_of(cell) * H;
  auto cache = std::make_shared<RecurrentCache<T>>(
      RecurrentCache<T>{cell, reverse, H, sentences, CellTrace<T>(cell, N, H, p.normalized())});
  // A single sentence has nobody to share its steps with: then the threads share the columns of the product.
  const auto slices = sentences.slices(slice_count(sentences.B, 2 * N * H * width));
  const CellWeights<T> weights = cell_weights(cell, p, slices.size() > 1 ? kThinRows + 1 : loop_rows(sentences.B));
  const Buffer<T> shared(x.index ? R * width : 0);  // what rows that tokens share put into the gates
  T* inputs = x.index ? shared.get() : cache->trace.gates.get();
  product<T>(R, x.x.data, I, Weights<T>(p.weight_ih.data, I, width, R), inputs, width, weights.input_bias.get());

  parallel_for(slices.size(), 2 * N * H * width, [&](Index s) {
    const auto& order = slices[s];
    const Index rows = order.size();
    CellStep<T> step(cell, rows, H, p.normalized());
    step.mask.take(state_mask.data, order, H);
    for (Index i = 0; i < rows; ++i) {
      CellTrace<T>::copy_or_zero(h0 ? h0.data + order[i] * H : nullptr, H, step.h.get() + i * H);
      if (cell == Cell::lstm)
        CellTrace<T>::copy_or_zero(c0 ? c0.data + order[i] * H : nullptr, H, step.c.get() + i * H);
    }
    T* scratch = thread_scratch<T>();
    Index active = running(order, sentences, 0, rows);
    for (Index t = 0; active > 0; active = running(order, sentences, ++t, active)) {
      check_interrupt();
      const auto row = [&](Index i) { return cache->row(order[i], t); };
      step.forward(
          weights, active, [&](Index i) { return inputs + x.row(row(i)) * width; }, nullptr,
          [&](Index i) { return cache->trace.row(step, row(i)); }, scratch);
      for (Index i = 0; i < active; ++i) {
        if (step.norm) step.norm.keep(i, cache->trace.norm, row(i));
        std::copy_n(step.h.get() + i * H, H, output + row(i) * ldo);
      }
    }
    for (Index i = 0; i < rows; ++i) {
      std::copy_n(step.h.get() + i * H, H, final_h.data + order[i] * H);
      if (cell == Cell::lstm) std::copy_n(step.c.get() + i * H, H, final_c.data + order[i] * H);
    }
  });
  return cache;
}

template <class T>
void run_backward(const char* op, const RecurrentCache<T>& cache, const Tokens<T>& x, const CellParameters<T>& p,
                  View<const T, 2> h0, View<const T, 2> c0, View<const T, 2> state_mask, const T* doutput, Index ldd,
                  View<const T, 2> dfinal_h, View<const T, 2> dfinal_c, View<T, 2> dx,
                  const CellGradients<T>& gradients, View<T, 2> dh0, View<T, 2> dc0) {
  const Cell cell = cache.cell;
  const Ragged& sentences = cache.sentences;
  check(op, cell, x, sentences, p, h0, c0, state_mask);
  const Index N = x.count(), R = x.x[0], I = x.x[1], H = cache.H, width = gates_of(cell) * H;
  if (dfinal_h) check_shape(op, "dfinal_h", dfinal_h, {{"B", sentences.B}, {"H", H}});
  if (dfinal_c) check_shape(op, "dfinal_c", dfinal_c, {{"B", sentences.B}, {"H", H}});

  const Packed<T> back = Packed<T>::transposed(p.weight_hh.data, width, H);
  const Buffer<T> dgates(N * width), dhidden(two_gradients(cell, p.normalized()) ? N * width : 0), before(N * H);
  const Buffer<T> outer(2 * N * cache.trace.norm.width);
  const auto slices = sentences.slices(slice_count(sentences.B, 2 * N * H * width));
  parallel_for(slices.size(), 2 * N * H * width, [&](Index s) {
    const auto& order = slices[s];
    const Index rows = order.size();
    CellStepBackward<T> step(cell, rows, H, p.normalized());
    step.mask.take(state_mask.data, order, H);
    for (Index i = 0; i < rows; ++i) {
      CellTrace<T>::copy_or_zero(dfinal_h ? dfinal_h.data + order[i] * H : nullptr, H, step.dh_prev.get() + i * H);
      if (cell == Cell::lstm)
        CellTrace<T>::copy_or_zero(dfinal_c ? dfinal_c.data + order[i] * H : nullptr, H, step.dc.get() + i * H);
    }
    T* scratch = thread_scratch<T>();
    Index active = 0;
    for (Index t = rows ? sentences.length[order[0]] - 1 : -1; t >= 0; --t) {
      check_interrupt();
      while (active < rows && sentences.length[order[active]] > t) ++active;
      const auto row = [&](Index i) { return cache.row(order[i], t); };
      const auto memory = [&](Index i) {
        const Index b = order[i];
        return cache.trace.memory(step, row(i), t > 0 ? cache.row(b, t - 1) : -1, h0 ? h0.data + b * H : nullptr,
                                  c0 ? c0.data + b * H : nullptr);
      };
      for (Index i = 0; i < active && step.norm; ++i) cache.trace.norm.keep(row(i), step.norm, i);
      step.backward(p, back, active, memory, [&](Index i) { return doutput + row(i) * ldd; }, scratch);
      for (Index i = 0; i < active; ++i) {
        const Index r = row(i);
        std::copy_n(step.dgates.get() + i * width, width, dgates.get() + r * width);
        if (dhidden.size()) std::copy_n(step.dhidden.get() + i * width, width, dhidden.get() + r * width);
        if (step.norm) step.norm.keep_outer(i, outer, r);
        std::copy_n(memory(i).h_in, H, before.get() + r * H);
        step.mask.apply_row(i, before.get() + r * H);
      }
    }
    for (Index i = 0; i < rows; ++i) {
      if (dh0) std::copy_n(step.dh_prev.get() + i * H, H, dh0.data + order[i] * H);
      if (dc0) std::copy_n(step.dc.get() + i * H, H, dc0.data + order[i] * H);
    }
  });

  // Everything that the next step did not need, as one product each over all tokens.
  const T* hidden = dhidden.size() ? dhidden.get() : dgates.get();
  const bool same = dhidden.size() == 0;  // the recurrent half of the gates has the input half's gradient
  const auto input_gradients = [&](const T* dinputs, const Packed<T>& panels) {
    weight_gradient<T>(x.x.data, I, I, panels, gradients.weight_ih.data);
    if (dx) product(R, rows_of<T>(dinputs, width), Packed<T>::transposed(p.weight_ih.data, width, I), dx.data, I);
  };
  if (x.index) {  // first, and gone before the panels of all steps are there
    const Buffer<T> sums(R * width);
    sums_by_row<T>(N, width, dgates.get(), x.index.data, R, sums.get());
    input_gradients(sums.get(), Packed<T>::of(sums.get(), R, width));
  } else if (!same) {
    input_gradients(dgates.get(), Packed<T>::of(dgates.get(), N, width));
  }
  const Packed<T> panels = Packed<T>::of(hidden, N, width);
  if (!x.index && same) input_gradients(dgates.get(), panels);
  weight_gradient<T>(before.get(), H, H, panels, gradients.weight_hh.data);
  column_sums(N, width, static_cast<const T*>(dgates.get()), gradients.bias_ih.data);
  column_sums(N, width, hidden, gradients.bias_hh.data);
  if (cache.trace.norm) norm_gradients(N, cache.trace.norm, outer, gradients);
}

// f(0) and f(1), the directions of a layer. Of two threads each takes one, whole: twice the rows in every product of a
// step, and nobody waits in between (3 % of a small training step, 2 to 7 % of decoding one sentence). More threads
// share the sentences of one direction after the other.
template <class F>
void for_directions(Index work, bool together, F&& f) {
  if (!together || num_threads() != 2) return f(0), f(1);
  const bool rounded = bf16_products();
  parallel_for(2, work, [&](Index d) {
    const RoundedProducts as_there(rounded);
    f(d);
  });
}

}  // namespace

template <class T>
std::shared_ptr<RecurrentCache<T>> recurrent_forward(Cell cell, bool reverse, const Tokens<T>& x,
                                                     View<const Index, 1> lengths, const CellParameters<T>& p,
                                                     View<const T, 2> h0, View<const T, 2> c0,
                                                     View<const T, 2> state_mask, View<T, 2> output, View<T, 2> final_h,
                                                     View<T, 2> final_c) {
  return run_forward<T>("recurrent_forward", cell, reverse, x, lengths, p, h0, c0, state_mask, output.data, output[1],
                        final_h, final_c);
}

template <class T>
void recurrent_backward(const RecurrentCache<T>& cache, const Tokens<T>& x, const CellParameters<T>& p,
                        View<const T, 2> h0, View<const T, 2> c0, View<const T, 2> state_mask, View<const T, 2> doutput,
                        View<const T, 2> dfinal_h, View<const T, 2> dfinal_c, View<T, 2> dx,
                        const CellGradients<T>& gradients, View<T, 2> dh0, View<T, 2> dc0) {
  const char* op = "recurrent_backward";
  check_shape(op, "doutput", doutput, {{"N", cache.sentences.total}, {"H", cache.H}});
  run_backward<T>(op, cache, x, p, h0, c0, state_mask, doutput.data, cache.H, dfinal_h, dfinal_c, dx, gradients, dh0,
                  dc0);
}

template <class T>
BothCaches<T> bidirectional_forward(Cell cell, const Tokens<T>& x, View<const Index, 1> lengths,
                                    const std::array<CellParameters<T>, 2>& p,
                                    const std::array<View<const T, 2>, 2>& state_mask, View<T, 2> output,
                                    const std::array<View<T, 2>, 2>& final_h,
                                    const std::array<View<T, 2>, 2>& final_c) {
  const char* op = "bidirectional_forward";
  const Index H = p[0].weight_hh[0], width = gates_of(cell) * H;
  check_cell(op, "backward", cell, p[1], x.x[1], H);
  BothCaches<T> caches;
  for_directions(2 * x.count() * (x.x[1] + H) * width, true, [&](Index d) {
    caches[d] = run_forward<T>(op, cell, d == 1, x, lengths, p[d], {}, {}, state_mask[d], output.data + d * H, 2 * H,
                               final_h[d], final_c[d]);
  });
  return caches;
}

template <class T>
void bidirectional_backward(const BothCaches<T>& cache, const Tokens<T>& x, const std::array<CellParameters<T>, 2>& p,
                            const std::array<View<const T, 2>, 2>& state_mask, View<const T, 2> doutput,
                            const std::array<View<const T, 2>, 2>& dfinal_h, View<T, 2> dx,
                            const std::array<CellGradients<T>, 2>& gradients) {
  const char* op = "bidirectional_backward";
  const Index N = cache[0]->sentences.total, H = cache[0]->H, width = gates_of(cache[0]->cell) * H;
  check_shape(op, "doutput", doutput, {{"N", N}, {"2*H", 2 * H}});
  const Buffer<T> second(dx ? dx.count() : 0);
  // What a direction holds meanwhile is not worth its memory where it is large: a long pass waits little.
  const bool together = N * width * Index(sizeof(T)) <= Index(4) << 20;
  for_directions(4 * N * (x.x[1] + H) * width, together, [&](Index d) {
    const View<T, 2> into{dx && d ? second.get() : dx.data, x.x.size};
    run_backward<T>(op, *cache[d], x, p[d], {}, {}, state_mask[d], doutput.data + d * H, 2 * H, dfinal_h[d], {}, into,
                    gradients[d], {}, {});
  });
  if (!dx) return;
  const Index R = x.x[0], I = x.x[1];
  parallel_for((R + 63) / 64, R * I, [&](Index i) {
    const Index first = i * 64 * I, last = std::min(R, (i + 1) * 64) * I;
    dense_kernels<T>().axpy(last - first, T(1), second.get() + first, dx.data + first);
  });
}

#define DHYAN_INSTANTIATE(T)                                                                                           \
  template std::shared_ptr<RecurrentCache<T>> recurrent_forward<T>(                                                    \
      Cell, bool, const Tokens<T>&, View<const Index, 1>, const CellParameters<T>&, View<const T, 2>,                  \
      View<const T, 2>, View<const T, 2>, View<T, 2>, View<T, 2>, View<T, 2>);                                         \
  template void recurrent_backward<T>(const RecurrentCache<T>&, const Tokens<T>&, const CellParameters<T>&,            \
                                      View<const T, 2>, View<const T, 2>, View<const T, 2>, View<const T, 2>,          \
                                      View<const T, 2>, View<const T, 2>, View<T, 2>, const CellGradients<T>&,         \
                                      View<T, 2>, View<T, 2>);                                                         \
  template BothCaches<T> bidirectional_forward<T>(Cell, const Tokens<T>&, View<const Index, 1>,                        \
                                                  const std::array<CellParameters<T>, 2>&,                             \
                                                  const std::array<View<const T, 2>, 2>&, View<T, 2>,                  \
                                                  const std::array<View<T, 2>, 2>&, const std::array<View<T, 2>, 2>&); \
  template void bidirectional_backward<T>(                                                                             \
      const BothCaches<T>&, const Tokens<T>&, const std::array<CellParameters<T>, 2>&,                                 \
      const std::array<View<const T, 2>, 2>&, View<const T, 2>, const std::array<View<const T, 2>, 2>&, View<T, 2>,    \
      const std::array<CellGradients<T>, 2>&);
DHYAN_INSTANTIATE(float)
DHYAN_INSTANTIATE(double)
#undef DHYAN_INSTANTIATE

}  // namespace dhyan

// The decoder one step at a time: what greedy and beam search run on. A few sentences read the weights where they lie,
// all threads sharing the columns of every product; many have them packed once, and threads share the sentences.
#include <limits>

#include "decoder/beam.h"
#include "decoder/step_weights.h"

namespace dhyan {

template <class T>
StepWeights<T>::StepWeights(const DecoderParameters<T>& p, View<const T, 2> table, View<const T, 2> output,
                            View<const T, 1> output_bias, bool shrunk) {
  const char* op = "StepWeights";
  check_shape(op, "output", output, {{"E", p.readout[1]}, {"V", -1}});
  check_shape(op, "output bias", output_bias, {{"V", output[1]}});
  check_shape(op, "target embedding", table, {{"V", output[1]}, {"E", p.readout[1]}});
  parts_ = std::make_unique<Parts>(p, table, output, output_bias, shrunk);
}
template <class T>
StepWeights<T>::~StepWeights() = default;

template <class T>
struct Stepper<T>::Parts {
  std::shared_ptr<const StepWeights<T>> owner;
  const typename StepWeights<T>::Parts& w;
  PreparedMemory<T> memory;
  DecoderShape<T> z;
  const typename StepWeights<T>::Parts::Form& form;
  Shortlist<T> shortlist;

  Parts(std::shared_ptr<const StepWeights<T>> weights, const Memory<T>& m, const Choices& chosen)
      : owner(std::move(weights)),
        w(owner->parts()),
        memory(w.p.scorer, m),
        z(w.p, m, memory.sources.longest),
        form(w.form(z, m.lengths[0])),
        shortlist(w, chosen, m.lengths[0], loop_rows(m.lengths[0])) {}

  bool thin() const { return form.output.thin(); }
  // The output layer over what may be chosen: n columns, column i being token id(i).
  bool whole() const { return shortlist.ids.empty(); }
  Index columns() const { return whole() ? w.V : Index(shortlist.ids.size()); }
  const Weights<T>& output() const { return whole() ? form.output : shortlist.output; }
  const T* output_bias() const { return whole() ? w.output_bias.data : shortlist.bias.get(); }
  Index id(Index column) const { return whole() ? column : shortlist.ids[column]; }
  // Leaves in front of a row of logits those of what the sentence may choose.
  Candidates candidates(Index sentence, T* row) const {
    return whole() ? Candidates{w.V, nullptr} : shortlist.gather(sentence, row);
  }
  // The K largest log-probabilities of a row of logits, largest first, and their tokens; where the sentence may choose
  // fewer the rest is -inf. False: the row is no logits of a distribution. row is overwritten.
  bool largest(Index sentence, T* row, Index K, T* found, Index* tokens) const {
    const Candidates own = candidates(sentence, row);
    const Index k = std::min(K, own.count);
    T total;
    const T log_sum = dense_kernels<T>().log_sum_exp(row, own.count, &total);
    dense_kernels<T>().largest(row, own.count, log_sum, k, found, tokens);
    for (Index i = 0; i < k; ++i) tokens[i] = own.id(tokens[i]);
    std::fill(found + k, found + K, -std::numeric_limits<T>::infinity());
    std::fill(tokens + k, tokens + K, Index(0));
    return std::isfinite(log_sum);
  }

  // One step of `rows` rows on the calling thread; thin products find themselves more threads.
  template <class Token, class Sentence, class Position>
  void step(DecoderStep<T>& s, Index rows, Token&& token, Sentence&& sentence, Position&& position) const {
    T* scratch = thread_scratch<T>();
    w.add_tokens(form, z, rows, token, s.cells[0].gates.get(), s.readout.get());
    s.run(
        rows, sentence, position, [](Index, Index) { return static_cast<const T*>(nullptr); },
        [&](Index i) { return s.cells[0].own(i).gates; }, [&](Index l, Index i) { return s.cells[l].own(i); }, scratch);
    s.read_out(rows, scratch);
  }
  void advance(const char* op, const StepInput<T>& in, const StepOutput<T>& out) const;
};

template <class T>
Stepper<T>::Stepper(std::shared_ptr<const StepWeights<T>> weights, const Memory<T>& memory,
                    const Choices& choices) {
  const DecoderParameters<T>& p = weights->parts().p;
  const Index B = memory.lengths[0], L = p.cells.size(), H = L ? p.cells[0].weight_hh[0] : 0;
  Index longest = 0;
  for (Index b = 0; b < B; ++b) longest = std::max(longest, memory.lengths.data[b]);
  View<const T, 3> state{nullptr, {L, B, H}};
  check_decoder("Stepper", p, memory, B, state, state, longest);
  parts_ = std::make_unique<Parts>(std::move(weights), memory, choices);
}

template <class T>
Stepper<T>::~Stepper() = default;

template <class T>
Index Stepper<T>::layers() const { return parts_->z.L; }
template <class T>
Index Stepper<T>::hidden() const { return parts_->z.H; }
template <class T>
Index Stepper<T>::embedding() const { return parts_->z.E; }
template <class T>
Index Stepper<T>::vocabulary() const { return parts_->w.V; }
template <class T>
Index Stepper<T>::choices() const { return parts_->columns(); }
template <class T>
Index Stepper<T>::longest() const { return parts_->z.S; }
template <class T>
Index Stepper<T>::sentences() const { return parts_->memory.sources.B; }

// Checks everything and runs the step up to the readout.
template <class T>
void Stepper<T>::Parts::advance(const char* op, const StepInput<T>& in, const StepOutput<T>& out) const {
  const Index N = in.token[0], B = memory.sources.B;
  check_shape(op, "sentence", in.sentence, {{"N", N}}, "to match token");
  check_shape(op, "position", in.position, {{"N", N}}, "to match token");
  check_shape(op, "h", in.h, {{"L", z.L}, {"N", N}, {"H", z.H}});
  if (w.p.cell == Cell::lstm) check_shape(op, "c", in.c, {{"L", z.L}, {"N", N}, {"H", z.H}});
  check_shape(op, "readout", in.readout, {{"N", N}, {"E", z.E}});
  for (Index i = 0; i < N; ++i) {
    if (in.token.data[i] < 0 || in.token.data[i] >= w.V)
      throw std::out_of_range(std::string(op) + ": token[" + std::to_string(i) + "] is " +
                              std::to_string(in.token.data[i]) + ", expected 0 <= id < " + std::to_string(w.V));
    if (in.sentence.data[i] < 0 || in.sentence.data[i] >= B)
      throw std::out_of_range(std::string(op) + ": sentence[" + std::to_string(i) + "] is " +
                              std::to_string(in.sentence.data[i]) + ", expected an index < " + std::to_string(B));
    if (in.position.data[i] < 0)
      fail(std::string(op) + ": position[" + std::to_string(i) + "] is negative, expected at least 0");
  }
  DecoderParameters<T> p = w.p;
  p.scorer.reader = in.reader;
  if (p.scorer.rule == Rule::read && !in.reader) fail(std::string(op) + ": there is no reader");
  const Index work = loop_work(z, p.cell, N), slices = thin() ? 1 : step_slices(p.scorer, N, work);
  for_slices(p.scorer, slices, work, [&](Index s) {
    const Index first = N * s / slices, rows = N * (s + 1) / slices - first;
    DecoderStep<T> step_(p, form.decoder, memory, z, rows);
    std::copy_n(in.readout.data + first * z.E, rows * z.E, step_.readout.get());
    for (Index l = 0; l < z.L; ++l) {
      std::copy_n(in.h.data + (l * N + first) * z.H, rows * z.H, step_.cells[l].h.get());
      if (p.cell == Cell::lstm) std::copy_n(in.c.data + (l * N + first) * z.H, rows * z.H, step_.cells[l].c.get());
    }
    step(step_, rows, [&](Index i) { return in.token.data[first + i]; },
         [&](Index i) { return in.sentence.data[first + i]; }, [&](Index i) { return in.position.data[first + i]; });
    for (Index l = 0; l < z.L; ++l) {
      std::copy_n(step_.cells[l].h.get(), rows * z.H, out.h.data + (l * N + first) * z.H);
      if (p.cell == Cell::lstm) std::copy_n(step_.cells[l].c.get(), rows * z.H, out.c.data + (l * N + first) * z.H);
    }
    std::copy_n(step_.readout.get(), rows * z.E, out.readout.data + first * z.E);
    std::copy_n(step_.attended_weights.get(), rows * z.S, out.weights.data + first * z.S);
  });
}

template <class T>
void Stepper<T>::step(const StepInput<T>& in, const StepOutput<T>& out, View<T, 2> log_probabilities) const {
  const Parts& d = *parts_;
  const Index N = in.token[0], V = d.w.V, n = d.columns();
  d.advance("Stepper.step", in, out);
  const Buffer<T> listed(d.whole() ? 0 : N * n);
  T* logits = d.whole() ? log_probabilities.data : listed.get();
  product<T>(N, out.readout.data, d.z.E, d.output(), logits, n, d.output_bias());
  parallel_for(N, 16 * N * n, [&](Index i) {
    T total, *row = logits + i * n;
    const Candidates own = d.candidates(in.sentence.data[i], row);
    const T log_sum = dense_kernels<T>().log_sum_exp(row, own.count, &total);
    for (Index v = 0; v < own.count; ++v) row[v] -= log_sum;
    if (d.whole()) return;
    T* all = log_probabilities.data + i * V;
    std::fill_n(all, V, -std::numeric_limits<T>::infinity());
    for (Index v = 0; v < own.count; ++v) all[own.id(v)] = row[v];
  });
}

template <class T>
void Stepper<T>::step_top(const StepInput<T>& in, const StepOutput<T>& out, View<T, 2> log_probabilities,
                          View<Index, 2> ids) const {
  const Parts& d = *parts_;
  const Index N = in.token[0], V = d.columns(), K = ids[1];
  if (K > V) fail("Stepper.step_top: K is " + std::to_string(K) + ", expected at most " + std::to_string(V));
  d.advance("Stepper.step_top", in, out);
  const Buffer<T> logits(N * V);
  product<T>(N, out.readout.data, d.z.E, d.output(), logits.get(), V, d.output_bias());
  parallel_for(N, 16 * N * V, [&](Index i) {
    T* found = log_probabilities.data + i * K;
    if (!d.largest(in.sentence.data[i], logits.get() + i * V, K, found, ids.data + i * K))
      std::fill_n(found, K, std::numeric_limits<T>::quiet_NaN());  // not only where it is met
  });
}

// NaN or infinity: the row is no logits of a distribution, and has no likeliest.
template <class T>
bool unusable(const T* row, Index n) {
  int bad = 0;
  for (Index i = 0; i < n; ++i) bad |= !(row[i] < std::numeric_limits<T>::infinity());
  return bad;
}

template <class T>
Index Stepper<T>::greedy(View<const T, 3> h0, View<const T, 3> c0, Index begin, Index end, Index pad,
                         View<const Index, 1> limit, View<Index, 2> ids, View<T, 3> weights) const {
  const char* op = "Stepper.greedy";
  const Parts& d = *parts_;
  const auto& z = d.z;
  const Index B = sentences(), V = d.columns();
  const bool lstm = d.w.p.cell == Cell::lstm;
  check_shape(op, "h0", h0, {{"L", z.L}, {"B", B}, {"H", z.H}});
  if (lstm) check_shape(op, "c0", c0, {{"L", z.L}, {"B", B}, {"H", z.H}});
  check_shape(op, "limit", limit, {{"B", B}});
  if (d.w.p.scorer.rule == Rule::read) fail(std::string(op) + ": a scoring with a reader goes step by step");
  std::fill_n(ids.data, ids.count(), pad);
  std::fill_n(weights.data, weights.count(), T(0));
  // Threads own sentences, and one that is finished leaves: nobody waits for the longest output of the batch.
  const Index work = loop_work(z, d.w.p.cell, B) + 2 * B * z.E * V, slices = d.thin() ? 1 : slice_count(B, work);
  std::vector<Index> longest(slices, 0);
  parallel_for(slices, work * 16, [&](Index s) {
    const Index first = B * s / slices, rows = B * (s + 1) / slices - first;
    std::vector<Index> sentence;
    for (Index i = 0; i < rows; ++i)
      if (std::min(limit.data[first + i], ids[1]) > 0) sentence.push_back(first + i);
    Index active = sentence.size();
    DecoderStep<T> step(d.w.p, d.form.decoder, d.memory, z, active);
    const Buffer<T> logits(active * V);
    std::vector<Index> token(active, begin);
    const auto layer = [&](Index i, Index count) {  // logits of rows i, i + 1, ...
      product_here(count, rows_of<T>(step.readout.get() + i * z.E, z.E), d.output(), logits.get() + i * V, V,
                   thread_scratch<T>(), d.output_bias());
    };
    const Screen* screen = d.thin() && d.whole() ? d.w.screen(active, z.E, ids[1]) : nullptr;
    const BatchScreen* batch_screen = d.whole() ? d.w.batch_screen(d.form, z.E, B, ids[1]) : nullptr;
    std::vector<Index> screened(batch_screen ? active : 0);
    const auto likeliest = [&](Index i) {
      if constexpr (std::is_same_v<T, float>)
        if (screen || batch_screen) {
          const Index best = screen ? screen->best(step.readout.get() + i * z.E) : screened[i];
          if (best >= 0) return best;
          layer(i, 1);
        }
      if (!d.whole()) d.shortlist.restrict(sentence[i], logits.get() + i * V);
      // Where the screen answers, everything is finite.
      return unusable(logits.get() + i * V, V) ? Index(-1) : dense_kernels<T>().arg_max(logits.get() + i * V, V);
    };
    for (Index i = 0; i < active; ++i)
      for (Index l = 0; l < z.L; ++l) {
        std::copy_n(h0.data + (l * B + sentence[i]) * z.H, z.H, step.cells[l].h.get() + i * z.H);
        if (lstm) std::copy_n(c0.data + (l * B + sentence[i]) * z.H, z.H, step.cells[l].c.get() + i * z.H);
      }
    for (Index t = 0; active > 0; ++t) {
      check_interrupt();
      d.step(step, active, [&](Index i) { return token[i]; }, [&](Index i) { return sentence[i]; },
             [&](Index) { return t; });
      if constexpr (std::is_same_v<T, float>)
        if (batch_screen)
          batch_screen->best(active, step.readout.get(), logits.get(), thread_scratch<T>(), screened.data());
      if (!screen && !batch_screen) layer(0, active);
      Index kept = 0;
      for (Index i = 0; i < active; ++i) {
        const Index found = likeliest(i), best = found < 0 ? found : d.id(found), b = sentence[i];
        ids.data[b * ids[1] + t] = best;
        std::copy_n(step.attended_weights.get() + i * z.S, z.S, weights.data + (b * weights[1] + t) * weights[2]);
        if (best == end || best < 0 || t + 1 >= std::min(limit.data[b], ids[1])) {
          longest[s] = std::max(longest[s], t + 1);
          continue;
        }
        sentence[kept] = b;
        token[kept] = best;
        if (kept < i) {
          for (Index l = 0; l < z.L; ++l) {
            std::copy_n(step.cells[l].h.get() + i * z.H, z.H, step.cells[l].h.get() + kept * z.H);
            if (lstm)
              std::copy_n(step.cells[l].c.get() + i * z.H, z.H, step.cells[l].c.get() + kept * z.H);
          }
          std::copy_n(step.readout.get() + i * z.E, z.E, step.readout.get() + kept * z.E);
        }
        ++kept;
      }
      active = kept;
    }
  });
  return slices ? *std::max_element(longest.begin(), longest.end()) : 0;
}

template <class T>
Index Stepper<T>::beam(View<const T, 3> h0, View<const T, 3> c0, const BeamOptions& options,
                       const BeamOutput<T>& out) const {
  const char* op = "Stepper.beam";
  const Parts& d = *parts_;
  const auto& z = d.z;
  const Index B = sentences(), V = d.columns(), K = std::min(options.beam, V);
  const bool lstm = d.w.p.cell == Cell::lstm;
  check_shape(op, "h0", h0, {{"L", z.L}, {"B", B}, {"H", z.H}});
  if (lstm) check_shape(op, "c0", c0, {{"L", z.L}, {"B", B}, {"H", z.H}});
  check_shape(op, "limit", options.limit, {{"B", B}});
  if (options.beam < 1 || options.nbest < 1) fail(std::string(op) + ": beam and nbest are expected to be at least 1");
  if (d.w.p.scorer.rule == Rule::read) fail(std::string(op) + ": a scoring with a reader goes step by step");
  std::fill_n(out.steps.data, out.steps.count(), Index(0));
  // As in greedy: threads own sentences, unless they share the columns of every product.
  const Index work = options.beam * (loop_work(z, d.w.p.cell, B) + 2 * B * z.E * V);
  const Index slices = d.thin() ? 1 : slice_count(B, work);
  std::vector<Index> nan(slices, 0);
  parallel_for(slices, work * 16, [&](Index s) {
    std::vector<Index> own;
    for (Index b = B * s / slices; b < B * (s + 1) / slices; ++b)
      if (options.limit.data[b] > 0) own.push_back(b);
    const Index most = own.size() * options.beam;
    DecoderStep<T> step(d.w.p, d.form.decoder, d.memory, z, most);
    const Buffer<T> logits(most * V), best(most * K), spare(most * std::max(z.H, z.E));
    std::vector<Index> ids(most * K);
    for (Index i = 0; i < Index(own.size()); ++i)
      for (Index l = 0; l < z.L; ++l) {
        std::copy_n(h0.data + (l * B + own[i]) * z.H, z.H, step.cells[l].h.get() + i * z.H);
        if (lstm) std::copy_n(c0.data + (l * B + own[i]) * z.H, z.H, step.cells[l].c.get() + i * z.H);
      }
    Beam<T> open(options, out, std::move(own), z.S);
    for (Index t = 0; !open.sentence.empty(); ++t) {
      check_interrupt();
      const Index rows = open.sentence.size();
      d.step(
          step, rows, [&](Index i) { return open.token[i]; }, [&](Index i) { return open.sentence[i]; },
          [&](Index) { return t; });
      product_here(rows, rows_of<T>(step.readout.get(), z.E), d.output(), logits.get(), V, thread_scratch<T>(),
                   d.output_bias());
      std::atomic<bool> good{true};
      parallel_for(rows, 16 * rows * V, [&](Index i) {
        if (!d.largest(open.sentence[i], logits.get() + i * V, K, best.get() + i * K, ids.data() + i * K)) good = false;
      });
      if (!good) {
        nan[s] = t + 1;
        return;
      }
      open.step(best.get(), ids.data(), K, step.attended_weights.get());
      const auto reorder = [&](T* data, Index width) {
        const auto& parents = open.parents();
        for (std::size_t i = 0; i < parents.size(); ++i)
          std::copy_n(data + parents[i] * width, width, spare.get() + Index(i) * width);
        std::copy_n(spare.get(), Index(parents.size()) * width, data);
      };
      for (Index l = 0; l < z.L; ++l) {
        reorder(step.cells[l].h.get(), z.H);
        if (lstm) reorder(step.cells[l].c.get(), z.H);
      }
      reorder(step.readout.get(), z.E);
    }
  });
  Index first = 0;
  for (const Index t : nan)
    if (t > 0 && (first == 0 || t < first)) first = t;
  return first;
}

template class StepWeights<float>;
template class StepWeights<double>;
template class Stepper<float>;
template class Stepper<double>;

}  // namespace dhyan

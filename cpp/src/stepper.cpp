// The decoder one step at a time: what greedy and beam search run on. A few sentences read the weights where they lie,
// all threads sharing the columns of every product; many have them packed once, and threads share the sentences.
#include <type_traits>

#include "cpu/decoder_step.h"
#include "cpu/screen.h"

namespace dhyan {
namespace {
constexpr Index kScreenedRows = 3;  // from here on reading all weights once costs less than the bytes once a row

template <class T>
Index arg_max(const T* row, Index n) { return dense_kernels<T>().arg_max(row, n); }
}  // namespace

template <class T>
struct Stepper<T>::Parts {
  DecoderParameters<T> p;
  PreparedMemory<T> memory;
  DecoderShape<T> z;
  DecoderWeights<T> packed;
  View<const T, 2> table;
  Weights<T> output;
  View<const T, 1> output_bias;
  Index V;

  Parts(const DecoderParameters<T>& parameters, const Memory<T>& m, View<const T, 2> t, View<const T, 2> out,
        View<const T, 1> bias)
      : p(parameters),
        memory(p.scorer, m),
        z(p, m, memory.sources.longest),
        packed(p, z, rows_of_step(m), rows_of_step(m)),
        table(t),
        output(out.data, out[0], out[1], rows_of_step(m)),
        output_bias(bias),
        V(out[1]) {}

  static Index rows_of_step(const Memory<T>& m) { return loop_rows(m.lengths[0]); }

  // Rows [first, first + rows) of one step, on the calling thread.
  template <class Sentence, class Position>
  void step(DecoderStep<T>& s, Index rows, const T* y, Sentence&& sentence, Position&& position) const {
    T* scratch = thread_scratch<T>();
    product_here(rows, rows_of(y, z.E), packed.token, s.cells[0].gates.get(), gates_of(p.cell) * z.H, scratch,
                 static_cast<const T*>(packed.cells[0].input_bias.get()));
    s.run(rows, sentence, position, [](Index, Index) { return static_cast<const T*>(nullptr); }, scratch);
    s.read_out(rows, y, scratch);
  }
};

template <class T>
Stepper<T>::Stepper(const DecoderParameters<T>& p, const Memory<T>& memory, View<const T, 2> table,
                    View<const T, 2> output, View<const T, 1> output_bias) {
  const char* op = "Stepper";
  const Index B = memory.lengths[0];
  Index longest = 0;
  for (Index b = 0; b < B; ++b) longest = std::max(longest, memory.lengths.data[b]);
  const Index L = p.cells.size(), H = L ? p.cells[0].weight_hh[0] : 0;
  View<const T, 3> state{nullptr, {L, B, H}};
  check_decoder(op, p, memory, B, state, state, longest);
  check_shape(op, "output", output, {{"E", p.readout[1]}, {"V", -1}});
  check_shape(op, "output bias", output_bias, {{"V", output[1]}});
  check_shape(op, "target embedding", table, {{"V", output[1]}, {"E", p.readout[1]}});
  parts_ = std::make_unique<Parts>(p, memory, table, output, output_bias);
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
Index Stepper<T>::vocabulary() const { return parts_->V; }
template <class T>
Index Stepper<T>::longest() const { return parts_->z.S; }
template <class T>
Index Stepper<T>::sentences() const { return parts_->memory.sources.B; }

template <class T>
void Stepper<T>::step(View<const Index, 1> token, View<const Index, 1> sentence, View<const Index, 1> position,
                      View<const T, 3> h_in, View<const T, 3> c_in, View<const T, 2> r_in, View<T, 3> h_out,
                      View<T, 3> c_out, View<T, 2> r_out, View<T, 2> log_probabilities, View<T, 2> weights,
                      const Reader<T>* reader) const {
  const char* op = "Stepper.step";
  const Parts& d = *parts_;
  const auto& z = d.z;
  const Index N = token[0];
  check_shape(op, "sentence", sentence, {{"N", N}}, "to match token");
  check_shape(op, "position", position, {{"N", N}}, "to match token");
  check_shape(op, "h", h_in, {{"L", z.L}, {"N", N}, {"H", z.H}});
  if (d.p.cell == Cell::lstm) check_shape(op, "c", c_in, {{"L", z.L}, {"N", N}, {"H", z.H}});
  check_shape(op, "readout", r_in, {{"N", N}, {"E", z.E}});
  for (Index i = 0; i < N; ++i) {
    if (token.data[i] < 0 || token.data[i] >= d.V)
      throw std::out_of_range(std::string(op) + ": token[" + std::to_string(i) + "] is " +
                              std::to_string(token.data[i]) + ", expected 0 <= id < " + std::to_string(d.V));
    if (sentence.data[i] < 0 || sentence.data[i] >= sentences())
      throw std::out_of_range(std::string(op) + ": sentence[" + std::to_string(i) + "] is " +
                              std::to_string(sentence.data[i]) + ", expected an index < " +
                              std::to_string(sentences()));
    if (position.data[i] < 0)
      fail(std::string(op) + ": position[" + std::to_string(i) + "] is negative, expected at least 0");
  }
  DecoderParameters<T> p = d.p;
  p.scorer.reader = reader;
  if (p.scorer.rule == Rule::read && !reader) fail(std::string(op) + ": there is no reader");
  const Index work = loop_work(z, p.cell, N), slices = d.packed.thin() ? 1 : step_slices(p.scorer, N, work);
  for_slices(p.scorer, slices, work, [&](Index s) {
    const Index first = N * s / slices, rows = N * (s + 1) / slices - first;
    DecoderStep<T> step(p, d.packed, d.memory, z, rows);
    const Buffer<T> y(rows * z.E);
    for (Index i = 0; i < rows; ++i) {
      std::copy_n(d.table.data + token.data[first + i] * z.E, z.E, y.get() + i * z.E);
      std::copy_n(r_in.data + (first + i) * z.E, z.E, step.readout.get() + i * z.E);
    }
    for (Index l = 0; l < z.L; ++l) {
      std::copy_n(h_in.data + (l * N + first) * z.H, rows * z.H, step.cells[l].h.get());
      if (d.p.cell == Cell::lstm)
        std::copy_n(c_in.data + (l * N + first) * z.H, rows * z.H, step.cells[l].c.get());
    }
    d.step(step, rows, y.get(), [&](Index i) { return sentence.data[first + i]; },
           [&](Index i) { return position.data[first + i]; });
    for (Index l = 0; l < z.L; ++l) {
      std::copy_n(step.cells[l].h.get(), rows * z.H, h_out.data + (l * N + first) * z.H);
      if (d.p.cell == Cell::lstm)
        std::copy_n(step.cells[l].c.get(), rows * z.H, c_out.data + (l * N + first) * z.H);
    }
    std::copy_n(step.readout.get(), rows * z.E, r_out.data + first * z.E);
    std::copy_n(step.attended_weights.get(), rows * z.S, weights.data + first * z.S);
  });
  product<T>(N, r_out.data, z.E, d.output, log_probabilities.data, d.V, d.output_bias.data);
  parallel_for(N, 16 * N * d.V, [&](Index i) {
    T total, *row = log_probabilities.data + i * d.V;
    const T log_sum = dense_kernels<T>().log_sum_exp(row, d.V, &total);
    for (Index v = 0; v < d.V; ++v) row[v] -= log_sum;
  });
}

template <class T>
Index Stepper<T>::greedy(View<const T, 3> h0, View<const T, 3> c0, Index begin, Index end, Index pad,
                         View<const Index, 1> limit, View<Index, 2> ids, View<T, 3> weights) const {
  const char* op = "Stepper.greedy";
  const Parts& d = *parts_;
  const auto& z = d.z;
  const Index B = sentences();
  check_shape(op, "h0", h0, {{"L", z.L}, {"B", B}, {"H", z.H}});
  if (d.p.cell == Cell::lstm) check_shape(op, "c0", c0, {{"L", z.L}, {"B", B}, {"H", z.H}});
  check_shape(op, "limit", limit, {{"B", B}});
  if (d.p.scorer.rule == Rule::read) fail(std::string(op) + ": a scoring with a reader goes step by step");
  std::fill_n(ids.data, ids.count(), pad);
  std::fill_n(weights.data, weights.count(), T(0));
  // Threads own sentences, and one that is finished leaves: nobody waits for the longest output of the batch.
  const Index work = loop_work(z, d.p.cell, B) + 2 * B * z.E * d.V, slices = d.packed.thin() ? 1 : slice_count(B, work);
  std::vector<Index> longest(slices, 0);
  parallel_for(slices, work * 16, [&](Index s) {
    const Index first = B * s / slices, rows = B * (s + 1) / slices - first;
    std::vector<Index> sentence;
    for (Index i = 0; i < rows; ++i)
      if (std::min(limit.data[first + i], ids[1]) > 0) sentence.push_back(first + i);
    Index active = sentence.size();
    DecoderStep<T> step(d.p, d.packed, d.memory, z, active);
    const Buffer<T> y(active * z.E), logits(active * d.V);
    const T* bias = d.output_bias.data;
    const auto layer = [&](Index i, Index count) {  // logits of rows i, i + 1, ...
      product_here(count, rows_of<T>(step.readout.get() + i * z.E, z.E), d.output, logits.get() + i * d.V, d.V,
                   thread_scratch<T>(), bias);
    };
    std::unique_ptr<Screen> screen;
    if constexpr (std::is_same_v<T, float>)
      if (d.packed.thin() && active <= kScreenedRows && ids[1] >= 4 && Screen::pays(z.E, d.V))
        screen = std::make_unique<Screen>(d.output.data(), z.E, d.V, bias);
    const auto likeliest = [&](Index i) {
      if constexpr (std::is_same_v<T, float>)
        if (screen) {
          const Index best = screen->best(step.readout.get() + i * z.E);
          if (best >= 0) return best;
          layer(i, 1);
        }
      return arg_max<T>(logits.get() + i * d.V, d.V);
    };
    for (Index i = 0; i < active; ++i) {
      std::copy_n(d.table.data + begin * z.E, z.E, y.get() + i * z.E);
      for (Index l = 0; l < z.L; ++l) {
        std::copy_n(h0.data + (l * B + sentence[i]) * z.H, z.H, step.cells[l].h.get() + i * z.H);
        if (d.p.cell == Cell::lstm)
          std::copy_n(c0.data + (l * B + sentence[i]) * z.H, z.H, step.cells[l].c.get() + i * z.H);
      }
    }
    for (Index t = 0; active > 0; ++t) {
      check_interrupt();
      d.step(step, active, y.get(), [&](Index i) { return sentence[i]; }, [&](Index) { return t; });
      if (!screen) layer(0, active);
      Index kept = 0;
      for (Index i = 0; i < active; ++i) {
        const Index best = likeliest(i), b = sentence[i];
        ids.data[b * ids[1] + t] = best;
        std::copy_n(step.attended_weights.get() + i * z.S, z.S, weights.data + (b * weights[1] + t) * weights[2]);
        if (best == end || t + 1 >= std::min(limit.data[b], ids[1])) {
          longest[s] = std::max(longest[s], t + 1);
          continue;
        }
        sentence[kept] = b;
        std::copy_n(d.table.data + best * z.E, z.E, y.get() + kept * z.E);
        if (kept < i) {
          for (Index l = 0; l < z.L; ++l) {
            std::copy_n(step.cells[l].h.get() + i * z.H, z.H, step.cells[l].h.get() + kept * z.H);
            if (d.p.cell == Cell::lstm)
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

template class Stepper<float>;
template class Stepper<double>;

}  // namespace dhyan

// What steps read of a model: its weights in the forms that few and many rows want, each made when it is first needed
// and kept, and the columns of the output layer that a search is restricted to.
#pragma once

#include <algorithm>
#include <atomic>
#include <limits>
#include <type_traits>

#include "decoder/step.h"
#include "decoder/screen.h"

namespace dhyan {

constexpr Index kScreenedRows = 3;  // from here on reading all weights once costs less than the bytes once a row
constexpr Index kBatchScreened = 256;  // rows times steps from which a screen for many rows earns back its making
constexpr Index kKeptTokens = Index(64) << 20;  // bytes

// What `make` returns, made by the first who asks and kept. No lock: a child of a fork would inherit it taken; of two
// who ask at the same time one throws his work away.
template <class X, class F>
const X& made_once(std::atomic<const X*>& slot, F&& make) {
  const X* found = slot.load(std::memory_order_acquire);
  if (found) return *found;
  std::unique_ptr<const X> made(new X(make()));
  if (slot.compare_exchange_strong(found, made.get(), std::memory_order_acq_rel)) found = made.release();
  return *found;
}

template <class T>
struct StepWeights<T>::Parts {
  struct Form {
    DecoderWeights<T> decoder;
    Weights<T> output;
  };
  DecoderParameters<T> p;
  View<const T, 2> table, output;
  View<const T, 1> output_bias;
  Index V;
  bool shrunk;
  mutable std::atomic<const Form*> few{nullptr}, many{nullptr};
  mutable std::atomic<const Screen*> screen_{nullptr};
  mutable std::atomic<const BatchScreen*> batch_screen_{nullptr};
  mutable std::vector<std::atomic<const T*>> tokens;  // what each adds to gates and readout, once it was read
  mutable std::atomic<Index> kept{0};

  Parts(const DecoderParameters<T>& parameters, View<const T, 2> t, View<const T, 2> out, View<const T, 1> bias,
        bool small)
      : p(parameters), table(t), output(out), output_bias(bias), V(out[1]), shrunk(small), tokens(out[1]) {}
  Parts(const Parts&) = delete;
  ~Parts() {
    delete few.load();
    delete many.load();
    delete screen_.load();
    delete batch_screen_.load();
    for (auto& token : tokens) delete[] token.load();
  }

  const Form& form(const DecoderShape<T>& z, Index sentences) const {
    const Index rows = loop_rows(sentences);  // beams multiply them by a number not known yet
    return made_once(rows > kThinRows ? many : few, [&] {
      Form made{DecoderWeights<T>(p, z, rows, rows), Weights<T>(output.data, output[0], output[1], rows)};
      if (shrunk) {
        made.decoder.shrink();
        made.output.shrink();
      }
      return made;
    });
  }

  // Starts the gates (rows,G*H) and, in the Bahdanau order, the readouts (rows,E) of a step with what the tokens add.
  template <class Token>
  void add_tokens(const Form& form, const DecoderShape<T>& z, Index rows, Token&& token, T* gates, T* readout) const {
    const Index width = gates_of(p.cell) * z.H, tail = p.bahdanau ? z.E : 0;
    const auto put = [&](Index i, const T* from) {
      std::copy_n(from, width, gates + i * width);
      std::copy_n(from + width, tail, readout + i * z.E);
    };
    std::vector<Index> missing;
    for (Index i = 0; i < rows; ++i) {
      if (const T* known = tokens[token(i)].load(std::memory_order_acquire))
        put(i, known);
      else
        missing.push_back(i);
    }
    const Index M = missing.size();
    if (M == 0) return;
    const Buffer<T> y(M * z.E), both(M * (width + tail));
    for (Index m = 0; m < M; ++m) std::copy_n(table.data + token(missing[m]) * z.E, z.E, y.get() + m * z.E);
    T* scratch = thread_scratch<T>();
    const T* bias = form.decoder.cells[0].input_bias.get();
    product_here(M, rows_of<T>(y.get(), z.E), form.decoder.token, both.get(), width + tail, scratch, bias);
    if (tail)
      product_here(M, rows_of<T>(y.get(), z.E), form.decoder.from_token, both.get() + width, width + tail, scratch,
                   p.readout_bias.data);
    for (Index m = 0; m < M; ++m) {
      const T* row = both.get() + m * (width + tail);
      put(missing[m], row);
      keep(token(missing[m]), row, width + tail);
    }
  }

  void keep(Index token, const T* row, Index n) const {
    if (tokens[token].load(std::memory_order_acquire)) return;
    if (kept.fetch_add(n * Index(sizeof(T))) + n * Index(sizeof(T)) > kKeptTokens) {
      kept.fetch_sub(n * Index(sizeof(T)));
      return;
    }
    T* copy = new T[n];
    std::copy_n(row, n, copy);
    const T* nobody = nullptr;
    if (!tokens[token].compare_exchange_strong(nobody, copy, std::memory_order_acq_rel)) delete[] copy;
  }

  // Null where a screen would not pay, and for double.
  const Screen* screen(Index rows, Index E, Index steps) const {
    if constexpr (std::is_same_v<T, float>)
      if (rows <= kScreenedRows && (steps >= 4 || screen_.load(std::memory_order_acquire)) && Screen::pays(E, V))
        return &made_once(screen_, [&] { return Screen(output.data, E, V, output_bias.data); });
    return nullptr;
  }
  // The same of the form for many rows, where the CPU multiplies in bfloat16.
  const BatchScreen* batch_screen(const Form& form, Index E, Index rows, Index steps) const {
    if constexpr (std::is_same_v<T, float>)
      if (!form.output.thin() && BatchScreen::pays(E, V) &&
          (rows * steps >= kBatchScreened || batch_screen_.load(std::memory_order_acquire)))
        return &made_once(batch_screen_, [&] { return BatchScreen(form.output, output_bias.data); });
    return nullptr;
  }
};

// What a row of logits is about: logit k is that of token id(k).
struct Candidates {
  Index count;
  const Index* ids;  // null: of the whole vocabulary
  Index id(Index k) const { return ids ? ids[k] : k; }
};

// The columns of the output layer that some sentence of a search may choose: a copy of them, small enough to be read
// again and again, and which of them are whose. Others get no probability, so that a result does not depend on the
// batch.
template <class T>
struct Shortlist {
  std::vector<Index> ids;             // (n) ascending; empty: the whole vocabulary
  std::vector<std::uint8_t> allowed;  // (B,n)
  std::vector<Index> own, starts;     // the ids of each sentence, one after the other, and where they start (B + 1)
  Buffer<T> w, bias;                  // (E,n) (n)
  Weights<T> output;

  Shortlist(const typename StepWeights<T>::Parts& parts, const Choices& chosen, Index sentences, Index rows)
      : ids(chosen.ids.data, chosen.ids.data + chosen.ids[0]),
        allowed(chosen.allowed.data, chosen.allowed.data + chosen.allowed.count()),
        w(parts.output[0] * chosen.ids[0]),
        bias(chosen.ids[0]) {
    if (ids.empty()) return;
    const Index E = parts.output[0], n = ids.size();
    check_shape("Stepper", "allowed", chosen.allowed, {{"B", sentences}, {"n", n}}, "to match shortlist");
    for (Index b = 0; b < sentences; ++b) {
      starts.push_back(own.size());
      for (Index i = 0; i < n; ++i)
        if (allowed[b * n + i]) own.push_back(ids[i]);
      if (starts[b] == Index(own.size()))
        fail("Stepper: the shortlist allows sentence " + std::to_string(b) + " no token, expected at least 1");
    }
    starts.push_back(own.size());
    for (Index i = 0; i < n; ++i) {
      if (ids[i] < 0 || ids[i] >= parts.V || (i && ids[i] <= ids[i - 1]))
        fail("Stepper: shortlist[" + std::to_string(i) + "] is " + std::to_string(ids[i]) +
             ", expected ascending ids below V = " + std::to_string(parts.V));
      bias.get()[i] = parts.output_bias.data[ids[i]];
    }
    parallel_for(E, E * n, [&](Index e) {
      for (Index i = 0; i < n; ++i) w.get()[e * n + i] = parts.output.data[e * parts.V + ids[i]];
    });
    output = Weights<T>(w.get(), E, n, rows);
  }
  // Logits (n) of a row of this sentence: those it may not choose become -inf.
  void restrict(Index sentence, T* logits) const {
    const Index n = ids.size();
    const std::uint8_t* may = allowed.data() + sentence * n;
    for (Index i = 0; i < n; ++i)
      if (!may[i]) logits[i] = -std::numeric_limits<T>::infinity();
  }
  // Logits (n) of a row of this sentence: puts those that it may choose first, in the order of their ids. A sum over
  // them alone is added in an order that other sentences' tokens do not change.
  Candidates gather(Index sentence, T* logits) const {
    const Index n = ids.size();
    const std::uint8_t* may = allowed.data() + sentence * n;
    Index count = 0;
    for (Index i = 0; i < n; ++i)
      if (may[i]) logits[count++] = logits[i];
    return {count, own.data() + starts[sentence]};
  }
};

}  // namespace dhyan

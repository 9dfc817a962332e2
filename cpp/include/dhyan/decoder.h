// The attention decoder over whole target sequences (training) and step by step (search).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "dhyan/attention.h"
#include "dhyan/recurrent.h"

namespace dhyan {

// Where weights come from: scored, or a rule that needs no query: 1 on the last position of the range, its mean, given;
// or a reader outside the core.
enum class Rule { scored, last, mean, given, read };

// Reads the memory where the core cannot: weights that depend on earlier weights, a predicted window, users' scorings.
// The loop then runs on the calling thread, and asks once a step for all rows; row i reads sentence[i] at position[i].
template <class T>
struct Reader {
  virtual ~Reader() = default;
  // state (rows,H) -> context (rows,D), weights (rows,S)
  virtual void read(View<const Index, 1> sentence, View<const Index, 1> position, View<const T, 2> state,
                    View<T, 2> context, View<T, 2> weights) const = 0;
  // Step t backward, steps coming in reverse order: dcontext (rows,D), dweights (rows,S) or null -> dstate (rows,H).
  virtual void read_backward(Index t, View<const T, 2> dcontext, View<const T, 2> dweights,
                             View<T, 2> dstate) const = 0;
};

// How a decoder state becomes a query, and a query and the keys become weights.
template <class T>
struct Scorer {
  Rule rule = Rule::scored;
  Term term = Term::product;
  bool sparsemax = false;        // normalises, else softmax
  bool normalize_query = false;  // cosine: q / |q|; the keys come normalised
  T scale = T(1);
  Index radius = -1;             // >= 0: only |s - min(t, length - 1)| <= radius
  View<const T, 2> query;        // (H,U): q = state @ query; null: q = state
  View<const T, 1> w;            // (U) for the tanh term
  const Reader<T>* reader = nullptr;  // for Rule::read
  bool fixed() const { return rule != Rule::scored; }
};

template <class T>
struct DecoderParameters {
  Cell cell = Cell::rnn;
  bool bahdanau = true;  // read with the previous state, context joins the input; else Luong: cell first, then read
  bool feeding = false;  // Luong: the previous readout joins the input
  bool residual = false; // from the second layer on: what a layer reads is added to what it hands on (h, or h masked)
  std::vector<CellParameters<T>> cells;
  Scorer<T> scorer;
  View<const T, 2> readout;       // ([E+] H + D, E)
  View<const T, 1> readout_bias;  // (E)
  bool feeds_readout() const { return !bahdanau && feeding; }  // else no step reads a readout
};

template <class T>
struct DecoderGradients {
  std::vector<CellGradients<T>> cells;
  View<T, 2> query, readout;
  View<T, 1> w, readout_bias;
  double log_scale = 0;  // d loss / d log(scale)
};

// What is attended to, all sentences' positions one after another (N_s rows).
template <class T>
struct Memory {
  View<const T, 2> keys;     // (N_s, U), null when nothing is scored
  View<const T, 2> values;   // (N_s, D)
  View<const Index, 1> lengths;
  View<const T, 3> weights;  // (B, 1 or T, S) for Rule::given; null otherwise
};

template <class T>
struct DecoderCache;

// Dropout inside the loop: between layers (L-1,N,H), and of what h W_hh reads, one mask a sentence (L,B,H). Each may be
// null.
template <class T>
struct DecoderMasks {
  View<const T, 3> between, state;
  const T* between_row(Index l, Index row) const {
    return between ? between.data + (l * between[1] + row) * between[2] : nullptr;
  }
  const T* states(Index l) const { return state ? state.data + l * state[1] * state[2] : nullptr; }
};

// What a decoder reads of whole target sequences, and the same for backward.
template <class T>
struct DecoderInputs {
  const DecoderParameters<T>& parameters;
  const Memory<T>& memory;
  const Tokens<T>& y;       // embedded target tokens, one a step, rows of width E
  View<const T, 3> h0, c0;  // (L,B,H)
  const DecoderMasks<T>& masks;
};
template <class T>
struct DecoderInputGradients {
  View<T, 2> dy;             // as the rows of y
  View<T, 3> dh0, dc0;       // (L,B,H)
  View<T, 2> dkeys, dvalues;  // as those of the memory
};

// readout (N,E), weights (N,S): N = the sum of `steps` (B), S = the longest source.
template <class T>
std::shared_ptr<DecoderCache<T>> decoder_forward(const DecoderInputs<T>& in, View<const Index, 1> steps,
                                                 View<T, 2> readout, View<T, 2> weights);
// dreadout (N,E); dweights (N,S) or null.
template <class T>
void decoder_backward(const DecoderCache<T>& cache, const DecoderInputs<T>& in, View<const T, 2> dreadout,
                      View<const T, 2> dweights, const DecoderInputGradients<T>& inputs,
                      DecoderGradients<T>& gradients);

// A decoder's weights in the forms that steps read, each made when it is first needed and kept: packed panels, the
// screen of the output layer, what a token adds to gates and readout; `shrunk`: weights that are bfloat16 numbers in
// two bytes each, and those that are a byte times a power of two of their column in one. The arrays must not change
// while this lives. Any number of threads and steppers may share it.
template <class T>
class StepWeights {
 public:
  StepWeights(const DecoderParameters<T>& p, View<const T, 2> table /*(V,E) target embedding*/,
              View<const T, 2> output /*(E,V)*/, View<const T, 1> output_bias, bool shrunk);
  ~StepWeights();
  struct Parts;
  const Parts& parts() const { return *parts_; }

 private:
  std::unique_ptr<Parts> parts_;
};

// Which tokens a search may choose; no ids: all. They alone share the probability.
struct Choices {
  View<const Index, 1> ids;             // (n) ascending
  View<const std::uint8_t, 2> allowed;  // (B,n) 1: of this sentence
};

// Where N hypotheses stand before a step; row i reads sentence[i] at target position[i] after token[i].
template <class T>
struct StepInput {
  View<const Index, 1> token, sentence, position;
  View<const T, 3> h, c;      // (L,N,H); c for the lstm only
  View<const T, 2> readout;   // (N,E)
  const Reader<T>* reader = nullptr;  // for Rule::read
};
template <class T>
struct StepOutput {
  View<T, 3> h, c;
  View<T, 2> readout, weights;  // (N,E) (N,S)
};

// Beam search: `beam` hypotheses a sentence, of which the `nbest` best are wanted; limit (B): most steps of each;
// norm[n]: what the summed log-probability of n symbols is divided by, n up to the largest limit.
struct BeamOptions {
  Index begin, end, beam, nbest;
  View<const Index, 1> limit;
  const double* norm;
};
// Closed hypotheses, in any order: ids (B,beam,T) with the end symbol, weights (B,beam,T,S), summed log-probability,
// steps (B,beam; 0: there is none), and whether the end symbol was written.
template <class T>
struct BeamOutput {
  View<Index, 3> ids;
  View<T, 4> weights;
  View<double, 2> total;
  View<Index, 2> steps, finished;
};

// The decoder one step at a time over the sentences of a memory.
template <class T>
class Stepper {
 public:
  Stepper(std::shared_ptr<const StepWeights<T>> weights, const Memory<T>& memory, const Choices& choices);
  ~Stepper();
  // One step for N rows and the log-probabilities (N,V) of the next token.
  void step(const StepInput<T>& in, const StepOutput<T>& out, View<T, 2> log_probabilities) const;
  // The same for the K <= V largest of every row, (N,K), largest first, of equals the lower id.
  void step_top(const StepInput<T>& in, const StepOutput<T>& out, View<T, 2> log_probabilities,
                View<Index, 2> ids) const;
  // Arg-max decoding of every sentence until `end` or limit[b] tokens. ids (B,T), filled with `pad` after the end;
  // weights (B,T,S); h0, c0 (L,B,H). A sentence ends with the id -1 where its logits are NaN or infinite. Returns the
  // longest output, `end` included.
  Index greedy(View<const T, 3> h0, View<const T, 3> c0, Index begin, Index end, Index pad,
               View<const Index, 1> limit, View<Index, 2> ids, View<T, 3> weights) const;
  // Beam search without further options. Returns 0, or the first step (from 1) that gave NaN.
  Index beam(View<const T, 3> h0, View<const T, 3> c0, const BeamOptions& options, const BeamOutput<T>& out) const;
  Index layers() const, hidden() const, embedding() const, vocabulary() const, choices() const, longest() const,
      sentences() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace dhyan

// The attention decoder over whole target sequences (training) and step by step (search).
#pragma once

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
  virtual void read_backward(Index t, View<const T, 2> dcontext, View<const T, 2> dweights, View<T, 2> dstate) const = 0;
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
  std::vector<CellParameters<T>> cells;
  Scorer<T> scorer;
  View<const T, 2> readout;       // ([E+] H + D, E)
  View<const T, 1> readout_bias;  // (E)
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

// y: embedded target tokens (N,E), one row a step, N = sum of `steps` (B). h0, c0 (L,B,H). masks (L-1,N,H) or null:
// dropout between layers. readout (N,E), weights (N,S), S = the longest source.
template <class T>
std::shared_ptr<DecoderCache<T>> decoder_forward(const DecoderParameters<T>& p, const Memory<T>& memory,
                                                 View<const T, 2> y, View<const Index, 1> steps, View<const T, 3> h0,
                                                 View<const T, 3> c0, View<const T, 3> masks, View<T, 2> readout,
                                                 View<T, 2> weights);
// dweights (N,S) or null.
template <class T>
void decoder_backward(const DecoderCache<T>& cache, const DecoderParameters<T>& p, const Memory<T>& memory,
                      View<const T, 2> y, View<const T, 3> h0, View<const T, 3> c0, View<const T, 3> masks,
                      View<const T, 2> dreadout, View<const T, 2> dweights, View<T, 2> dy, View<T, 3> dh0,
                      View<T, 3> dc0, View<T, 2> dkeys, View<T, 2> dvalues, DecoderGradients<T>& gradients);

// A frozen copy of the decoder's weights and of the sentences it reads, packed once for many single steps.
template <class T>
class Stepper {
 public:
  Stepper(const DecoderParameters<T>& p, const Memory<T>& memory, View<const T, 2> table /*(V,E) target embedding*/,
          View<const T, 2> output /*(E,V)*/, View<const T, 1> output_bias);
  ~Stepper();
  // reader: for Rule::read, else null. One step for N rows; row i reads sentence[i] at target position[i] after token[i]. States (L,N,H) and the fed-back
  // readout (N,E) are read from *_in and written to *_out. log_probabilities (N,V), weights (N,S).
  void step(View<const Index, 1> token, View<const Index, 1> sentence, View<const Index, 1> position,
            View<const T, 3> h_in, View<const T, 3> c_in, View<const T, 2> r_in, View<T, 3> h_out, View<T, 3> c_out,
            View<T, 2> r_out, View<T, 2> log_probabilities, View<T, 2> weights, const Reader<T>* reader) const;
  // Arg-max decoding of every sentence until `end` or limit[b] tokens. ids (B,T), filled with `pad` after the end;
  // weights (B,T,S); h0, c0 (L,B,H). Returns the longest output, `end` included.
  Index greedy(View<const T, 3> h0, View<const T, 3> c0, Index begin, Index end, Index pad,
               View<const Index, 1> limit, View<Index, 2> ids, View<T, 3> weights) const;
  Index layers() const, hidden() const, embedding() const, vocabulary() const, longest() const, sentences() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace dhyan

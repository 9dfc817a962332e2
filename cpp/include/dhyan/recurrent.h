// RNN, LSTM and GRU layers over whole sequences of different lengths, in one direction.
#pragma once

#include <array>
#include <memory>

#include "dhyan/view.h"

namespace dhyan {

enum class Cell { rnn, lstm, gru };
Cell cell_named(const std::string& name);  // std::invalid_argument for another name
Index gates_of(Cell cell);                 // G: 1, 4, 3

template <class T>
struct CellParameters {
  View<const T, 2> weight_ih /*(I,G*H)*/, weight_hh /*(H,G*H)*/;
  View<const T, 1> bias_ih /*(G*H)*/, bias_hh /*(G*H)*/;
  View<const T, 1> gain_ih /*(G*H)*/,
      gain_hh /*(G*H)*/;  // of layer normalisation (Ba et al. 2016); null: there is none
  bool normalized() const { return bool(gain_ih); }
};
template <class T>
struct CellGradients {
  View<T, 2> weight_ih, weight_hh;
  View<T, 1> bias_ih, bias_hh, gain_ih, gain_hh;
};

// Tokens as rows: token n is row index[n] of x (R,I), or row n where there is no index. A row that many tokens share,
// as those of an embedding, then meets the weights once, and so does the sum of its tokens' gradients.
template <class T>
struct Tokens {
  View<const T, 2> x;
  View<const Index, 1> index;
  Index count() const { return index ? index[0] : x[0]; }
  Index row(Index n) const { return index ? index.data[n] : n; }
};

template <class T>
struct RecurrentCache;  // activations of every step, a row a token

// x: the tokens of all sentences one after another, N = sum of lengths. h0, c0 (B,H) or null = zeros.
// reverse: every sentence is run from its last token to its first. final_*: the state after the last step.
// state_mask (B,H) or null: h W_hh reads h times the sentence's mask, at every step (variational dropout).
template <class T>
std::shared_ptr<RecurrentCache<T>> recurrent_forward(Cell cell, bool reverse, const Tokens<T>& x,
                                                     View<const Index, 1> lengths, const CellParameters<T>& p,
                                                     View<const T, 2> h0, View<const T, 2> c0,
                                                     View<const T, 2> state_mask, View<T, 2> output, View<T, 2> final_h,
                                                     View<T, 2> final_c);
// x, lengths, p, h0, c0, state_mask as given to forward. dfinal_* (B,H) or null; dx (R,I), dh0, dc0 null where not
// wanted.
template <class T>
void recurrent_backward(const RecurrentCache<T>& cache, const Tokens<T>& x, const CellParameters<T>& p,
                        View<const T, 2> h0, View<const T, 2> c0, View<const T, 2> state_mask, View<const T, 2> doutput,
                        View<const T, 2> dfinal_h, View<const T, 2> dfinal_c, View<T, 2> dx,
                        const CellGradients<T>& gradients, View<T, 2> dh0, View<T, 2> dc0);

// Both directions of a layer over the same x, index 0 from the first token to the last and 1 in reverse, from zero
// states: output (N,2H) and doutput are theirs side by side; final_h, final_c, dfinal_h of each. The same bits as two
// calls.
template <class T>
using BothCaches = std::array<std::shared_ptr<RecurrentCache<T>>, 2>;
template <class T>
BothCaches<T> bidirectional_forward(Cell cell, const Tokens<T>& x, View<const Index, 1> lengths,
                                    const std::array<CellParameters<T>, 2>& p,
                                    const std::array<View<const T, 2>, 2>& state_mask, View<T, 2> output,
                                    const std::array<View<T, 2>, 2>& final_h, const std::array<View<T, 2>, 2>& final_c);
template <class T>
void bidirectional_backward(const BothCaches<T>& cache, const Tokens<T>& x, const std::array<CellParameters<T>, 2>& p,
                            const std::array<View<const T, 2>, 2>& state_mask, View<const T, 2> doutput,
                            const std::array<View<const T, 2>, 2>& dfinal_h, View<T, 2> dx,
                            const std::array<CellGradients<T>, 2>& gradients);

}  // namespace dhyan

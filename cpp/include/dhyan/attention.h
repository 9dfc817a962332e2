// Attention: scores, softmax over ranges and masks, context, and the three joined; forward and backward.
//
// Axes: B sentences, T target rows, S source positions, H width of queries and keys, D width of values. Shapes are
// checked here, once (std::invalid_argument). Gradients are overwritten.
#pragma once

#include "dhyan/term.h"
#include "dhyan/view.h"

namespace dhyan {

// Which source positions a target row may attend: a half-open range, a mask, or both (and).
struct Restriction {
  View<const Index, 2> begin, end;  // (B, T); absent: 0 and S
  const unsigned char* mask = nullptr;  // 1 = may be attended, element (b, t, s) at mask + b*stride[0] + ...
  Index mask_stride[3] = {0, 0, 0};
  bool checked = false;  // on a device: the values of begin and end are known to hold
};

template <class T>
struct Scoring {
  View<const T, 3> q;  // (B, T, H)
  View<const T, 3> k;  // (B, S, H)
  View<const T, 1> w;  // (H), tanh only
  Term term;
  double scale;
};

template <class T>
void score_forward(const Scoring<T>& in, View<T, 3> scores);
template <class T>
void score_backward(View<const T, 3> dscores, const Scoring<T>& in, View<T, 3> dq, View<T, 3> dk, View<T, 1> dw);

// `weights` may be the memory of `scores`.
template <class T>
void softmax_forward(View<const T, 3> scores, const Restriction& may, View<T, 3> weights);
template <class T>
void softmax_backward(View<const T, 3> dweights, View<const T, 3> weights, View<T, 3> dscores);

// The same of sparsemax: the nearest point of the simplex.
template <class T>
void sparsemax_forward(View<const T, 3> scores, const Restriction& may, View<T, 3> weights);
template <class T>
void sparsemax_backward(View<const T, 3> dweights, View<const T, 3> weights, View<T, 3> dscores);

// Monotonic alignment. `previous` (B, S), the weights before row 0, or absent: (1, 0, 0, ...). `hard`: stops where a
// score is above 0. The gradients are those of the soft form; dprevious is absent where previous is.
template <class T>
void monotonic_forward(View<const T, 3> scores, View<const T, 2> previous, const Restriction& may, bool hard,
                       View<T, 3> weights);
template <class T>
void monotonic_backward(View<const T, 3> dweights, View<const T, 3> scores, View<const T, 3> weights,
                        View<const T, 2> previous, const Restriction& may, View<T, 3> dscores, View<T, 2> dprevious);

template <class T>
void context_forward(View<const T, 3> weights, View<const T, 3> v, View<T, 3> context);
template <class T>
void context_backward(View<const T, 3> dcontext, View<const T, 3> weights, View<const T, 3> v, View<T, 3> dweights,
                      View<T, 3> dv);

// Nothing of size B*T*S*H is allocated, and without `weights` (absent view) nothing of B*T*S either: the backward pass
// then computes the weights again, to the same bits.
template <class T>
void attention_forward(const Scoring<T>& in, View<const T, 3> v, const Restriction& may, View<T, 3> context,
                       View<T, 3> weights);
template <class T>
void attention_backward(View<const T, 3> dcontext, View<const T, 3> dweights, const Scoring<T>& in,
                        View<const T, 3> v, const Restriction& may, View<const T, 3> weights, View<T, 3> dq,
                        View<T, 3> dk, View<T, 3> dv, View<T, 1> dw);

}  // namespace dhyan

// The attention ops of the device side, shapes already checked; defined once per type in attention_*.cu.
#pragma once

#include "dhyan/cuda.h"

namespace dhyan::cuda::backend {

template <class T>
void score_forward(const Place&, const Scoring<T>& in, View<Weight<T>, 3> scores);
template <class T>
void score_backward(const Place&, View<const Weight<T>, 3> dscores, const Scoring<T>& in, View<T, 3> dq,
                    View<T, 3> dk, View<T, 1> dw);
template <class T>
void softmax_forward(const Place&, View<const T, 3> scores, const Restriction& may, View<T, 3> weights);
template <class T>
void softmax_backward(const Place&, View<const T, 3> dweights, View<const T, 3> weights, View<T, 3> dscores);
template <class T>
void context_forward(const Place&, View<const Weight<T>, 3> weights, View<const T, 3> v, View<T, 3> context);
template <class T>
void context_backward(const Place&, View<const T, 3> dcontext, View<const Weight<T>, 3> weights, View<const T, 3> v,
                      View<Weight<T>, 3> dweights, View<T, 3> dv);
template <class T>
void attention_forward(const Place&, const Scoring<T>& in, View<const T, 3> v, const Restriction& may,
                       View<T, 3> context, View<Weight<T>, 3> weights);
template <class T>
void attention_backward(const Place&, View<const T, 3> dcontext, View<const Weight<T>, 3> dweights,
                        const Scoring<T>& in, View<const T, 3> v, const Restriction& may,
                        View<const Weight<T>, 3> weights, View<T, 3> dq, View<T, 3> dk, View<T, 3> dv, View<T, 1> dw);

}  // namespace dhyan::cuda::backend

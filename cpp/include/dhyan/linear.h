// y = x w + b, embedding lookup, fused output layer with cross entropy, and the optimiser's pass.
#pragma once

#include <cstdint>

#include "dhyan/view.h"

namespace dhyan {

template <class T>
void linear_forward(View<const T, 2> x /*(M,I)*/, View<const T, 2> w /*(I,O)*/, View<const T, 1> b /*(O) or null*/,
                    View<T, 2> y);
template <class T>
void linear_backward(View<const T, 2> dy, View<const T, 2> x, View<const T, 2> w, View<T, 2> dx, bool add /*to dx*/,
                     View<T, 2> dw, View<T, 1> db);

template <class T>
void embedding_forward(View<const T, 2> table /*(V,E)*/, View<const Index, 1> ids, View<T, 2> out);
// Rows of dout are added to dtable in the order of the ids.
template <class T>
void embedding_backward(View<const T, 2> dout, View<const Index, 1> ids, View<T, 2> dtable);

// loss = sum over rows of -((1 - smoothing) log p[target] + smoothing / V sum_v log p[v]); rows with target < 0 count
// nothing. log_sums (N) is kept for backward; logits (N,V) too, unless null: backward then computes them again, and
// nothing of size N*V ever exists. log_p (N) receives log p[target], 0 where the row does not count.
template <class T>
double cross_entropy_forward(View<const T, 2> r /*(N,E)*/, View<const T, 2> w /*(E,V)*/, View<const T, 1> b,
                             View<const Index, 1> targets, T smoothing, View<T, 1> log_sums, View<T, 1> log_p,
                             View<T, 2> logits);
// Gradients of scale * loss; shares (N) or null: what log p[target] of a row is multiplied with in it.
template <class T>
void cross_entropy_backward(T scale, View<const T, 2> r, View<const T, 2> w, View<const T, 1> b,
                            View<const Index, 1> targets, T smoothing, View<const T, 1> log_sums,
                            View<const T, 2> logits, View<const T, 1> shares, View<T, 2> dr, View<T, 2> dw,
                            View<T, 1> db);
// Both in one pass, where scale is known beforehand: a tile of logits is turned into its gradient while it is in the
// cache. The bits are those of forward and backward.
template <class T>
double cross_entropy_both(T scale, View<const T, 2> r, View<const T, 2> w, View<const T, 1> b,
                          View<const Index, 1> targets, T smoothing, View<T, 2> dr, View<T, 2> dw, View<T, 1> db);

struct AdamOptions {
  std::int64_t step;  // from 1
  double lr, beta1, beta2, eps, weight_decay, clip;  // clip <= 0: no clipping
};
// Returns the global norm of g before clipping; p, m, v are left alone when it is not finite.
template <class T>
double adam_step(View<T, 1> p, View<const T, 1> g, View<T, 1> m, View<T, 1> v, const AdamOptions& options);

template <class T>
void dropout_mask(std::uint64_t key, T rate, View<T, 1> out);

}  // namespace dhyan

// Fills the attention table of one instruction set.
#include "kernels/attention_table.h"

#include "kernels/context.h"
#include "kernels/monotonic.h"
#include "kernels/score_backward.h"
#include "kernels/softmax.h"
#include "kernels/sparsemax.h"

#define DHYAN_JOIN_(a, b) a##b
#define DHYAN_JOIN(a, b) DHYAN_JOIN_(a, b)

namespace dhyan {
namespace {

template <class T>
void context_rows(const T* weights, Index rows, const T* v, Index S, Index D, const Index* begin, const Index* end,
                  T* context, Index ldc) {
  weighted_sum(WeightedSum<T>{weights, S, 1, rows, S, v, D, D, {begin, end}}, T(1), context, ldc);
}

template <class T>
void context_backward_rows(const T* dcontext, Index ldc, Index rows, const T* v, Index S, Index D, const Index* begin,
                           const Index* end, T* dweights) {
  dot_rows(dcontext, ldc, rows, v, S, D, Ranges{begin, end}, T(1), dweights);
}

template <class T>
void context_backward_values(const T* weights, const T* dcontext, Index ldc, Index rows, Index S, Index D,
                             const Index*, const Index*, T* dv) {
  weighted_sum(WeightedSum<T>{weights, 1, S, S, rows, dcontext, ldc, D, {}}, T(1), dv, D);
}

template <class T>
void general_weighted_sum(const T* a, Index row, Index col, Index M, Index K, const T* b, Index ldb, Index N,
                       const Index* begin, const Index* end, T factor, T* out, Index ldo) {
  weighted_sum(WeightedSum<T>{a, row, col, M, K, b, ldb, N, {begin, end}}, factor, out, ldo);
}

template <class T>
void tanh_backward_slice(const T* dscores, const T* q, Index ldq, Index rows, const T* k, const T* prepared, Index S,
                         Index H, const T* w, T scale, const Index* begin, const Index* end, Index first, Index last,
                         T* dq, Index lddq, T* dk, bool fresh, T* dw) {
  const ScoreInputs<T> in{q, ldq, rows, k, prepared, S, H, w, scale, {begin, end}};
  tanh_backward(in, dscores, ScoreGradients<T>{first, last, dq, lddq, dk, fresh, dw});
}

template <class T>
void exp_array(const T* x, Index n, T* y) {
  for (Index i = 0; i < n; i += kWidth<T>) store_upto<T>(y + i, vexp<Vec<T>>(load_upto<T>(x + i, n - i)), n - i);
}

template <class T>
void tanh_array(const T* x, Index n, T* y) {
  for (Index i = 0; i < n; i += kWidth<T>) store_upto<T>(y + i, vtanh<Vec<T>>(load_upto<T>(x + i, n - i)), n - i);
}

template <class T>
AttentionKernels<T> kernels() {
  AttentionKernels<T> k;
  k.prepared_size = prepared_size<T>;
  k.prepare_keys = prepare_keys<T>;
  k.score_rows = score_rows<T>;
  k.softmax_rows = softmax_rows<T>;
  k.context_rows = context_rows<T>;
  k.context_backward_rows = context_backward_rows<T>;
  k.softmax_backward_rows = softmax_backward_rows<T>;
  k.score_backward_query_rows = score_backward_query_rows<T>;
  k.score_backward_keys = score_backward_keys<T>;
  k.context_backward_values = context_backward_values<T>;
  k.weighted_sum = general_weighted_sum<T>;
  k.tanh_backward = tanh_backward_slice<T>;
  k.sparsemax_rows = sparsemax_rows<T>;
  k.sparsemax_backward_rows = sparsemax_backward_rows<T>;
  k.monotonic_rows = monotonic_rows<T>;
  k.monotonic_backward_rows = monotonic_backward_rows<T>;
  k.exp_array = exp_array<T>;
  k.tanh_array = tanh_array<T>;
  return k;
}

}  // namespace

// The only exported symbol of this unit.
AttentionTable DHYAN_JOIN(attention_table_, DHYAN_VARIANT)() { return {kernels<float>(), kernels<double>()}; }

}  // namespace dhyan

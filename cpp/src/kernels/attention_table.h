// The attention kernels one instruction set offers. Filled by attention_table.cpp, once per variant.
#pragma once

#include "dhyan/term.h"

namespace dhyan {

constexpr Index kUnprepared = 1024;  // largest H whose keys need no preparation for a single row

// One sentence. Every function runs on the calling thread, allocates nothing and throws nothing. `begin` and `end` are
// both null (all of [0, S)) or both given. Weights and dscores must be 0 outside their ranges, as softmax leaves them;
// what stands where they are 0 is never seen, NaN included.
template <class T>
struct AttentionKernels {
  // Keys are prepared once per sentence and read by every target row: packed by hidden block, for the tanh term also
  // exponentiated, with the largest |k| of each key kept for the range dispatch. For the tanh term of one row and
  // H <= kUnprepared `prepared` may be null: the keys are then exponentiated as they pass, to the same bits.
  Index (*prepared_size)(Term term, Index S, Index H);                                    // elements of T
  void (*prepare_keys)(Term term, const T* k /*(S,H)*/, Index S, Index H, T* prepared);

  // scores[t*S + s] for s in [begin[t], end[t]); the rest of the row is left alone.
  void (*score_rows)(Term term, const T* q /*row t at q + t*ldq, H wide*/, Index ldq, Index T_, const T* k,
                     const T* prepared, Index S, Index H, const T* w /*(H) or null*/, T scale, const Index* begin,
                     const Index* end, T* scores /*(T,S)*/);
  // In place; mask (T,S) bytes or null, 1 = may be attended. Outside range and mask exactly 0; an empty row is all 0.
  void (*softmax_rows)(T* scores, Index T_, Index S, const Index* begin, const Index* end, const unsigned char* mask);
  void (*context_rows)(const T* weights /*(T,S)*/, Index T_, const T* v /*(S,D)*/, Index S, Index D, const Index* begin,
                       const Index* end, T* context, Index ldc);

  // dweights[t,s] = dcontext[t] . v[s] where weights[t,s] may be non-zero.
  void (*context_backward_rows)(const T* dcontext, Index ldc, Index T_, const T* v, Index S, Index D,
                                const Index* begin, const Index* end, T* dweights /*(T,S)*/);
  // dscores = weights * (dweights - sum_s weights dweights), in place in dweights.
  void (*softmax_backward_rows)(const T* weights, T* dweights, Index T_, Index S, const Index* begin, const Index* end);
  // What the decoder loop needs at once: dq (overwritten). H wide rows at dq + t*ldq.
  void (*score_backward_query_rows)(Term term, const T* dscores, const T* q, Index ldq, Index T_, const T* k,
                                    const T* prepared, Index S, Index H, const T* w, T scale, const Index* begin,
                                    const Index* end, T* dq, Index lddq);
  // What can wait until all rows are known: dk (S,H), and dw (H) or null, both overwritten.
  void (*score_backward_keys)(Term term, const T* dscores, const T* q, Index ldq, Index T_, const T* k,
                              const T* prepared, Index S, Index H, const T* w, T scale, const Index* begin,
                              const Index* end, T* dk, T* dw);
  // dv[s] = sum_t weights[t,s] dcontext[t], overwritten.
  void (*context_backward_values)(const T* weights, const T* dcontext, Index ldc, Index T_, Index S, Index D,
                                  const Index* begin, const Index* end, T* dv /*(S,D)*/);
  // The general forms. out[m, :] = factor * sum_k a[m*row + k*col] * b[k, :], leaving out what has factor 0 (NaN there
  // is not seen); begin and end bound k per m, or are null. Overwritten.
  void (*weighted_sum)(const T* a, Index row, Index col, Index M, Index K, const T* b, Index ldb, Index N,
                       const Index* begin, const Index* end, T factor, T* out, Index ldo);
  // Hidden units [first, last), first a multiple of 64: dq (overwritten), dk (overwritten if fresh, else added to) and
  // dw (added to) in one pass.
  void (*tanh_backward)(const T* dscores, const T* q, Index ldq, Index T_, const T* k, const T* prepared, Index S,
                        Index H, const T* w, T scale, const Index* begin, const Index* end, Index first, Index last,
                        T* dq, Index lddq, T* dk, bool fresh, T* dw);
  // In the place of softmax_rows and softmax_backward_rows: the nearest point of the simplex.
  // dscores = dweights - their mean over the positions of weight above 0, 0 elsewhere.
  void (*sparsemax_rows)(T* scores, Index T_, Index S, const Index* begin, const Index* end, const unsigned char* mask);
  void (*sparsemax_backward_rows)(const T* weights, T* dweights, Index T_, Index S, const Index* begin,
                                  const Index* end);
  // Monotonic alignment, in place, row after row; previous: the weights of the row before the first, null: all of it at
  // position 0. Outside range and mask exactly 0. hard: a row stops at a score above 0, and there alone.
  void (*monotonic_rows)(T* scores, const T* previous /*(S) or null*/, Index T_, Index S, const Index* begin,
                         const Index* end, const unsigned char* mask, bool hard);
  // dscores in place in dweights, last row first. dprevious (S): in, what flows into the weights of the last row from
  // rows after it; out, the gradient of previous.
  void (*monotonic_backward_rows)(const T* weights, const T* scores, T* dweights, T* dprevious, Index T_, Index S,
                                  const Index* begin, const Index* end, const unsigned char* mask);
  // Elementary functions over an array, for the accuracy sweeps.
  void (*exp_array)(const T* x, Index n, T* y);
  void (*tanh_array)(const T* x, Index n, T* y);
};

struct AttentionTable {
  AttentionKernels<float> f32;
  AttentionKernels<double> f64;
};

}  // namespace dhyan

// Matrix product, recurrent cells, cross entropy and optimiser kernels of one instruction set.
#pragma once

#include "dhyan/term.h"

namespace dhyan {

// B of a product, cut into panels of `nr` columns, each k-major and padded with zeros to nr.
template <class T>
struct Panels {
  const T* data;
  Index K, N, nr;
  const T* panel(Index j) const { return data + j * K * nr; }
  Index count() const { return (N + nr - 1) / nr; }
};

// A of a product: element (m, k) at data[m * row + k * col].
template <class T>
struct Operand {
  const T* data;
  Index row, col;
};

template <class T>
struct DenseKernels {
  Index nr;  // panel width
  // Panels first..last of B (K,N), element (k, n) at b[k * row + n * col].
  void (*pack_panels)(const T* b, Index row, Index col, Index K, Index N, Index first, Index last, T* out);
  // C[m, n] = start + sum_k A[m, k] B[k, n] for panels first..last; start is C (accumulate), bias[n], or 0.
  // `scratch` holds gemm_scratch elements.
  void (*gemm)(Index M, Operand<T> a, Panels<T> b, Index first, Index last, T* c, Index ldc, const T* bias,
               bool accumulate, T* scratch);
  Index gemm_scratch;
  // The same for columns first..last of a B (K,N) that is not packed, rows of A at a + m * row, rows of B at b + k *
  // ldb.
  void (*gemm_thin)(Index M, const T* a, Index row, const T* b, Index ldb, Index K, Index first, Index last, T* c,
                    Index ldc, const T* bias, bool accumulate, T* scratch);

  // Recurrent cells, one row of one step; see cells.h.
  void (*rnn_forward)(Index H, const T* pre, const T* fed, const T* hidden, T* gates, T* h);
  void (*lstm_forward)(Index H, const T* pre, const T* fed, const T* hidden, const T* c_in, T* gates, T* c_out, T* h);
  void (*gru_forward)(Index H, const T* pre, const T* fed, const T* hidden, const T* h_in, T* gates, T* kept, T* h);
  void (*rnn_backward)(Index H, const T* h, const T* above, const T* carry, T* dgates);
  void (*lstm_backward)(Index H, const T* gates, const T* c_in, const T* c_out, const T* above, const T* carry,
                        T* dc /*in: from the next step, out: to the previous*/, T* dgates);
  void (*gru_backward)(Index H, const T* gates, const T* kept, const T* h_in, const T* above, T* carry, T* dgates,
                       T* dhidden);

  void (*tanh_rows)(Index rows, Index n, T* x, Index ld);                                     // in place
  void (*tanh_backward_rows)(Index rows, Index n, const T* y, Index ldy, T* dy, Index ldd);   // dy *= 1 - y^2, in place

  // One row of logits (V) -> log of the sum of exponentials; `total` receives the plain sum of the logits.
  T (*log_sum_exp)(const T* logits, Index V, T* total);
  Index (*arg_max)(const T* x, Index n);  // the first of the largest; NaN after x[0] is passed over
  void (*largest)(const T* x, Index n, T minus, Index k, T* values, Index* ids);  // the k largest of x - minus
  // logits -> d loss / d logits * weight, in place: (softmax - (1 - smoothing) onehot - smoothing / V) * weight.
  void (*cross_entropy_gradient)(T* logits, Index V, T log_sum, Index target, T smoothing, T weight);
  void (*add_rows)(Index rows, Index n, const T* x, Index ldx, T* sum);  // sum[n] += rows of x, in row order
  void (*axpy)(Index n, T a, const T* x, T* y);                           // y += a x
  void (*multiply)(Index n, const T* x, T* y);                            // y *= x

  double (*sum_squares)(Index n, const T* x);
  void (*adam)(Index n, T* p, const T* g, T* m, T* v, T grad_scale, T lr, T beta1, T beta2, T eps, T decay,
               T correction1, T correction2);
  // Inverted dropout: out = 0 or 1 / (1 - rate), a function of (key, first index) alone.
  void (*dropout_mask)(Index first, Index n, std::uint64_t key, T rate, T* out);
};

// Which outputs of a linear layer can be the largest, from weights in bytes; see screen.h. Panels of `columns` outputs.
struct ScreenKernels {
  static constexpr Index columns = 64;
  bool (*quantize)(const float* w, Index ldw, Index K, Index width, float spread, float gamma,
                   std::int8_t* codes /*(K up to even, columns)*/, float* scale, float* error);
  float (*panel)(const std::int16_t* x, Index pairs, const std::int8_t* codes, const float* scale, const float* error,
                 const float* bias, Index width, float step, float norm, float gamma, float* high, float* top);
  // A row of n outputs that are known to within norm error[i] + lost size[i] + slack[i]: the largest lower end, and the
  // groups of `columns` outputs, in order, where an upper end reaches `least`; returns how many.
  float (*least)(Index n, const float* y, const float* error, const float* size, const float* slack, float norm,
                 float lost);
  Index (*reaching)(Index n, const float* y, const float* error, const float* size, const float* slack, float norm,
                    float lost, float least, Index columns, Index* groups);
};

// B of a product in bfloat16, two k to an element: panel j, pair p, column n at data[(j * pairs + p) * nr + n].
struct PairPanels {
  const std::uint32_t* data;
  Index K, N, nr;
};

// Products rounded to bfloat16, for CPUs with AVX512-BF16; arguments as those of pack_panels and gemm of float.
struct Bf16Kernels {
  void (*pack_pairs)(const float* b, Index row, Index col, Index K, Index N, Index first, Index last,
                     std::uint32_t* out);
  void (*gemm_pairs)(Index M, Operand<float> a, PairPanels b, Index first, Index last, float* c, Index ldc,
                     const float* bias, bool accumulate, float* scratch);
};

struct DenseTable {
  DenseKernels<float> f32;
  DenseKernels<double> f64;
  ScreenKernels screen;
  // gemm_thin with B as the upper halves of floats whose lower halves are 0.
  void (*gemm_thin_halves)(Index M, const float* a, Index row, const std::uint16_t* b, Index ldb, Index K, Index first,
                           Index last, float* c, Index ldc, const float* bias, bool accumulate, float* scratch);
  // gemm_thin with B as code * scale, scale a power of two for each column.
  void (*gemm_thin_bytes)(Index M, const float* a, Index row, const std::int8_t* b, Index ldb, const float* scale,
                          Index K, Index first, Index last, float* c, Index ldc, const float* bias, bool accumulate,
                          float* scratch);
};

}  // namespace dhyan

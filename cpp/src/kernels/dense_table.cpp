#include "kernels/dense_table.h"

#include "kernels/cells.h"
#include "kernels/gemm.h"
#include "kernels/loss.h"
#include "kernels/optimizer.h"
#include "kernels/screen.h"

#define DHYAN_JOIN_(a, b) a##b
#define DHYAN_JOIN(a, b) DHYAN_JOIN_(a, b)

namespace dhyan {
namespace {

template <class T>
DenseKernels<T> kernels() {
  DenseKernels<T> k;
  k.nr = kPanel<T>;
  k.pack_panels = pack_panels<T>;
  k.gemm = gemm<T>;
  k.gemm_thin = gemm_thin<T>;
  k.gemm_scratch = (kBlockM + kTileM) * kBlockK;
  k.rnn_forward = rnn_forward<T>;
  k.lstm_forward = lstm_forward<T>;
  k.gru_forward = gru_forward<T>;
  k.rnn_backward = rnn_backward<T>;
  k.lstm_backward = lstm_backward<T>;
  k.gru_backward = gru_backward<T>;
  k.tanh_rows = tanh_rows<T>;
  k.tanh_backward_rows = tanh_backward_rows<T>;
  k.arg_max = arg_max<T>;
  k.largest = largest<T>;
  k.log_sum_exp = log_sum_exp<T>;
  k.cross_entropy_gradient = cross_entropy_gradient<T>;
  k.add_rows = add_rows<T>;
  k.axpy = axpy<T>;
  k.multiply = multiply<T>;
  k.sum_squares = sum_squares<T>;
  k.adam = adam<T>;
  k.dropout_mask = dropout_mask<T>;
  return k;
}

}  // namespace

// The only exported symbol of this unit.
DenseTable DHYAN_JOIN(dense_table_, DHYAN_VARIANT)() {
  return {kernels<float>(),
          kernels<double>(),
          {screen_quantize, screen_panel, screen_least, screen_reaching},
          gemm_thin_halves,
          gemm_thin_bytes};
}
}  // namespace dhyan

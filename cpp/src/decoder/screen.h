// The arg-max of a linear layer for one row, exact, from a quarter of the bytes: a screen in 8-bit weights says which
// outputs can be the largest (a handful of thousands), and those alone are computed as the layer would compute them.
#pragma once

#include <vector>

#include "dense/product.h"

namespace dhyan {

class Screen {
 public:
  Screen(const float* w /*(K,N), kept alive by the caller*/, Index K, Index N, const float* bias);
  // The lowest n whose output is largest, bit for bit that of `product`; -1 where the screen cannot tell.
  Index best(const float* x) const;
  static bool pays(Index K, Index N) { return K * N >= (1 << 18) && K <= 1 << 15; }

 private:
  const float* w_;
  Index K_, N_, top_;
  const float* bias_;
  float gamma_;
  bool good_ = true;
  Buffer<std::int8_t> codes_;
  Buffer<float> scale_, error_;
};

// The same for many rows, whose products cost FLOPs instead of bytes: the screen is the layer with its factors rounded
// to bfloat16, twice as fast on CPUs that multiply such numbers.
class BatchScreen {
 public:
  // exact: the layer, packed; like bias it is kept alive by the caller.
  BatchScreen(const Weights<float>& exact, const float* bias);
  // found[i]: the lowest n whose output is largest for row i of x (rows,K), bit for bit that of `product`; -1 where the
  // screen cannot tell. logits (rows,N) and scratch are working memory.
  void best(Index rows, const float* x, float* logits, float* scratch, Index* found) const;
  static bool pays(Index K, Index N) { return bf16_kernels() && Screen::pays(K, N); }

 private:
  Index best_of_row(const float* x, float* logits, float* scratch, Index* groups) const;
  const Weights<float>* exact_;
  const float* bias_;
  bool good_ = true;
  Packed<float> rounded_;
  // Half the width of what is known of output n: |x| error[n] + |x - x rounded| size[n] + slack[n].
  Buffer<float> error_, size_, slack_;
};

}  // namespace dhyan

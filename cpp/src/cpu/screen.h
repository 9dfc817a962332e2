// The arg-max of a linear layer for one row, exact, from a quarter of the bytes: a screen in 8-bit weights says which
// outputs can be the largest (a handful of thousands), and those alone are computed as the layer would compute them.
#pragma once

#include <vector>

#include "cpu/dense.h"

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

}  // namespace dhyan

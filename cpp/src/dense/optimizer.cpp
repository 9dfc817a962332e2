// Global-norm clipping and Adam in one pass over the flat parameter buffer; dropout masks.
#include <algorithm>
#include <cmath>

#include "runtime/check.h"
#include "dense/product.h"
#include "dhyan/linear.h"

namespace dhyan {
namespace {
constexpr Index kChunk = 1 << 14;
}

template <class T>
double adam_step(View<T, 1> p, View<const T, 1> g, View<T, 1> m, View<T, 1> v, const AdamOptions& o) {
  const Index n = p[0];
  check_shape("adam_step", "g", g, {{"N", n}}, "to match p");
  check_shape("adam_step", "m", m, {{"N", n}}, "to match p");
  check_shape("adam_step", "v", v, {{"N", n}}, "to match p");
  if (o.step < 1) fail("adam_step: step is " + std::to_string(o.step) + ", expected at least 1");
  const Index chunks = (n + kChunk - 1) / kChunk;
  const auto& kernels = dense_kernels<T>();
  std::vector<double> squares(chunks);
  parallel_for(chunks, n, [&](Index c) {
    squares[c] = kernels.sum_squares(std::min(kChunk, n - c * kChunk), g.data + c * kChunk);
  });
  double sum = 0;
  for (double s : squares) sum += s;
  const double norm = std::sqrt(sum);
  if (!std::isfinite(norm)) return norm;
  const double scale = o.clip > 0 && norm > o.clip ? o.clip / norm : 1.0;
  const T correction1 = static_cast<T>(1.0 - std::pow(o.beta1, static_cast<double>(o.step)));
  const T correction2 = static_cast<T>(1.0 - std::pow(o.beta2, static_cast<double>(o.step)));
  parallel_for(chunks, 8 * n, [&](Index c) {
    const Index i = c * kChunk;
    kernels.adam(std::min(kChunk, n - i), p.data + i, g.data + i, m.data + i, v.data + i, T(scale), T(o.lr), T(o.beta1),
                 T(o.beta2), T(o.eps), T(o.weight_decay), correction1, correction2);
  });
  return norm;
}

template <class T>
void dropout_mask(std::uint64_t key, T rate, View<T, 1> out) {
  if (!(rate >= T(0) && rate < T(1)))
    fail("dropout_mask: rate is " + std::to_string(rate) + ", expected 0 <= rate < 1");
  const Index n = out[0];
  parallel_for((n + kChunk - 1) / kChunk, 4 * n, [&](Index c) {
    dense_kernels<T>().dropout_mask(c * kChunk, std::min(kChunk, n - c * kChunk), key, rate, out.data + c * kChunk);
  });
}

#define DHYAN_INSTANTIATE(T)                                                                                   \
  template double adam_step<T>(View<T, 1>, View<const T, 1>, View<T, 1>, View<T, 1>, const AdamOptions&);      \
  template void dropout_mask<T>(std::uint64_t, T, View<T, 1>);
DHYAN_INSTANTIATE(float)
DHYAN_INSTANTIATE(double)
#undef DHYAN_INSTANTIATE

}  // namespace dhyan

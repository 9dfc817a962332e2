#include "cpu/screen.h"

#include <algorithm>
#include <atomic>
#include <cmath>

namespace dhyan {
namespace {
constexpr Index C = ScreenKernels::columns;
constexpr Index kMostCandidates = 64;
const ScreenKernels& kernels() { return active_variant().dense.screen; }
}  // namespace

Screen::Screen(const float* w, Index K, Index N, const float* bias)
    : w_(w),
      K_(K),
      N_(N),
      top_(std::min<Index>(8191, 2147483647 / (127 * (K + 2)))),  // sums fit 32 bits
      bias_(bias),
      gamma_(static_cast<float>(K + 16) * 2.4e-7f),
      codes_((N + C - 1) / C * C * (K + K % 2)),
      scale_((N + C - 1) / C * C),
      error_((N + C - 1) / C * C) {
  const float spread = static_cast<float>(std::sqrt(double(K)) / (2.0 * double(top_)) * 1.001);
  std::atomic<bool> good{true};
  const Index panels = (N + C - 1) / C;
  parallel_for(panels, 4 * K * N, [&](Index j) {
    const Index width = std::min(C, N - j * C);
    if (!kernels().quantize(w + j * C, N, K, width, spread, gamma_, codes_.get() + j * C * (K + K % 2),
                            scale_.get() + j * C, error_.get() + j * C))
      good = false;
  });
  for (Index n = 0; n < N; ++n)
    if (!std::isfinite(bias[n])) good = false;
  good_ = good;
}

Index Screen::best(const float* x) const {
  double squares = 0;
  float most = 0;
  for (Index k = 0; k < K_; ++k) {
    squares += double(x[k]) * double(x[k]);
    most = std::max(most, std::fabs(x[k]));
  }
  if (!good_ || !(squares < 1e30) || !(most > 1e-25f)) return -1;
  const Index pairs = (K_ + 1) / 2, panels = (N_ + C - 1) / C, parts = std::min<Index>(panels, num_threads());
  const float step = most / static_cast<float>(top_), norm = static_cast<float>(std::sqrt(squares) * 1.001);
  std::vector<std::int16_t> codes(2 * pairs, 0);
  for (Index k = 0; k < K_; ++k)
    codes[k] = static_cast<std::int16_t>(std::lrintf(std::clamp(x[k] / step, -float(top_), float(top_))));
  const Buffer<float> high(panels * C), tops(panels);
  std::vector<float> lows(parts);
  parallel_for(parts, K_ * N_ / 2, [&](Index i) {
    float low = -INFINITY;
    for (Index j = panels * i / parts; j < panels * (i + 1) / parts; ++j)
      low = std::max(low, kernels().panel(codes.data(), pairs, codes_.get() + j * C * 2 * pairs, scale_.get() + j * C,
                                          error_.get() + j * C, bias_ + j * C, std::min(C, N_ - j * C), step, norm,
                                          gamma_, high.get() + j * C, tops.get() + j));
    lows[i] = low;
  });
  const float least = *std::max_element(lows.begin(), lows.end());

  // The candidates exactly, a vector's width of columns around each at once: the same cache lines are read.
  constexpr Index width = 16;
  static thread_local Buffer<float> scratch;
  if (scratch.size() < dense_kernels<float>().gemm_scratch) scratch = Buffer<float>(dense_kernels<float>().gemm_scratch);
  float exact[width], largest = 0;
  Index best = -1, groups = 0;
  for (Index j = 0; j < panels; ++j) {
    if (tops.get()[j] < least) continue;
    const Index end = std::min(N_, (j + 1) * C);
    for (Index first = j * C; first < end; first += width) {
      const Index last = std::min(end, first + width);
      if (!std::any_of(high.get() + first, high.get() + last, [&](float h) { return h >= least; })) continue;
      if (++groups > kMostCandidates) return -1;
      dense_kernels<float>().gemm_thin(1, x, K_, w_ + first, N_, K_, 0, last - first, exact, width, bias_ + first, false,
                                       scratch.get());
      for (Index n = first; n < last; ++n)
        if (best < 0 || exact[n - first] > largest) best = n, largest = exact[n - first];
    }
  }
  return best;
}

}  // namespace dhyan

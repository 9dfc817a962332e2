#include "decoder/screen.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

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
  if (scratch.size() < dense_kernels<float>().gemm_scratch)
    scratch = Buffer<float>(dense_kernels<float>().gemm_scratch);
  float exact[width], largest = 0;
  Index best = -1, groups = 0;
  for (Index j = 0; j < panels; ++j) {
    if (tops.get()[j] < least) continue;
    const Index end = std::min(N_, (j + 1) * C);
    for (Index first = j * C; first < end; first += width) {
      const Index last = std::min(end, first + width);
      if (!std::any_of(high.get() + first, high.get() + last, [&](float h) { return h >= least; })) continue;
      if (++groups > kMostCandidates) return -1;
      dense_kernels<float>().gemm_thin(1, x, K_, w_ + first, N_, K_, 0, last - first, exact, width, bias_ + first,
                                       false, scratch.get());
      for (Index n = first; n < last; ++n)
        if (best < 0 || exact[n - first] > largest) best = n, largest = exact[n - first];
    }
  }
  return best;
}

namespace {
Packed<float> packed_in_pairs(const Weights<float>& w) {
  const RoundedProducts on(true);
  return Packed<float>::of(w.data(), w.K(), w.N());
}

// What rounding to bfloat16 takes from x.
float lost_by_rounding(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000;
  float nearest;
  std::memcpy(&nearest, &bits, sizeof nearest);
  return x - nearest;
}

// Covers the rounding of both chains of K sums, the flushing of subnormal products, and that of the bounds themselves.
float gamma_of(Index K) { return static_cast<float>(K + 16) * 2.4e-7f; }
}  // namespace

// x w = xr wr + x (w - wr) + (x - xr) wr, so two norms bound what rounding both factors changes (Cauchy-Schwarz).
BatchScreen::BatchScreen(const Weights<float>& exact, const float* bias)
    : exact_(&exact),
      bias_(bias),
      rounded_(packed_in_pairs(exact)),
      error_(exact.N()),
      size_(exact.N()),
      slack_(exact.N()) {
  const Index K = exact.K(), N = exact.N();
  const float gamma = gamma_of(K);
  std::atomic<bool> good{true};
  parallel_for((N + C - 1) / C, 4 * K * N, [&](Index j) {
    float squares[C] = {}, missed[C] = {};
    const Index first = j * C, width = std::min(C, N - first);
    for (Index k = 0; k < K; ++k)
      for (Index n = 0; n < width; ++n) {
        const float w = exact.data()[k * N + first + n], e = lost_by_rounding(w);
        squares[n] += w * w;
        missed[n] += e * e;
      }
    for (Index n = 0; n < width; ++n) {
      const float more = 1.0f + static_cast<float>(K) * 2.4e-7f;  // sums of K squares in float
      const float e = std::sqrt(missed[n] * more) + 1e-18f, size = std::sqrt(squares[n] * more) + e;
      error_.get()[first + n] = e + size * gamma;
      size_.get()[first + n] = size;
      slack_.get()[first + n] = std::fabs(bias_[first + n]) * gamma;
      if (!(size < 1e15f) || !std::isfinite(bias_[first + n])) good = false;
    }
  });
  good_ = good;
}

void BatchScreen::best(Index rows, const float* x, float* logits, float* scratch, Index* found) const {
  const Index K = exact_->K(), N = exact_->N();
  if (!good_) return std::fill_n(found, rows, Index(-1)), void();
  product_here(rows, rows_of(x, K), rounded_, logits, N, scratch, bias_);
  std::vector<Index> groups(exact_->packed().panel_count());
  for (Index i = 0; i < rows; ++i) found[i] = best_of_row(x + i * K, logits + i * N, scratch, groups.data());
}

Index BatchScreen::best_of_row(const float* x, float* logits, float* scratch, Index* groups) const {
  const Index K = exact_->K(), N = exact_->N(), width = exact_->packed().panels().nr;
  double squares = 0, missed = 0;
  float most = 0;
  for (Index k = 0; k < K; ++k) {
    const double e = lost_by_rounding(x[k]);
    squares += double(x[k]) * double(x[k]);
    missed += e * e;
    most = std::max(most, std::fabs(x[k]));
  }
  if (!(squares < 1e30) || !(most > 1e-15f)) return -1;
  const float norm = static_cast<float>(std::sqrt(squares) * 1.001),
              lost = static_cast<float>(std::sqrt(missed) * 1.001);
  const auto of = [&](const Buffer<float>& all) { return static_cast<const float*>(all.get()); };
  const float least = kernels().least(N, logits, of(error_), of(size_), of(slack_), norm, lost);
  const Index reaching =
      kernels().reaching(N, logits, of(error_), of(size_), of(slack_), norm, lost, least, width, groups);
  if (reaching > kMostCandidates) return -1;
  Index best = -1;
  for (Index g = 0; g < reaching; ++g) {
    const Index j = groups[g], last = std::min(N, (j + 1) * width);
    exact_->packed().multiply(1, rows_of(x, K), j, j + 1, logits, N, bias_, false, scratch);
    for (Index n = j * width; n < last; ++n)
      if (best < 0 || logits[n] > logits[best]) best = n;
  }
  return best;
}

}  // namespace dhyan

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "dense/product.h"

namespace dhyan {

template <class T>
Packed<T>::Packed(const T* b, Index row, Index col, Index K, Index N) : K_(K), N_(N), nr_(dense_kernels<T>().nr) {
  const Index panels = (N + nr_ - 1) / nr_, threads = threads_here();
  // Four panels of a row at a time (the lines of eight often share a set of the first-level cache: 0.12 instead of
  // 0.085 ns an element), fewer where a thread would have none: a small matrix packed by one was 6 % of a small step.
  const Index step = std::max<Index>(1, std::min<Index>(4, (panels + threads - 1) / threads));
  const auto pack = [&](auto panels_of) {
    parallel_for((panels + step - 1) / step, 4 * K * N,
                 [&](Index i) { panels_of(i * step, std::min(panels, (i + 1) * step)); });
  };
  if constexpr (std::is_same_v<T, float>)
    if (bf16_products()) {
      pairs_ = Buffer<std::uint32_t>(panels * ((K + 1) / 2) * nr_);
      pack([&](Index first, Index last) {
        bf16_kernels()->pack_pairs(b, row, col, K, N, first, last, pairs_.get());
      });
      return;
    }
  data_ = Buffer<T>(panels * K * nr_);
  const auto pack_panels = dense_kernels<T>().pack_panels;
  pack([&](Index first, Index last) { pack_panels(b, row, col, K, N, first, last, data_.get()); });
}

template <class T>
void Packed<T>::multiply(Index M, Operand<T> a, Index first, Index last, T* c, Index ldc, const T* bias,
                         bool accumulate, T* scratch) const {
  if constexpr (std::is_same_v<T, float>)
    if (pairs_.get())
      return bf16_kernels()->gemm_pairs(M, a, {pairs_.get(), K_, N_, nr_}, first, last, c, ldc, bias, accumulate,
                                        scratch);
  dense_kernels<T>().gemm(M, a, panels(), first, last, c, ldc, bias, accumulate, scratch);
}

template <class T>
void product(Index M, Operand<T> a, const Packed<T>& b, T* c, Index ldc, const T* bias, bool accumulate) {
  const Panels<T> panels = b.panels();
  if (M == 0 || panels.N == 0) return;
  const Index need = dense_kernels<T>().gemm_scratch;
  // Many rows to a tile, so that a block of B is fetched once for all of them (128 rows: 136 GFLOP/s a core, limited by
  // the third-level cache); fewer where there would be too few tiles to deal.
  Index tile_m = 512;
  Index tile_j = std::max<Index>(1, 512 / panels.nr);
  const auto tiles = [&] { return (M + tile_m - 1) / tile_m * ((panels.count() + tile_j - 1) / tile_j); };
  while (tile_m > 64 && tiles() < 4 * threads_here()) tile_m /= 2;
  // Small products too are for all threads: one tile of 64 x 512 was a fifth of a small training step.
  while (tile_j > 2 && tiles() < 2 * threads_here()) tile_j /= 2;
  const Index rows = (M + tile_m - 1) / tile_m, columns = (panels.count() + tile_j - 1) / tile_j;
  parallel_for(rows * columns, 2 * M * panels.N * panels.K, [&](Index tile) {
    static thread_local Buffer<T> scratch;
    if (scratch.size() < need) scratch = Buffer<T>(need);
    const Index m0 = tile / columns * tile_m, m1 = std::min(M, m0 + tile_m);
    const Index j0 = tile % columns * tile_j, j1 = std::min(panels.count(), j0 + tile_j);
    b.multiply(m1 - m0, {a.data + m0 * a.row, a.row, a.col}, j0, j1, c + m0 * ldc, ldc, bias, accumulate,
               scratch.get());
  });
}

template <class T>
void product_once(Index M, Operand<T> a, const T* b, Index K, Index N, T* c, bool accumulate) {
  const T* none = nullptr;
  const Index nr = dense_kernels<T>().nr, need = dense_kernels<T>().gemm_scratch;
  Index width = std::max<Index>(nr, 512 / nr * nr);
  while (width > 4 * nr && (N + width - 1) / width < 4 * threads_here()) width = width / nr / 2 * nr;
  const Index parts = (N + width - 1) / width;
  if (parts < 2 * threads_here()) return product(M, a, Packed<T>::of(b, K, N), c, N, none, accumulate);
  // Packed where it is multiplied, a part of B stays in that core's second-level cache; whole it went through memory
  // and back.
  const bool rounded = bf16_products();
  parallel_for(parts, 2 * M * N * K, [&](Index i) {
    static thread_local Buffer<T> scratch;
    if (scratch.size() < need) scratch = Buffer<T>(need);
    const RoundedProducts as_there(rounded);
    const Index first = i * width;
    const Packed<T> part(b + first, N, 1, K, std::min(width, N - first));
    part.multiply(M, a, 0, part.panel_count(), c + first, N, none, accumulate, scratch.get());
  });
}

template <class T>
void thin_product(Index M, const T* a, Index lda, const Weights<T>& b, T* c, Index ldc, const T* bias,
                  bool accumulate) {
  const Index N = b.N();
  if (M == 0 || N == 0) return;
  const auto& kernels = dense_kernels<T>();
  // One part a thread, the same every time: a part of a recurrent matrix then stays in that core's cache over the
  // steps.
  const Index parts = std::max<Index>(1, std::min<Index>(threads_here(), N / 64)), unit = 32;
  const Index units = (N + unit - 1) / unit;
  parallel_for(parts, M * N * b.K() / 2, [&](Index i) {
    static thread_local Buffer<T> sums;
    if (sums.size() < kernels.gemm_scratch) sums = Buffer<T>(kernels.gemm_scratch);
    const Index first = units * i / parts * unit, last = std::min(N, units * (i + 1) / parts * unit);
    if constexpr (std::is_same_v<T, float>) {
      if (b.bytes())
        return active_variant().dense.gemm_thin_bytes(M, a, lda, b.bytes(), N, b.scales(), b.K(), first, last, c, ldc,
                                                      bias, accumulate, sums.get());
      if (b.halves())
        return active_variant().dense.gemm_thin_halves(M, a, lda, b.halves(), N, b.K(), first, last, c, ldc, bias,
                                                       accumulate, sums.get());
    }
    kernels.gemm_thin(M, a, lda, b.data(), N, b.K(), first, last, c, ldc, bias, accumulate, sums.get());
  });
}

template <class T>
void Weights<T>::shrink() {
  if (thin_ && K_ > 0 && N_ > 0 && !to_bytes()) to_halves();
}

template <class T>
bool Weights<T>::to_bytes() {
  if constexpr (std::is_same_v<T, float>) {
    Buffer<float> scales(N_);
    std::vector<float> most(N_, 0.0f);
    for (Index k = 0; k < K_; ++k)
      for (Index n = 0; n < N_; ++n) most[n] = std::max(most[n], std::fabs(data_[k * N_ + n]));
    for (Index n = 0; n < N_; ++n) {
      int exponent = 0;
      std::frexp(most[n], &exponent);  // most <= 2^exponent, and 127 * 2^(exponent - 7) may still be below it
      float scale = std::ldexp(1.0f, exponent - 7);
      if (most[n] > 127 * scale) scale *= 2;
      if (!(most[n] < 1e30f) || (most[n] != 0 && scale < 1e-30f)) return false;
      scales.get()[n] = most[n] == 0 ? 1.0f : scale;
    }
    Buffer<std::int8_t> bytes(K_ * N_);
    std::atomic<bool> exact{true};
    const Index step = std::max<Index>(1, (1 << 16) / N_);
    parallel_for((K_ + step - 1) / step, K_ * N_, [&](Index i) {
      for (Index k = i * step; k < std::min(K_, (i + 1) * step) && exact; ++k)
        for (Index n = 0; n < N_; ++n) {
          const float code = data_[k * N_ + n] / scales.get()[n];
          const auto byte = static_cast<std::int8_t>(code);
          if (static_cast<float>(byte) != code) exact = false;
          bytes.get()[k * N_ + n] = byte;
        }
    });
    if (!exact) return false;
    bytes_ = std::move(bytes);
    scales_ = std::move(scales);
    return true;
  }
  return false;
}

template <class T>
void Weights<T>::to_halves() {
  if constexpr (std::is_same_v<T, float>) {
    const Index n = K_ * N_, piece = 1 << 16;
    Buffer<std::uint16_t> halves(n);
    std::atomic<bool> exact{true};
    parallel_for((n + piece - 1) / piece, n, [&](Index i) {
      for (Index j = i * piece; j < std::min(n, (i + 1) * piece) && exact; ++j) {
        std::uint32_t bits;
        std::memcpy(&bits, data_ + j, sizeof bits);
        if (bits & 0xffff) exact = false;
        halves.get()[j] = static_cast<std::uint16_t>(bits >> 16);
      }
    });
    if (exact) halves_ = std::move(halves);
  }
}

template <class T>
void column_sums(Index N, Index O, const T* x, T* sum) {
  const Index width = 256;
  std::fill_n(sum, O, T(0));
  parallel_for((O + width - 1) / width, N * O, [&](Index i) {
    const Index first = i * width;
    dense_kernels<T>().add_rows(N, std::min(width, O - first), x + first, O, sum + first);
  });
}

template <class T>
void sums_by_row(Index N, Index W, const T* x, const Index* index, Index R, T* sums) {
  const Index width = 128;
  parallel_for((W + width - 1) / width, 2 * N * W, [&](Index i) {
    const Index first = i * width, n = std::min(width, W - first);
    for (Index r = 0; r < R; ++r) std::fill_n(sums + r * W + first, n, T(0));
    for (Index t = 0; t < N; ++t) dense_kernels<T>().add_rows(1, n, x + t * W + first, W, sums + index[t] * W + first);
  });
}

template <class T>
void weight_gradient(Index N, const T* x, Index ldx, Index I, const T* dy, Index O, T* dw, T* db) {
  if (dw) product(I, columns_of(x, ldx), Packed<T>::of(dy, N, O), dw, O);
  if (db) column_sums(N, O, dy, db);
}

Ragged::Ragged(const Index* lengths, Index batch) : B(batch), length(lengths, lengths + batch), start(batch) {
  for (Index b = 0; b < B; ++b) {
    if (length[b] < 0)
      throw std::invalid_argument("lengths[" + std::to_string(b) + "] is " + std::to_string(length[b]) +
                                  ", expected at least 0");
    start[b] = total;
    total += length[b];
    longest = std::max(longest, length[b]);
  }
}

std::vector<std::vector<Index>> Ragged::slices(Index count) const {
  std::vector<Index> order(B);
  std::iota(order.begin(), order.end(), Index(0));
  std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return length[a] > length[b]; });
  std::vector<std::vector<Index>> parts(count);
  for (Index i = 0; i < B; ++i) parts[i % count].push_back(order[i]);
  return parts;
}

Index slice_count(Index rows, Index work) {
  if (work < kSerialWork) return 1;
  return std::max<Index>(1, std::min<Index>(threads_here(), rows));
}

#define DHYAN_INSTANTIATE(T)                                                                           \
  template class Packed<T>;                                                                            \
  template class Weights<T>;                                                                           \
  template void product<T>(Index, Operand<T>, const Packed<T>&, T*, Index, const T*, bool);            \
  template void product_once<T>(Index, Operand<T>, const T*, Index, Index, T*, bool);                  \
  template void thin_product<T>(Index, const T*, Index, const Weights<T>&, T*, Index, const T*, bool); \
  template void weight_gradient<T>(Index, const T*, Index, Index, const T*, Index, T*, T*);            \
  template void column_sums<T>(Index, Index, const T*, T*);                                            \
  template void sums_by_row<T>(Index, Index, const T*, const Index*, Index, T*);
DHYAN_INSTANTIATE(float)
DHYAN_INSTANTIATE(double)
#undef DHYAN_INSTANTIATE

}  // namespace dhyan

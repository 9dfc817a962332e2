// Output layer and softmax cross entropy as one op, in tiles of rows: the vocabulary-wide gradient of a tile lives only
// while it is turned into dr and added to dw.
#include <algorithm>

#include "runtime/check.h"
#include "dense/product.h"
#include "dhyan/linear.h"

namespace dhyan {
namespace {

constexpr Index kTileRows = 256;  // half of the K block of a product: 8 MiB of float logits at V = 8,000

template <class T>
void check_loss(const char* op, View<const T, 2> r, View<const T, 2> w, View<const T, 1> b,
                View<const Index, 1> targets, T smoothing) {
  check_shape(op, "w", w, {{"E", r[1]}, {"V", -1}}, ("to match r " + shape_of(r)).c_str());
  check_shape(op, "b", b, {{"V", w[1]}}, ("to match w " + shape_of(w)).c_str());
  check_shape(op, "targets", targets, {{"N", r[0]}}, ("to match r " + shape_of(r)).c_str());
  if (w[1] == 0) fail(std::string(op) + ": w has no columns, expected a vocabulary of at least 1");
  if (!(smoothing >= T(0) && smoothing < T(1)))
    fail(std::string(op) + ": smoothing is " + std::to_string(smoothing) + ", expected 0 <= smoothing < 1");
  for (Index i = 0; i < targets[0]; ++i)
    if (targets.data[i] >= w[1])
      throw std::out_of_range(std::string(op) + ": targets[" + std::to_string(i) + "] is " +
                              std::to_string(targets.data[i]) + ", expected an id < " + std::to_string(w[1]));
}

template <class T>
void check_shares(View<const T, 1> shares, View<const T, 2> r) {
  check_shape("cross_entropy_backward", "shares", shares, {{"N", r[0]}}, ("to match r " + shape_of(r)).c_str());
  for (Index i = 0; i < shares[0]; ++i)
    if (shares.data[i] < T(0))
      fail("cross_entropy_backward: shares[" + std::to_string(i) + "] is " + std::to_string(shares.data[i]) +
           ", expected at least 0");
}

// What a tile of logits costs: log_sums and log p of every row, and losses.
template <class T>
void tile_losses(Index first, Index rows, Index V, const T* tile, const Index* targets, T smoothing, T* log_sums,
                 T* log_p, double* losses) {
  parallel_for((rows + 7) / 8, rows * V, [&](Index chunk) {
    for (Index i = chunk * 8; i < std::min(rows, chunk * 8 + 8); ++i) {
      const Index row = first + i, target = targets[row];
      T total;
      const T log_sum = dense_kernels<T>().log_sum_exp(tile + i * V, V, &total);
      log_sums[row] = log_sum;
      log_p[row] = target < 0 ? T(0) : tile[i * V + target] - log_sum;
      if (target < 0) continue;
      losses[row] = (1.0 - smoothing) * (double(log_sum) - tile[i * V + target]) +
                    smoothing * (double(log_sum) - double(total) / double(V));
    }
  });
}

double sum_of(const std::vector<double>& losses) {
  double loss = 0;
  for (double l : losses) loss += l;
  return loss;
}

constexpr Index kChunk = 8;  // rows whose gradients are summed while they are in the cache

// A tile of logits into its gradient, in place; kept: where the logits are if not in the tile. sums (rows / kChunk,V)
// receives the sum of the rows of each chunk.
template <class T>
void tile_gradient(Index first, Index rows, Index V, T* tile, const T* kept, const Index* targets, T smoothing,
                   const T* log_sums, const T* shares, T scale, T* sums) {
  const auto& kernels = dense_kernels<T>();
  parallel_for((rows + kChunk - 1) / kChunk, rows * V, [&](Index chunk) {
    const Index begin = chunk * kChunk, end = std::min(rows, begin + kChunk);
    for (Index i = begin; i < end; ++i) {
      T* d = tile + i * V;
      if (kept) std::copy_n(kept + (first + i) * V, V, d);
      const Index target = targets[first + i];
      if (target < 0)
        std::fill_n(d, V, T(0));
      else if (!shares)
        kernels.cross_entropy_gradient(d, V, log_sums[first + i], target, smoothing, scale);
      else {  // a target that counts less: the same kernel with another weight and smoothing
        const T weight = (T(1) - smoothing) * shares[first + i] + smoothing;
        const T even = weight > T(0) ? smoothing / weight : T(0);
        kernels.cross_entropy_gradient(d, V, log_sums[first + i], target, even, scale * weight);
      }
    }
    std::fill_n(sums + chunk * V, V, T(0));
    kernels.add_rows(end - begin, V, tile + begin * V, V, sums + chunk * V);
  });
}

// From the gradient of a tile of logits to dr, and on to dw and db, which the tiles before have begun.
template <class T>
void tile_backward(Index first, Index rows, const T* tile, const T* sums, View<const T, 2> r, const Packed<T>& back,
                   const Index* targets, View<T, 2> dr, View<T, 2> dw, View<T, 1> db) {
  const Index E = r[1], V = dw[1];
  product(rows, rows_of<T>(tile, V), back, dr.data + first * E, E);
  // A row that is left out must not be seen: 0 * NaN would carry it into dw.
  const T* inputs = r.data + first * E;
  Buffer<T> kept;
  if (std::any_of(targets + first, targets + first + rows, [](Index target) { return target < 0; })) {
    kept = Buffer<T>(rows * E);
    std::copy_n(inputs, rows * E, kept.get());
    for (Index i = 0; i < rows; ++i)
      if (targets[first + i] < 0) std::fill_n(kept.get() + i * E, E, T(0));
    inputs = kept.get();
  }
  product_once(E, columns_of(inputs, E), tile, rows, V, dw.data, first > 0);
  const Index width = 256, chunks = (rows + kChunk - 1) / kChunk;
  parallel_for((V + width - 1) / width, chunks * V, [&](Index i) {
    dense_kernels<T>().add_rows(chunks, std::min(width, V - i * width), sums + i * width, V, db.data + i * width);
  });
}

template <class T>
void check_gradients(const char* op, View<const T, 2> w, View<T, 2> dw, View<T, 1> db) {
  check_shape(op, "dw", dw, {{"E", w[0]}, {"V", w[1]}}, "to match w");
  check_shape(op, "db", db, {{"V", w[1]}}, "to match b");
}

}  // namespace

template <class T>
double cross_entropy_forward(View<const T, 2> r, View<const T, 2> w, View<const T, 1> b, View<const Index, 1> targets,
                             T smoothing, View<T, 1> log_sums, View<T, 1> log_p, View<T, 2> logits) {
  check_loss("cross_entropy_forward", r, w, b, targets, smoothing);
  const Index N = r[0], E = r[1], V = w[1];
  const Packed<T> packed = Packed<T>::of(w.data, E, V);
  const Buffer<T> scratch(logits ? 0 : std::min(N, kTileRows) * V);
  std::vector<double> losses(N, 0.0);
  for (Index first = 0; first < N; first += kTileRows) {
    const Index rows = std::min(kTileRows, N - first);
    T* tile = logits ? logits.data + first * V : scratch.get();
    product(rows, rows_of(r.data + first * E, E), packed, tile, V, b.data);
    tile_losses(first, rows, V, tile, targets.data, smoothing, log_sums.data, log_p.data, losses.data());
  }
  return sum_of(losses);
}

template <class T>
void cross_entropy_backward(T scale, View<const T, 2> r, View<const T, 2> w, View<const T, 1> b,
                            View<const Index, 1> targets, T smoothing, View<const T, 1> log_sums,
                            View<const T, 2> logits, View<const T, 1> shares, View<T, 2> dr, View<T, 2> dw,
                            View<T, 1> db) {
  check_loss("cross_entropy_backward", r, w, b, targets, smoothing);
  const Index N = r[0], E = r[1], V = w[1];
  if (shares) check_shares(shares, r);
  check_gradients("cross_entropy_backward", w, dw, db);
  const Packed<T> back = Packed<T>::transposed(w.data, V, E);
  const Packed<T> packed = logits ? Packed<T>() : Packed<T>::of(w.data, E, V);
  const Buffer<T> tile(std::min(N, kTileRows) * V), sums((std::min(N, kTileRows) + kChunk - 1) / kChunk * V);
  if (N == 0) std::fill_n(dw.data, dw.count(), T(0));
  std::fill_n(db.data, db.count(), T(0));
  for (Index first = 0; first < N; first += kTileRows) {
    const Index rows = std::min(kTileRows, N - first);
    if (!logits) product(rows, rows_of(r.data + first * E, E), packed, tile.get(), V, b.data);
    tile_gradient<T>(first, rows, V, tile.get(), logits.data, targets.data, smoothing, log_sums.data, shares.data,
                     scale, sums.get());
    tile_backward<T>(first, rows, tile.get(), sums.get(), r, back, targets.data, dr, dw, db);
  }
}

template <class T>
double cross_entropy_both(T scale, View<const T, 2> r, View<const T, 2> w, View<const T, 1> b,
                          View<const Index, 1> targets, T smoothing, View<T, 2> dr, View<T, 2> dw, View<T, 1> db) {
  check_loss("cross_entropy_both", r, w, b, targets, smoothing);
  check_gradients("cross_entropy_both", w, dw, db);
  const Index N = r[0], E = r[1], V = w[1];
  const Packed<T> packed = Packed<T>::of(w.data, E, V), back = Packed<T>::transposed(w.data, V, E);
  const Buffer<T> tile(std::min(N, kTileRows) * V), sums((std::min(N, kTileRows) + kChunk - 1) / kChunk * V);
  const Buffer<T> log_sums(N), log_p(N);
  std::vector<double> losses(N, 0.0);
  if (N == 0) std::fill_n(dw.data, dw.count(), T(0));
  std::fill_n(db.data, db.count(), T(0));
  for (Index first = 0; first < N; first += kTileRows) {
    const Index rows = std::min(kTileRows, N - first);
    product(rows, rows_of(r.data + first * E, E), packed, tile.get(), V, b.data);
    tile_losses(first, rows, V, tile.get(), targets.data, smoothing, log_sums.get(), log_p.get(), losses.data());
    tile_gradient<T>(first, rows, V, tile.get(), nullptr, targets.data, smoothing, log_sums.get(), nullptr, scale,
                     sums.get());
    tile_backward<T>(first, rows, tile.get(), sums.get(), r, back, targets.data, dr, dw, db);
  }
  return sum_of(losses);
}

#define DHYAN_INSTANTIATE(T)                                                                                           \
  template double cross_entropy_forward<T>(View<const T, 2>, View<const T, 2>, View<const T, 1>, View<const Index, 1>, \
                                           T, View<T, 1>, View<T, 1>, View<T, 2>);                                     \
  template void cross_entropy_backward<T>(T, View<const T, 2>, View<const T, 2>, View<const T, 1>,                     \
                                          View<const Index, 1>, T, View<const T, 1>, View<const T, 2>,                 \
                                          View<const T, 1>, View<T, 2>, View<T, 2>, View<T, 1>);                       \
  template double cross_entropy_both<T>(T, View<const T, 2>, View<const T, 2>, View<const T, 1>, View<const Index, 1>, \
                                        T, View<T, 2>, View<T, 2>, View<T, 1>);
DHYAN_INSTANTIATE(float)
DHYAN_INSTANTIATE(double)
#undef DHYAN_INSTANTIATE

}  // namespace dhyan

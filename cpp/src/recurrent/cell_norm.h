// Layer normalisation of the two sums of a cell, x W_ih and h W_hh (Ba, Kiros & Hinton 2016, equations 20 to 22 and
// 29):
//
//   LN(a) = (a - mean) / sd gain + bias,   sd = sqrt(mean of squares of (a - mean) + 1e-5), over the G*H sums of one
//   step
//
// A step of a row is one normalisation, so neither its batch nor threads can be seen. Sums are double, in order.
#pragma once

#include <algorithm>
#include <cmath>

#include "dense/product.h"
#include "dhyan/recurrent.h"

namespace dhyan {

constexpr double kNormEpsilon = 1e-5;
enum Sum : Index { input_sum = 0, state_sum = 1 };

// What each step of a slice of rows keeps; empty where nothing is normalised.
template <class T>
struct CellNorm {
  Index width = 0;
  Buffer<T> normal, inverse;  // (rows,2,G*H) (a - mean) / sd of both sums; (rows,2) 1 / sd
  Buffer<T> outer;            // backward: (rows,2,G*H) dLN of both sums

  CellNorm() = default;
  CellNorm(bool wanted, Index rows, Index G_H)
      : width(wanted ? G_H : 0), normal(2 * rows * width), inverse(wanted ? 2 * rows : 0) {}
  explicit operator bool() const { return width > 0; }

  // x (rows,G*H): a in, LN(a) out.
  void forward(Sum which, Index rows, T* x, const T* gain, const T* bias) const {
    for (Index r = 0; r < rows; ++r) {
      T* row = x + r * width;
      T* kept = normal.get() + (2 * r + which) * width;
      double sum = 0, squares = 0;
      for (Index i = 0; i < width; ++i) sum += row[i];
      const double mean = sum / width;
      for (Index i = 0; i < width; ++i) squares += (row[i] - mean) * (row[i] - mean);
      const double scale = 1.0 / std::sqrt(squares / width + kNormEpsilon);
      inverse.get()[2 * r + which] = static_cast<T>(scale);
      for (Index i = 0; i < width; ++i) {
        kept[i] = static_cast<T>((row[i] - mean) * scale);
        row[i] = kept[i] * gain[i] + bias[i];
      }
    }
  }

  // d (rows,G*H): dLN in, da out: da = (g - mean(g) - n mean(g n)) / sd with g = dLN gain, n = (a - mean) / sd.
  void backward(Sum which, Index rows, T* d, const T* gain) const {
    for (Index r = 0; r < rows; ++r) {
      T* row = d + r * width;
      const T* n = normal.get() + (2 * r + which) * width;
      std::copy_n(row, width, outer.get() + (2 * r + which) * width);
      double sum = 0, along = 0;
      for (Index i = 0; i < width; ++i) {
        const double g = double(row[i]) * gain[i];
        sum += g;
        along += g * n[i];
      }
      const double mean = sum / width, slope = along / width, scale = inverse.get()[2 * r + which];
      for (Index i = 0; i < width; ++i)
        row[i] = static_cast<T>((double(row[i]) * gain[i] - mean - n[i] * slope) * scale);
    }
  }

  // Row i of this slice into row `row` of all, and back.
  void keep(Index i, const CellNorm& all, Index row) const {
    std::copy_n(normal.get() + 2 * i * width, 2 * width, all.normal.get() + 2 * row * width);
    std::copy_n(inverse.get() + 2 * i, width ? 2 : 0, all.inverse.get() + 2 * row);
  }
  void keep_outer(Index i, const Buffer<T>& all, Index row) const {
    std::copy_n(outer.get() + 2 * i * width, 2 * width, all.get() + 2 * row * width);
  }
};

// The gradients of gains and biases, sums over all N steps in their order: dgain = dLN n, dbias = dLN.
// `outer` is overwritten.
template <class T>
void norm_gradients(Index N, const CellNorm<T>& all, const Buffer<T>& outer, const CellGradients<T>& g) {
  const Index width = all.width;
  const Buffer<T> sums(2 * width);
  const auto write = [&](View<T, 1> first, View<T, 1> second) {
    column_sums(N, 2 * width, static_cast<const T*>(outer.get()), sums.get());
    std::copy_n(sums.get(), width, first.data);
    std::copy_n(sums.get() + width, width, second.data);
  };
  write(g.bias_ih, g.bias_hh);
  dense_kernels<T>().multiply(2 * N * width, all.normal.get(), outer.get());
  write(g.gain_ih, g.gain_hh);
}

}  // namespace dhyan

// Softmax cross entropy over one row of logits. Sums run in 16 fixed lanes, so every instruction set adds in one order.
#pragma once

#include "kernels/dense_table.h"
#include "kernels/elementary.h"

namespace dhyan {
namespace {

constexpr Index kSumLanes = 16;

template <class T>
inline double add_lanes(const double* lane) {
  double sum = 0;
  for (Index l = 0; l < kSumLanes; ++l) sum += lane[l];
  return sum;
}

template <class T>
T row_max(const T* x, Index n) {
  T lane[kSumLanes];
  for (Index l = 0; l < kSumLanes; ++l) lane[l] = x[0];
  Index i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes) {
#pragma omp simd
    for (Index l = 0; l < kSumLanes; ++l) lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
  }
  for (; i < n; ++i) lane[0] = x[i] > lane[0] ? x[i] : lane[0];
  T top = lane[0];
  for (Index l = 1; l < kSumLanes; ++l) top = lane[l] > top ? lane[l] : top;
  return top;
}

template <class T>
Index arg_max(const T* x, Index n) {
  const T top = row_max(x, n);
  for (Index i = 0; i < n;) {  // whole blocks first: a loop that may stop anywhere stays scalar
    const Index end = n - i < 64 ? n : i + 64;
    int hits = 0;
#pragma omp simd reduction(+ : hits)
    for (Index j = i; j < end; ++j) hits += x[j] == top;
    if (hits)
      for (Index j = i; j < end; ++j)
        if (x[j] == top) return j;
    i = end;
  }
  return 0;
}

// The k largest of x - minus into values and ids, largest first, of equals the lower index; k <= n.
template <class T>
void largest(const T* x, Index n, T minus, Index k, T* values, Index* ids) {
  constexpr Index block = 64;
  Index count = 0;
  for (Index first = 0; first < n && k > 0; first += block) {
    const Index width = n - first < block ? n - first : block;
    T some[block];
#pragma omp simd
    for (Index j = 0; j < width; ++j) some[j] = x[first + j] - minus;
    if (count == k) {
      int hits = 0;
      const T least = values[k - 1];
#pragma omp simd reduction(+ : hits)
      for (Index j = 0; j < width; ++j) hits += some[j] > least;
      if (!hits) continue;
    }
    for (Index j = 0; j < width; ++j) {
      if (count == k && !(some[j] > values[k - 1])) continue;
      Index at = count < k ? count++ : k - 1;
      for (; at > 0 && values[at - 1] < some[j]; --at) values[at] = values[at - 1], ids[at] = ids[at - 1];
      values[at] = some[j];
      ids[at] = first + j;
    }
  }
}

// max + log sum exp(x - max) in double from the sum on; `total` receives sum x.
template <class T>
T log_sum_exp(const T* x, Index n, T* total) {
  const T top = row_max(x, n);
  double sums[kSumLanes] = {}, plain[kSumLanes] = {};
  Index i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes) {
    T e[kSumLanes];
#pragma omp simd
    for (Index l = 0; l < kSumLanes; ++l) e[l] = vexp(x[i + l] - top);
#pragma omp simd
    for (Index l = 0; l < kSumLanes; ++l) {
      sums[l] += e[l];
      plain[l] += x[i + l];
    }
  }
  for (; i < n; ++i) {
    sums[0] += vexp(x[i] - top);
    plain[0] += x[i];
  }
  *total = static_cast<T>(add_lanes<T>(plain));
  return static_cast<T>(static_cast<double>(top) + __builtin_log(add_lanes<T>(sums)));
}

template <class T>
void cross_entropy_gradient(T* logits, Index V, T log_sum, Index target, T smoothing, T weight) {
  const T even = smoothing / static_cast<T>(V);
#pragma omp simd
  for (Index i = 0; i < V; ++i) logits[i] = (vexp(logits[i] - log_sum) - even) * weight;
  logits[target] -= (T(1) - smoothing) * weight;
}

template <class T>
void add_rows(Index rows, Index n, const T* x, Index ldx, T* sum) {
  for (Index r = 0; r < rows; ++r) {
    const T* row = x + r * ldx;
#pragma omp simd
    for (Index i = 0; i < n; ++i) sum[i] += row[i];
  }
}

template <class T>
void axpy(Index n, T a, const T* x, T* y) {
#pragma omp simd
  for (Index i = 0; i < n; ++i) y[i] += a * x[i];
}

template <class T>
void multiply(Index n, const T* x, T* y) {
#pragma omp simd
  for (Index i = 0; i < n; ++i) y[i] *= x[i];
}

}  // namespace
}  // namespace dhyan

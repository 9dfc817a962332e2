// Matrix products and ragged rows on threads: what the front files of linear, recurrent, decoder and loss are made of.
#pragma once

#include <cstdint>
#include <numeric>
#include <vector>

#include "runtime/memory.h"
#include "runtime/threads.h"
#include "runtime/isa.h"
#include "dhyan/view.h"

namespace dhyan {

// B of a product, packed once and read by many products.
template <class T>
class Packed {
 public:
  Packed() = default;
  // Element (k, n) of B at b[k * row + n * col]; runs on threads unless called inside a parallel region.
  Packed(const T* b, Index row, Index col, Index K, Index N);
  static Packed of(const T* w /*(K,N)*/, Index K, Index N) { return Packed(w, N, 1, K, N); }
  static Packed transposed(const T* w /*(N,K)*/, Index K, Index N) { return Packed(w, 1, K, K, N); }
  Panels<T> panels() const { return {data_.get(), K_, N_, nr_}; }
  Index panel_count() const { return panels().count(); }
  // C = start + A B for panels first..last, on the calling thread.
  void multiply(Index M, Operand<T> a, Index first, Index last, T* c, Index ldc, const T* bias, bool accumulate,
                T* scratch) const;
  Index K() const { return K_; }
  Index N() const { return N_; }

 private:
  Buffer<T> data_;
  Buffer<std::uint32_t> pairs_;  // in the place of data_: bfloat16, two k to an element
  Index K_ = 0, N_ = 0, nr_ = 1;
};

// A weight matrix (K,N) as B of products of `rows` rows: packed where the rows earn that back, else read where it lies
// (which the caller then keeps alive). Both forms give the same bits.
constexpr Index kThinRows = 32;
// What to expect of a loop over steps of `rows` rows: its weights are used again and again.
inline Index loop_rows(Index rows) { return rows <= 8 ? rows : kThinRows + 1; }
template <class T>
class Weights {
 public:
  Weights() = default;
  Weights(const T* w, Index K, Index N, Index rows)
      : data_(w), K_(K), N_(N), thin_(rows <= kThinRows && !bf16_products()) {
    if (!thin_) packed_ = Packed<T>::of(w, K, N);
  }
  bool thin() const { return thin_; }
  const Packed<T>& packed() const { return packed_; }
  const T* data() const { return data_; }
  Index K() const { return K_; }
  Index N() const { return N_; }
  // Keeps a copy of a quarter of the bytes where every weight is a byte times a power of two of its column, or of half
  // of them where every weight is a bfloat16 number; products stay the same bits.
  void shrink();
  const std::uint16_t* halves() const { return halves_.get(); }
  const std::int8_t* bytes() const { return bytes_.get(); }
  const float* scales() const { return scales_.get(); }

 private:
  const T* data_ = nullptr;
  Packed<T> packed_;
  bool to_bytes();
  void to_halves();
  Buffer<std::uint16_t> halves_;
  Buffer<std::int8_t> bytes_;  // (K,N)
  Buffer<float> scales_;       // (N)
  Index K_ = 0, N_ = 0;
  bool thin_ = true;
};

template <class T>
Operand<T> rows_of(const T* data, Index ld) { return {data, ld, 1}; }
template <class T>
Operand<T> columns_of(const T* data, Index ld) { return {data, 1, ld}; }  // the transpose of a row-major matrix

// C (M,N) = start + A B on all threads, cut into tiles of rows and columns.
template <class T>
void product(Index M, Operand<T> a, const Packed<T>& b, T* c, Index ldc, const T* bias = nullptr,
             bool accumulate = false);
// C (M,N) = start + A B with a B (K,N) that no other product reads.
template <class T>
void product_once(Index M, Operand<T> a, const T* b, Index K, Index N, T* c, bool accumulate);
// The same on the calling thread, with its own scratch.
template <class T>
void product_here(Index M, Operand<T> a, const Packed<T>& b, T* c, Index ldc, T* scratch, const T* bias = nullptr,
                  bool accumulate = false) {
  if (M == 0 || b.N() == 0) return;
  b.multiply(M, a, 0, b.panel_count(), c, ldc, bias, accumulate, scratch);
}

// C (M,N) = start + A B with the rows of A `lda` apart; threads own columns of C, unless called inside a parallel
// region.
template <class T>
void thin_product(Index M, const T* a, Index lda, const Weights<T>& b, T* c, Index ldc, const T* bias, bool accumulate);
template <class T>
void product(Index M, const T* a, Index lda, const Weights<T>& b, T* c, Index ldc, const T* bias = nullptr,
             bool accumulate = false) {
  if (b.thin()) return thin_product(M, a, lda, b, c, ldc, bias, accumulate);
  product(M, rows_of(a, lda), b.packed(), c, ldc, bias, accumulate);
}
template <class T>
void product_here(Index M, Operand<T> a, const Weights<T>& b, T* c, Index ldc, T* scratch, const T* bias = nullptr,
                  bool accumulate = false) {
  if (b.thin()) return thin_product(M, a.data, a.row, b, c, ldc, bias, accumulate);
  product_here(M, a, b.packed(), c, ldc, scratch, bias, accumulate);
}

// dw (I,O) = x^T dy over the N rows of dy, packed once where several inputs meet it.
template <class T>
void weight_gradient(const T* x, Index ldx, Index I, const Packed<T>& dy, T* dw) {
  product(I, columns_of(x, ldx), dy, dw, dy.N());
}
// The same, and db (O) = the sum of the rows of dy (null: not wanted).
template <class T>
void weight_gradient(Index N, const T* x, Index ldx, Index I, const T* dy, Index O, T* dw, T* db);

// Sums over rows in row order; threads own columns.
template <class T>
void column_sums(Index N, Index O, const T* x, T* sum);

// sums (R,W): row r is the sum of the rows n of x (N,W) with index[n] = r, in the order of n; threads own columns.
template <class T>
void sums_by_row(Index N, Index W, const T* x, const Index* index, Index R, T* sums);

// Sentences of different lengths as one matrix of their tokens, sentence after sentence: row = start[b] + t.
// Padding never enters a product, so it can neither cost time nor leak.
struct Ragged {
  Index B = 0, longest = 0, total = 0;
  std::vector<Index> length, start;

  Ragged() = default;
  Ragged(const Index* lengths, Index batch);
  // Sentences dealt to threads, longest first inside a slice: those still running are always a prefix.
  std::vector<std::vector<Index>> slices(Index count) const;
};

// How many slices a step loop of `rows` sentences is cut into: enough rows must stay for a tile of the product.
Index slice_count(Index rows, Index work);

}  // namespace dhyan

// y = x w + b and embedding lookup, forward and backward.
#include "dhyan/linear.h"

#include <algorithm>

#include "runtime/check.h"
#include "dense/product.h"

namespace dhyan {
namespace {

template <class T>
void check_linear(const char* op, View<const T, 2> x, View<const T, 2> w, View<const T, 1> b) {
  check_shape(op, "w", w, {{"I", x[1]}, {"O", -1}}, ("to match x " + shape_of(x)).c_str());
  if (b) check_shape(op, "b", b, {{"O", w[1]}}, ("to match w " + shape_of(w)).c_str());
}

void check_ids(const char* op, View<const Index, 1> ids, Index V) {
  for (Index i = 0; i < ids[0]; ++i)
    if (ids.data[i] < 0 || ids.data[i] >= V)
      throw std::out_of_range(std::string(op) + ": ids[" + std::to_string(i) + "] is " + std::to_string(ids.data[i]) +
                              ", expected 0 <= id < " + std::to_string(V));
}

}  // namespace

template <class T>
void linear_forward(View<const T, 2> x, View<const T, 2> w, View<const T, 1> b, View<T, 2> y) {
  check_linear("linear_forward", x, w, b);
  product<T>(x[0], x.data, x[1], Weights<T>(w.data, w[0], w[1], x[0]), y.data, w[1], b.data);
}

template <class T>
void linear_backward(View<const T, 2> dy, View<const T, 2> x, View<const T, 2> w, View<T, 2> dx, bool add,
                     View<T, 2> dw, View<T, 1> db) {
  check_linear<T>("linear_backward", x, w, {});
  check_shape("linear_backward", "dy", dy, {{"M", x[0]}, {"O", w[1]}}, "to match x and w");
  check_shape("linear_backward", "dw", dw, {{"I", w[0]}, {"O", w[1]}}, "to match w");
  if (db) check_shape("linear_backward", "db", db, {{"O", w[1]}}, "to match w");
  check_shape("linear_backward", "dx", dx, {{"M", x[0]}, {"I", w[0]}}, "to match x and w");
  product<T>(dy[0], rows_of(dy.data, dy[1]), Packed<T>::transposed(w.data, w[1], w[0]), dx.data, w[0], nullptr, add);
  weight_gradient(x[0], x.data, x[1], x[1], dy.data, w[1], dw.data, db.data);
}

template <class T>
void embedding_forward(View<const T, 2> table, View<const Index, 1> ids, View<T, 2> out) {
  check_ids("embedding_forward", ids, table[0]);
  const Index E = table[1], chunk = 64;
  parallel_for((ids[0] + chunk - 1) / chunk, ids[0] * E, [&](Index c) {
    for (Index i = c * chunk; i < std::min(ids[0], (c + 1) * chunk); ++i)
      std::copy_n(table.data + ids.data[i] * E, E, out.data + i * E);
  });
}

template <class T>
void embedding_backward(View<const T, 2> dout, View<const Index, 1> ids, View<T, 2> dtable) {
  const Index V = dtable[0], E = dtable[1];
  check_shape("embedding_backward", "dout", dout, {{"N", ids[0]}, {"E", E}}, "to match ids and table");
  check_ids("embedding_backward", ids, V);
  const Index piece = 1 << 16;
  parallel_for((dtable.count() + piece - 1) / piece, dtable.count(), [&](Index i) {
    std::fill_n(dtable.data + i * piece, std::min(piece, dtable.count() - i * piece), T(0));
  });
  // Threads own column ranges, so each element is summed in the order of the ids whatever the thread count.
  const Index width = 64;
  const auto& kernels = dense_kernels<T>();
  parallel_for((E + width - 1) / width, ids[0] * E, [&](Index c) {
    const Index first = c * width, n = std::min(width, E - first);
    for (Index i = 0; i < ids[0]; ++i)
      kernels.add_rows(1, n, dout.data + i * E + first, E, dtable.data + ids.data[i] * E + first);
  });
}

#define DHYAN_INSTANTIATE(T)                                                                                           \
  template void linear_forward<T>(View<const T, 2>, View<const T, 2>, View<const T, 1>, View<T, 2>);                   \
  template void linear_backward<T>(View<const T, 2>, View<const T, 2>, View<const T, 2>, View<T, 2>, bool, View<T, 2>, \
                                   View<T, 1>);                                                                        \
  template void embedding_forward<T>(View<const T, 2>, View<const Index, 1>, View<T, 2>);                              \
  template void embedding_backward<T>(View<const T, 2>, View<const Index, 1>, View<T, 2>);
DHYAN_INSTANTIATE(float)
DHYAN_INSTANTIATE(double)
#undef DHYAN_INSTANTIATE

}  // namespace dhyan

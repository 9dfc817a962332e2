// What the bindings of recurrent layers and of the decoder share: inputs as views, a cell's arrays by name, caches.
#pragma once

#include <memory>
#include <vector>

#include "arrays.h"
#include "dhyan/recurrent.h"

namespace dhyan::bindings {

// Activations of one forward call; their type is known to the matching backward alone.
struct Cache {
  std::shared_ptr<void> held;
  Float dtype;
};

// A recurrent cell's parameters, or the arrays that their gradients are written to; gains are None without layer
// normalisation.
struct CellArrays {
  py::object weight_ih, weight_hh, bias_ih, bias_hh, gain_ih, gain_hh;
};

// The inputs of one call as views; keeps copies of strided ones alive.
template <class T>
struct Holder {
  std::vector<Input<T>> inputs;
  const char* op;
  std::vector<Input<Index>> indices = {};
  Apart apart = {};
  template <int N>
  View<const T, N> get(py::handle object, const char* name, const char* axes) {
    inputs.push_back(input<T>(object, op, name));
    const auto v = inputs.back().template view<N>(op, name, axes);
    apart.reads(name, v);
    return v;
  }
  // After all that is got: an array that the call writes to.
  template <int N>
  View<T, N> into(py::handle object, const char* name) {
    return apart.writes<T, N>(object, op, name);
  }
  View<const Index, 1> ids(py::handle object, const char* name, const char* axes) {
    indices.push_back(required<Index>(object, op, name));
    return indices.back().template view<1>(op, name, axes);
  }
  // x (R, I) and index (N,) or None: tokens that share rows.
  Tokens<T> tokens(py::handle x, py::handle index, const char* name, const char* axes) {
    Tokens<T> t{get<2>(x, name, axes), {}};
    if (!index.is_none()) t.index = ids(index, "index", "(N,)");
    return t;
  }
  CellParameters<T> cell(const CellArrays& a) {
    return {get<2>(a.weight_ih, "weight_ih", "(I, G*H)"), get<2>(a.weight_hh, "weight_hh", "(H, G*H)"),
            get<1>(a.bias_ih, "bias_ih", "(G*H,)"),       get<1>(a.bias_hh, "bias_hh", "(G*H,)"),
            get<1>(a.gain_ih, "gain_ih", "(G*H,)"),       get<1>(a.gain_hh, "gain_hh", "(G*H,)")};
  }
  CellGradients<T> cell_gradients(const CellArrays& a) {
    CellGradients<T> g{into<2>(a.weight_ih, "dweight_ih"), into<2>(a.weight_hh, "dweight_hh"),
                       into<1>(a.bias_ih, "dbias_ih"), into<1>(a.bias_hh, "dbias_hh"), {}, {}};
    if (!a.gain_ih.is_none()) g.gain_ih = into<1>(a.gain_ih, "dgain_ih");
    if (!a.gain_hh.is_none()) g.gain_hh = into<1>(a.gain_hh, "dgain_hh");
    return g;
  }
};

}  // namespace dhyan::bindings

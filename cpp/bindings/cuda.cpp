// The attention ops on CUDA arrays; the same in every build, where the device side is absent it says so.
#include "dhyan/cuda.h"

#include "attention/inputs.h"
#include "device_arrays.h"

namespace dhyan::bindings {
namespace {

using cuda::Place, cuda::Weight;

Term device_term(const std::string& name, const char* op) {
  if (name == "product") return Term::product;
  if (name == "tanh") return Term::tanh;
  throw py::value_error(std::string(op) + ": term is '" + name + "', expected 'product' or 'tanh'");
}

Place place_of(py::handle first, py::handle stream, const char* op, const char* name) {
  return {device_array(first, op, name).place.device, stream_of(stream)};
}

template <class T>
struct DeviceScoring {
  DeviceInput<T> q, k, w;
  Scoring<T> views;
  DeviceScoring(const Place& place, py::handle q_, py::handle k_, py::handle w_, const std::string& term, double scale,
                const char* op)
      : q(device_required<T>(place, q_, op, "q")), k(device_required<T>(place, k_, op, "k")),
        w(device_input<T>(place, w_, op, "w")) {
    views.q = q.template view<3>(op, "q", "(B, T, H)");
    views.k = k.template view<3>(op, "k", "(B, S, H)");
    views.w = w.template view<1>(op, "w", "(H,)");
    views.term = device_term(term, op);
    views.scale = scale;
  }
};

// Ranges on the device, or both in CPU memory: those are checked here and copied. The mask is read as it lies.
struct DeviceRestriction {
  DeviceInput<Index> begin, end;
  Input<Index> host_begin, host_end;
  DeviceArray mask;
  Restriction views;

  DeviceRestriction(const Place& place, py::handle begin_, py::handle end_, py::handle mask_, Index B, Index T, Index S,
                    const char* op) {
    const auto on_device = [](py::handle x) { return py::isinstance<DeviceArray>(x); };
    if (!begin_.is_none() && !end_.is_none() && on_device(begin_) != on_device(end_))
      throw py::value_error(std::string(op) + ": begin and end are not in the same memory, expected both on the device or both in CPU memory");
    if (on_device(begin_) || on_device(end_)) {
      begin = device_input<Index>(place, begin_, op, "begin");
      end = device_input<Index>(place, end_, op, "end");
    } else if (!begin_.is_none() || !end_.is_none()) {
      Restriction host;
      host_begin = input<Index>(begin_, op, "begin");
      host_end = input<Index>(end_, op, "end");
      host.begin = host_begin.view<2>(op, "begin", "(B, T)");
      host.end = host_end.view<2>(op, "end", "(B, T)");
      check_restriction(op, host, B, T, S);
      copy(place, host.begin, begin, op);
      copy(place, host.end, end, op);
      views.checked = true;
    }
    views.begin = begin.view<2>(op, "begin", "(B, T)");
    views.end = end.view<2>(op, "end", "(B, T)");
    if (!mask_.is_none()) read_mask(place, mask_, {B, T, S}, op);
  }

 private:
  static void copy(const Place& place, const View<const Index, 2>& from, DeviceInput<Index>& to, const char* op) {
    if (!from) return;
    to.array = device_output<Index>(place, {from[0], from[1]}, op);
    cuda::upload(place, from.data, to.array.bytes(), to.array.data, op);
    to.present = true;
  }
  void read_mask(const Place& place, py::handle mask_, std::array<Index, 3> axes, const char* op) {
    mask = device_array(mask_, op, "mask");
    same_device(mask, place, op, "mask");
    if (mask.dtype.code != dlpack::kBool || mask.dtype.bits != 8)
      throw py::type_error(where(op, "mask") + " has dtype " + type_name(mask.dtype) +
                           ", expected bool (True = may be attended)");
    const int rank = static_cast<int>(mask.shape.size()), missing = 3 - rank;
    bool fits = missing >= 0;
    for (int i = 0; fits && i < rank; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const Index n = mask.shape[at], want = axes[static_cast<std::size_t>(missing + i)];
      fits = n == want || n == 1;
      views.mask_stride[missing + i] = n == 1 ? 0 : mask.strides[at];
    }
    if (!fits)
      throw py::value_error(where(op, "mask") + " has shape " + mask.shape_text() +
                            ", expected one that broadcasts to (B=" + std::to_string(axes[0]) +
                            ", T=" + std::to_string(axes[1]) + ", S=" + std::to_string(axes[2]) + ")");
    views.mask = reinterpret_cast<const unsigned char*>(mask.data);
  }
};

template <class T>
py::object score_forward(const Place& place, py::handle q, py::handle k, py::handle w, const std::string& term,
                         double scale) {
  const char* op = "score_forward";
  const DeviceScoring<T> in(place, q, k, w, term, scale, op);
  const Scoring<T>& x = in.views;
  auto scores = device_output<Weight<T>>(place, {x.q[0], x.q[1], x.k[1]}, op);
  without_gil([&] { cuda::score_forward<T>(place, x, device_view<Weight<T>, 3>(scores)); });
  return py::cast(std::move(scores));
}

template <class T>
py::object score_backward(const Place& place, py::handle dscores_, py::handle q, py::handle k, py::handle w,
                          const std::string& term, double scale) {
  const char* op = "score_backward";
  const DeviceScoring<T> in(place, q, k, w, term, scale, op);
  const Scoring<T>& x = in.views;
  const auto dscores = device_required<Weight<T>>(place, dscores_, op, "dscores");
  const auto dscores_view = dscores.template view<3>(op, "dscores", "(B, T, S)");
  auto dq = device_output<T>(place, {x.q[0], x.q[1], x.q[2]}, op), dk = device_output<T>(place, {x.k[0], x.k[1], x.k[2]}, op);
  auto dw = device_output<T>(place, {x.w[0]}, op);
  without_gil([&] {
    cuda::score_backward<T>(place, dscores_view, x, device_view<T, 3>(dq), device_view<T, 3>(dk), device_view<T, 1>(dw));
  });
  return py::make_tuple(std::move(dq), std::move(dk), x.w ? py::cast(std::move(dw)) : py::none());
}

template <class T>
py::object softmax_forward(const Place& place, py::handle scores_, py::handle begin, py::handle end, py::handle mask) {
  const char* op = "softmax_forward";
  const auto scores = device_required<T>(place, scores_, op, "scores");
  const auto view = scores.template view<3>(op, "scores", "(B, T, S)");
  const DeviceRestriction may(place, begin, end, mask, view[0], view[1], view[2], op);
  auto weights = device_output<T>(place, {view[0], view[1], view[2]}, op);
  without_gil([&] { cuda::softmax_forward<T>(place, view, may.views, device_view<T, 3>(weights)); });
  return py::cast(std::move(weights));
}

template <class T>
py::object softmax_backward(const Place& place, py::handle dweights_, py::handle weights_) {
  const char* op = "softmax_backward";
  const auto dweights = device_required<T>(place, dweights_, op, "dweights"), weights = device_required<T>(place, weights_, op, "weights");
  const auto dweights_view = dweights.template view<3>(op, "dweights", "(B, T, S)");
  const auto weights_view = weights.template view<3>(op, "weights", "(B, T, S)");
  auto dscores = device_output<T>(place, {weights_view[0], weights_view[1], weights_view[2]}, op);
  without_gil([&] { cuda::softmax_backward<T>(place, dweights_view, weights_view, device_view<T, 3>(dscores)); });
  return py::cast(std::move(dscores));
}

template <class T>
py::object context_forward(const Place& place, py::handle weights_, py::handle v_) {
  const char* op = "context_forward";
  const auto weights = device_required<Weight<T>>(place, weights_, op, "weights");
  const auto v = device_required<T>(place, v_, op, "v");
  const auto weights_view = weights.template view<3>(op, "weights", "(B, T, S)");
  const auto v_view = v.template view<3>(op, "v", "(B, S, D)");
  auto context = device_output<T>(place, {weights_view[0], weights_view[1], v_view[2]}, op);
  without_gil([&] { cuda::context_forward<T>(place, weights_view, v_view, device_view<T, 3>(context)); });
  return py::cast(std::move(context));
}

template <class T>
py::object context_backward(const Place& place, py::handle dcontext_, py::handle weights_, py::handle v_) {
  const char* op = "context_backward";
  const auto dcontext = device_required<T>(place, dcontext_, op, "dcontext"), v = device_required<T>(place, v_, op, "v");
  const auto weights = device_required<Weight<T>>(place, weights_, op, "weights");
  const auto dcontext_view = dcontext.template view<3>(op, "dcontext", "(B, T, D)");
  const auto weights_view = weights.template view<3>(op, "weights", "(B, T, S)");
  const auto v_view = v.template view<3>(op, "v", "(B, S, D)");
  auto dweights = device_output<Weight<T>>(place, {weights_view[0], weights_view[1], weights_view[2]}, op);
  auto dv = device_output<T>(place, {v_view[0], v_view[1], v_view[2]}, op);
  without_gil([&] {
    cuda::context_backward<T>(place, dcontext_view, weights_view, v_view, device_view<Weight<T>, 3>(dweights),
                              device_view<T, 3>(dv));
  });
  return py::make_tuple(std::move(dweights), std::move(dv));
}

template <class T>
py::object attention_forward(const Place& place, py::handle q, py::handle k, py::handle v_, py::handle w,
                             const std::string& term, double scale, py::handle begin, py::handle end, py::handle mask,
                             bool need_weights) {
  const char* op = "attention_forward";
  const DeviceScoring<T> in(place, q, k, w, term, scale, op);
  const auto v = device_required<T>(place, v_, op, "v");
  const auto v_view = v.template view<3>(op, "v", "(B, S, D)");
  const Index B = in.views.q[0], rows = in.views.q[1], S = in.views.k[1];
  const DeviceRestriction may(place, begin, end, mask, B, rows, S, op);
  auto context = device_output<T>(place, {B, rows, v_view[2]}, op);
  DeviceArray weights;
  View<Weight<T>, 3> weights_view;
  if (need_weights) {
    weights = device_output<Weight<T>>(place, {B, rows, S}, op);
    weights_view = device_view<Weight<T>, 3>(weights);
  }
  without_gil([&] {
    cuda::attention_forward<T>(place, in.views, v_view, may.views, device_view<T, 3>(context), weights_view);
  });
  return py::make_tuple(std::move(context), need_weights ? py::cast(std::move(weights)) : py::none());
}

template <class T>
py::object attention_backward(const Place& place, py::handle dcontext_, py::handle dweights_, py::handle q, py::handle k,
                              py::handle v_, py::handle w, const std::string& term, double scale, py::handle begin,
                              py::handle end, py::handle mask, py::handle weights_) {
  const char* op = "attention_backward";
  const DeviceScoring<T> in(place, q, k, w, term, scale, op);
  const Scoring<T>& x = in.views;
  const auto v = device_required<T>(place, v_, op, "v"), dcontext = device_required<T>(place, dcontext_, op, "dcontext");
  const auto dweights = device_input<Weight<T>>(place, dweights_, op, "dweights");
  const auto weights = device_input<Weight<T>>(place, weights_, op, "weights");
  const auto v_view = v.template view<3>(op, "v", "(B, S, D)");
  const auto dcontext_view = dcontext.template view<3>(op, "dcontext", "(B, T, D)");
  const auto dweights_view = dweights.template view<3>(op, "dweights", "(B, T, S)");
  const auto weights_view = weights.template view<3>(op, "weights", "(B, T, S)");
  const DeviceRestriction may(place, begin, end, mask, x.q[0], x.q[1], x.k[1], op);
  auto dq = device_output<T>(place, {x.q[0], x.q[1], x.q[2]}, op), dk = device_output<T>(place, {x.k[0], x.k[1], x.k[2]}, op);
  auto dv = device_output<T>(place, {v_view[0], v_view[1], v_view[2]}, op), dw = device_output<T>(place, {x.w[0]}, op);
  without_gil([&] {
    cuda::attention_backward<T>(place, dcontext_view, dweights_view, x, v_view, may.views, weights_view,
                                device_view<T, 3>(dq), device_view<T, 3>(dk), device_view<T, 3>(dv), device_view<T, 1>(dw));
  });
  return py::make_tuple(std::move(dq), std::move(dk), std::move(dv), x.w ? py::cast(std::move(dw)) : py::none());
}

template <class T>
py::object unit_rows(const Place& place, py::handle x_) {
  const char* op = "unit_rows";
  const auto x = device_required<T>(place, x_, op, "x");
  auto out = new_device_array(place, x.array.shape, x.array.dtype, op);
  const Index H = x.array.shape.empty() ? 1 : x.array.shape.back(), rows = H > 0 ? x.array.count() / H : 0;
  without_gil([&] {
    if (rows > 0)
      cuda::unit_rows<T>(place, {reinterpret_cast<const T*>(x.array.data), {rows, H}},
                         {reinterpret_cast<T*>(out.data), {rows, H}});
  });
  return py::cast(std::move(out));
}

dlpack::DataType type_of(const std::string& name) {
  for (const dlpack::DataType t : {ElementType<float>::value, ElementType<double>::value, ElementType<cuda::Half>::value,
                                   ElementType<cuda::Bfloat16>::value, ElementType<Index>::value, ElementType<bool>::value})
    if (type_name(t) == name) return t;
  throw py::type_error("cuda_upload: dtype is " + name + ", expected float32, float64, float16, bfloat16, int64 or bool");
}

DeviceArray upload(const py::array& array, const std::string& dtype, int device, py::handle stream) {
  const dlpack::DataType type = type_of(dtype);
  const py::array rows = py::array::ensure(array, py::array::c_style);
  if (rows.itemsize() * 8 != type.bits)
    throw py::type_error("cuda_upload: array has dtype " + describe(array) + ", expected elements of " + dtype);
  cuda::require_device("cuda_upload");
  const Place place{device, stream_of(stream)};
  DeviceArray a = new_device_array(place, std::vector<Index>(rows.shape(), rows.shape() + rows.ndim()), type, "cuda_upload");
  cuda::upload(place, rows.data(), a.bytes(), a.data, "cuda_upload");
  return a;
}

py::array download(const DeviceArray& a, py::handle stream) {
  const std::string name = type_name(a.dtype);
  py::array out(py::dtype(name == "bfloat16" ? "uint16" : name), std::vector<py::ssize_t>(a.shape.begin(), a.shape.end()));
  if (!a.contiguous()) throw py::value_error("DeviceArray: a strided array cannot be downloaded");
  void* to = out.mutable_data();
  const Place place{a.place.device, stream_of(stream)};  // looks at a Python number: before the GIL is released
  without_gil([&] { cuda::download(place, a.data, a.bytes(), to); });
  return out;
}

DeviceArray reshape(const DeviceArray& a, const std::vector<Index>& shape) {
  DeviceArray b = a;
  b.shape = shape;
  if (b.count() != a.count()) throw py::value_error("DeviceArray: reshape from " + a.shape_text() + " to " + b.shape_text());
  if (a.contiguous()) {
    b.strides = row_major(shape);
    return b;
  }
  b.strides.clear();  // only axes of length 1 come and go
  std::size_t at = 0;
  for (const Index n : shape) {
    while (n != 1 && at < a.shape.size() && a.shape[at] == 1) ++at;
    if (n != 1 && (at >= a.shape.size() || a.shape[at] != n))
      throw py::value_error("DeviceArray: a strided array can only gain or lose axes of length 1");
    b.strides.push_back(n == 1 ? 0 : a.strides[at++]);
  }
  return b;
}

// Two marks on a stream and the milliseconds between them, for the bench.
std::uintptr_t mark(int device, py::handle stream) {
  return reinterpret_cast<std::uintptr_t>(cuda::mark({device, stream_of(stream)}));
}
double between(std::uintptr_t first, std::uintptr_t second) {
  return without_gil(
      [&] { return cuda::between(reinterpret_cast<cuda::Stream>(first), reinterpret_cast<cuda::Stream>(second)); });
}

}  // namespace

void define_cuda(py::module_& m) {
  using py::arg, py::object;
  py::class_<DeviceArray>(m, "DeviceArray")
      .def_property_readonly("shape", [](const DeviceArray& a) { return py::tuple(py::cast(a.shape)); })
      .def_property_readonly("dtype", [](const DeviceArray& a) { return type_name(a.dtype); })
      .def_property_readonly("device", [](const DeviceArray& a) { return a.place.device; })
      .def("reshape", &reshape, arg("shape"))
      .def("download", &download, arg("stream"))
      .def("__dlpack__", &export_device_array, py::kw_only(), arg("stream") = py::none(), arg("max_version") = py::none(),
           arg("dl_device") = py::none(), arg("copy") = py::none())
      .def("__dlpack_device__", [](const DeviceArray& a) { return py::make_tuple(dlpack::kCuda, a.place.device); });
  m.def("cuda_import", [](object x, object stream, const std::string& op, const std::string& name) {
    return import_device_array(x, stream, op.c_str(), name.c_str());
  }, arg("x"), arg("stream"), arg("op"), arg("name"));
  m.def("cuda_upload", &upload, arg("array"), arg("dtype"), arg("device"), arg("stream"));
  m.def("cuda_poison", &cuda::poison, arg("on"));
  m.def("cuda_pool_use", [](int device, bool reset) {
    const cuda::PoolUse use = cuda::pool_use(device, reset);
    return py::make_tuple(use.now, use.highest);
  }, arg("device"), arg("reset"));
  m.def("cuda_trim", [](int device) { without_gil([&] { cuda::trim(device); }); }, arg("device"));
  m.def("cuda_mark", &mark, arg("device"), arg("stream"));
  m.def("cuda_between", &between, arg("first"), arg("second"));

  m.def("cuda_score_forward", [](object stream, object q, object k, object w, const std::string& term, double scale) {
    return dispatch_device(q, "score_forward", "q", [&](auto zero) {
      return score_forward<decltype(zero)>(place_of(q, stream, "score_forward", "q"), q, k, w, term, scale);
    });
  }, arg("stream"), arg("q"), arg("k"), arg("w"), arg("term"), arg("scale"));
  m.def("cuda_score_backward", [](object stream, object dscores, object q, object k, object w, const std::string& term,
                                  double scale) {
    return dispatch_device(q, "score_backward", "q", [&](auto zero) {
      return score_backward<decltype(zero)>(place_of(q, stream, "score_backward", "q"), dscores, q, k, w, term, scale);
    });
  }, arg("stream"), arg("dscores"), arg("q"), arg("k"), arg("w"), arg("term"), arg("scale"));
  m.def("cuda_softmax_forward", [](object stream, object scores, object begin, object end, object mask) {
    const char* op = "softmax_forward";
    const Place place = place_of(scores, stream, op, "scores");
    return dispatch_device(scores, op, "scores",
                           [&](auto zero) { return softmax_forward<Weight<decltype(zero)>>(place, scores, begin, end, mask); });
  }, arg("stream"), arg("scores"), arg("begin"), arg("end"), arg("mask"));
  m.def("cuda_softmax_backward", [](object stream, object dweights, object weights) {
    const char* op = "softmax_backward";
    const Place place = place_of(weights, stream, op, "weights");
    return dispatch_device(weights, op, "weights",
                           [&](auto zero) { return softmax_backward<Weight<decltype(zero)>>(place, dweights, weights); });
  }, arg("stream"), arg("dweights"), arg("weights"));
  m.def("cuda_context_forward", [](object stream, object weights, object v) {
    return dispatch_device(v, "context_forward", "v", [&](auto zero) {
      return context_forward<decltype(zero)>(place_of(v, stream, "context_forward", "v"), weights, v);
    });
  }, arg("stream"), arg("weights"), arg("v"));
  m.def("cuda_context_backward", [](object stream, object dcontext, object weights, object v) {
    return dispatch_device(v, "context_backward", "v", [&](auto zero) {
      return context_backward<decltype(zero)>(place_of(v, stream, "context_backward", "v"), dcontext, weights, v);
    });
  }, arg("stream"), arg("dcontext"), arg("weights"), arg("v"));
  m.def("cuda_attention_forward", [](object stream, object q, object k, object v, object w, const std::string& term,
                                     double scale, object begin, object end, object mask, bool need_weights) {
    return dispatch_device(q, "attention_forward", "q", [&](auto zero) {
      return attention_forward<decltype(zero)>(place_of(q, stream, "attention_forward", "q"), q, k, v, w, term, scale,
                                               begin, end, mask, need_weights);
    });
  }, arg("stream"), arg("q"), arg("k"), arg("v"), arg("w"), arg("term"), arg("scale"), arg("begin"), arg("end"),
     arg("mask"), arg("need_weights"));
  m.def("cuda_attention_backward", [](object stream, object dcontext, object dweights, object q, object k, object v,
                                      object w, const std::string& term, double scale, object begin, object end,
                                      object mask, object weights) {
    return dispatch_device(q, "attention_backward", "q", [&](auto zero) {
      return attention_backward<decltype(zero)>(place_of(q, stream, "attention_backward", "q"), dcontext, dweights, q, k,
                                                v, w, term, scale, begin, end, mask, weights);
    });
  }, arg("stream"), arg("dcontext"), arg("dweights"), arg("q"), arg("k"), arg("v"), arg("w"), arg("term"), arg("scale"),
     arg("begin"), arg("end"), arg("mask"), arg("weights"));
  m.def("cuda_unit_rows", [](object stream, object x) {
    return dispatch_device(x, "unit_rows", "x", [&](auto zero) {
      return unit_rows<decltype(zero)>(place_of(x, stream, "unit_rows", "x"), x);
    });
  }, arg("stream"), arg("x"));
}

}  // namespace dhyan::bindings

// Attention ops: Python arrays in, fresh arrays out. Shapes are checked in attention.cpp, dtypes in arrays.h.
#include "dhyan/attention.h"

#include "arrays.h"
#include "runtime/isa.h"

namespace dhyan::bindings {
namespace {

Term term_of(const std::string& name, const char* op) {
  if (name == "product") return Term::product;
  if (name == "tanh") return Term::tanh;
  throw py::value_error(std::string(op) + ": term is '" + name + "', expected 'product' or 'tanh'");
}

template <class T>
using Array = py::array_t<T>;

// q, k and w of a call, alive as long as the views into them are used.
template <class T>
struct ScoringArgs {
  Input<T> q, k, w;
  Scoring<T> views;
  ScoringArgs(py::handle q_, py::handle k_, py::handle w_, const std::string& term, double scale, const char* op)
      : q(required<T>(q_, op, "q")), k(required<T>(k_, op, "k")), w(input<T>(w_, op, "w")) {
    views.q = q.template view<3>(op, "q", "(B, T, H)");
    views.k = k.template view<3>(op, "k", "(B, S, H)");
    views.w = w.template view<1>(op, "w", "(H,)");
    views.term = term_of(term, op);
    views.scale = scale;
  }
};

struct RestrictionArgs {
  Input<Index> begin, end;
  py::array mask;
  Restriction views;

  RestrictionArgs(py::handle begin_, py::handle end_, py::handle mask_, Index B, Index T, Index S, const char* op)
      : begin(input<Index>(begin_, op, "begin")), end(input<Index>(end_, op, "end")) {
    views.begin = begin.view<2>(op, "begin", "(B, T)");
    views.end = end.view<2>(op, "end", "(B, T)");
    if (!mask_.is_none()) read_mask(mask_, {B, T, S}, op);
  }

 private:
  // Broadcasts by strides of 0; nothing is copied.
  void read_mask(py::handle mask_, std::array<Index, 3> axes, const char* op) {
    mask = to_numpy(mask_, op, "mask");
    if (!mask.dtype().equal(py::dtype::of<bool>()))
      throw py::type_error(where(op, "mask") + " has dtype " + describe(mask) +
                           ", expected bool (True = may be attended)");
    const int missing = 3 - static_cast<int>(mask.ndim());
    bool fits = missing >= 0;
    for (int i = 0; fits && i < mask.ndim(); ++i) {
      const Index n = mask.shape(i), want = axes[missing + i];
      fits = n == want || n == 1;
      views.mask_stride[missing + i] = n == 1 ? 0 : mask.strides(i);
    }
    if (!fits)
      throw py::value_error(where(op, "mask") + " has shape " + std::string(py::str(mask.attr("shape"))) +
                            ", expected one that broadcasts to (B=" + std::to_string(axes[0]) +
                            ", T=" + std::to_string(axes[1]) + ", S=" + std::to_string(axes[2]) + ")");
    views.mask = static_cast<const unsigned char*>(mask.data());
  }
};

template <class T>
py::array score_forward(py::handle q, py::handle k, py::handle w, const std::string& term, double scale) {
  const char* op = "score_forward";
  const ScoringArgs<T> in(q, k, w, term, scale, op);
  auto scores = output<T>({in.views.q[0], in.views.q[1], in.views.k[1]}, op);
  const auto scores_view = view<T, 3>(scores);
  without_gil([&] { dhyan::score_forward<T>(in.views, scores_view); });
  return scores;
}

// dw is None for the product term.
template <class T>
py::tuple score_backward(py::handle dscores_, py::handle q, py::handle k, py::handle w, const std::string& term,
                         double scale) {
  const char* op = "score_backward";
  const auto dscores = required<T>(dscores_, op, "dscores");
  const auto dscores_view = dscores.template view<3>(op, "dscores", "(B, T, S)");
  const ScoringArgs<T> in(q, k, w, term, scale, op);
  const Scoring<T>& x = in.views;
  auto dq = output<T>({x.q[0], x.q[1], x.q[2]}, op), dk = output<T>({x.k[0], x.k[1], x.k[2]}, op);
  auto dw = output<T>({x.w[0]}, op);
  const auto dq_view = view<T, 3>(dq), dk_view = view<T, 3>(dk);
  const auto dw_view = view<T, 1>(dw);
  without_gil([&] { dhyan::score_backward<T>(dscores_view, x, dq_view, dk_view, dw_view); });
  return py::make_tuple(dq, dk, x.w ? py::object(dw) : py::object(py::none()));
}

template <class T>
py::array softmax_forward(py::handle scores_, py::handle begin, py::handle end, py::handle mask) {
  const char* op = "softmax_forward";
  const auto scores = required<T>(scores_, op, "scores");
  const auto scores_view = scores.template view<3>(op, "scores", "(B, T, S)");
  const RestrictionArgs may(begin, end, mask, scores_view[0], scores_view[1], scores_view[2], op);
  auto weights = output<T>({scores_view[0], scores_view[1], scores_view[2]}, op);
  const auto weights_view = view<T, 3>(weights);
  without_gil([&] { dhyan::softmax_forward<T>(scores_view, may.views, weights_view); });
  return weights;
}

template <class T>
py::array softmax_backward(py::handle dweights_, py::handle weights_) {
  const char* op = "softmax_backward";
  const auto dweights = required<T>(dweights_, op, "dweights"), weights = required<T>(weights_, op, "weights");
  const auto dweights_view = dweights.template view<3>(op, "dweights", "(B, T, S)");
  const auto weights_view = weights.template view<3>(op, "weights", "(B, T, S)");
  auto dscores = output<T>({weights_view[0], weights_view[1], weights_view[2]}, op);
  const auto dscores_view = view<T, 3>(dscores);
  without_gil([&] { dhyan::softmax_backward<T>(dweights_view, weights_view, dscores_view); });
  return dscores;
}

template <class T>
py::array sparsemax_forward(py::handle scores_, py::handle begin, py::handle end, py::handle mask) {
  const char* op = "sparsemax_forward";
  const auto scores = required<T>(scores_, op, "scores");
  const auto scores_view = scores.template view<3>(op, "scores", "(B, T, S)");
  const RestrictionArgs may(begin, end, mask, scores_view[0], scores_view[1], scores_view[2], op);
  auto weights = output<T>({scores_view[0], scores_view[1], scores_view[2]}, op);
  const auto weights_view = view<T, 3>(weights);
  without_gil([&] { dhyan::sparsemax_forward<T>(scores_view, may.views, weights_view); });
  return weights;
}

template <class T>
py::array sparsemax_backward(py::handle dweights_, py::handle weights_) {
  const char* op = "sparsemax_backward";
  const auto dweights = required<T>(dweights_, op, "dweights"), weights = required<T>(weights_, op, "weights");
  const auto dweights_view = dweights.template view<3>(op, "dweights", "(B, T, S)");
  const auto weights_view = weights.template view<3>(op, "weights", "(B, T, S)");
  auto dscores = output<T>({weights_view[0], weights_view[1], weights_view[2]}, op);
  const auto dscores_view = view<T, 3>(dscores);
  without_gil([&] { dhyan::sparsemax_backward<T>(dweights_view, weights_view, dscores_view); });
  return dscores;
}

template <class T>
py::array monotonic_forward(py::handle scores_, py::handle previous_, bool hard, py::handle begin, py::handle end,
                            py::handle mask) {
  const char* op = "monotonic_forward";
  const auto scores = required<T>(scores_, op, "scores"), previous = input<T>(previous_, op, "previous");
  const auto scores_view = scores.template view<3>(op, "scores", "(B, T, S)");
  const auto previous_view = previous.template view<2>(op, "previous", "(B, S)");
  const RestrictionArgs may(begin, end, mask, scores_view[0], scores_view[1], scores_view[2], op);
  auto weights = output<T>({scores_view[0], scores_view[1], scores_view[2]}, op);
  const auto weights_view = view<T, 3>(weights);
  without_gil([&] { dhyan::monotonic_forward<T>(scores_view, previous_view, may.views, hard, weights_view); });
  return weights;
}

// dprevious is None where previous is.
template <class T>
py::tuple monotonic_backward(py::handle dweights_, py::handle scores_, py::handle weights_, py::handle previous_,
                             py::handle begin, py::handle end, py::handle mask) {
  const char* op = "monotonic_backward";
  const auto dweights = required<T>(dweights_, op, "dweights"), scores = required<T>(scores_, op, "scores");
  const auto weights = required<T>(weights_, op, "weights"), previous = input<T>(previous_, op, "previous");
  const auto dweights_view = dweights.template view<3>(op, "dweights", "(B, T, S)");
  const auto scores_view = scores.template view<3>(op, "scores", "(B, T, S)");
  const auto weights_view = weights.template view<3>(op, "weights", "(B, T, S)");
  const auto previous_view = previous.template view<2>(op, "previous", "(B, S)");
  const RestrictionArgs may(begin, end, mask, scores_view[0], scores_view[1], scores_view[2], op);
  auto dscores = output<T>({scores_view[0], scores_view[1], scores_view[2]}, op);
  const auto dscores_view = view<T, 3>(dscores);
  py::object dprevious = py::none();
  View<T, 2> dprevious_view;
  if (previous_view) {
    auto a = output<T>({scores_view[0], scores_view[2]}, op);
    dprevious_view = view<T, 2>(a);
    dprevious = a;
  }
  without_gil([&] {
    dhyan::monotonic_backward<T>(dweights_view, scores_view, weights_view, previous_view, may.views, dscores_view,
                                 dprevious_view);
  });
  return py::make_tuple(dscores, dprevious);
}

template <class T>
py::array context_forward(py::handle weights_, py::handle v_) {
  const char* op = "context_forward";
  const auto weights = required<T>(weights_, op, "weights"), v = required<T>(v_, op, "v");
  const auto weights_view = weights.template view<3>(op, "weights", "(B, T, S)");
  const auto v_view = v.template view<3>(op, "v", "(B, S, D)");
  auto context = output<T>({weights_view[0], weights_view[1], v_view[2]}, op);
  const auto context_view = view<T, 3>(context);
  without_gil([&] { dhyan::context_forward<T>(weights_view, v_view, context_view); });
  return context;
}

template <class T>
py::tuple context_backward(py::handle dcontext_, py::handle weights_, py::handle v_) {
  const char* op = "context_backward";
  const auto dcontext = required<T>(dcontext_, op, "dcontext"), weights = required<T>(weights_, op, "weights");
  const auto v = required<T>(v_, op, "v");
  const auto dcontext_view = dcontext.template view<3>(op, "dcontext", "(B, T, D)");
  const auto weights_view = weights.template view<3>(op, "weights", "(B, T, S)");
  const auto v_view = v.template view<3>(op, "v", "(B, S, D)");
  auto dweights = output<T>({weights_view[0], weights_view[1], weights_view[2]}, op);
  auto dv = output<T>({v_view[0], v_view[1], v_view[2]}, op);
  const auto dweights_view = view<T, 3>(dweights), dv_view = view<T, 3>(dv);
  without_gil([&] { dhyan::context_backward<T>(dcontext_view, weights_view, v_view, dweights_view, dv_view); });
  return py::make_tuple(dweights, dv);
}

template <class T>
py::tuple attention_forward(py::handle q, py::handle k, py::handle v_, py::handle w, const std::string& term,
                            double scale, py::handle begin, py::handle end, py::handle mask, bool need_weights) {
  const char* op = "attention_forward";
  const ScoringArgs<T> in(q, k, w, term, scale, op);
  const auto v = required<T>(v_, op, "v");
  const auto v_view = v.template view<3>(op, "v", "(B, S, D)");
  const Index B = in.views.q[0], rows = in.views.q[1], S = in.views.k[1];
  const RestrictionArgs may(begin, end, mask, B, rows, S, op);
  auto context = output<T>({B, rows, v_view[2]}, op);
  py::object weights = py::none();
  View<T, 3> weights_view;
  if (need_weights) {
    auto a = output<T>({B, rows, S}, op);
    weights_view = view<T, 3>(a);
    weights = a;
  }
  const auto context_view = view<T, 3>(context);
  without_gil([&] { dhyan::attention_forward<T>(in.views, v_view, may.views, context_view, weights_view); });
  return py::make_tuple(context, weights);
}

template <class T>
py::tuple attention_backward(py::handle dcontext_, py::handle dweights_, py::handle q, py::handle k, py::handle v_,
                             py::handle w, const std::string& term, double scale, py::handle begin, py::handle end,
                             py::handle mask, py::handle weights_) {
  const char* op = "attention_backward";
  const ScoringArgs<T> in(q, k, w, term, scale, op);
  const Scoring<T>& x = in.views;
  const auto v = required<T>(v_, op, "v"), dcontext = required<T>(dcontext_, op, "dcontext");
  const auto dweights = input<T>(dweights_, op, "dweights"), weights = input<T>(weights_, op, "weights");
  const auto v_view = v.template view<3>(op, "v", "(B, S, D)");
  const auto dcontext_view = dcontext.template view<3>(op, "dcontext", "(B, T, D)");
  const auto dweights_view = dweights.template view<3>(op, "dweights", "(B, T, S)");
  const auto weights_view = weights.template view<3>(op, "weights", "(B, T, S)");
  const RestrictionArgs may(begin, end, mask, x.q[0], x.q[1], x.k[1], op);
  auto dq = output<T>({x.q[0], x.q[1], x.q[2]}, op), dk = output<T>({x.k[0], x.k[1], x.k[2]}, op);
  auto dv = output<T>({v_view[0], v_view[1], v_view[2]}, op), dw = output<T>({x.w[0]}, op);
  const auto dq_view = view<T, 3>(dq), dk_view = view<T, 3>(dk), dv_view = view<T, 3>(dv);
  const auto dw_view = view<T, 1>(dw);
  without_gil([&] {
    dhyan::attention_backward<T>(dcontext_view, dweights_view, x, v_view, may.views, weights_view, dq_view, dk_view,
                                 dv_view, dw_view);
  });
  return py::make_tuple(dq, dk, dv, x.w ? py::object(dw) : py::object(py::none()));
}

template <class T>
py::array elementary(py::handle x_, const char* op, void (*AttentionKernels<T>::*function)(const T*, Index, T*)) {
  const auto x = required<T>(x_, op, "x");
  const auto xv = x.template view<1>(op, "x", "(N,)");
  auto y = output<T>({xv[0]}, op);
  T* data = y.mutable_data();
  without_gil([&] { (attention_kernels<T>().*function)(xv.data, xv[0], data); });
  return y;
}

}  // namespace

void define_attention(py::module_& m) {
  using py::arg, py::object;
  m.def("score_forward", [](object q, object k, object w, const std::string& term, double scale) {
    return dispatch(float_of(q, "score_forward", "q"),
                    [&](auto zero) { return score_forward<decltype(zero)>(q, k, w, term, scale); });
  }, arg("q"), arg("k"), arg("w"), arg("term"), arg("scale"));
  m.def("score_backward", [](object dscores, object q, object k, object w, const std::string& term, double scale) {
    return dispatch(float_of(q, "score_backward", "q"),
                    [&](auto zero) { return score_backward<decltype(zero)>(dscores, q, k, w, term, scale); });
  }, arg("dscores"), arg("q"), arg("k"), arg("w"), arg("term"), arg("scale"));
  m.def("softmax_forward", [](object scores, object begin, object end, object mask) {
    return dispatch(float_of(scores, "softmax_forward", "scores"),
                    [&](auto zero) { return softmax_forward<decltype(zero)>(scores, begin, end, mask); });
  }, arg("scores"), arg("begin"), arg("end"), arg("mask"));
  m.def("softmax_backward", [](object dweights, object weights) {
    return dispatch(float_of(weights, "softmax_backward", "weights"),
                    [&](auto zero) { return softmax_backward<decltype(zero)>(dweights, weights); });
  }, arg("dweights"), arg("weights"));
  m.def("sparsemax_forward", [](object scores, object begin, object end, object mask) {
    return dispatch(float_of(scores, "sparsemax_forward", "scores"),
                    [&](auto zero) { return sparsemax_forward<decltype(zero)>(scores, begin, end, mask); });
  }, arg("scores"), arg("begin"), arg("end"), arg("mask"));
  m.def("sparsemax_backward", [](object dweights, object weights) {
    return dispatch(float_of(weights, "sparsemax_backward", "weights"),
                    [&](auto zero) { return sparsemax_backward<decltype(zero)>(dweights, weights); });
  }, arg("dweights"), arg("weights"));
  m.def("monotonic_forward", [](object scores, object previous, bool hard, object begin, object end, object mask) {
    return dispatch(float_of(scores, "monotonic_forward", "scores"), [&](auto zero) {
      return monotonic_forward<decltype(zero)>(scores, previous, hard, begin, end, mask);
    });
  }, arg("scores"), arg("previous"), arg("hard"), arg("begin"), arg("end"), arg("mask"));
  m.def("monotonic_backward", [](object dweights, object scores, object weights, object previous, object begin,
                                 object end, object mask) {
    return dispatch(float_of(scores, "monotonic_backward", "scores"), [&](auto zero) {
      return monotonic_backward<decltype(zero)>(dweights, scores, weights, previous, begin, end, mask);
    });
  }, arg("dweights"), arg("scores"), arg("weights"), arg("previous"), arg("begin"), arg("end"), arg("mask"));
  m.def("context_forward", [](object weights, object v) {
    return dispatch(float_of(weights, "context_forward", "weights"),
                    [&](auto zero) { return context_forward<decltype(zero)>(weights, v); });
  }, arg("weights"), arg("v"));
  m.def("context_backward", [](object dcontext, object weights, object v) {
    return dispatch(float_of(weights, "context_backward", "weights"),
                    [&](auto zero) { return context_backward<decltype(zero)>(dcontext, weights, v); });
  }, arg("dcontext"), arg("weights"), arg("v"));
  m.def("attention_forward", [](object q, object k, object v, object w, const std::string& term, double scale,
                                object begin, object end, object mask, bool need_weights) {
    return dispatch(float_of(q, "attention_forward", "q"), [&](auto zero) {
      return attention_forward<decltype(zero)>(q, k, v, w, term, scale, begin, end, mask, need_weights);
    });
  }, arg("q"), arg("k"), arg("v"), arg("w"), arg("term"), arg("scale"), arg("begin"), arg("end"), arg("mask"),
     arg("need_weights"));
  m.def("attention_backward", [](object dcontext, object dweights, object q, object k, object v, object w,
                                 const std::string& term, double scale, object begin, object end, object mask,
                                 object weights) {
    return dispatch(float_of(q, "attention_backward", "q"), [&](auto zero) {
      return attention_backward<decltype(zero)>(dcontext, dweights, q, k, v, w, term, scale, begin, end, mask,
                                                weights);
    });
  }, arg("dcontext"), arg("dweights"), arg("q"), arg("k"), arg("v"), arg("w"), arg("term"), arg("scale"),
     arg("begin"), arg("end"), arg("mask"), arg("weights"));
  m.def("exp_array", [](object x) {
    return dispatch(float_of(x, "exp_array", "x"), [&](auto zero) {
      return elementary<decltype(zero)>(x, "exp_array", &AttentionKernels<decltype(zero)>::exp_array);
    });
  }, arg("x"));
  m.def("tanh_array", [](object x) {
    return dispatch(float_of(x, "tanh_array", "x"), [&](auto zero) {
      return elementary<decltype(zero)>(x, "tanh_array", &AttentionKernels<decltype(zero)>::tanh_array);
    });
  }, arg("x"));
}

}  // namespace dhyan::bindings

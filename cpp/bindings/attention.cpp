// Attention ops: Python arrays in, fresh arrays out, on the side where the first array lies. Shapes are checked in
// src/attention, dtypes in arrays.h and sides.h.
#include "dhyan/attention.h"

#include "runtime/isa.h"
#include "sides.h"

namespace dhyan::bindings {
namespace {

using cuda::Weight;

// The ops of both sides under one name: those of the device take a place first, which Device::call hands to them.
namespace both {
using namespace dhyan;
using namespace dhyan::cuda;
}  // namespace both

Term term_of(const std::string& name, const char* op) {
  if (name == "product") return Term::product;
  if (name == "tanh") return Term::tanh;
  throw py::value_error(std::string(op) + ": term is '" + name + "', expected 'product' or 'tanh'");
}

struct ScoreArguments {
  py::handle q, k, w;
  const std::string& term;
  double scale;
};

template <class T, class Side>
Scoring<T> scoring(Side& side, const ScoreArguments& a, const char* op) {
  return {side.template need<T, 3>(a.q, "q", "(B, T, H)"), side.template need<T, 3>(a.k, "k", "(B, S, H)"),
          side.template get<T, 1>(a.w, "w", "(H,)"), term_of(a.term, op), a.scale};
}

py::object score_forward(py::handle q, py::handle k, py::handle w, const std::string& term, double scale,
                         py::handle stream) {
  const char* op = "score_forward";
  return on_side(op, q, "q", stream, [&](auto& side, auto zero) -> py::object {
    using T = decltype(zero);
    const Scoring<T> in = scoring<T>(side, {q, k, w, term, scale}, op);
    const auto scores = side.template output<Weight<T>>(std::array{in.q[0], in.q[1], in.k[1]});
    side.call([&](const auto&... place) { both::score_forward<T>(place..., in, scores.view); });
    return scores.array;
  });
}

// dw is None for the product term.
py::object score_backward(py::handle dscores_, py::handle q, py::handle k, py::handle w, const std::string& term,
                          double scale, py::handle stream) {
  const char* op = "score_backward";
  return on_side(op, q, "q", stream, [&](auto& side, auto zero) -> py::object {
    using T = decltype(zero);
    const auto dscores = side.template need<Weight<T>, 3>(dscores_, "dscores", "(B, T, S)");
    const Scoring<T> in = scoring<T>(side, {q, k, w, term, scale}, op);
    const auto dq = side.template output<T>(in.q.size), dk = side.template output<T>(in.k.size);
    const auto dw = side.template output<T>(in.w.size, bool(in.w));
    side.call(
        [&](const auto&... place) { both::score_backward<T>(place..., dscores, in, dq.view, dk.view, dw.view); });
    return py::make_tuple(dq.array, dk.array, dw.array);
  });
}

// What makes weights of scores, row by row: run(place..., scores, may, weights), and backward.
template <class T, class Side, class F>
py::object weights_of(Side& side, py::handle scores_, py::handle begin, py::handle end, py::handle mask, F&& run) {
  const auto scores = side.template need<T, 3>(scores_, "scores", "(B, T, S)");
  const Restriction may = side.restriction(begin, end, mask, scores.size);
  const auto weights = side.template output<T>(scores.size);
  side.call([&](const auto&... place) { run(place..., scores, may, weights.view); });
  return weights.array;
}
template <class T, class Side, class F>
py::object dscores_of(Side& side, py::handle dweights_, py::handle weights_, F&& run) {
  const auto dweights = side.template need<T, 3>(dweights_, "dweights", "(B, T, S)");
  const auto weights = side.template need<T, 3>(weights_, "weights", "(B, T, S)");
  const auto dscores = side.template output<T>(weights.size);
  side.call([&](const auto&... place) { run(place..., dweights, weights, dscores.view); });
  return dscores.array;
}

py::object softmax_forward(py::handle scores, py::handle begin, py::handle end, py::handle mask, py::handle stream) {
  return on_side("softmax_forward", scores, "scores", stream, [&](auto& side, auto zero) {
    using T = Weight<decltype(zero)>;
    return weights_of<T>(side, scores, begin, end, mask,
                         [](const auto&... inputs) { both::softmax_forward<T>(inputs...); });
  });
}

py::object softmax_backward(py::handle dweights, py::handle weights, py::handle stream) {
  return on_side("softmax_backward", weights, "weights", stream, [&](auto& side, auto zero) {
    using T = Weight<decltype(zero)>;
    return dscores_of<T>(side, dweights, weights, [](const auto&... inputs) { both::softmax_backward<T>(inputs...); });
  });
}

py::object sparsemax_forward(py::handle scores, py::handle begin, py::handle end, py::handle mask) {
  return on_host("sparsemax_forward", scores, "scores", [&](Host& host, auto zero) {
    using T = decltype(zero);
    return weights_of<T>(host, scores, begin, end, mask,
                         [](const auto&... inputs) { dhyan::sparsemax_forward<T>(inputs...); });
  });
}

py::object sparsemax_backward(py::handle dweights, py::handle weights) {
  return on_host("sparsemax_backward", weights, "weights", [&](Host& host, auto zero) {
    using T = decltype(zero);
    return dscores_of<T>(host, dweights, weights,
                         [](const auto&... inputs) { dhyan::sparsemax_backward<T>(inputs...); });
  });
}

py::object monotonic_forward(py::handle scores, py::handle previous_, bool hard, py::handle begin, py::handle end,
                             py::handle mask) {
  return on_host("monotonic_forward", scores, "scores", [&](Host& host, auto zero) {
    using T = decltype(zero);
    const auto previous = host.get<T, 2>(previous_, "previous", "(B, S)");
    return weights_of<T>(host, scores, begin, end, mask, [&](const auto& in, const Restriction& may, const auto& out) {
      dhyan::monotonic_forward<T>(in, previous, may, hard, out);
    });
  });
}

// dprevious is None where previous is.
py::object monotonic_backward(py::handle dweights_, py::handle scores_, py::handle weights_, py::handle previous_,
                              py::handle begin, py::handle end, py::handle mask) {
  return on_host("monotonic_backward", scores_, "scores", [&](Host& host, auto zero) -> py::object {
    using T = decltype(zero);
    const auto dweights = host.need<T, 3>(dweights_, "dweights", "(B, T, S)");
    const auto scores = host.need<T, 3>(scores_, "scores", "(B, T, S)");
    const auto weights = host.need<T, 3>(weights_, "weights", "(B, T, S)");
    const auto previous = host.get<T, 2>(previous_, "previous", "(B, S)");
    const Restriction may = host.restriction(begin, end, mask, scores.size);
    const auto dscores = host.output<T>(scores.size);
    const auto dprevious = host.output<T>(std::array{scores[0], scores[2]}, bool(previous));
    host.call([&] {
      dhyan::monotonic_backward<T>(dweights, scores, weights, previous, may, dscores.view, dprevious.view);
    });
    return py::make_tuple(dscores.array, dprevious.array);
  });
}

py::object context_forward(py::handle weights_, py::handle v_, py::handle stream) {
  return on_side("context_forward", weights_, "weights", v_, "v", stream, [&](auto& side, auto zero) -> py::object {
    using T = decltype(zero);
    const auto weights = side.template need<Weight<T>, 3>(weights_, "weights", "(B, T, S)");
    const auto v = side.template need<T, 3>(v_, "v", "(B, S, D)");
    const auto context = side.template output<T>(std::array{weights[0], weights[1], v[2]});
    side.call([&](const auto&... place) { both::context_forward<T>(place..., weights, v, context.view); });
    return context.array;
  });
}

py::object context_backward(py::handle dcontext_, py::handle weights_, py::handle v_, py::handle stream) {
  return on_side("context_backward", weights_, "weights", v_, "v", stream, [&](auto& side, auto zero) -> py::object {
    using T = decltype(zero);
    const auto dcontext = side.template need<T, 3>(dcontext_, "dcontext", "(B, T, D)");
    const auto weights = side.template need<Weight<T>, 3>(weights_, "weights", "(B, T, S)");
    const auto v = side.template need<T, 3>(v_, "v", "(B, S, D)");
    const auto dweights = side.template output<Weight<T>>(weights.size);
    const auto dv = side.template output<T>(v.size);
    side.call([&](const auto&... place) {
      both::context_backward<T>(place..., dcontext, weights, v, dweights.view, dv.view);
    });
    return py::make_tuple(dweights.array, dv.array);
  });
}

py::object attention_forward(py::handle q, py::handle k, py::handle v_, py::handle w, const std::string& term,
                             double scale, py::handle begin, py::handle end, py::handle mask, bool need_weights,
                             py::handle stream) {
  const char* op = "attention_forward";
  return on_side(op, q, "q", stream, [&](auto& side, auto zero) -> py::object {
    using T = decltype(zero);
    const Scoring<T> in = scoring<T>(side, {q, k, w, term, scale}, op);
    const auto v = side.template need<T, 3>(v_, "v", "(B, S, D)");
    const std::array rows{in.q[0], in.q[1], in.k[1]};
    const Restriction may = side.restriction(begin, end, mask, rows);
    const auto context = side.template output<T>(std::array{in.q[0], in.q[1], v[2]});
    const auto weights = side.template output<Weight<T>>(rows, need_weights);
    side.call(
        [&](const auto&... place) { both::attention_forward<T>(place..., in, v, may, context.view, weights.view); });
    return py::make_tuple(context.array, weights.array);
  });
}

py::object attention_backward(py::handle dcontext_, py::handle dweights_, py::handle q, py::handle k, py::handle v_,
                              py::handle w, const std::string& term, double scale, py::handle begin, py::handle end,
                              py::handle mask, py::handle weights_, py::handle stream) {
  const char* op = "attention_backward";
  return on_side(op, q, "q", stream, [&](auto& side, auto zero) -> py::object {
    using T = decltype(zero);
    const Scoring<T> in = scoring<T>(side, {q, k, w, term, scale}, op);
    const auto v = side.template need<T, 3>(v_, "v", "(B, S, D)");
    const auto dcontext = side.template need<T, 3>(dcontext_, "dcontext", "(B, T, D)");
    const auto dweights = side.template get<Weight<T>, 3>(dweights_, "dweights", "(B, T, S)");
    const auto weights = side.template get<Weight<T>, 3>(weights_, "weights", "(B, T, S)");
    const Restriction may = side.restriction(begin, end, mask, {in.q[0], in.q[1], in.k[1]});
    const auto dq = side.template output<T>(in.q.size), dk = side.template output<T>(in.k.size);
    const auto dv = side.template output<T>(v.size), dw = side.template output<T>(in.w.size, bool(in.w));
    side.call([&](const auto&... place) {
      both::attention_backward<T>(place..., dcontext, dweights, in, v, may, weights, dq.view, dk.view, dv.view,
                                  dw.view);
    });
    return py::make_tuple(dq.array, dk.array, dv.array, dw.array);
  });
}

template <class F>
py::object elementary(const char* op, py::handle x_, F&& run) {
  return on_host(op, x_, "x", [&](Host& host, auto zero) {
    using T = decltype(zero);
    const auto x = host.need<T, 1>(x_, "x", "(N,)");
    const auto y = host.output<T>(x.size);
    host.call([&] { run(attention_kernels<T>(), x.data, x[0], y.view.data); });
    return y.array;
  });
}

py::object exp_array(py::handle x) {
  return elementary("exp_array", x, [](const auto& kernels, auto... a) { kernels.exp_array(a...); });
}
py::object tanh_array(py::handle x) {
  return elementary("tanh_array", x, [](const auto& kernels, auto... a) { kernels.tanh_array(a...); });
}

}  // namespace

void define_attention(py::module_& m) {
  using py::arg;
  m.def("score_forward", &score_forward, arg("q"), arg("k"), arg("w"), arg("term"), arg("scale"), arg("stream"));
  m.def("score_backward", &score_backward, arg("dscores"), arg("q"), arg("k"), arg("w"), arg("term"), arg("scale"),
        arg("stream"));
  m.def("softmax_forward", &softmax_forward, arg("scores"), arg("begin"), arg("end"), arg("mask"), arg("stream"));
  m.def("softmax_backward", &softmax_backward, arg("dweights"), arg("weights"), arg("stream"));
  m.def("sparsemax_forward", &sparsemax_forward, arg("scores"), arg("begin"), arg("end"), arg("mask"));
  m.def("sparsemax_backward", &sparsemax_backward, arg("dweights"), arg("weights"));
  m.def("monotonic_forward", &monotonic_forward, arg("scores"), arg("previous"), arg("hard"), arg("begin"), arg("end"),
        arg("mask"));
  m.def("monotonic_backward", &monotonic_backward, arg("dweights"), arg("scores"), arg("weights"), arg("previous"),
        arg("begin"), arg("end"), arg("mask"));
  m.def("context_forward", &context_forward, arg("weights"), arg("v"), arg("stream"));
  m.def("context_backward", &context_backward, arg("dcontext"), arg("weights"), arg("v"), arg("stream"));
  m.def("attention_forward", &attention_forward, arg("q"), arg("k"), arg("v"), arg("w"), arg("term"), arg("scale"),
        arg("begin"), arg("end"), arg("mask"), arg("need_weights"), arg("stream"));
  m.def("attention_backward", &attention_backward, arg("dcontext"), arg("dweights"), arg("q"), arg("k"), arg("v"),
        arg("w"), arg("term"), arg("scale"), arg("begin"), arg("end"), arg("mask"), arg("weights"), arg("stream"));
  m.def("exp_array", &exp_array, arg("x"));
  m.def("tanh_array", &tanh_array, arg("x"));
}

}  // namespace dhyan::bindings

// The decoder's loop and the stepper: typed parameters and memory in, arrays out.
#include <pybind11/stl.h>

#include <memory>
#include <vector>

#include "dhyan/decoder.h"
#include "layer_arrays.h"

namespace dhyan::bindings {
namespace {

// An array that Python may keep: a copy of rows the loop will overwrite. Not NumPy's copy: that gives the GIL away.
template <class T, int N>
py::array_t<T> copied(View<const T, N> v) {
  py::array_t<T> a(std::vector<py::ssize_t>(v.size.begin(), v.size.end()));
  std::copy_n(v.data, v.count(), a.mutable_data());
  return a;
}

// A Python object with the methods read(sentence, position, state) -> context, weights and
// read_backward(t, dcontext, dweights) -> dstate.
template <class T>
class PythonReader : public Reader<T> {
 public:
  explicit PythonReader(py::handle object) : object_(object) {}
  const Reader<T>* given() const { return object_.is_none() ? nullptr : this; }

  void read(View<const Index, 1> sentence, View<const Index, 1> position, View<const T, 2> state, View<T, 2> context,
            View<T, 2> weights) const override {
    with_gil([&] {
      const py::tuple asked = py::make_tuple(copied(sentence), copied(position), copied(state));
      const auto both = call(object_.attr("read"), asked).template cast<py::tuple>();
      fill(both[0], "reader: context", context);
      fill(both[1], "reader: weights", weights);
    });
  }
  void read_backward(Index t, View<const T, 2> dcontext, View<const T, 2> dweights, View<T, 2> dstate) const override {
    with_gil([&] {
      const py::object dw = dweights ? py::object(copied(dweights)) : py::none();
      fill(call(object_.attr("read_backward"), py::make_tuple(t, copied(dcontext), dw)), "reader: dstate", dstate);
    });
  }

 private:
  static void fill(py::handle answer, const char* name, View<T, 2> out) {
    const auto in = required<T>(answer, "decoder", name);
    const auto from = in.template view<2>("decoder", name, "(rows, width)");
    if (from.size != out.size)
      throw py::value_error(where("decoder", name) + " has shape " + shape_of(from) + ", expected " + shape_of(out));
    std::copy_n(from.data, from.count(), out.data);
  }
  py::handle object_;  // the caller's argument keeps it alive
};

// What Python hands over by name. Views are made call by call: the dtype is that of the call.

struct ParameterArrays {
  Cell cell;
  bool bahdanau, input_feeding, residual;
  std::vector<CellArrays> cells;
  Rule rule;
  Term term;
  py::object query, w;
  double scale;
  bool normalize_query, sparsemax;
  Index radius;
  py::object readout, readout_bias;
};

struct MemoryArrays {
  py::object values, keys, lengths, alignment;
};

struct MaskArrays {
  py::object between, state;
};

struct GradientArrays {
  std::vector<CellArrays> cells;
  py::object query, w, readout, readout_bias;
};

bool is_bahdanau(const std::string& order) {
  if (order == "bahdanau" || order == "luong") return order == "bahdanau";
  throw py::value_error("DecoderParameters: order is '" + order + "', expected 'bahdanau' or 'luong'");
}

// A term that is scored with, or the rule that stands in its place.
std::pair<Rule, Term> rule_and_term(const std::string& name) {
  if (name == "product") return {Rule::scored, Term::product};
  if (name == "tanh") return {Rule::scored, Term::tanh};
  if (name == "last") return {Rule::last, Term::product};
  if (name == "mean") return {Rule::mean, Term::product};
  if (name == "given") return {Rule::given, Term::product};
  if (name == "read") return {Rule::read, Term::product};
  throw py::value_error("DecoderParameters: term is '" + name +
                        "', expected 'product', 'tanh', 'last', 'mean', 'given' or 'read'");
}

template <class T>
DecoderParameters<T> views_of(Holder<T>& hold, const ParameterArrays& a, const Reader<T>* reader = nullptr) {
  DecoderParameters<T> p;
  p.cell = a.cell;
  p.bahdanau = a.bahdanau, p.feeding = a.input_feeding, p.residual = a.residual;
  for (const CellArrays& cell : a.cells) p.cells.push_back(hold.cell(cell));
  p.scorer.rule = a.rule, p.scorer.term = a.term;
  p.scorer.sparsemax = a.sparsemax, p.scorer.normalize_query = a.normalize_query;
  p.scorer.scale = static_cast<T>(a.scale);
  p.scorer.radius = a.radius;
  p.scorer.query = hold.template get<2>(a.query, "attention query", "(H, U)");
  p.scorer.w = hold.template get<1>(a.w, "attention w", "(U,)");
  p.scorer.reader = reader;
  p.readout = hold.template get<2>(a.readout, "readout", "([E+]H+D, E)");
  p.readout_bias = hold.template get<1>(a.readout_bias, "readout bias", "(E,)");
  return p;
}

template <class T>
Memory<T> views_of(Holder<T>& hold, const MemoryArrays& a) {
  Memory<T> m;
  m.keys = hold.template get<2>(a.keys, "keys", "(N_s, U)");
  m.values = hold.template get<2>(a.values, "values", "(N_s, D)");
  m.lengths = hold.ids(a.lengths, "memory lengths", "(B,)");
  m.weights = hold.template get<3>(a.alignment, "weights", "(B, 1 or T, S)");
  for (Index b = 0; b < m.lengths[0]; ++b)
    if (m.lengths.data[b] < 0) throw py::value_error(where(hold.op, "memory lengths") + " holds a negative length");
  return m;
}

template <class T>
DecoderMasks<T> views_of(Holder<T>& hold, const MaskArrays& a) {
  return {hold.template get<3>(a.between, "masks", "(L-1, N, H)"),
          hold.template get<3>(a.state, "state_masks", "(L, B, H)")};
}

// After all that the call reads.
template <class T>
DecoderGradients<T> views_of(Holder<T>& hold, const GradientArrays& a) {
  DecoderGradients<T> g;
  for (const CellArrays& cell : a.cells) g.cells.push_back(hold.cell_gradients(cell));
  g.readout = hold.template into<2>(a.readout, "dreadout weight");
  g.readout_bias = hold.template into<1>(a.readout_bias, "dreadout bias");
  if (!a.query.is_none()) g.query = hold.template into<2>(a.query, "dquery");
  if (!a.w.is_none()) g.w = hold.template into<1>(a.w, "dw");
  return g;
}

Index longest_of(View<const Index, 1> lengths) {
  Index longest = 0;
  for (Index b = 0; b < lengths[0]; ++b) longest = std::max(longest, lengths.data[b]);
  return longest;
}

py::tuple decoder_forward(const ParameterArrays& parameters, const MemoryArrays& memory_, py::handle y_,
                          py::handle index, py::handle steps_, py::handle h0_, py::handle c0_, const MaskArrays& masks_,
                          py::handle reader_) {
  const char* op = "decoder_forward";
  const Float dtype = float_of(y_, op, "y");
  return dispatch(dtype, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    Holder<T> hold{{}, op};
    const PythonReader<T> reader(reader_);
    const auto p = views_of(hold, parameters, reader.given());
    const auto memory = views_of(hold, memory_);
    const auto steps = hold.ids(steps_, "steps", "(B,)");
    const auto y = hold.tokens(y_, index, "y", "(N, E)");
    const auto h0 = hold.template get<3>(h0_, "h0", "(L, B, H)"), c0 = hold.template get<3>(c0_, "c0", "(L, B, H)");
    const auto masks = views_of(hold, masks_);
    auto readout = output<T>({y.count(), p.readout[1]}, op);
    auto weights = output<T>({y.count(), longest_of(memory.lengths)}, op);
    const auto rv = view<T, 2>(readout), wv = view<T, 2>(weights);
    const DecoderInputs<T> in{p, memory, y, h0, c0, masks};
    const auto cache = without_gil([&] { return dhyan::decoder_forward<T>(in, steps, rv, wv); });
    return py::make_tuple(readout, weights, Cache{cache, dtype});
  });
}

py::tuple decoder_backward(const Cache& cache, const ParameterArrays& parameters, const MemoryArrays& memory_,
                           py::handle y_, py::handle index, py::handle h0_, py::handle c0_, const MaskArrays& masks_,
                           py::handle dreadout_, py::handle dweights_, const GradientArrays& gradients,
                           py::handle reader_) {
  const char* op = "decoder_backward";
  return dispatch(cache.dtype, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    Holder<T> hold{{}, op};
    const PythonReader<T> reader(reader_);
    const auto p = views_of(hold, parameters, reader.given());
    const auto memory = views_of(hold, memory_);
    const auto y = hold.tokens(y_, index, "y", "(N, E)");
    const auto h0 = hold.template get<3>(h0_, "h0", "(L, B, H)"), c0 = hold.template get<3>(c0_, "c0", "(L, B, H)");
    const auto masks = views_of(hold, masks_);
    const auto dreadout = hold.template get<2>(dreadout_, "dreadout", "(N, E)");
    const auto dweights = hold.template get<2>(dweights_, "dweights", "(N, S)");
    DecoderGradients<T> g = views_of(hold, gradients);
    auto dy = output<T>({y.x[0], y.x[1]}, op), dh0 = output<T>({h0[0], h0[1], h0[2]}, op);
    auto dc0 = output<T>({c0[0], c0[1], c0[2]}, op);
    auto dkeys = output<T>({memory.keys[0], memory.keys[1]}, op);
    auto dvalues = output<T>({memory.values[0], memory.values[1]}, op);
    const auto dyv = view<T, 2>(dy), dkv = view<T, 2>(dkeys), dvv = view<T, 2>(dvalues);
    const auto dh0v = view<T, 3>(dh0), dc0v = view<T, 3>(dc0);
    without_gil([&] {
      dhyan::decoder_backward<T>(*std::static_pointer_cast<DecoderCache<T>>(cache.held), {p, memory, y, h0, c0, masks},
                                 dreadout, dweights, {dyv, dh0v, dc0v, dkv, dvv}, g);
    });
    return py::make_tuple(dy, dh0, c0 ? py::object(dc0) : py::none(), dkeys, dvalues, g.log_scale);
  });
}

// One class for both float types: Python sees `StepWeights` and `Stepper`, whatever the model's dtype.
class StepWeightsObject {
 public:
  StepWeightsObject(const ParameterArrays& parameters, py::handle table_, py::handle output_, py::handle bias_,
                    bool shrunk)
      : dtype(float_of(table_, "StepWeights", "target embedding")) {
    dispatch(dtype, [&](auto zero) {
      using T = decltype(zero);
      // The weights outlive this call, and so must every array they read.
      auto hold = std::make_shared<Holder<T>>(Holder<T>{{}, "StepWeights"});
      const auto p = views_of(*hold, parameters);
      const auto table = hold->template get<2>(table_, "target embedding", "(V, E)");
      const auto out = hold->template get<2>(output_, "output", "(E, V)");
      const auto bias = hold->template get<1>(bias_, "output bias", "(V,)");
      arrays = hold;
      weights = std::make_shared<StepWeights<T>>(p, table, out, bias, shrunk);
    });
  }
  Float dtype;
  std::shared_ptr<void> arrays, weights;
};

class StepperObject {
 public:
  StepperObject(const StepWeightsObject& weights, const MemoryArrays& memory_, py::handle ids_, py::handle allowed_)
      : dtype_(weights.dtype) {
    dispatch(dtype_, [&](auto zero) {
      using T = decltype(zero);
      auto hold = std::make_shared<Holder<T>>(Holder<T>{{}, "Stepper"});
      const auto memory = views_of(*hold, memory_);
      kept_ = {hold, weights.arrays};
      const auto ids = input<Index>(ids_, "Stepper", "shortlist");
      const auto allowed = input<std::uint8_t>(allowed_, "Stepper", "allowed");
      const Choices choices{ids.template view<1>("Stepper", "shortlist", "(n,)"),
                            allowed.template view<2>("Stepper", "allowed", "(B, n)")};
      stepper_ = without_gil([&] {
        return std::make_shared<Stepper<T>>(std::static_pointer_cast<StepWeights<T>>(weights.weights), memory, choices);
      });
    });
  }

  // top < 0: all log-probabilities; else the `top` largest and their ids.
  py::tuple step(py::handle token_, py::handle sentence_, py::handle position_, py::handle h_, py::handle c_,
                 py::handle r_, py::handle reader_, Index top) const {
    const char* op = "Stepper.step";
    return dispatch(dtype_, [&](auto zero) -> py::tuple {
      using T = decltype(zero);
      const auto& stepper = *std::static_pointer_cast<Stepper<T>>(stepper_);
      Holder<T> hold{{}, op};
      StepInput<T> in;
      in.token = hold.ids(token_, "token", "(N,)");
      in.sentence = hold.ids(sentence_, "sentence", "(N,)");
      in.position = hold.ids(position_, "position", "(N,)");
      in.h = hold.template get<3>(h_, "h", "(L, N, H)"), in.c = hold.template get<3>(c_, "c", "(L, N, H)");
      in.readout = hold.template get<2>(r_, "readout", "(N, E)");
      const auto &h = in.h, &c = in.c;
      const Index N = in.token[0], K = top < 0 ? stepper.vocabulary() : std::min(top, stepper.choices());
      auto h1 = output<T>({h[0], h[1], h[2]}, op), c1 = output<T>({c[0], c[1], c[2]}, op);
      auto r1 = output<T>({in.readout[0], in.readout[1]}, op), weights = output<T>({N, stepper.longest()}, op);
      auto lp = output<T>({N, K}, op);
      auto ids = output<Index>({top < 0 ? 0 : N, K}, op);
      const StepOutput<T> out{view<T, 3>(h1), view<T, 3>(c1), view<T, 2>(r1), view<T, 2>(weights)};
      const auto lpv = view<T, 2>(lp);
      const auto idv = view<Index, 2>(ids);
      const PythonReader<T> reader(reader_);
      in.reader = reader.given();
      without_gil([&] {
        if (top < 0)
          stepper.step(in, out, lpv);
        else
          stepper.step_top(in, out, lpv, idv);
      });
      const py::object c_out = c ? py::object(c1) : py::none();
      if (top < 0) return py::make_tuple(lp, weights, h1, c_out, r1);
      return py::make_tuple(lp, ids, weights, h1, c_out, r1);
    });
  }

  py::tuple greedy(py::handle h0_, py::handle c0_, Index begin, Index end, Index pad, py::handle limit_) const {
    const char* op = "Stepper.greedy";
    return dispatch(dtype_, [&](auto zero) -> py::tuple {
      using T = decltype(zero);
      const auto& stepper = *std::static_pointer_cast<Stepper<T>>(stepper_);
      Holder<T> hold{{}, op};
      const auto h0 = hold.template get<3>(h0_, "h0", "(L, B, H)"), c0 = hold.template get<3>(c0_, "c0", "(L, B, H)");
      const auto limit = hold.ids(limit_, "limit", "(B,)");
      const Index B = stepper.sentences(), T_ = longest_of(limit);
      auto ids = output<Index>({B, T_}, op);
      auto weights = output<T>({B, T_, stepper.longest()}, op);
      const auto iv = view<Index, 2>(ids);
      const auto wv = view<T, 3>(weights);
      const Index used = without_gil([&] { return stepper.greedy(h0, c0, begin, end, pad, limit, iv, wv); });
      return py::make_tuple(ids, weights, used);
    });
  }

  // norm[n]: what the sum of n symbols is divided by.
  py::tuple beam(py::handle h0_, py::handle c0_, Index begin, Index end, Index beam, Index nbest, py::handle limit_,
                 py::handle norm_) const {
    const char* op = "Stepper.beam";
    return dispatch(dtype_, [&](auto zero) -> py::tuple {
      using T = decltype(zero);
      const auto& stepper = *std::static_pointer_cast<Stepper<T>>(stepper_);
      Holder<T> hold{{}, op};
      const auto h0 = hold.template get<3>(h0_, "h0", "(L, B, H)"), c0 = hold.template get<3>(c0_, "c0", "(L, B, H)");
      const auto limit = hold.ids(limit_, "limit", "(B,)");
      const auto norm_in = required<double>(norm_, op, "norm");
      const auto norm = norm_in.template view<1>(op, "norm", "(n,)");
      const Index B = stepper.sentences(), T_ = longest_of(limit);
      if (norm[0] <= T_)
        throw py::value_error(where(op, "norm") + " has " + std::to_string(norm[0]) +
                              " numbers, expected more than the largest limit " + std::to_string(T_));
      auto ids = output<Index>({B, beam, T_}, op), steps = output<Index>({B, beam}, op);
      auto finished = output<Index>({B, beam}, op);
      auto weights = output<T>({B, beam, T_, stepper.longest()}, op);
      auto total = output<double>({B, beam}, op);
      const BeamOutput<T> out{view<Index, 3>(ids), view<T, 4>(weights), view<double, 2>(total), view<Index, 2>(steps),
                              view<Index, 2>(finished)};
      const BeamOptions options{begin, end, beam, nbest, limit, norm.data};
      const Index nan = without_gil([&] { return stepper.beam(h0, c0, options, out); });
      return py::make_tuple(ids, weights, total, steps, finished, nan);
    });
  }

 private:
  Float dtype_;
  std::vector<std::shared_ptr<void>> kept_;
  std::shared_ptr<void> stepper_;
};

}  // namespace

void define_decoder(py::module_& m) {
  using py::arg, py::none, py::object;
  py::class_<ParameterArrays>(m, "DecoderParameters", "A decoder's weights, and how it reads its memory.")
      .def(py::init([](const std::string& cell, const std::string& order, std::vector<CellArrays> cells, object readout,
                       object readout_bias, const std::string& term, object query, object w, double scale,
                       bool normalize_query, bool sparsemax, Index radius, bool input_feeding, bool residual) {
             const auto [rule, scored] = rule_and_term(term);
             return ParameterArrays{cell_named(cell), is_bahdanau(order), input_feeding, residual, std::move(cells),
                                    rule, scored, query, w, scale, normalize_query, sparsemax, radius, readout,
                                    readout_bias};
           }),
           py::kw_only(), arg("cell"), arg("order"), arg("cells"), arg("readout"), arg("readout_bias"), arg("term"),
           arg("query") = none(), arg("w") = none(), arg("scale") = 1.0, arg("normalize_query") = false,
           arg("sparsemax") = false, arg("radius") = -1, arg("input_feeding") = false, arg("residual") = false);
  py::class_<MemoryArrays>(m, "Memory", "What is attended to, all sentences' positions one after another.")
      .def(py::init<object, object, object, object>(), py::kw_only(), arg("values"), arg("keys"), arg("lengths"),
           arg("alignment"));
  py::class_<MaskArrays>(m, "DecoderMasks", "Dropout inside the decoder's loop.")
      .def(py::init<object, object>(), py::kw_only(), arg("between") = none(), arg("state") = none());
  py::class_<GradientArrays>(m, "DecoderGradients", "The arrays that a decoder's gradients are written to.")
      .def(py::init<std::vector<CellArrays>, object, object, object, object>(), py::kw_only(), arg("cells"),
           arg("query"), arg("w"), arg("readout"), arg("readout_bias"));
  m.def("decoder_forward", &decoder_forward, arg("parameters"), arg("memory"), arg("y"), arg("index"), arg("steps"),
        arg("h0"), arg("c0"), arg("masks"), arg("reader"));
  m.def("decoder_backward", &decoder_backward, arg("cache"), arg("parameters"), arg("memory"), arg("y"), arg("index"),
        arg("h0"), arg("c0"), arg("masks"), arg("dreadout"), arg("dweights"), arg("gradients"), arg("reader"));
  py::class_<StepWeightsObject>(m, "StepWeights", "A decoder's weights in the forms its steps read.")
      .def(py::init<const ParameterArrays&, py::handle, py::handle, py::handle, bool>(), py::arg("parameters"),
           py::arg("table"), py::arg("output"), py::arg("output_bias"), py::arg("shrunk"));
  py::class_<StepperObject>(m, "Stepper", "The decoder one step at a time.")
      .def(py::init<const StepWeightsObject&, const MemoryArrays&, py::handle, py::handle>(), py::arg("weights"),
           py::arg("memory"), py::arg("shortlist") = py::none(), py::arg("allowed") = py::none())
      .def("step", &StepperObject::step, py::arg("token"), py::arg("sentence"), py::arg("position"), py::arg("h"),
           py::arg("c"), py::arg("readout"), py::arg("reader") = py::none(), py::arg("top") = -1)
      .def("greedy", &StepperObject::greedy, py::arg("h0"), py::arg("c0"), py::arg("begin"), py::arg("end"),
           py::arg("pad"), py::arg("limit"))
      .def("beam", &StepperObject::beam, py::arg("h0"), py::arg("c0"), py::arg("begin"), py::arg("end"),
           py::arg("beam"), py::arg("nbest"), py::arg("limit"), py::arg("norm"));
}

}  // namespace dhyan::bindings

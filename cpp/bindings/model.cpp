// Recurrent layers, the decoder loop and the stepper: dictionaries and tuples of arrays in, views out. One file, as all of
// them read the same dictionary of parameters.
#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <vector>

#include "arrays.h"
#include "dhyan/decoder.h"

namespace dhyan::bindings {
namespace {

struct Cache {  // activations of one forward call; its type is known to the matching backward alone
  std::shared_ptr<void> held;
  Float dtype;
};

template <class T>
struct Holder {  // keeps copies of strided inputs alive for one call
  std::vector<Input<T>> inputs;
  const char* op;
  std::unique_ptr<Reader<T>> reader = nullptr;
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
  // x (R, I) and index (N,) or None: tokens that share rows.
  Tokens<T> tokens(py::handle x, py::handle index, const char* name, const char* axes) {
    Tokens<T> t{get<2>(x, name, axes), {}};
    if (index.is_none()) return t;
    indices.push_back(required<Index>(index, op, "index"));
    t.index = indices.back().template view<1>(op, "index", "(N,)");
    return t;
  }
  CellParameters<T> cell(py::handle object) {
    const auto t = object.cast<py::tuple>();
    CellParameters<T> p{get<2>(t[0], "weight_ih", "(I, G*H)"), get<2>(t[1], "weight_hh", "(H, G*H)"),
                        get<1>(t[2], "bias_ih", "(G*H,)"), get<1>(t[3], "bias_hh", "(G*H,)"), {}, {}};
    if (t.size() > 4) p.gain_ih = get<1>(t[4], "gain_ih", "(G*H,)"), p.gain_hh = get<1>(t[5], "gain_hh", "(G*H,)");
    return p;
  }
  CellGradients<T> cell_gradients(py::handle object) {
    const auto t = object.cast<py::tuple>();
    CellGradients<T> g{into<2>(t[0], "dweight_ih"), into<2>(t[1], "dweight_hh"),
                       into<1>(t[2], "dbias_ih"), into<1>(t[3], "dbias_hh"), {}, {}};
    if (t.size() > 4) g.gain_ih = into<1>(t[4], "dgain_ih"), g.gain_hh = into<1>(t[5], "dgain_hh");
    return g;
  }
};

py::tuple recurrent_forward(const std::string& cell_name, bool reverse, py::handle x_, py::handle index,
                            py::handle lengths_, py::handle parameters, py::handle h0_, py::handle c0_,
                            py::handle state_mask_) {
  const char* op = "recurrent_forward";
  const Cell cell = cell_named(cell_name);
  const Float dtype = float_of(x_, op, "x");
  return dispatch(dtype, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    Holder<T> hold{{}, op};
    const auto lengths_in = required<Index>(lengths_, op, "lengths");
    const auto lengths = lengths_in.template view<1>(op, "lengths", "(B,)");
    const auto x = hold.tokens(x_, index, "x", "(N, I)");
    const auto p = hold.cell(parameters);
    const auto h0 = hold.template get<2>(h0_, "h0", "(B, H)"), c0 = hold.template get<2>(c0_, "c0", "(B, H)");
    const auto state_mask = hold.template get<2>(state_mask_, "state_mask", "(B, H)");
    const Index B = lengths[0], H = p.weight_hh[0];
    auto out = output<T>({x.count(), H}, op), final_h = output<T>({B, H}, op);
    auto final_c = output<T>({cell == Cell::lstm ? B : 0, H}, op);
    const auto ov = view<T, 2>(out), hv = view<T, 2>(final_h), cv = view<T, 2>(final_c);
    const auto cache = without_gil([&] {
      return dhyan::recurrent_forward<T>(cell, reverse, x, lengths, p, h0, c0, state_mask, ov, hv, cv);
    });
    return py::make_tuple(out, final_h, cell == Cell::lstm ? py::object(final_c) : py::none(), Cache{cache, dtype});
  });
}

py::tuple recurrent_backward(const Cache& cache, py::handle x_, py::handle index, py::handle parameters, py::handle h0_,
                             py::handle c0_, py::handle state_mask_, py::handle doutput_, py::handle dfinal_h_,
                             py::handle dfinal_c_, py::handle gradients_, bool wants_dx) {
  const char* op = "recurrent_backward";
  return dispatch(cache.dtype, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    Holder<T> hold{{}, op};
    const auto x = hold.tokens(x_, index, "x", "(N, I)");
    const auto p = hold.cell(parameters);
    const auto h0 = hold.template get<2>(h0_, "h0", "(B, H)"), c0 = hold.template get<2>(c0_, "c0", "(B, H)");
    const auto state_mask = hold.template get<2>(state_mask_, "state_mask", "(B, H)");
    const auto dout = hold.template get<2>(doutput_, "doutput", "(N, H)");
    const auto dfh = hold.template get<2>(dfinal_h_, "dfinal_h", "(B, H)");
    const auto dfc = hold.template get<2>(dfinal_c_, "dfinal_c", "(B, H)");
    const auto gradients = hold.cell_gradients(gradients_);
    py::object dx_out = py::none(), dh0_out = py::none(), dc0_out = py::none();
    View<T, 2> dx, dh0, dc0;
    const auto fresh = [&](py::object& object, View<const T, 2> like) {
      auto a = output<T>({like[0], like[1]}, op);
      object = a;
      return view<T, 2>(a);
    };
    if (wants_dx) dx = fresh(dx_out, x.x);
    if (h0) dh0 = fresh(dh0_out, h0);
    if (c0) dc0 = fresh(dc0_out, c0);
    without_gil([&] {
      dhyan::recurrent_backward<T>(*std::static_pointer_cast<RecurrentCache<T>>(cache.held), x, p, h0, c0, state_mask,
                                   dout, dfh, dfc, dx, gradients, dh0, dc0);
    });
    return py::make_tuple(dx_out, dh0_out, dc0_out);
  });
}

// parameters, state_masks: (forward, backward). -> output (N,2H), final h (B,H) of each, cache.
py::tuple bidirectional_forward(const std::string& cell_name, py::handle x_, py::handle index, py::handle lengths_,
                                const std::array<py::object, 2>& parameters,
                                const std::array<py::object, 2>& state_masks) {
  const char* op = "bidirectional_forward";
  const Cell cell = cell_named(cell_name);
  const Float dtype = float_of(x_, op, "x");
  return dispatch(dtype, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    Holder<T> hold{{}, op};
    const auto lengths_in = required<Index>(lengths_, op, "lengths");
    const auto lengths = lengths_in.template view<1>(op, "lengths", "(B,)");
    const auto x = hold.tokens(x_, index, "x", "(N, I)");
    const std::array<CellParameters<T>, 2> p{hold.cell(parameters[0]), hold.cell(parameters[1])};
    const std::array<View<const T, 2>, 2> masks{hold.template get<2>(state_masks[0], "state_masks", "(B, H)"),
                                                hold.template get<2>(state_masks[1], "state_masks", "(B, H)")};
    const Index B = lengths[0], H = p[0].weight_hh[0], C = cell == Cell::lstm ? B : 0;
    auto out = output<T>({x.count(), 2 * H}, op);
    std::array<py::array_t<T>, 2> h{output<T>({B, H}, op), output<T>({B, H}, op)};
    std::array<py::array_t<T>, 2> c{output<T>({C, H}, op), output<T>({C, H}, op)};
    const auto ov = view<T, 2>(out);
    const std::array<View<T, 2>, 2> hv{view<T, 2>(h[0]), view<T, 2>(h[1])}, cv{view<T, 2>(c[0]), view<T, 2>(c[1])};
    const auto caches = without_gil([&] {
      return std::make_shared<BothCaches<T>>(
          dhyan::bidirectional_forward<T>(cell, x, lengths, p, masks, ov, hv, cv));
    });
    return py::make_tuple(out, py::make_tuple(h[0], h[1]), Cache{caches, dtype});
  });
}

py::object bidirectional_backward(const Cache& cache, py::handle x_, py::handle index,
                                  const std::array<py::object, 2>& parameters,
                                  const std::array<py::object, 2>& state_masks, py::handle doutput_,
                                  const std::array<py::object, 2>& dfinal_h_,
                                  const std::array<py::object, 2>& gradients_, bool wants_dx) {
  const char* op = "bidirectional_backward";
  return dispatch(cache.dtype, [&](auto zero) -> py::object {
    using T = decltype(zero);
    Holder<T> hold{{}, op};
    const auto x = hold.tokens(x_, index, "x", "(N, I)");
    const std::array<CellParameters<T>, 2> p{hold.cell(parameters[0]), hold.cell(parameters[1])};
    const auto both = [&](const std::array<py::object, 2>& given, const char* name) {
      return std::array<View<const T, 2>, 2>{hold.template get<2>(given[0], name, "(B, H)"),
                                             hold.template get<2>(given[1], name, "(B, H)")};
    };
    const auto masks = both(state_masks, "state_masks"), dfinal_h = both(dfinal_h_, "dfinal_h");
    const auto dout = hold.template get<2>(doutput_, "doutput", "(N, 2*H)");
    const std::array<CellGradients<T>, 2> gradients{hold.cell_gradients(gradients_[0]),
                                                    hold.cell_gradients(gradients_[1])};
    py::object dx_out = py::none();
    View<T, 2> dx;
    if (wants_dx) {
      auto a = output<T>({x.x[0], x.x[1]}, op);
      dx_out = a;
      dx = view<T, 2>(a);
    }
    without_gil([&] {
      dhyan::bidirectional_backward<T>(*std::static_pointer_cast<BothCaches<T>>(cache.held), x, p, masks, dout,
                                       dfinal_h, dx, gradients);
    });
    return dx_out;
  });
}

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
  py::handle object_;  // the caller's dictionary or argument keeps it alive
};

// The dictionary that python/dhyan/decoder.py makes of a model's parameters.
template <class T>
DecoderParameters<T> decoder_parameters(Holder<T>& hold, const py::dict& d) {
  DecoderParameters<T> p;
  p.cell = cell_named(d["cell"].cast<std::string>());
  p.bahdanau = d["order"].cast<std::string>() == "bahdanau";
  p.feeding = d["input_feeding"].cast<bool>();
  p.residual = d["residual"].cast<bool>();
  for (py::handle cell : d["cells"].cast<py::list>()) p.cells.push_back(hold.cell(cell));
  const auto term = d["term"].cast<std::string>();
  p.scorer.rule = term == "last"    ? Rule::last
                  : term == "mean"  ? Rule::mean
                  : term == "given" ? Rule::given
                  : term == "read"  ? Rule::read
                                    : Rule::scored;
  p.scorer.term = term == "tanh" ? Term::tanh : Term::product;
  p.scorer.sparsemax = d["sparsemax"].cast<bool>();
  p.scorer.normalize_query = d["normalize_query"].cast<bool>();
  p.scorer.scale = d["scale"].cast<T>();
  p.scorer.radius = d["radius"].cast<Index>();
  p.scorer.query = hold.template get<2>(d["query"], "attention query", "(H, U)");
  p.scorer.w = hold.template get<1>(d["w"], "attention w", "(U,)");
  if (p.scorer.rule == Rule::read && !d["reader"].is_none()) {
    hold.reader = std::make_unique<PythonReader<T>>(d["reader"]);
    p.scorer.reader = hold.reader.get();
  }
  p.readout = hold.template get<2>(d["readout"], "readout", "([E+]H+D, E)");
  p.readout_bias = hold.template get<1>(d["readout_bias"], "readout bias", "(E,)");
  return p;
}

// (keys (N_s,U) | None, values (N_s,D), lengths (B,), given weights (B, 1 or T, S) | None)
template <class T>
Memory<T> memory_of(Holder<T>& hold, const py::tuple& t, Input<Index>& lengths) {
  Memory<T> m;
  m.keys = hold.template get<2>(t[0], "keys", "(N_s, U)");
  m.values = hold.template get<2>(t[1], "values", "(N_s, D)");
  lengths = required<Index>(t[2], hold.op, "memory lengths");
  m.lengths = lengths.template view<1>(hold.op, "memory lengths", "(B,)");
  m.weights = hold.template get<3>(t[3], "weights", "(B, 1 or T, S)");
  for (Index b = 0; b < m.lengths[0]; ++b)
    if (m.lengths.data[b] < 0) throw py::value_error(where(hold.op, "memory lengths") + " holds a negative length");
  return m;
}

Index longest_of(View<const Index, 1> lengths) {
  Index longest = 0;
  for (Index b = 0; b < lengths[0]; ++b) longest = std::max(longest, lengths.data[b]);
  return longest;
}

py::tuple decoder_forward(const py::dict& parameters, const py::tuple& memory_, py::handle y_, py::handle index,
                          py::handle steps_, py::handle h0_, py::handle c0_, py::handle masks_,
                          py::handle state_masks_) {
  const char* op = "decoder_forward";
  const Float dtype = float_of(y_, op, "y");
  return dispatch(dtype, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    Holder<T> hold{{}, op};
    Input<Index> lengths_in;
    const auto p = decoder_parameters<T>(hold, parameters);
    const auto memory = memory_of<T>(hold, memory_, lengths_in);
    const auto steps_in = required<Index>(steps_, op, "steps");
    const auto steps = steps_in.template view<1>(op, "steps", "(B,)");
    const auto y = hold.tokens(y_, index, "y", "(N, E)");
    const auto h0 = hold.template get<3>(h0_, "h0", "(L, B, H)"), c0 = hold.template get<3>(c0_, "c0", "(L, B, H)");
    const DecoderMasks<T> masks{hold.template get<3>(masks_, "masks", "(L-1, N, H)"),
                                hold.template get<3>(state_masks_, "state_masks", "(L, B, H)")};
    auto readout = output<T>({y.count(), p.readout[1]}, op);
    auto weights = output<T>({y.count(), longest_of(memory.lengths)}, op);
    const auto rv = view<T, 2>(readout), wv = view<T, 2>(weights);
    const auto cache =
        without_gil([&] { return dhyan::decoder_forward<T>(p, memory, y, steps, h0, c0, masks, rv, wv); });
    return py::make_tuple(readout, weights, Cache{cache, dtype});
  });
}

py::tuple decoder_backward(const Cache& cache, const py::dict& parameters, const py::tuple& memory_, py::handle y_,
                           py::handle index, py::handle h0_, py::handle c0_, py::handle masks_, py::handle state_masks_,
                           py::handle dreadout_, py::handle dweights_, const py::dict& gradients_) {
  const char* op = "decoder_backward";
  return dispatch(cache.dtype, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    Holder<T> hold{{}, op};
    Input<Index> lengths_in;
    const auto p = decoder_parameters<T>(hold, parameters);
    const auto memory = memory_of<T>(hold, memory_, lengths_in);
    const auto y = hold.tokens(y_, index, "y", "(N, E)");
    const auto h0 = hold.template get<3>(h0_, "h0", "(L, B, H)"), c0 = hold.template get<3>(c0_, "c0", "(L, B, H)");
    const DecoderMasks<T> masks{hold.template get<3>(masks_, "masks", "(L-1, N, H)"),
                                hold.template get<3>(state_masks_, "state_masks", "(L, B, H)")};
    const auto dreadout = hold.template get<2>(dreadout_, "dreadout", "(N, E)");
    const auto dweights = hold.template get<2>(dweights_, "dweights", "(N, S)");
    DecoderGradients<T> g;
    for (py::handle cell : gradients_["cells"].cast<py::list>()) g.cells.push_back(hold.cell_gradients(cell));
    g.readout = hold.template into<2>(gradients_["readout"], "dreadout weight");
    g.readout_bias = hold.template into<1>(gradients_["readout_bias"], "dreadout bias");
    if (!gradients_["query"].is_none()) g.query = hold.template into<2>(gradients_["query"], "dquery");
    if (!gradients_["w"].is_none()) g.w = hold.template into<1>(gradients_["w"], "dw");
    auto dy = output<T>({y.x[0], y.x[1]}, op), dh0 = output<T>({h0[0], h0[1], h0[2]}, op);
    auto dc0 = output<T>({c0[0], c0[1], c0[2]}, op);
    auto dkeys = output<T>({memory.keys[0], memory.keys[1]}, op);
    auto dvalues = output<T>({memory.values[0], memory.values[1]}, op);
    const auto dyv = view<T, 2>(dy), dkv = view<T, 2>(dkeys), dvv = view<T, 2>(dvalues);
    const auto dh0v = view<T, 3>(dh0), dc0v = view<T, 3>(dc0);
    without_gil([&] {
      dhyan::decoder_backward<T>(*std::static_pointer_cast<DecoderCache<T>>(cache.held), p, memory, y, h0, c0, masks,
                                 dreadout, dweights, dyv, dh0v, dc0v, dkv, dvv, g);
    });
    return py::make_tuple(dy, dh0, c0 ? py::object(dc0) : py::none(), dkeys, dvalues, g.log_scale);
  });
}

// One class for both float types: Python sees `StepWeights` and `Stepper`, whatever the model's dtype.
class StepWeightsObject {
 public:
  StepWeightsObject(const py::dict& parameters, py::handle table_, py::handle output_, py::handle bias_, bool shrunk)
      : dtype(float_of(table_, "StepWeights", "target embedding")) {
    dispatch(dtype, [&](auto zero) {
      using T = decltype(zero);
      // The weights outlive this call, and so must every array they read.
      auto hold = std::make_shared<Holder<T>>(Holder<T>{{}, "StepWeights", {}});
      const auto p = decoder_parameters<T>(*hold, parameters);
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
  StepperObject(const StepWeightsObject& weights, const py::tuple& memory_, py::handle ids_, py::handle allowed_)
      : dtype_(weights.dtype) {
    dispatch(dtype_, [&](auto zero) {
      using T = decltype(zero);
      auto hold = std::make_shared<Holder<T>>(Holder<T>{{}, "Stepper", {}});
      auto lengths = std::make_shared<Input<Index>>();
      const auto memory = memory_of<T>(*hold, memory_, *lengths);
      kept_ = {hold, lengths, weights.arrays};
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
      const auto token_in = required<Index>(token_, op, "token"), sentence_in = required<Index>(sentence_, op, "sentence"),
                 position_in = required<Index>(position_, op, "position");
      StepInput<T> in;
      in.token = token_in.template view<1>(op, "token", "(N,)");
      in.sentence = sentence_in.template view<1>(op, "sentence", "(N,)");
      in.position = position_in.template view<1>(op, "position", "(N,)");
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
      in.reader = reader_.is_none() ? nullptr : &reader;
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
      const auto limit_in = required<Index>(limit_, op, "limit");
      const auto limit = limit_in.template view<1>(op, "limit", "(B,)");
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
      const auto limit_in = required<Index>(limit_, op, "limit");
      const auto limit = limit_in.template view<1>(op, "limit", "(B,)");
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

void define_model(py::module_& m) {
  py::class_<Cache>(m, "Cache", "Activations of one forward call.");
  m.def("recurrent_forward", &recurrent_forward, py::arg("cell"), py::arg("reverse"), py::arg("x"), py::arg("index"),
        py::arg("lengths"), py::arg("parameters"), py::arg("h0"), py::arg("c0"), py::arg("state_mask"));
  m.def("recurrent_backward", &recurrent_backward, py::arg("cache"), py::arg("x"), py::arg("index"),
        py::arg("parameters"), py::arg("h0"), py::arg("c0"), py::arg("state_mask"), py::arg("doutput"),
        py::arg("dfinal_h"), py::arg("dfinal_c"), py::arg("gradients"), py::arg("wants_dx"));
  m.def("bidirectional_forward", &bidirectional_forward, py::arg("cell"), py::arg("x"), py::arg("index"),
        py::arg("lengths"), py::arg("parameters"), py::arg("state_masks"));
  m.def("bidirectional_backward", &bidirectional_backward, py::arg("cache"), py::arg("x"), py::arg("index"),
        py::arg("parameters"), py::arg("state_masks"), py::arg("doutput"), py::arg("dfinal_h"), py::arg("gradients"),
        py::arg("wants_dx"));
  m.def("decoder_forward", &decoder_forward, py::arg("parameters"), py::arg("memory"), py::arg("y"), py::arg("index"),
        py::arg("steps"), py::arg("h0"), py::arg("c0"), py::arg("masks"), py::arg("state_masks"));
  m.def("decoder_backward", &decoder_backward, py::arg("cache"), py::arg("parameters"), py::arg("memory"), py::arg("y"),
        py::arg("index"), py::arg("h0"), py::arg("c0"), py::arg("masks"), py::arg("state_masks"), py::arg("dreadout"),
        py::arg("dweights"), py::arg("gradients"));
  py::class_<StepWeightsObject>(m, "StepWeights", "A decoder's weights in the forms its steps read.")
      .def(py::init<const py::dict&, py::handle, py::handle, py::handle, bool>(), py::arg("parameters"),
           py::arg("table"), py::arg("output"), py::arg("output_bias"), py::arg("shrunk"));
  py::class_<StepperObject>(m, "Stepper", "The decoder one step at a time.")
      .def(py::init<const StepWeightsObject&, const py::tuple&, py::handle, py::handle>(), py::arg("weights"),
           py::arg("memory"), py::arg("shortlist") = py::none(), py::arg("allowed") = py::none())
      .def("step", &StepperObject::step, py::arg("token"), py::arg("sentence"), py::arg("position"), py::arg("h"),
           py::arg("c"), py::arg("readout"), py::arg("reader") = py::none(), py::arg("top") = -1)
      .def("greedy", &StepperObject::greedy, py::arg("h0"), py::arg("c0"), py::arg("begin"), py::arg("end"),
           py::arg("pad"), py::arg("limit"))
      .def("beam", &StepperObject::beam, py::arg("h0"), py::arg("c0"), py::arg("begin"), py::arg("end"), py::arg("beam"),
           py::arg("nbest"), py::arg("limit"), py::arg("norm"));
}

}  // namespace dhyan::bindings

// Recurrent layers, in one direction and in both: arrays in, fresh arrays and a cache out.
#include <pybind11/stl.h>

#include <array>

#include "layer_arrays.h"

namespace dhyan::bindings {
namespace {

py::tuple recurrent_forward(const std::string& cell_name, bool reverse, py::handle x_, py::handle index,
                            py::handle lengths_, const CellArrays& parameters, py::handle h0_, py::handle c0_,
                            py::handle state_mask_) {
  const char* op = "recurrent_forward";
  const Cell cell = cell_named(cell_name);
  const Float dtype = float_of(x_, op, "x");
  return dispatch(dtype, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    Holder<T> hold{{}, op};
    const auto lengths = hold.ids(lengths_, "lengths", "(B,)");
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

py::tuple recurrent_backward(const Cache& cache, py::handle x_, py::handle index, const CellArrays& parameters,
                             py::handle h0_, py::handle c0_, py::handle state_mask_, py::handle doutput_,
                             py::handle dfinal_h_, py::handle dfinal_c_, const CellArrays& gradients_, bool wants_dx) {
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
                                const std::array<CellArrays, 2>& parameters,
                                const std::array<py::object, 2>& state_masks) {
  const char* op = "bidirectional_forward";
  const Cell cell = cell_named(cell_name);
  const Float dtype = float_of(x_, op, "x");
  return dispatch(dtype, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    Holder<T> hold{{}, op};
    const auto lengths = hold.ids(lengths_, "lengths", "(B,)");
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
                                  const std::array<CellArrays, 2>& parameters,
                                  const std::array<py::object, 2>& state_masks, py::handle doutput_,
                                  const std::array<py::object, 2>& dfinal_h_,
                                  const std::array<CellArrays, 2>& gradients_, bool wants_dx) {
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

}  // namespace

void define_recurrent(py::module_& m) {
  py::class_<Cache>(m, "Cache", "Activations of one forward call.");
  py::class_<CellArrays>(m, "CellArrays", "A cell's parameters, or the arrays their gradients are written to.")
      .def(py::init<py::object, py::object, py::object, py::object, py::object, py::object>(), py::kw_only(),
           py::arg("weight_ih"), py::arg("weight_hh"), py::arg("bias_ih"), py::arg("bias_hh"),
           py::arg("gain_ih") = py::none(), py::arg("gain_hh") = py::none())
      .def_readonly("weight_ih", &CellArrays::weight_ih)
      .def_readonly("weight_hh", &CellArrays::weight_hh)
      .def_readonly("bias_ih", &CellArrays::bias_ih)
      .def_readonly("bias_hh", &CellArrays::bias_hh)
      .def_readonly("gain_ih", &CellArrays::gain_ih)
      .def_readonly("gain_hh", &CellArrays::gain_hh);
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
}

}  // namespace dhyan::bindings

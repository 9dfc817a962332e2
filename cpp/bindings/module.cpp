// The module: machine facts, and the dense ops that need no more than a line each.
#include "arrays.h"
#include "runtime/isa.h"
#include "dhyan/cuda.h"
#include "dhyan/linear.h"

namespace dhyan::bindings {

void define_attention(py::module_& m);
void define_cuda(py::module_& m);
void define_recurrent(py::module_& m);
void define_decoder(py::module_& m);

namespace {

// PyErr_CheckSignals does its work on the main thread only; elsewhere it returns at once.
void ask_python_for_signals() {
  with_gil([] {
    if (or_park([] { return PyErr_CheckSignals(); }) != 0) throw py::error_already_set();
  });
}

template <class T>
py::array_t<T> linear_forward(py::handle x_, py::handle w_, py::handle b_) {
  const char* op = "linear_forward";
  const auto x = required<T>(x_, op, "x"), w = required<T>(w_, op, "w"), b = input<T>(b_, op, "b");
  const auto xv = x.template view<2>(op, "x", "(M, I)"), wv = w.template view<2>(op, "w", "(I, O)");
  const auto bv = b.template view<1>(op, "b", "(O,)");
  auto y = output<T>({xv[0], wv[1]}, op);
  const auto yv = view<T, 2>(y);
  without_gil([&] { dhyan::linear_forward<T>(xv, wv, bv, yv); });
  return y;
}

template <class T>
py::object linear_backward(py::handle dy_, py::handle x_, py::handle w_, py::handle dw_, py::handle db_,
                           py::object add_to) {
  const char* op = "linear_backward";
  const auto dy = required<T>(dy_, op, "dy"), x = required<T>(x_, op, "x"), w = required<T>(w_, op, "w");
  const auto dyv = dy.template view<2>(op, "dy", "(M, O)"), xv = x.template view<2>(op, "x", "(M, I)");
  const auto wv = w.template view<2>(op, "w", "(I, O)");
  const bool add = !add_to.is_none();
  const py::object dx = add ? add_to : output<T>({xv[0], xv[1]}, op);
  Apart apart;
  apart.reads("dy", dyv), apart.reads("x", xv), apart.reads("w", wv);
  const auto dxv = apart.writes<T, 2>(dx, op, "add_to"), dwv = apart.writes<T, 2>(dw_, op, "dw");
  const auto dbv = db_.is_none() ? View<T, 1>() : apart.writes<T, 1>(db_, op, "db");
  without_gil([&] { dhyan::linear_backward<T>(dyv, xv, wv, dxv, add, dwv, dbv); });
  return dx;
}

template <class T>
py::array_t<T> embedding_forward(py::handle table_, py::handle ids_) {
  const char* op = "embedding_forward";
  const auto table = required<T>(table_, op, "table");
  const auto ids = required<Index>(ids_, op, "ids");
  const auto tv = table.template view<2>(op, "table", "(V, E)");
  const auto iv = ids.template view<1>(op, "ids", "(N,)");
  auto out = output<T>({iv[0], tv[1]}, op);
  const auto ov = view<T, 2>(out);
  without_gil([&] { dhyan::embedding_forward<T>(tv, iv, ov); });
  return out;
}

template <class T>
void embedding_backward(py::handle dout_, py::handle ids_, py::handle dtable_) {
  const char* op = "embedding_backward";
  const auto dout = required<T>(dout_, op, "dout");
  const auto ids = required<Index>(ids_, op, "ids");
  const auto dv = dout.template view<2>(op, "dout", "(N, E)");
  const auto iv = ids.template view<1>(op, "ids", "(N,)");
  Apart apart;
  apart.reads("dout", dv);
  const auto tv = apart.writes<T, 2>(dtable_, op, "dtable");
  without_gil([&] { dhyan::embedding_backward<T>(dv, iv, tv); });
}

template <class T>
py::tuple cross_entropy_forward(py::handle r_, py::handle w_, py::handle b_, py::handle targets_, double smoothing,
                                bool keep_logits) {
  const char* op = "cross_entropy_forward";
  const auto r = required<T>(r_, op, "r"), w = required<T>(w_, op, "w"), b = required<T>(b_, op, "b");
  const auto targets = required<Index>(targets_, op, "targets");
  const auto rv = r.template view<2>(op, "r", "(N, E)"), wv = w.template view<2>(op, "w", "(E, V)");
  const auto bv = b.template view<1>(op, "b", "(V,)");
  const auto tv = targets.template view<1>(op, "targets", "(N,)");
  auto log_sums = output<T>({rv[0]}, op), log_p = output<T>({rv[0]}, op);
  py::object kept = py::none();
  View<T, 2> logits;
  if (keep_logits) {
    auto a = output<T>({rv[0], wv[1]}, op);
    logits = view<T, 2>(a);
    kept = a;
  }
  const auto lv = view<T, 1>(log_sums), pv = view<T, 1>(log_p);
  const double loss = without_gil(
      [&] { return dhyan::cross_entropy_forward<T>(rv, wv, bv, tv, static_cast<T>(smoothing), lv, pv, logits); });
  return py::make_tuple(loss, log_sums, log_p, kept);
}

template <class T>
py::array_t<T> cross_entropy_backward(double scale, py::handle r_, py::handle w_, py::handle b_, py::handle targets_,
                                      double smoothing, py::handle log_sums_, py::handle logits_,
                                      py::handle shares_, py::handle dw_, py::handle db_) {
  const char* op = "cross_entropy_backward";
  const auto r = required<T>(r_, op, "r"), w = required<T>(w_, op, "w"), b = required<T>(b_, op, "b");
  const auto log_sums = required<T>(log_sums_, op, "log_sums"), logits = input<T>(logits_, op, "logits");
  const auto shares = input<T>(shares_, op, "shares");
  const auto targets = required<Index>(targets_, op, "targets");
  const auto rv = r.template view<2>(op, "r", "(N, E)"), wv = w.template view<2>(op, "w", "(E, V)");
  const auto bv = b.template view<1>(op, "b", "(V,)"), lv = log_sums.template view<1>(op, "log_sums", "(N,)");
  const auto tv = targets.template view<1>(op, "targets", "(N,)");
  const auto kv = logits.template view<2>(op, "logits", "(N, V)");
  const auto sv = shares.template view<1>(op, "shares", "(N,)");
  Apart apart;
  apart.reads("r", rv), apart.reads("w", wv), apart.reads("b", bv), apart.reads("log_sums", lv);
  apart.reads("logits", kv), apart.reads("shares", sv);
  const auto dwv = apart.writes<T, 2>(dw_, op, "dw");
  const auto dbv = apart.writes<T, 1>(db_, op, "db");
  auto dr = output<T>({rv[0], rv[1]}, op);
  const auto drv = view<T, 2>(dr);
  without_gil([&] {
    dhyan::cross_entropy_backward<T>(static_cast<T>(scale), rv, wv, bv, tv, static_cast<T>(smoothing), lv, kv, sv, drv,
                                     dwv, dbv);
  });
  return dr;
}

template <class T>
py::tuple cross_entropy_both(double scale, py::handle r_, py::handle w_, py::handle b_, py::handle targets_,
                             double smoothing, py::handle dw_, py::handle db_) {
  const char* op = "cross_entropy_both";
  const auto r = required<T>(r_, op, "r"), w = required<T>(w_, op, "w"), b = required<T>(b_, op, "b");
  const auto targets = required<Index>(targets_, op, "targets");
  const auto rv = r.template view<2>(op, "r", "(N, E)"), wv = w.template view<2>(op, "w", "(E, V)");
  const auto bv = b.template view<1>(op, "b", "(V,)");
  const auto tv = targets.template view<1>(op, "targets", "(N,)");
  Apart apart;
  apart.reads("r", rv), apart.reads("w", wv), apart.reads("b", bv);
  const auto dwv = apart.writes<T, 2>(dw_, op, "dw");
  const auto dbv = apart.writes<T, 1>(db_, op, "db");
  auto dr = output<T>({rv[0], rv[1]}, op);
  const auto drv = view<T, 2>(dr);
  const double loss = without_gil([&] {
    return dhyan::cross_entropy_both<T>(static_cast<T>(scale), rv, wv, bv, tv, static_cast<T>(smoothing), drv, dwv,
                                        dbv);
  });
  return py::make_tuple(loss, dr);
}

template <class T>
double adam_step(py::array_t<T> p, py::handle g_, py::array_t<T> m, py::array_t<T> v, std::int64_t step, double lr,
                 double beta1, double beta2, double eps, double weight_decay, double clip) {
  const char* op = "adam_step";
  const auto g = required<T>(g_, op, "g");
  const auto gv = g.template view<1>(op, "g", "(N,)");
  for (const py::array_t<T>* a : {&p, &m, &v})
    if (a->ndim() != 1 || !(a->flags() & py::array::c_style) || !a->writeable())
      throw py::value_error(std::string(op) + ": p, m and v are updated in place, expected writable row-major (N,)");
  Apart apart;
  apart.reads("g", gv);
  const auto pv = apart.writes<T, 1>(p, op, "p"), mv = apart.writes<T, 1>(m, op, "m");
  const auto vv = apart.writes<T, 1>(v, op, "v");
  return without_gil(
      [&] { return dhyan::adam_step<T>(pv, gv, mv, vv, {step, lr, beta1, beta2, eps, weight_decay, clip}); });
}

template <class T>
py::array_t<T> dropout_mask(Index n, double rate, std::uint64_t key) {
  auto out = output<T>({n}, "dropout_mask");
  const auto ov = view<T, 1>(out);
  without_gil([&] { dhyan::dropout_mask<T>(key, static_cast<T>(rate), ov); });
  return out;
}

template <class F>
auto by_dtype(py::handle object, const char* op, const char* name, F&& f) {
  return dispatch(float_of(object, op, name), std::forward<F>(f));
}

py::dict show_config() {
  py::dict d;
  d["version"] = DHYAN_VERSION;
  d["isa"] = active_variant().isa;
  py::list isas;
  for (const std::string& isa : runnable_isas()) isas.append(isa);
  d["isas"] = isas;
  d["threads"] = num_threads();
  d["openmp"] = built_with_threads();
  d["threading"] = threading();
  const std::string toolkit = cuda::toolkit();
  d["cuda"] = toolkit.empty() ? py::object(py::none()) : py::str(toolkit);
  d["cuda_devices"] = cuda::device_count();
  return d;
}

}  // namespace
}  // namespace dhyan::bindings

PYBIND11_MODULE(_core, m) {
  using namespace dhyan::bindings;
  namespace py = pybind11;
  m.doc() = "The C++ core of dhyan; import dhyan.ops instead.";
  dhyan::set_interrupt_check(ask_python_for_signals);
  py::dtype::of<float>();  // finds NumPy's functions now: pybind11 would release the GIL for that in the first op
  m.def("show_config", &show_config);
  m.def("set_isa", &dhyan::set_isa, py::arg("isa"));
  m.def("has_bf16_products", [] { return dhyan::bf16_kernels() != nullptr; });
  m.def("set_bf16_products", &dhyan::set_bf16_products, py::arg("on"));
  m.def("set_num_threads", &dhyan::set_num_threads, py::arg("n"));
  m.def("get_num_threads", &dhyan::num_threads);

  m.def(
      "linear_forward",
      [](py::object x, py::object w, py::object b) {
        return by_dtype(x, "linear_forward", "x",
                        [&](auto z) -> py::array { return linear_forward<decltype(z)>(x, w, b); });
      },
      py::arg("x"), py::arg("w"), py::arg("b"));
  m.def(
      "linear_backward",
      [](py::object dy, py::object x, py::object w, py::object dw, py::object db, py::object add_to) {
        return by_dtype(x, "linear_backward", "x",
                        [&](auto z) { return linear_backward<decltype(z)>(dy, x, w, dw, db, add_to); });
      },
      py::arg("dy"), py::arg("x"), py::arg("w"), py::arg("dw"), py::arg("db"), py::arg("add_to"));
  m.def("embedding_forward", [](py::object table, py::object ids) {
    return by_dtype(table, "embedding_forward", "table",
                    [&](auto z) -> py::array { return embedding_forward<decltype(z)>(table, ids); });
  }, py::arg("table"), py::arg("ids"));
  m.def("embedding_backward", [](py::object dout, py::object ids, py::object dtable) {
    by_dtype(dout, "embedding_backward", "dout",
             [&](auto z) { embedding_backward<decltype(z)>(dout, ids, dtable); });
  }, py::arg("dout"), py::arg("ids"), py::arg("dtable"));
  m.def("cross_entropy_forward", [](py::object r, py::object w, py::object b, py::object targets, double smoothing,
                                    bool keep_logits) {
    return by_dtype(r, "cross_entropy_forward", "r", [&](auto z) {
      return cross_entropy_forward<decltype(z)>(r, w, b, targets, smoothing, keep_logits);
    });
  }, py::arg("r"), py::arg("w"), py::arg("b"), py::arg("targets"), py::arg("smoothing"), py::arg("keep_logits"));
  m.def("cross_entropy_backward", [](double scale, py::object r, py::object w, py::object b, py::object targets,
                                     double smoothing, py::object log_sums, py::object logits, py::object shares,
                                     py::object dw, py::object db) {
    return by_dtype(r, "cross_entropy_backward", "r", [&](auto z) -> py::array {
      return cross_entropy_backward<decltype(z)>(scale, r, w, b, targets, smoothing, log_sums, logits, shares, dw,
                                                 db);
    });
  }, py::arg("scale"), py::arg("r"), py::arg("w"), py::arg("b"), py::arg("targets"), py::arg("smoothing"),
     py::arg("log_sums"), py::arg("logits"), py::arg("shares"), py::arg("dw"), py::arg("db"));
  m.def("cross_entropy_both", [](double scale, py::object r, py::object w, py::object b, py::object targets,
                                 double smoothing, py::object dw, py::object db) {
    return by_dtype(r, "cross_entropy_both", "r", [&](auto z) {
      return cross_entropy_both<decltype(z)>(scale, r, w, b, targets, smoothing, dw, db);
    });
  }, py::arg("scale"), py::arg("r"), py::arg("w"), py::arg("b"), py::arg("targets"), py::arg("smoothing"),
     py::arg("dw"), py::arg("db"));
  m.def("empty", [](dhyan::Index n, bool single) -> py::array {
    return single ? py::array(output<float>({n}, "empty")) : py::array(output<double>({n}, "empty"));
  }, py::arg("n"), py::arg("single"), "Uninitialised flat array from the pool.");
  m.def("adam_step", [](py::object p, py::object g, py::object m1, py::object v, std::int64_t step, double lr,
                        double beta1, double beta2, double eps, double weight_decay, double clip) {
    return by_dtype(p, "adam_step", "p", [&](auto z) {
      using T = decltype(z);
      for (const auto& [name, a] : {std::pair{"p", p}, std::pair{"m", m1}, std::pair{"v", v}})
        if (!py::isinstance<py::array_t<T>>(a))
          throw py::type_error(std::string("adam_step: ") + name + " is not an array of the dtype of p");
      return adam_step<T>(p, g, m1, v, step, lr, beta1, beta2, eps, weight_decay, clip);
    });
  }, py::arg("p"), py::arg("g"), py::arg("m"), py::arg("v"), py::arg("step"), py::arg("lr"), py::arg("beta1"),
     py::arg("beta2"), py::arg("eps"), py::arg("weight_decay"), py::arg("clip"));
  m.def("dropout_mask", [](dhyan::Index n, double rate, std::uint64_t key, bool single) -> py::array {
    return single ? py::array(dropout_mask<float>(n, rate, key)) : py::array(dropout_mask<double>(n, rate, key));
  }, py::arg("n"), py::arg("rate"), py::arg("key"), py::arg("single"));
  define_attention(m);
  define_cuda(m);
  define_recurrent(m);
  define_decoder(m);
}

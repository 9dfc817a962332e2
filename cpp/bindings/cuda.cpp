// Arrays of a CUDA device as Python holds them, and the device's memory; the same in every build, where the device side
// is absent it says so. The ops are in attention.cpp.
#include "dhyan/cuda.h"

#include "sides.h"

namespace dhyan::bindings {
namespace {

using cuda::Place;

py::object unit_rows(py::handle x_, py::handle stream) {
  const char* op = "unit_rows";
  Device device(op, x_, "x", stream);
  return device.dispatch([&](auto zero) -> py::object {
    using T = decltype(zero);
    const DeviceArray x = device.rows<T>(x_, "x"), out = new_device_array(device.place(), x.shape, x.dtype, op);
    const Index H = x.shape.empty() ? 1 : x.shape.back(), rows = H > 0 ? x.count() / H : 0;
    device.call([&](const Place& place) {
      if (rows > 0)
        cuda::unit_rows<T>(place, {reinterpret_cast<const T*>(x.data), {rows, H}},
                           {reinterpret_cast<T*>(out.data), {rows, H}});
    });
    return py::cast(out);
  });
}

dlpack::DataType type_of(const std::string& name) {
  for (const dlpack::DataType t :
       {ElementType<float>::value, ElementType<double>::value, ElementType<cuda::Half>::value,
        ElementType<cuda::Bfloat16>::value, ElementType<Index>::value, ElementType<bool>::value})
    if (type_name(t) == name) return t;
  throw py::type_error("cuda_upload: dtype is " + name +
                       ", expected float32, float64, float16, bfloat16, int64 or bool");
}

DeviceArray upload(const py::array& array, const std::string& dtype, int device, py::handle stream) {
  const dlpack::DataType type = type_of(dtype);
  const py::array rows = py::array::ensure(array, py::array::c_style);
  if (rows.itemsize() * 8 != type.bits)
    throw py::type_error("cuda_upload: array has dtype " + describe(array) + ", expected elements of " + dtype);
  cuda::require_device("cuda_upload");
  const Place place{device, stream_of(stream)};
  DeviceArray a =
      new_device_array(place, std::vector<Index>(rows.shape(), rows.shape() + rows.ndim()), type, "cuda_upload");
  cuda::upload(place, rows.data(), a.bytes(), a.data, "cuda_upload");
  return a;
}

py::array download(const DeviceArray& a, py::handle stream) {
  const std::string name = type_name(a.dtype);
  py::array out(py::dtype(name == "bfloat16" ? "uint16" : name),
                std::vector<py::ssize_t>(a.shape.begin(), a.shape.end()));
  if (!a.contiguous()) throw py::value_error("DeviceArray: a strided array cannot be downloaded");
  void* to = out.mutable_data();
  const Place place{a.place.device, stream_of(stream)};  // looks at a Python number: before the GIL is released
  without_gil([&] { cuda::download(place, a.data, a.bytes(), to); });
  return out;
}

DeviceArray reshape(const DeviceArray& a, const std::vector<Index>& shape) {
  DeviceArray b = a;
  b.shape = shape;
  if (b.count() != a.count())
    throw py::value_error("DeviceArray: reshape from " + a.shape_text() + " to " + b.shape_text());
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
      .def("__dlpack__", &export_device_array, py::kw_only(), arg("stream") = py::none(),
           arg("max_version") = py::none(), arg("dl_device") = py::none(), arg("copy") = py::none())
      .def("__dlpack_device__", [](const DeviceArray& a) { return py::make_tuple(dlpack::kCuda, a.place.device); });
  m.def("on_device", &on_device, arg("x"));
  m.def("cuda_import", [](object x, object stream, const std::string& op, const std::string& name) {
    require_stream(op.c_str(), stream, name.c_str());
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
  m.def("cuda_unit_rows", &unit_rows, arg("x"), arg("stream"));
}

}  // namespace dhyan::bindings

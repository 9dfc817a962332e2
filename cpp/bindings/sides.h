// The two sides an op runs on: arrays in CPU memory (Host) and on a CUDA device (Device). Each gives views of the
// inputs, which it keeps alive for the call, fresh outputs, and the call itself; an op is written once, for any side.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "arrays.h"
#include "attention/inputs.h"
#include "device_arrays.h"

namespace dhyan::bindings {

template <class T, int N>
struct Output {
  py::object array;
  View<T, N> view;
};

// A mask of up to 3 axes, spread to (B, T, S) by strides of 0; nothing is copied.
inline void spread_mask(const char* op, const std::vector<Index>& shape, const std::vector<Index>& strides,
                        const std::string& text, const std::array<Index, 3>& axes, Restriction& may) {
  const std::size_t rank = shape.size(), missing = 3 - std::min<std::size_t>(rank, 3);
  bool fits = rank <= 3;
  for (std::size_t i = 0; fits && i < rank; ++i) {
    fits = shape[i] == axes[missing + i] || shape[i] == 1;
    may.mask_stride[missing + i] = shape[i] == 1 ? 0 : strides[i];
  }
  if (!fits)
    throw py::value_error(where(op, "mask") + " has shape " + text + ", expected one that broadcasts to (B=" +
                          std::to_string(axes[0]) + ", T=" + std::to_string(axes[1]) + ", S=" +
                          std::to_string(axes[2]) + ")");
}

[[noreturn]] inline void not_a_mask(const char* op, const std::string& dtype) {
  throw py::type_error(where(op, "mask") + " has dtype " + dtype + ", expected bool (True = may be attended)");
}

class Host {
 public:
  explicit Host(const char* op) : op_(op) {}

  // None gives an absent view.
  template <class T, int N>
  View<const T, N> get(py::handle object, const char* name, const char* axes) {
    return keep<N>(input<T>(object, op_, name), name, axes);
  }
  template <class T, int N>
  View<const T, N> need(py::handle object, const char* name, const char* axes) {
    return keep<N>(required<T>(object, op_, name), name, axes);
  }
  Restriction restriction(py::handle begin, py::handle end, py::handle mask_, const std::array<Index, 3>& axes) {
    Restriction may;
    may.begin = get<Index, 2>(begin, "begin", "(B, T)");
    may.end = get<Index, 2>(end, "end", "(B, T)");
    if (mask_.is_none()) return may;
    const py::array mask = to_numpy(mask_, op_, "mask");
    if (!mask.dtype().equal(py::dtype::of<bool>())) not_a_mask(op_, describe(mask));
    spread_mask(op_, {mask.shape(), mask.shape() + mask.ndim()}, {mask.strides(), mask.strides() + mask.ndim()},
                py::str(mask.attr("shape")), axes, may);
    may.mask = static_cast<const unsigned char*>(mask.data());
    kept_.push_back(mask);
    return may;
  }
  template <class T, std::size_t N>
  Output<T, int(N)> output(const std::array<Index, N>& shape, bool wanted = true) const {
    if (!wanted) return {py::none(), {}};
    return fresh<T>(shape, std::make_index_sequence<N>());
  }
  template <class F>
  auto call(F&& f) const {
    return without_gil([&] { return f(); });
  }

 private:
  template <int N, class T>
  View<const T, N> keep(const Input<T>& in, const char* name, const char* axes) {
    kept_.push_back(in.array);
    return in.template view<N>(op_, name, axes);
  }
  template <class T, std::size_t N, std::size_t... I>
  Output<T, int(N)> fresh(const std::array<Index, N>& shape, std::index_sequence<I...>) const {
    auto array = bindings::output<T>({shape[I]...}, op_);
    const auto v = view<T, int(N)>(array);
    return {std::move(array), v};
  }
  const char* op_;
  std::vector<py::object> kept_;
};

class Device {
 public:
  // `typed`: the array whose device and dtype are those of the call.
  Device(const char* op, py::handle typed, const char* name, py::handle stream) : op_(op), stream_(stream) {
    const DeviceArray& first = take(typed, name);
    place_ = {first.place.device, stream_of(stream)};
    dtype_ = type_name(first.dtype);
    name_ = name;
  }

  // Calls f with a value of the call's float type, or says what it is.
  template <class F>
  py::object dispatch(F&& f) const {
    if (dtype_ == "float32") return f(float{});
    if (dtype_ == "float64") return f(double{});
    if (dtype_ == "float16") return f(cuda::Half{});
    if (dtype_ == "bfloat16") return f(cuda::Bfloat16{});
    throw py::type_error(where(op_, name_) + " has dtype " + dtype_ +
                         ", expected float32, float64, float16 or bfloat16");
  }

  template <class T, int N>
  View<const T, N> get(py::handle object, const char* name, const char* axes) {
    if (object.is_none()) return {};
    const DeviceArray a = rows<T>(object, name);
    if (a.shape.size() != N)
      throw py::value_error(where(op_, name) + " has shape " + a.shape_text() + ", expected " + axes);
    return view<const T, N>(a);
  }
  template <class T, int N>
  View<const T, N> need(py::handle object, const char* name, const char* axes) {
    if (object.is_none()) throw py::type_error(where(op_, name) + " is None, expected an array");
    return get<T, N>(object, name, axes);
  }
  // An array of exactly this dtype on the call's device, row-major: a strided one is copied.
  template <class T>
  DeviceArray rows(py::handle object, const char* name) {
    const DeviceArray a = take(object, name);
    same_device(a, name);
    constexpr dlpack::DataType want = ElementType<T>::value;
    if (a.dtype.code != want.code || a.dtype.bits != want.bits || a.dtype.lanes != 1)
      throw py::type_error(where(op_, name) + " has dtype " + type_name(a.dtype) + ", expected " + type_name(want));
    if (a.contiguous() || a.shape.size() > 3) return a;  // more axes than any op has: refused by get()
    const DeviceArray copy = new_device_array(place_, a.shape, a.dtype, op_);
    Index size[3] = {1, 1, 1}, stride[3] = {0, 0, 0};
    const std::size_t missing = 3 - a.shape.size();
    for (std::size_t i = 0; i < a.shape.size(); ++i) size[missing + i] = a.shape[i], stride[missing + i] = a.strides[i];
    cuda::copy_strided(place_, a.data, a.dtype.bits / 8, size, stride, copy.data);
    kept_.push_back(copy);
    return copy;
  }

  // Ranges on the device, or both in CPU memory: those are checked here and copied. The mask is read as it lies.
  Restriction restriction(py::handle begin, py::handle end, py::handle mask_, const std::array<Index, 3>& axes) {
    Restriction may;
    const bool first = on_device(begin), last = on_device(end);
    if (!begin.is_none() && !end.is_none() && first != last)
      throw py::value_error(std::string(op_) + ": begin and end are not in the same memory, expected both on the " +
                            "device or both in CPU memory");
    if (first || last) {
      may.begin = get<Index, 2>(begin, "begin", "(B, T)");
      may.end = get<Index, 2>(end, "end", "(B, T)");
    } else if (!begin.is_none() || !end.is_none()) {
      Host host(op_);
      const Restriction given = host.restriction(begin, end, py::none(), axes);
      check_restriction(op_, given, axes[0], axes[1], axes[2]);
      may.begin = uploaded(given.begin), may.end = uploaded(given.end);
      may.checked = true;
    }
    if (mask_.is_none()) return may;
    const DeviceArray mask = take(mask_, "mask");
    same_device(mask, "mask");
    if (mask.dtype.code != dlpack::kBool || mask.dtype.bits != 8) not_a_mask(op_, type_name(mask.dtype));
    spread_mask(op_, mask.shape, mask.strides, mask.shape_text(), axes, may);
    may.mask = reinterpret_cast<const unsigned char*>(mask.data);
    return may;
  }
  template <class T, std::size_t N>
  Output<T, int(N)> output(const std::array<Index, N>& shape, bool wanted = true) const {
    if (!wanted) return {py::none(), {}};
    DeviceArray a = new_device_array(place_, {shape.begin(), shape.end()}, ElementType<T>::value, op_);
    const auto v = view<T, int(N)>(a);
    return {py::cast(std::move(a)), v};
  }
  template <class F>
  auto call(F&& f) const {
    return without_gil([&] { return f(place_); });
  }
  const cuda::Place& place() const { return place_; }

 private:
  // An empty array is there, though it has no memory.
  template <class T, int N>
  static View<T, N> view(const DeviceArray& a) {
    View<T, N> v;
    v.data = reinterpret_cast<T*>(a.data ? reinterpret_cast<std::uintptr_t>(a.data) : alignof(std::max_align_t));
    std::copy_n(a.shape.begin(), N, v.size.begin());
    return v;
  }
  // Each of the caller's arrays is imported once.
  const DeviceArray& take(py::handle object, const char* name) {
    for (const auto& [key, array] : taken_)
      if (key == object.ptr()) return array;
    return taken_.emplace_back(object.ptr(), import_device_array(object, stream_, op_, name)).second;
  }
  void same_device(const DeviceArray& a, const char* name) const {
    if (a.place.device != place_.device)
      throw py::value_error(where(op_, name) + " is on CUDA device " + std::to_string(a.place.device) +
                            ", expected device " + std::to_string(place_.device) + " like the first array of the call");
  }
  View<const Index, 2> uploaded(const View<const Index, 2>& from) {
    if (!from) return {};
    const DeviceArray a = new_device_array(place_, {from[0], from[1]}, ElementType<Index>::value, op_);
    cuda::upload(place_, from.data, a.bytes(), a.data, op_);
    kept_.push_back(a);
    return view<const Index, 2>(a);
  }

  const char *op_, *name_;
  py::handle stream_;
  cuda::Place place_;
  std::string dtype_;
  std::vector<std::pair<PyObject*, DeviceArray>> taken_;
  std::vector<DeviceArray> kept_;
};

// f(host, zero): an op that has a host side only; its dtype is that of `first`.
template <class F>
py::object on_host(const char* op, py::handle first, const char* name, F&& f) {
  Host host(op);
  return dispatch(float_of(first, op, name), [&](auto zero) -> py::object { return f(host, zero); });
}

// f(side, zero) on the side where `first` lies; on a device the dtype is that of `typed`.
template <class F>
py::object on_side(const char* op, py::handle first, const char* name, py::handle typed, const char* typed_name,
                   py::handle stream, F&& f) {
  if (!on_device(first)) return on_host(op, first, name, f);
  require_stream(op, stream, name);
  Device device(op, typed, typed_name, stream);
  return device.dispatch([&](auto zero) -> py::object { return f(device, zero); });
}
template <class F>
py::object on_side(const char* op, py::handle first, const char* name, py::handle stream, F&& f) {
  return on_side(op, first, name, first, name, stream, f);
}

}  // namespace dhyan::bindings

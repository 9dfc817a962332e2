// The only file that knows NumPy and DLPack: Python objects in, views out.
//
// Inputs may have any stride or alignment (they are copied to row-major order when they are not), but never another
// dtype: a silent cast would hide the caller's mistake. Arrays of integers, which are checked and then used as indices,
// are copied always.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "runtime/memory.h"
#include "dhyan/cuda.h"
#include "dhyan/view.h"
#include "gil.h"

namespace dhyan::bindings {

inline std::string where(const char* op, const char* name) { return std::string(op) + ": " + name; }

inline std::string type_name(py::handle object) { return py::str(py::type::of(object).attr("__name__")); }

inline std::string describe(const py::array& a) { return py::str(a.dtype()); }

// An array of a GPU where one in CPU memory belongs; what can be done about it depends on the build.
[[noreturn]] inline void not_in_cpu_memory(const std::string& what) {
  if (cuda::toolkit().empty())
    throw std::runtime_error(what + " is not in CPU memory and this build of dhyan has no CUDA side");
  throw py::value_error(what + " is not in CPU memory, expected all arrays of a call on one device");
}

// Any CPU array (NumPy, buffer protocol, DLPack) as a NumPy array, dtype untouched.
inline py::array to_numpy(py::handle object, const char* op, const char* name) {
  if (py::isinstance<py::array>(object)) return py::reinterpret_borrow<py::array>(object);
  if (py::hasattr(object, "__dlpack__") && py::hasattr(object, "__dlpack_device__")) {
    const auto device = object.attr("__dlpack_device__")().cast<std::pair<int, int>>();
    if (device.first != 1)
      not_in_cpu_memory(where(op, name));
    return call(py::module_::import("numpy").attr("from_dlpack"), py::make_tuple(object));
  }
  if (PyObject_CheckBuffer(object.ptr()) && !PyBytes_Check(object.ptr()) && !PyByteArray_Check(object.ptr()))
    return call(py::module_::import("numpy").attr("asarray"), py::make_tuple(object));
  throw py::type_error(where(op, name) + " is of type " + type_name(object) + ", expected a float32 or float64 array");
}

// Row-major, aligned and of exactly this dtype; keeps the copy (if one was made) alive.
template <class T>
struct Input {
  py::array_t<T> array;
  bool present = false;

  template <int N>
  View<const T, N> view(const char* op, const char* name, const char* axes) const {
    View<const T, N> v;
    if (!present) return v;
    if (array.ndim() != N) {
      throw py::value_error(where(op, name) + " has shape " + std::string(py::str(array.attr("shape"))) +
                            ", expected " + axes);
    }
    v.data = array.data();
    for (int i = 0; i < N; ++i) v.size[i] = array.shape(i);
    return v;
  }
};

constexpr int kAligned = 0x0100, kCopied = 0x0020;  // NumPy's NPY_ARRAY_ALIGNED, NPY_ARRAY_ENSURECOPY

template <class T>
Input<T> input(py::handle object, const char* op, const char* name) {
  Input<T> in;
  if (object.is_none()) return in;
  py::array a = to_numpy(object, op, name);
  const py::dtype want = py::dtype::of<T>();
  if (!a.dtype().is(want) && !a.dtype().equal(want)) {
    throw py::type_error(where(op, name) + " has dtype " + describe(a) + ", expected " + std::string(py::str(want)));
  }
  // What is an index is copied: another thread may write to the caller's array between the check and the use.
  constexpr int how = kAligned | (std::is_integral_v<T> ? kCopied : 0);
  in.array = or_park([&] { return py::array_t<T, py::array::c_style | how>::ensure(a); });
  if (!in.array) throw py::error_already_set();
  in.present = true;
  return in;
}

template <class T>
Input<T> required(py::handle object, const char* op, const char* name) {
  if (object.is_none()) throw py::type_error(where(op, name) + " is None, expected an array");
  return input<T>(object, op, name);
}

// The dtype of a call is that of its first array; float32 and float64 are the two there are.
enum class Float { f32, f64 };
inline Float float_of(py::handle object, const char* op, const char* name) {
  if (object.is_none()) throw py::type_error(where(op, name) + " is None, expected a float32 or float64 array");
  py::array a = to_numpy(object, op, name);
  if (a.dtype().equal(py::dtype::of<float>())) return Float::f32;
  if (a.dtype().equal(py::dtype::of<double>())) return Float::f64;
  throw py::type_error(where(op, name) + " has dtype " + describe(a) + ", expected float32 or float64");
}

// Calls f with a value of the call's float type: dispatch(float_of(q, ...), [&](auto zero) { using T = decltype(zero);
// ... })
template <class F>
auto dispatch(Float dtype, F&& f) {
  return dtype == Float::f32 ? f(float{}) : f(double{});
}

// Fresh row-major output; the product of sizes is checked before anything is allocated.
template <class T>
py::array_t<T> output(std::initializer_list<Index> shape, const char* op) {
  Index bytes = sizeof(T);
  std::string text;
  bool overflow = false, empty = false;
  for (Index n : shape) {
    overflow |= __builtin_mul_overflow(bytes, n, &bytes);
    empty |= n == 0;
    text += (text.empty() ? "" : ", ") + std::to_string(n);
  }
  const auto refuse = [&] {
    PyErr_SetString(PyExc_MemoryError, (std::string(op) + ": an array of shape (" + text + ") exceeds memory").c_str());
    throw py::error_already_set();
  };
  if (overflow && !empty) refuse();
  if (empty || bytes < Index(1) << 16) return py::array_t<T>(std::vector<py::ssize_t>(shape.begin(), shape.end()));
  Buffer<T>* block = nullptr;
  try {
    block = new Buffer<T>(bytes / static_cast<Index>(sizeof(T)));
  } catch (const std::bad_alloc&) {
    refuse();
  }
  const py::capsule owner(block, [](void* p) { delete static_cast<Buffer<T>*>(p); });
  return py::array_t<T>(std::vector<py::ssize_t>(shape.begin(), shape.end()), block->get(), owner);
}

template <class T, int N>
View<T, N> view(py::array_t<T>& a);

// An array of the caller that is written to in place.
template <class T, int N>
View<T, N> writable(py::handle object, const char* op, const char* name) {
  if (!py::isinstance<py::array_t<T>>(object)) {
    throw py::type_error(where(op, name) + " is not an array of dtype " +
                         std::string(py::str(py::dtype::of<T>())) + " to write to");
  }
  auto a = py::reinterpret_borrow<py::array_t<T>>(object);
  if (a.ndim() != N || !(a.flags() & py::array::c_style) || !a.writeable())
    throw py::value_error(where(op, name) + " is not a writable row-major array of " + std::to_string(N) + " axes");
  if (!(a.flags() & kAligned))
    throw py::value_error(where(op, name) + " is not aligned, expected an address that is a multiple of " +
                          std::to_string(alignof(T)));
  return view<T, N>(a);
}

// The arrays of a call that writes to some of its caller's: these share no memory with another one, or what is read
// would depend on what was written first.
class Apart {
 public:
  template <class T, int N>
  void reads(const char* name, const View<T, N>& v) {
    const auto begin = reinterpret_cast<std::uintptr_t>(v.data);
    arrays_.push_back({name, begin, begin + (v ? static_cast<std::size_t>(v.count()) * sizeof(T) : 0)});
  }
  // After what the call reads: an array that it writes to.
  template <class T, int N>
  View<T, N> writes(py::handle object, const char* op, const char* name) {
    const View<T, N> v = writable<T, N>(object, op, name);
    reads(name, v);
    const Span own = arrays_.back();
    for (std::size_t i = 0; i + 1 < arrays_.size(); ++i)
      if (own.begin < arrays_[i].end && arrays_[i].begin < own.end)
        throw py::value_error(where(op, name) + " shares memory with " + arrays_[i].name);
    return v;
  }

 private:
  struct Span {
    const char* name;
    std::uintptr_t begin, end;
  };
  std::vector<Span> arrays_;
};

template <class T, int N>
View<T, N> view(py::array_t<T>& a) {
  View<T, N> v;
  v.data = a.mutable_data();
  for (int i = 0; i < N; ++i) v.size[i] = a.shape(i);
  return v;
}

}  // namespace dhyan::bindings

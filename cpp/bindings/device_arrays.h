// The device half of arrays.h: arrays in CUDA memory, in and out through DLPack without a copy.
#pragma once

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "arrays.h"
#include "dhyan/cuda.h"
#include "dlpack.h"

namespace dhyan::bindings {

// Names of element types as NumPy says them; what no op takes has a name too, for the error.
inline std::string type_name(const dlpack::DataType& t) {
  if (t.lanes != 1) return "vectors";
  const char* kind = t.code == dlpack::kInt     ? "int"
                     : t.code == dlpack::kUInt  ? "uint"
                     : t.code == dlpack::kFloat ? "float"
                     : t.code == dlpack::kBfloat  ? "bfloat"
                     : t.code == dlpack::kComplex ? "complex"
                                                  : "type";
  return t.code == dlpack::kBool ? "bool" : kind + std::to_string(t.bits);
}

template <class T>
struct ElementType;
#define DHYAN_ELEMENT(T, code, bits)                                  \
  template <>                                                         \
  struct ElementType<T> {                                             \
    static constexpr dlpack::DataType value{dlpack::code, bits, 1};   \
  };
DHYAN_ELEMENT(float, kFloat, 32)
DHYAN_ELEMENT(double, kFloat, 64)
DHYAN_ELEMENT(cuda::Half, kFloat, 16)
DHYAN_ELEMENT(cuda::Bfloat16, kBfloat, 16)
DHYAN_ELEMENT(Index, kInt, 64)
DHYAN_ELEMENT(bool, kBool, 8)
#undef DHYAN_ELEMENT

// Memory of ours. Streams that it was handed to are waited for before it is used again.
struct DeviceMemory {
  cuda::Place place;
  void* data;
  std::vector<cuda::Stream> readers;

  DeviceMemory(const cuda::Place& place, std::size_t bytes, const char* op)
      : place(place), data(cuda::allocate(place, bytes, op)) {}
  // What `reader` does from now on may read this.
  void lend(cuda::Stream reader) {
    if (reader == place.stream) return;
    cuda::order(place, reader);
    if (std::find(readers.begin(), readers.end(), reader) == readers.end()) readers.push_back(reader);
  }
  ~DeviceMemory() {
    for (const cuda::Stream reader : readers) {
      try {
        cuda::order({place.device, reader}, place.stream);
      } catch (const std::exception&) {  // the stream has gone, and its work with it
      }
    }
    cuda::release(place, data);
  }
  DeviceMemory(const DeviceMemory&) = delete;
};

// An array in device memory, ours or somebody else's that we keep alive.
struct DeviceArray {
  std::shared_ptr<void> owner;
  DeviceMemory* own = nullptr;  // owner, where the memory is ours
  char* data = nullptr;
  dlpack::DataType dtype{};
  std::vector<Index> shape, strides;  // in elements
  cuda::Place place;  // the stream in whose order it may be read

  Index count() const {
    Index n = 1;
    for (const Index s : shape) n *= s;
    return n;
  }
  std::size_t bytes() const { return static_cast<std::size_t>(count()) * dtype.bits / 8; }
  bool contiguous() const {
    Index step = 1;
    for (std::size_t i = shape.size(); i-- > 0; step *= shape[i])
      if (shape[i] != 1 && strides[i] != step && count() != 0) return false;
    return true;
  }
  std::string shape_text() const {
    std::string text = "(";
    for (std::size_t i = 0; i < shape.size(); ++i)
      text += std::to_string(shape[i]) + (i + 1 < shape.size() ? ", " : "");
    return text + (shape.size() == 1 ? ",)" : ")");
  }
};

inline std::vector<Index> row_major(const std::vector<Index>& shape) {
  std::vector<Index> strides(shape.size());
  Index step = 1;
  for (std::size_t i = shape.size(); i-- > 0; step *= shape[i]) strides[i] = step;
  return strides;
}

inline DeviceArray new_device_array(const cuda::Place& place, const std::vector<Index>& shape, dlpack::DataType dtype,
                                    const char* op) {
  DeviceArray a;
  Index bytes = dtype.bits / 8;
  bool overflow = false, empty = false;
  for (const Index n : shape) overflow |= __builtin_mul_overflow(bytes, n, &bytes), empty |= n == 0;
  a.shape = shape, a.dtype = dtype, a.place = place;
  if (overflow && !empty)
    throw cuda::OutOfMemory(std::string(op) + ": an array of shape " + a.shape_text() + " exceeds memory");
  const auto memory = std::make_shared<DeviceMemory>(place, empty ? 0 : static_cast<std::size_t>(bytes), op);
  a.own = memory.get();
  a.data = static_cast<char*>(memory->data);
  a.owner = memory;
  a.strides = row_major(shape);
  return a;
}

// A stream as Python numbers them (0 and 1, or None: the legacy default stream; 2: the thread's own) and as CUDA does.
inline cuda::Stream stream_of(py::handle number) {
  if (number.is_none()) return nullptr;
  const auto n = number.cast<std::uintptr_t>();
  return n <= 1 ? nullptr : reinterpret_cast<cuda::Stream>(n);
}
inline py::int_ number_of(cuda::Stream stream) {
  return py::int_(stream ? reinterpret_cast<std::uintptr_t>(stream) : std::uintptr_t(1));
}

template <class M>
DeviceArray from_managed(M* managed) {
  DeviceArray a;
  a.owner = std::shared_ptr<void>(managed, [](void* p) {
    auto* m = static_cast<M*>(p);
    if (m->deleter) m->deleter(m);
  });
  const dlpack::Tensor& t = managed->tensor;
  a.data = static_cast<char*>(t.data) + t.byte_offset;
  a.dtype = t.dtype;
  a.shape.assign(t.shape, t.shape + t.ndim);
  a.strides = t.strides ? std::vector<Index>(t.strides, t.strides + t.ndim) : row_major(a.shape);
  a.place.device = t.device.id;
  return a;
}

// Takes over what a capsule of either version holds.
inline DeviceArray from_capsule(py::handle capsule, const char* op, const char* name) {
  PyObject* p = capsule.ptr();
  if (PyCapsule_IsValid(p, dlpack::kVersionedName)) {
    auto* managed = static_cast<dlpack::ManagedVersioned*>(PyCapsule_GetPointer(p, dlpack::kVersionedName));
    if (managed->version.major != 1)
      throw py::type_error(where(op, name) + " speaks DLPack " + std::to_string(managed->version.major) +
                           ", expected 1");
    PyCapsule_SetName(p, dlpack::kUsedVersionedName);
    return from_managed(managed);
  }
  if (!PyCapsule_IsValid(p, dlpack::kName)) throw py::type_error(where(op, name) + " gave no DLPack capsule");
  auto* managed = static_cast<dlpack::Managed*>(PyCapsule_GetPointer(p, dlpack::kName));
  PyCapsule_SetName(p, dlpack::kUsedName);
  return from_managed(managed);
}

// Is this a CUDA array? Whatever cannot say so is left to the side of CPU memory, which says what was expected.
inline bool on_device(py::handle object) {
  if (py::isinstance<DeviceArray>(object)) return true;
  if (py::isinstance<py::array>(object) || !py::hasattr(object, "__dlpack_device__")) return false;
  try {
    const int type = py::tuple(object.attr("__dlpack_device__")())[0].cast<int>();
    return type == dlpack::kCuda || type == dlpack::kCudaManaged;
  } catch (py::error_already_set& e) {
    if (e.matches(PyExc_TypeError) || e.matches(PyExc_ValueError) || e.matches(PyExc_RuntimeError)) return false;
    throw;
  } catch (const py::cast_error&) {
    return false;
  }
}

// What every call on a device asks first: the caller's stream, and a build that has the device's side.
inline void require_stream(const char* op, py::handle stream, const char* first) {
  const bool number = PyLong_Check(stream.ptr()) ? !PyBool_Check(stream.ptr())
                                                 : py::isinstance(stream, py::module_::import("numpy").attr("integer"));
  if (!stream.is_none() && !number)
    throw py::type_error(where(op, "stream") + " is of type " + type_name(stream) +
                         ", expected an integer handle or None");
  if (!stream.is_none() && stream < py::int_(0))
    throw py::value_error(where(op, "stream") + " is " + std::string(py::str(stream)) +
                          ", expected the handle of a stream, 0 or more");
  if (cuda::toolkit().empty()) not_in_cpu_memory(where(op, first));
}

// A CUDA array of any library, to be read in the order of `stream`.
inline DeviceArray import_device_array(py::handle object, py::handle stream, const char* op, const char* name) {
  if (py::isinstance<DeviceArray>(object)) {
    const auto& a = object.cast<const DeviceArray&>();
    if (a.own) a.own->lend(stream_of(stream));
    return a;
  }
  if (!py::hasattr(object, "__dlpack__") || !py::hasattr(object, "__dlpack_device__"))
    throw py::type_error(where(op, name) + " is of type " + type_name(object) + ", expected a CUDA array");
  const auto device = object.attr("__dlpack_device__")().cast<std::pair<int, int>>();
  if (device.first != dlpack::kCuda && device.first != dlpack::kCudaManaged)
    throw py::value_error(
        where(op, name) + " is in " +
        (device.first == dlpack::kCpu ? "CPU memory" : "memory of DLPack device type " + std::to_string(device.first)) +
        ", expected a CUDA array like the first one of the call");
  cuda::require_device(where(op, name).c_str());
  const py::int_ number = number_of(stream_of(stream));
  const py::object give = object.attr("__dlpack__");
  py::object capsule;
  try {
    try {
      capsule =
          call(give, py::tuple(), py::dict(py::arg("stream") = number, py::arg("max_version") = py::make_tuple(1, 0)));
    } catch (py::error_already_set& e) {
      if (!e.matches(PyExc_TypeError)) throw;
      capsule = call(give, py::tuple(), py::dict(py::arg("stream") = number));
    }
  } catch (py::error_already_set& e) {  // a tensor that requires gradients, say: its library knows why, not where
    if (!e.matches(PyExc_Exception) || e.matches(PyExc_MemoryError)) throw;
    const std::string why = py::str(e.value()), kind = py::str(e.type().attr("__name__"));
    py::raise_from(e, PyExc_RuntimeError,
                   (where(op, name) + " was not given by its library (" + kind + ": " + why + ")").c_str());
    throw py::error_already_set();
  }
  DeviceArray a = from_capsule(capsule, op, name);
  a.place = {device.second, stream_of(stream)};
  return a;
}

// ---- out ----

struct Export {
  std::shared_ptr<void> owner;
  std::vector<Index> shape, strides;
};

template <class M>
py::object to_capsule(const DeviceArray& a, const char* name, M* managed) {
  auto* context = new Export{a.owner, a.shape, a.strides};
  managed->context = context;
  managed->deleter = [](M* m) {
    delete static_cast<Export*>(m->context);
    delete m;
  };
  managed->tensor = {a.data,  {dlpack::kCuda, a.place.device}, static_cast<std::int32_t>(a.shape.size()), a.dtype,
                     context->shape.data(), context->strides.data(), 0};
  PyObject* capsule = PyCapsule_New(managed, name, [](PyObject* p) {
    const char* now = PyCapsule_GetName(p);
    if (std::string(now) != dlpack::kName && std::string(now) != dlpack::kVersionedName) return;  // taken over
    auto* m = static_cast<M*>(PyCapsule_GetPointer(p, now));
    m->deleter(m);
  });
  return py::reinterpret_steal<py::object>(capsule);
}

inline py::object export_device_array(const DeviceArray& a, py::handle stream, py::handle max_version,
                                      py::handle dl_device, py::handle copy) {
  const auto refuse = [](const char* text) {
    PyErr_SetString(PyExc_BufferError, text);
    throw py::error_already_set();
  };
  if (!dl_device.is_none() &&
      dl_device.cast<std::pair<int, int>>() != std::pair<int, int>(dlpack::kCuda, a.place.device))
    refuse("DeviceArray: cannot be exported to another device");
  if (!copy.is_none() && copy.cast<bool>()) refuse("DeviceArray: cannot be exported as a copy");
  if (!(py::isinstance<py::int_>(stream) && stream.cast<std::intptr_t>() == -1)) {
    if (a.own) a.own->lend(stream_of(stream));
  }
  if (!max_version.is_none() && max_version.cast<std::pair<int, int>>().first >= 1) {
    auto* managed = new dlpack::ManagedVersioned{};
    managed->version = {1, 0};
    return to_capsule(a, dlpack::kVersionedName, managed);
  }
  return to_capsule(a, dlpack::kName, new dlpack::Managed{});
}

}  // namespace dhyan::bindings

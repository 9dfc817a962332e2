// The GIL around C++ work, and what becomes of a thread when the interpreter exits under it.
//
// Python 3.11 to 3.13 ends a daemon thread that wants the GIL while the interpreter exits, and unwinds its stack:
// through destructors that need the GIL, `catch (...)` and noexcept, each of which ends the process with an error.
// Python 3.14 parks such a thread for ever, and so does this file: nothing above the call that wanted the GIL is
// unwound.
#pragma once

#include <pybind11/pybind11.h>

#include <type_traits>
#include <utility>

#include "runtime/threads.h"

namespace dhyan::bindings {

namespace py = pybind11;

// Runs f, calls of C functions that may give the GIL away and take it again. They throw nothing: what is caught is the
// end of the thread.
template <class F>
auto or_park(F&& f) {
  try {
    return f();
  } catch (...) {
    park();
  }
}

inline bool interpreter_exits() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

// No GIL in this thread while one of these lives, but for with_gil.
class Released {
 public:
  Released() : last_(interpreter_exits()), outer_(std::exchange(innermost(), this)), state_(PyEval_SaveThread()) {}
  ~Released() {
    innermost() = outer_;
    take();
  }
  Released(const Released&) = delete;

  static Released*& innermost() {
    thread_local Released* one = nullptr;
    return one;
  }
  void take() {
    if (interpreter_exits() && !last_) park();
    or_park([this] { PyEval_RestoreThread(state_); });
    taken_ = true;
  }
  void give() {
    taken_ = false;
    state_ = PyEval_SaveThread();
  }
  bool taken() const { return taken_; }

 private:
  bool last_;  // the thread that ends the interpreter: it alone can have had the GIL by then
  Released* outer_;
  PyThreadState* state_;
  bool taken_ = false;
};

template <class F>
constexpr bool gives_no_object = !std::is_base_of_v<py::handle, std::decay_t<decltype(std::declval<F>()())>>;

// Runs f without the GIL and gives what it returns; the thread may ask for signals meanwhile. f is C++ alone. Only its
// own scope is without the GIL: a guard in the scope of a binding would also cover what the binding returns, and a
// Python object made, copied or destroyed there has its references counted wrong.
template <class F>
auto without_gil(F&& f) {
  static_assert(gives_no_object<F>, "a Python object needs the GIL");
  const InterruptScope interruptible;
  Released released;
  return f();
}

// Within without_gil: runs f with the GIL. Whatever f has Python do goes through call or or_park.
template <class F>
auto with_gil(F&& f) {
  static_assert(gives_no_object<F>, "a Python object needs the GIL");
  Released& released = *Released::innermost();
  if (released.taken()) return f();
  released.take();
  struct Giver {
    Released& released;
    ~Giver() { released.give(); }
  } const giver{released};
  return f();
}

// function(*arguments, **keywords), which may be Python code.
inline py::object call(py::handle function, const py::tuple& arguments, const py::dict& keywords = {}) {
  PyObject* answer = or_park([&] { return PyObject_Call(function.ptr(), arguments.ptr(), keywords.ptr()); });
  if (!answer) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(answer);
}

}  // namespace dhyan::bindings

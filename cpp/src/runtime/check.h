// Shape errors, worded once: operation, argument, what was got, what was expected.
#pragma once

#include <initializer_list>
#include <stdexcept>
#include <string>

#include "dhyan/view.h"

namespace dhyan {

[[noreturn]] inline void fail(const std::string& message) { throw std::invalid_argument(message); }

struct Axis {
  const char* letter;
  Index size;  // negative: any
};

template <class T, int N>
void check_shape(const char* op, const char* name, const View<T, N>& v, const Axis (&axes)[N], const char* why = "") {
  bool same = true;
  std::string expected;
  for (int i = 0; i < N; ++i) {
    same &= axes[i].size < 0 || axes[i].size == v.size[i];
    expected += std::string(i ? ", " : "") + axes[i].letter;
    if (axes[i].size >= 0) expected += "=" + std::to_string(axes[i].size);
  }
  if (!same)
    fail(std::string(op) + ": " + name + " has shape " + shape_of(v) + ", expected (" + expected +
         (N == 1 ? ",)" : ")") + (*why ? std::string(" ") + why : ""));
}

}  // namespace dhyan

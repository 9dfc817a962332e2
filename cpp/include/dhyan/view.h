// A non-owning, row-major array: a pointer and its extents.
#pragma once

#include <array>
#include <string>

#include "dhyan/term.h"

namespace dhyan {

template <class T, int N>
struct View {
  T* data = nullptr;
  std::array<Index, N> size{};

  Index operator[](int axis) const { return size[axis]; }
  explicit operator bool() const { return data != nullptr; }
  Index count() const {
    Index n = 1;
    for (Index s : size) n *= s;
    return n;
  }
  operator View<const T, N>() const { return {data, size}; }
};

template <class T, int N>
std::string shape_of(const View<T, N>& v) {
  std::string text = "(";
  for (int i = 0; i < N; ++i) text += std::to_string(v.size[i]) + (i + 1 < N ? ", " : N == 1 ? ",)" : ")");
  return text;
}

}  // namespace dhyan

// The device ops for tests/test_cuda_kernels.py: arrays in, arrays out, through memory that ends where its page does.
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "dhyan/cuda.h"
#include "emulation.h"

namespace {

using dhyan::Index, dhyan::View;
using namespace dhyan::cuda;

struct Call {
  const char* op;
  const Index* sizes;  // B, T, S, H, D
  int tanh;
  double scale;
  void* const* in;   // in the order of the op's arguments; null: absent
  void* const* out;
  const Index *begin, *end;
  const unsigned char* mask;
  const Index* mask_stride;
};

template <class T>
void run(const Call& c) {
  using W = Weight<T>;
  const Index B = c.sizes[0], t = c.sizes[1], S = c.sizes[2], H = c.sizes[3], D = c.sizes[4];
  const Place place;
  const auto in = [&](int i, Index a, Index b, Index n) { return View<const T, 3>{static_cast<const T*>(c.in[i]), {a, b, n}}; };
  const auto weights = [&](int i) { return View<const W, 3>{static_cast<const W*>(c.in[i]), {B, t, S}}; };
  const auto out = [&](int i, Index a, Index b, Index n) { return View<T, 3>{static_cast<T*>(c.out[i]), {a, b, n}}; };
  const auto out_weights = [&](int i) { return View<W, 3>{static_cast<W*>(c.out[i]), {B, t, S}}; };
  const auto dw = [&](int i) { return View<T, 1>{static_cast<T*>(c.out[i]), {H}}; };
  const auto scoring = [&](int i) {
    return dhyan::Scoring<T>{in(i, B, t, H), in(i + 1, B, S, H), {static_cast<const T*>(c.in[i + 2]), {H}},
                             c.tanh ? dhyan::Term::tanh : dhyan::Term::product, c.scale};
  };
  dhyan::Restriction may;
  may.begin = {c.begin, {B, t}};
  may.end = {c.end, {B, t}};
  may.mask = c.mask;
  for (int i = 0; c.mask && i < 3; ++i) may.mask_stride[i] = c.mask_stride[i];
  const std::string op = c.op;
  if (op == "score_forward") return score_forward<T>(place, scoring(0), out_weights(0));
  if (op == "score_backward")
    return score_backward<T>(place, weights(0), scoring(1), out(0, B, t, H), out(1, B, S, H), dw(2));
  if (op == "context_forward") return context_forward<T>(place, weights(0), in(1, B, S, D), out(0, B, t, D));
  if (op == "context_backward")
    return context_backward<T>(place, in(0, B, t, D), weights(1), in(2, B, S, D), out_weights(0), out(1, B, S, D));
  if (op == "attention_forward")
    return attention_forward<T>(place, scoring(0), in(3, B, S, D), may, out(0, B, t, D), out_weights(1));
  if (op == "attention_backward")
    return attention_backward<T>(place, in(0, B, t, D), weights(1), scoring(2), in(5, B, S, D), may, weights(6),
                                 out(0, B, t, H), out(1, B, S, H), out(2, B, S, D), dw(3));
  if (op == "unit_rows")
    return unit_rows<T>(place, {static_cast<const T*>(c.in[0]), {S, H}}, {static_cast<T*>(c.out[0]), {S, H}});
  if constexpr (sizeof(T) >= 4) {
    if (op == "softmax_forward") return softmax_forward<T>(place, weights(0), may, out_weights(0));
    if (op == "softmax_backward") return softmax_backward<T>(place, weights(0), weights(1), out_weights(0));
  }
  throw std::runtime_error("no op " + op);
}

// A copy of an array that starts `shift` bytes into guarded memory.
struct Guarded {
  char* base = nullptr;
  Index bytes, shift;
  Guarded(const void* from, Index bytes, Index shift) : bytes(bytes), shift(shift) {
    if (bytes < 0) return;  // absent
    base = static_cast<char*>(emulation::allocate(static_cast<unsigned long>(bytes + shift)));
    if (from) std::memcpy(data(), from, static_cast<std::size_t>(bytes));
  }
  void* data() const { return base ? base + shift : nullptr; }
};

}  // namespace

// dtype 0 float, 1 double, 2 half, 3 bfloat16. Bytes of -1: absent. Returns 0, or 1 with a message.
extern "C" int emulate(const char* op, int dtype, const Index* sizes, int tanh, double scale, int inputs,
                       const void* const* in, const Index* in_bytes, int outputs, void* const* out,
                       const Index* out_bytes, const Index* begin, const Index* end, const unsigned char* mask,
                       const Index* mask_stride, Index shift, int reversed, int fail, char* message) {
  std::vector<Guarded> arrays;
  std::vector<void*> from, to;
  for (int i = 0; i < inputs; ++i) from.push_back(arrays.emplace_back(in[i], in_bytes[i], shift).data());
  for (int i = 0; i < outputs; ++i) to.push_back(arrays.emplace_back(nullptr, out_bytes[i], shift).data());
  emulation::set_reversed(reversed != 0);
  if (fail) emulation::fail_next_launch();
  int status = 0;
  try {
    const Call call{op, sizes, tanh, scale, from.data(), to.data(), begin, end, mask, mask_stride};
    if (dtype == 0) run<float>(call);
    if (dtype == 1) run<double>(call);
    if (dtype == 2) run<Half>(call);
    if (dtype == 3) run<Bfloat16>(call);
  } catch (const std::exception& e) {
    std::strncpy(message, e.what(), 999);
    status = 1;
  }
  for (int i = 0; i < outputs; ++i)
    if (to[static_cast<std::size_t>(i)]) std::memcpy(out[i], to[static_cast<std::size_t>(i)], static_cast<std::size_t>(out_bytes[i]));
  for (const Guarded& a : arrays)
    if (a.base) emulation::release(a.base, static_cast<unsigned long>(a.bytes + a.shift));
  return status;
}

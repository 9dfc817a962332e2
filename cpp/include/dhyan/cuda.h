// Attention on a GPU: the functions of attention.h with a place to run, on views of device memory.
//
// In a build without CUDA every function that would touch a device throws std::runtime_error (src/cuda_absent.cpp).
// Nothing here is called before somebody asks for the GPU; errors are std::runtime_error, OutOfMemory for memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <string>

#include "dhyan/attention.h"

namespace dhyan::cuda {

// Storage of the two 16-bit types; all arithmetic is in float.
struct Half {
  std::uint16_t bits;
};
struct Bfloat16 {
  std::uint16_t bits;
};

// What scores, weights and their gradients are made of, and what is summed in.
template <class T>
struct WeightOf {
  using type = T;
};
template <>
struct WeightOf<Half> {
  using type = float;
};
template <>
struct WeightOf<Bfloat16> {
  using type = float;
};
template <class T>
using Weight = typename WeightOf<T>::type;

using Stream = void*;  // cudaStream_t; null is the legacy default stream
struct Place {
  int device = 0;
  Stream stream = nullptr;
};

class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string text) : text_(std::move(text)) {}
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  std::string text_;
};

// ---- machine ----
std::string toolkit();  // "13.0", empty in a build without CUDA
int device_count();     // 0 without a driver; the first call that touches one
void require_device(const char* op);  // throws where device_count() would be 0, with the reason
void poison(bool on);   // for tests: whatever is allocated from now on starts as NaN

// ---- memory: from a pool of our own, in the order of the place's stream ----
struct PoolUse {
  std::size_t now = 0, highest = 0;  // bytes in use, and the most since the last reset
};
PoolUse pool_use(int device, bool reset);
void trim(int device);  // gives back to the device what the pool keeps; waits for the device
void* allocate(const Place& place, std::size_t bytes, const char* op);
void release(const Place& place, void* data) noexcept;
// Refused while the stream is being captured: a graph would read this CPU memory again, long after the call.
void upload(const Place& place, const void* from, std::size_t bytes, void* to, const char* op);
void download(const Place& place, const void* from, std::size_t bytes, void* to);  // waits
void fill(const Place& place, int byte, std::size_t bytes, void* data);
// What `later` does from now on waits for what `place.stream` has been given so far.
void order(const Place& place, Stream later);
// A strided array of up to 3 axes (elements of 1, 2, 4 or 8 bytes; strides in elements) to row-major order.
void copy_strided(const Place& place, const void* from, int element, const Index* size, const Index* stride, void* to);
// Milliseconds of the device between two marks on one stream, for the bench.
Stream mark(const Place& place);  // an event
double between(Stream first, Stream second);  // waits; both marks are used up

// ---- ops ----
// Ranges in device memory: 0 <= begin <= end <= S everywhere? Waits for the stream; true while it is being captured.
bool ranges_hold(const Place& place, const Restriction& may, Index B, Index T, Index S);

// The attention ops of the device, once: declarations, the build without CUDA and the explicit instantiations derive
// from these two lists. OP(T, name, what it takes after its place...); T is what arrays are made of. The names are
// those of attention.h, and so are the arguments.
#define DHYAN_CUDA_ATTENTION(OP, T)                                                                              \
  OP(T, score_forward, const Scoring<T>& in, View<Weight<T>, 3> scores)                                          \
  OP(T, score_backward, View<const Weight<T>, 3> dscores, const Scoring<T>& in, View<T, 3> dq, View<T, 3> dk,    \
     View<T, 1> dw)                                                                                              \
  OP(T, context_forward, View<const Weight<T>, 3> weights, View<const T, 3> v, View<T, 3> context)               \
  OP(T, context_backward, View<const T, 3> dcontext, View<const Weight<T>, 3> weights, View<const T, 3> v,       \
     View<Weight<T>, 3> dweights, View<T, 3> dv)                                                                 \
  OP(T, attention_forward, const Scoring<T>& in, View<const T, 3> v, const Restriction& may, View<T, 3> context, \
     View<Weight<T>, 3> weights)                                                                                 \
  OP(T, attention_backward, View<const T, 3> dcontext, View<const Weight<T>, 3> dweights, const Scoring<T>& in,  \
     View<const T, 3> v, const Restriction& may, View<const Weight<T>, 3> weights, View<T, 3> dq, View<T, 3> dk, \
     View<T, 3> dv, View<T, 1> dw)
// Of float and double, which the weights of every dtype are.
#define DHYAN_CUDA_SOFTMAX(OP, T)                                                             \
  OP(T, softmax_forward, View<const T, 3> scores, const Restriction& may, View<T, 3> weights) \
  OP(T, softmax_backward, View<const T, 3> dweights, View<const T, 3> weights, View<T, 3> dscores)

#define DHYAN_CUDA_DECLARE(T, name, ...) \
  template <class T>                \
  void name(const Place& place, __VA_ARGS__);
DHYAN_CUDA_ATTENTION(DHYAN_CUDA_DECLARE, T)
DHYAN_CUDA_SOFTMAX(DHYAN_CUDA_DECLARE, T)
#define DHYAN_CUDA_INSTANTIATE(T, name, ...) template void name<T>(const Place&, __VA_ARGS__);
// x / |x| of the rows of x; a zero row stays zero.
template <class T>
void unit_rows(const Place&, View<const T, 2> x, View<T, 2> out);

}  // namespace dhyan::cuda

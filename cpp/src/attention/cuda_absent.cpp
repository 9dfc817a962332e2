// The device side of a build without CUDA: it says so.
#include <stdexcept>

#include "dhyan/cuda.h"

namespace dhyan::cuda {
namespace {

[[noreturn]] void absent() {
  throw std::runtime_error("this build of dhyan has no CUDA side (pip install . -C cmake.define.DHYAN_CUDA=ON)");
}

}  // namespace

std::string toolkit() { return ""; }
int device_count() { return 0; }
void require_device(const char*) { absent(); }
void poison(bool) {}
PoolUse pool_use(int, bool) { absent(); }
void trim(int) { absent(); }
void* allocate(const Place&, std::size_t, const char*) { absent(); }
void release(const Place&, void*) noexcept {}
void upload(const Place&, const void*, std::size_t, void*, const char*) { absent(); }
void download(const Place&, const void*, std::size_t, void*) { absent(); }
void fill(const Place&, int, std::size_t, void*) { absent(); }
void order(const Place&, Stream) { absent(); }
void copy_strided(const Place&, const void*, int, const Index*, const Index*, void*) { absent(); }
Stream mark(const Place&) { absent(); }
double between(Stream, Stream) { absent(); }

#pragma GCC diagnostic ignored "-Wunused-parameter"  // the list of ops names its arguments
#define DHYAN_CUDA_ABSENT(T, name, ...)           \
  template <class T>                         \
  void name(const Place& place, __VA_ARGS__) { \
    absent();                                \
  }
DHYAN_CUDA_ATTENTION(DHYAN_CUDA_ABSENT, T)
DHYAN_CUDA_SOFTMAX(DHYAN_CUDA_ABSENT, T)
template <class T>
void unit_rows(const Place&, View<const T, 2>, View<T, 2>) {
  absent();
}

DHYAN_CUDA_ATTENTION(DHYAN_CUDA_INSTANTIATE, float)
DHYAN_CUDA_ATTENTION(DHYAN_CUDA_INSTANTIATE, double)
DHYAN_CUDA_ATTENTION(DHYAN_CUDA_INSTANTIATE, Half)
DHYAN_CUDA_ATTENTION(DHYAN_CUDA_INSTANTIATE, Bfloat16)
DHYAN_CUDA_SOFTMAX(DHYAN_CUDA_INSTANTIATE, float)
DHYAN_CUDA_SOFTMAX(DHYAN_CUDA_INSTANTIATE, double)
template void unit_rows<float>(const Place&, View<const float, 2>, View<float, 2>);
template void unit_rows<double>(const Place&, View<const double, 2>, View<double, 2>);
template void unit_rows<Half>(const Place&, View<const Half, 2>, View<Half, 2>);
template void unit_rows<Bfloat16>(const Place&, View<const Bfloat16, 2>, View<Bfloat16, 2>);

}  // namespace dhyan::cuda

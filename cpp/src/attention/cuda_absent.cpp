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

template <class T>
void score_forward(const Place&, const Scoring<T>&, View<Weight<T>, 3>) {
  absent();
}
template <class T>
void score_backward(const Place&, View<const Weight<T>, 3>, const Scoring<T>&, View<T, 3>, View<T, 3>, View<T, 1>) {
  absent();
}
template <class T>
void softmax_forward(const Place&, View<const T, 3>, const Restriction&, View<T, 3>) {
  absent();
}
template <class T>
void softmax_backward(const Place&, View<const T, 3>, View<const T, 3>, View<T, 3>) {
  absent();
}
template <class T>
void context_forward(const Place&, View<const Weight<T>, 3>, View<const T, 3>, View<T, 3>) {
  absent();
}
template <class T>
void context_backward(const Place&, View<const T, 3>, View<const Weight<T>, 3>, View<const T, 3>, View<Weight<T>, 3>,
                      View<T, 3>) {
  absent();
}
template <class T>
void attention_forward(const Place&, const Scoring<T>&, View<const T, 3>, const Restriction&, View<T, 3>,
                       View<Weight<T>, 3>) {
  absent();
}
template <class T>
void attention_backward(const Place&, View<const T, 3>, View<const Weight<T>, 3>, const Scoring<T>&, View<const T, 3>,
                        const Restriction&, View<const Weight<T>, 3>, View<T, 3>, View<T, 3>, View<T, 3>, View<T, 1>) {
  absent();
}
template <class T>
void unit_rows(const Place&, View<const T, 2>, View<T, 2>) {
  absent();
}

#define DHYAN_INSTANTIATE(T)                                                                                          \
  template void score_forward<T>(const Place&, const Scoring<T>&, View<Weight<T>, 3>);                                \
  template void score_backward<T>(const Place&, View<const Weight<T>, 3>, const Scoring<T>&, View<T, 3>, View<T, 3>,  \
                                  View<T, 1>);                                                                        \
  template void context_forward<T>(const Place&, View<const Weight<T>, 3>, View<const T, 3>, View<T, 3>);             \
  template void context_backward<T>(const Place&, View<const T, 3>, View<const Weight<T>, 3>, View<const T, 3>,       \
                                    View<Weight<T>, 3>, View<T, 3>);                                                  \
  template void attention_forward<T>(const Place&, const Scoring<T>&, View<const T, 3>, const Restriction&,           \
                                     View<T, 3>, View<Weight<T>, 3>);                                                 \
  template void attention_backward<T>(const Place&, View<const T, 3>, View<const Weight<T>, 3>, const Scoring<T>&,    \
                                      View<const T, 3>, const Restriction&, View<const Weight<T>, 3>, View<T, 3>,     \
                                      View<T, 3>, View<T, 3>, View<T, 1>);                                            \
  template void unit_rows<T>(const Place&, View<const T, 2>, View<T, 2>);
DHYAN_INSTANTIATE(float)
DHYAN_INSTANTIATE(double)
DHYAN_INSTANTIATE(Half)
DHYAN_INSTANTIATE(Bfloat16)
template void softmax_forward<float>(const Place&, View<const float, 3>, const Restriction&, View<float, 3>);
template void softmax_forward<double>(const Place&, View<const double, 3>, const Restriction&, View<double, 3>);
template void softmax_backward<float>(const Place&, View<const float, 3>, View<const float, 3>, View<float, 3>);
template void softmax_backward<double>(const Place&, View<const double, 3>, View<const double, 3>, View<double, 3>);

}  // namespace dhyan::cuda

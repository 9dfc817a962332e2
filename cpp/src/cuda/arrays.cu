// What an op needs around its arithmetic: strided copies, the check of ranges, rows of length 1 for cosine.
#include "cuda/score.cuh"

namespace dhyan::cuda {
namespace {

constexpr int kThreads = 256;

struct Strided {
  Index size[3], stride[3];
};

template <class E>
DHYAN_KERNEL(kThreads, 1) copy_kernel(const E* from, Strided axes, Index count, E* to) {
  const Index i = block_index() * kThreads + thread_index();
  if (i >= count) return;
  const Index c = i % axes.size[2], b = i / axes.size[2] % axes.size[1], a = i / axes.size[2] / axes.size[1];
  to[i] = from[a * axes.stride[0] + b * axes.stride[1] + c * axes.stride[2]];
}

template <class E>
void copy(const Place& place, const void* from, const Strided& axes, void* to) {
  const Index count = axes.size[0] * axes.size[1] * axes.size[2];
  launch(place, "strided input", "copy", (count + kThreads - 1) / kThreads, kThreads, 0, copy_kernel<E>,
         static_cast<const E*>(from), axes, count, static_cast<E*>(to));
}

// One block: *good = are all ranges within [0, S)?
DHYAN_KERNEL(kThreads, 1) ranges_kernel(Restriction may, Index count, Index S, int* good) {
  bool bad = false;
  for (Index i = thread_index(); i < count; i += kThreads) {
    const Index first = may.begin.data ? may.begin.data[i] : 0, last = may.end.data ? may.end.data[i] : S;
    bad |= first < 0 || first > last || last > S;
  }
  bad = barrier_any(bad);
  if (thread_index() == 0) *good = !bad;
}

// A warp a row, in double: 1 / |x| of a subnormal float is too large.
template <class T>
DHYAN_KERNEL(32 * kWarps, 1) unit_kernel(const T* x, Index rows, Index H, T* out) {
  const Index row = block_index() * kWarps + thread_index() / 32;
  if (row >= rows) return;
  double square = 0;
  for (Index h = thread_index() % 32; h < H; h += 32) {
    const double value = static_cast<double>(number(x[row * H + h]));
    square = fused(value, value, square);
  }
  square = sum_of_warp(square);
  const double factor = square == 0 ? 0 : 1 / sqrt(square);
  for (Index h = thread_index() % 32; h < H; h += 32)
    out[row * H + h] = stored<T>(static_cast<Weight<T>>(static_cast<double>(number(x[row * H + h])) * factor));
}

}  // namespace

void copy_strided(const Place& place, const void* from, int element, const Index* size, const Index* stride,
                  void* to) {
  const Current current(place);
  Strided axes;
  for (int i = 0; i < 3; ++i) axes.size[i] = size[i], axes.stride[i] = stride[i];
  switch (element) {
    case 1: return copy<std::uint8_t>(place, from, axes, to);
    case 2: return copy<std::uint16_t>(place, from, axes, to);
    case 4: return copy<std::uint32_t>(place, from, axes, to);
    default: return copy<std::uint64_t>(place, from, axes, to);
  }
}

bool ranges_hold(const Place& place, const Restriction& may, Index B, Index T, Index S) {
  if ((!may.begin && !may.end) || B * T == 0) return true;
  const Current current(place);
  if (being_captured(place)) return true;  // nothing may wait then; the kernels cut ranges to [0, S)
  const Scratch<int> good(place, 1, "ranges");
  launch(place, "ranges", "check", 1, kThreads, 0, ranges_kernel, may, B * T, S, good.get());
  int answer = 0;
  download(place, good.get(), sizeof(int), &answer);
  return answer != 0;
}

template <class T>
void unit_rows(const Place& place, View<const T, 2> x, View<T, 2> out) {
  const Current current(place);
  launch(place, "unit_rows", "unit_rows", (x[0] + kWarps - 1) / kWarps, 32 * kWarps, 0, unit_kernel<T>, x.data, x[0],
         x[1], out.data);
}
template void unit_rows<float>(const Place&, View<const float, 2>, View<float, 2>);
template void unit_rows<double>(const Place&, View<const double, 2>, View<double, 2>);
template void unit_rows<Half>(const Place&, View<const Half, 2>, View<Half, 2>);
template void unit_rows<Bfloat16>(const Place&, View<const Bfloat16, 2>, View<Bfloat16, 2>);

}  // namespace dhyan::cuda

// What the kernels need of CUDA itself. tests/cuda_emulation/cuda/platform.cuh stands in for this file where the same
// kernels are run on the CPU, so nothing else here may use an attribute, a launch or an intrinsic of CUDA directly.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "cuda/check.h"
#include "dhyan/cuda.h"

namespace dhyan::cuda {
namespace {

#define DHYAN_DEVICE __device__ __forceinline__
#define DHYAN_KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)

DHYAN_DEVICE float number(float x) { return x; }
DHYAN_DEVICE double number(double x) { return x; }
DHYAN_DEVICE float number(Half x) { return __half2float(__ushort_as_half(x.bits)); }
DHYAN_DEVICE float number(Bfloat16 x) { return __bfloat162float(__ushort_as_bfloat16(x.bits)); }

// To storage, rounded to nearest.
template <class T>
DHYAN_DEVICE T stored(Weight<T> x) {
  return x;
}
template <>
DHYAN_DEVICE Half stored<Half>(float x) {
  return {__half_as_ushort(__float2half_rn(x))};
}
template <>
DHYAN_DEVICE Bfloat16 stored<Bfloat16>(float x) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}

// The block's shared memory as a struct of the kernel's; launch() is told its size.
template <class S>
DHYAN_DEVICE S& shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return *reinterpret_cast<S*>(memory);
}

DHYAN_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
DHYAN_DEVICE Index block_index() { return static_cast<Index>(blockIdx.x); }
DHYAN_DEVICE void barrier() { __syncthreads(); }
DHYAN_DEVICE bool barrier_any(bool x) { return __syncthreads_or(x) != 0; }
template <class A>
DHYAN_DEVICE A from_lane(A x, int distance) {  // of the lane whose index differs by this bit
  return __shfl_xor_sync(0xffffffffu, x, distance);
}

// The same pointer, of which the compiler knows nothing: what is read through it is not kept in registers.
template <class T>
DHYAN_DEVICE const T* unknown(const T* p) {
  asm volatile("" : "+l"(p));
  return p;
}

// One launch, checked. `op` and `kernel` name it in the error.
template <class... P, class... A>
void launch(const Place& place, const char* op, const char* name, Index blocks, int threads, std::size_t shared,
            void (*kernel)(P...), const A&... arguments) {
  if (blocks == 0) return;
  if (blocks > 2147483647) too_many_blocks(op, name, blocks);
  kernel<<<static_cast<unsigned>(blocks), threads, shared, static_cast<cudaStream_t>(place.stream)>>>(arguments...);
  check_launch(cudaGetLastError(), op, name);
}

}  // namespace
}  // namespace dhyan::cuda

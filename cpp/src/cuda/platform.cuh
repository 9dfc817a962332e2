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

DHYAN_DEVICE std::uint32_t bits_of(float x) { return __float_as_uint(x); }
DHYAN_DEVICE float float_of(std::uint32_t bits) { return __uint_as_float(bits); }
// Both rounded to the nearest bfloat16, `low` in the lower half.
DHYAN_DEVICE std::uint32_t bfloat16_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  std::uint32_t bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}

// The block's shared memory as a struct of the kernel's; launch() is told its size.
template <class S>
DHYAN_DEVICE S& shared_memory() {
  extern __shared__ __align__(128) unsigned char memory[];
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

// Products of a warp on the tensor cores, as PTX has them (ldmatrix, mma.m16n8k16): bfloat16 factors, float sums.
// nvcuda::wmma hides where elements lie and pays for it: four loads and a transposition for each ldmatrix.
struct Factor {
  std::uint32_t x[4];
};

// Four matrices of 8 x 8 from shared memory; lane 8 i + r brings row r of matrix i, aligned to 16 bytes. Lane l gets of
// each the elements 2 (l % 4) and the next of row l / 4, or of column l / 4.
template <bool Columns>
DHYAN_DEVICE void read_factor(Factor& to, const Bfloat16* row) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (Columns)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to.x[0]), "=r"(to.x[1]), "=r"(to.x[2]), "=r"(to.x[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to.x[0]), "=r"(to.x[1]), "=r"(to.x[2]), "=r"(to.x[3])
                 : "r"(address)
                 : "memory");
}

// sum (16 x 8) += left (16 x 16) * right (16 x 8). Lane l has, with g = l / 4 and c = 2 (l % 4):
//   left.x   elements c, c + 1 of row g, of row g + 8; c + 8, c + 9 of row g, of row g + 8
//   low      elements c, c + 1 of column g of right; high: c + 8, c + 9
//   sum      elements c, c + 1 of row g, then of row g + 8
DHYAN_DEVICE void multiply_add(float* sum, const Factor& left, std::uint32_t low, std::uint32_t high) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(left.x[0]), "r"(left.x[1]), "r"(left.x[2]), "r"(left.x[3]), "r"(low), "r"(high));
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
  if (shared > 48 << 10) {  // has to be asked for, and as many blocks as registers allow are wanted
    const int all = cudaSharedmemCarveoutMaxShared;
    check_launch(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
                 op, name);
    check_launch(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, all), op, name);
  }
  kernel<<<static_cast<unsigned>(blocks), threads, shared, static_cast<cudaStream_t>(place.stream)>>>(arguments...);
  check_launch(cudaGetLastError(), op, name);
}

}  // namespace
}  // namespace dhyan::cuda

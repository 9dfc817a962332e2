// The stand-in for the part of the CUDA runtime that dhyan calls: one device, whose memory is the computer's.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>

#include "emulation.h"

#define CUDART_VERSION 13000

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInitializationError = 3,
  cudaErrorStubLibrary = 34,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorLaunchFailure = 719,
  cudaErrorSystemNotReady = 802,
  cudaErrorSystemDriverMismatch = 803,
  cudaErrorCompatNotSupportedOnDevice = 804
};
enum { cudaDevAttrMemoryPoolsSupported = 1, cudaMemAllocationTypePinned = 1, cudaMemLocationTypeDevice = 1 };
enum { cudaMemPoolAttrReleaseThreshold = 4, cudaMemPoolAttrUsedMemCurrent = 7, cudaMemPoolAttrUsedMemHigh = 8 };
enum { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
enum { cudaEventDisableTiming = 2 };
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone = 0, cudaStreamCaptureStatusActive = 1 };
using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
using cudaMemPool_t = void*;
struct cudaMemPoolProps {
  int allocType;
  struct {
    int type, id;
  } location;
};

inline bool emulated_device() { return !std::getenv("DHYAN_EMULATE_NO_DRIVER"); }
inline cudaError_t present() { return emulated_device() ? cudaSuccess : cudaErrorInsufficientDriver; }
inline std::map<void*, std::size_t>& emulated_blocks() {
  static std::map<void*, std::size_t> blocks;
  return blocks;
}
struct EmulatedUse {
  std::uint64_t now = 0, highest = 0;
};
inline EmulatedUse& emulated_use() {
  static EmulatedUse use;
  return use;
}

inline const char* cudaGetErrorName(cudaError_t e) {
  return e == cudaErrorInsufficientDriver ? "cudaErrorInsufficientDriver"
         : e == cudaErrorLaunchFailure   ? "cudaErrorLaunchFailure"
                                         : "cudaError";
}
inline const char* cudaGetErrorString(cudaError_t) { return "an emulated error"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* n) { return *n = emulated_device(), present(); }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, present(); }
inline cudaError_t cudaSetDevice(int device) { return device == 0 ? present() : cudaErrorInvalidValue; }
inline cudaError_t cudaDeviceGetAttribute(int* value, int, int) { return *value = 1, present(); }
inline cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) { return *pool = pool, present(); }
inline cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, int what, void*) {
  if (what == cudaMemPoolAttrUsedMemHigh) emulated_use().highest = emulated_use().now;
  return cudaSuccess;
}
inline cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, int what, void* value) {
  const EmulatedUse use = emulated_use();
  *static_cast<std::uint64_t*>(value) = what == cudaMemPoolAttrUsedMemHigh ? use.highest : use.now;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() { return present(); }
inline cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, std::size_t) { return cudaSuccess; }
inline cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  if (!emulated_device()) return cudaErrorInsufficientDriver;
  if (bytes > std::size_t(1) << 32) return cudaErrorMemoryAllocation;
  *data = emulation::allocate(bytes);
  emulated_blocks()[*data] = bytes;
  EmulatedUse& use = emulated_use();
  use.now += bytes;
  if (use.now > use.highest) use.highest = use.now;
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* data) {
  emulation::release(data, emulated_blocks().at(data));
  emulated_use().now -= emulated_blocks().at(data);
  emulated_blocks().erase(data);
  return cudaSuccess;
}
inline cudaError_t cudaMallocFromPoolAsync(void** data, std::size_t bytes, cudaMemPool_t, cudaStream_t) {
  return cudaMalloc(data, bytes);
}
inline cudaError_t cudaFreeAsync(void* data, cudaStream_t) { return cudaFree(data); }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t n, int, cudaStream_t) {
  return std::memcpy(to, from, n), present();
}
inline cudaError_t cudaMemsetAsync(void* to, int byte, std::size_t n, cudaStream_t) {
  return std::memset(to, byte, n), present();
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return present(); }
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return present(); }
inline cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  if (std::getenv("DHYAN_EMULATE_CAPTURE")) *status = cudaStreamCaptureStatusActive;
  return present();
}
inline cudaError_t cudaEventCreate(cudaEvent_t* event) { return *event = nullptr, present(); }
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return *event = nullptr, present(); }
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return present(); }
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return present(); }
inline cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) { return *ms = 1.0f, present(); }
inline cudaError_t cudaEventDestroy(cudaEvent_t) { return present(); }

// The CUDA runtime behind cuda.h: devices, memory, copies, and errors with their names. Nothing runs at import.
#include <atomic>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/check.h"

namespace dhyan::cuda {
namespace {

cudaStream_t stream_of(const Place& place) { return static_cast<cudaStream_t>(place.stream); }

std::string described(cudaError_t status) {
  return std::string(cudaGetErrorName(status)) + ": " + cudaGetErrorString(status);
}

bool means_no_device(cudaError_t status) {
  return status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver || status == cudaErrorStubLibrary ||
         status == cudaErrorSystemDriverMismatch || status == cudaErrorSystemNotReady ||
         status == cudaErrorCompatNotSupportedOnDevice || status == cudaErrorInitializationError;
}

// A pool of our own for each device, which keeps what is freed. Null where the device has no pools: plain allocation.
cudaMemPool_t pool_of(int device) {
  static std::mutex lock;
  static std::vector<cudaMemPool_t> pools;
  static std::vector<bool> asked;
  const std::lock_guard<std::mutex> held(lock);
  const auto i = static_cast<std::size_t>(device);
  if (pools.size() <= i) pools.resize(i + 1, nullptr), asked.resize(i + 1, false);
  if (asked[i]) return pools[i];
  int supported = 0;
  check(cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, device), "memory pool");
  if (supported) {
    cudaMemPoolProps props{};
    props.allocType = cudaMemAllocationTypePinned;
    props.location.type = cudaMemLocationTypeDevice;
    props.location.id = device;
    check(cudaMemPoolCreate(&pools[i], &props), "memory pool");
    std::uint64_t all = ~std::uint64_t(0);
    check(cudaMemPoolSetAttribute(pools[i], cudaMemPoolAttrReleaseThreshold, &all), "memory pool");
  }
  asked[i] = true;
  return pools[i];
}

std::atomic<bool> poisoned{false};

cudaError_t take(const Place& place, cudaMemPool_t pool, std::size_t bytes, void** data) {
  return pool ? cudaMallocFromPoolAsync(data, bytes, pool, stream_of(place)) : cudaMalloc(data, bytes);
}

}  // namespace

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // or the next call would report it again
  if (means_no_device(status))
    throw std::runtime_error(std::string(what) + ": no CUDA device can be used here (" + described(status) + ")");
  if (status == cudaErrorMemoryAllocation) throw OutOfMemory(std::string(what) + ": the CUDA device is out of memory");
  throw std::runtime_error(std::string(what) + ": CUDA call failed (" + described(status) + ")");
}

void check_launch(cudaError_t status, const char* op, const char* kernel) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string(op) + ": launch of kernel " + kernel + " failed (" + described(status) + ")");
}

void too_many_blocks(const char* op, const char* kernel, Index blocks) {
  throw std::runtime_error(std::string(op) + ": kernel " + kernel + " would take " + std::to_string(blocks) +
                           " blocks, expected at most 2147483647");
}

Current::Current(const Place& place) {
  check(cudaGetDevice(&before_), "CUDA device");
  if (before_ != place.device) check(cudaSetDevice(place.device), "CUDA device");
}
Current::~Current() { cudaSetDevice(before_); }

std::string toolkit() {
  return std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
}

int device_count() {
  int n = 0;
  if (cudaGetDeviceCount(&n) == cudaSuccess) return n;
  cudaGetLastError();
  return 0;
}

void require_device(const char* op) {
  int n = 0;
  check(cudaGetDeviceCount(&n), op);
  if (n == 0) check(cudaErrorNoDevice, op);
}

void poison(bool on) { poisoned = on; }

PoolUse pool_use(int device, bool reset) {
  require_device("pool_use");
  const Current current({device, nullptr});
  const cudaMemPool_t pool = pool_of(device);
  if (!pool) return {};
  std::uint64_t now = 0, highest = 0, zero = 0;
  check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &now), "memory pool");
  check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &highest), "memory pool");
  if (reset) check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &zero), "memory pool");
  return {static_cast<std::size_t>(now), static_cast<std::size_t>(highest)};
}

void trim(int device) {
  require_device("trim");
  const Current current({device, nullptr});
  check(cudaDeviceSynchronize(), "trim");
  if (const cudaMemPool_t pool = pool_of(device)) check(cudaMemPoolTrimTo(pool, 0), "memory pool");
}

void* allocate(const Place& place, std::size_t bytes, const char* op) {
  if (bytes == 0) return nullptr;
  const Current current(place);
  const cudaMemPool_t pool = pool_of(place.device);
  void* data = nullptr;
  cudaError_t status = take(place, pool, bytes, &data);
  if (status == cudaErrorMemoryAllocation) {  // once more, with what the pool keeps given back
    cudaGetLastError();
    check(cudaStreamSynchronize(stream_of(place)), op);
    if (pool) check(cudaMemPoolTrimTo(pool, 0), op);
    status = take(place, pool, bytes, &data);
  }
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw OutOfMemory(std::string(op) + ": " + std::to_string(bytes) + " bytes exceed the memory of CUDA device " +
                      std::to_string(place.device));
  }
  check(status, op);
  if (poisoned) check(cudaMemsetAsync(data, 0xff, bytes, stream_of(place)), op);
  return data;
}

void release(const Place& place, void* data) noexcept {
  if (!data) return;
  try {
    const Current current(place);
    if (!pool_of(place.device) || cudaFreeAsync(data, stream_of(place)) != cudaSuccess)
      cudaFree(data);  // also where the stream has gone: this waits for the device
  } catch (const std::exception&) {  // the process is ending, or the device is lost: nothing to give back to
  }
  cudaGetLastError();
}

void upload(const Place& place, const void* from, std::size_t bytes, void* to, const char* op) {
  if (bytes == 0) return;
  const Current current(place);
  if (being_captured(place))
    throw std::runtime_error(
        std::string(op) + ": an array is in CPU memory while the stream is being captured, expected it on the device");
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_of(place)), "copy to the device");
}

void download(const Place& place, const void* from, std::size_t bytes, void* to) {
  if (bytes == 0) return;
  const Current current(place);
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_of(place)), "copy from the device");
  check(cudaStreamSynchronize(stream_of(place)), "copy from the device");
}

void fill(const Place& place, int byte, std::size_t bytes, void* data) {
  if (bytes == 0) return;
  const Current current(place);
  check(cudaMemsetAsync(data, byte, bytes, stream_of(place)), "fill");
}

void order(const Place& place, Stream later) {
  if (later == place.stream) return;
  const Current current(place);
  cudaEvent_t event;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "stream order");
  cudaError_t status = cudaEventRecord(event, stream_of(place));
  if (status == cudaSuccess) status = cudaStreamWaitEvent(static_cast<cudaStream_t>(later), event, 0);
  cudaEventDestroy(event);
  check(status, "stream order");
}

Stream mark(const Place& place) {
  const Current current(place);
  cudaEvent_t event;
  check(cudaEventCreate(&event), "mark");
  check(cudaEventRecord(event, stream_of(place)), "mark");
  return event;
}

double between(Stream first, Stream second) {
  const auto a = static_cast<cudaEvent_t>(first), b = static_cast<cudaEvent_t>(second);
  check(cudaEventSynchronize(b), "mark");
  float ms = 0;
  check(cudaEventElapsedTime(&ms, a, b), "mark");
  cudaEventDestroy(a);
  cudaEventDestroy(b);
  return static_cast<double>(ms);
}

bool being_captured(const Place& place) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream_of(place), &status), "stream");
  return status != cudaStreamCaptureStatusNone;
}

}  // namespace dhyan::cuda

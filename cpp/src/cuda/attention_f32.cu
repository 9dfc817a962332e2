#include "cuda/attention.cuh"

namespace dhyan::cuda::backend {
DHYAN_CUDA_ATTENTION(DHYAN_CUDA_INSTANTIATE, float)
DHYAN_CUDA_SOFTMAX(DHYAN_CUDA_INSTANTIATE, float)
}  // namespace dhyan::cuda::backend

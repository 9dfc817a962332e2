#include "cuda/attention.cuh"

namespace dhyan::cuda::backend {
DHYAN_CUDA_ATTENTION(DHYAN_CUDA_INSTANTIATE, double)
DHYAN_CUDA_SOFTMAX(DHYAN_CUDA_INSTANTIATE, double)
}  // namespace dhyan::cuda::backend

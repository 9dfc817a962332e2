#include "cuda/attention.cuh"

namespace dhyan::cuda::backend {
DHYAN_CUDA_ATTENTION(DHYAN_CUDA_INSTANTIATE, Bfloat16)
}  // namespace dhyan::cuda::backend

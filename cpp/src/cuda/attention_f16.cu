#include "cuda/attention.cuh"

namespace dhyan::cuda::backend {
DHYAN_CUDA_ATTENTION(DHYAN_CUDA_INSTANTIATE, Half)
}  // namespace dhyan::cuda::backend

#include "cuda/attention.cuh"

DHYAN_INSTANTIATE_ATTENTION(dhyan::cuda::Bfloat16)

#include "cuda/attention.cuh"

DHYAN_INSTANTIATE_ATTENTION(float)
DHYAN_INSTANTIATE_SOFTMAX(float)

#include "cuda/attention.cuh"

DHYAN_INSTANTIATE_ATTENTION(double)
DHYAN_INSTANTIATE_SOFTMAX(double)

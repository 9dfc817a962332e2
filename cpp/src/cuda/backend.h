// The attention ops of the device side, shapes already checked; defined once per type in attention_*.cu.
#pragma once

#include "dhyan/cuda.h"

namespace dhyan::cuda::backend {

DHYAN_CUDA_ATTENTION(DHYAN_CUDA_DECLARE, T)
DHYAN_CUDA_SOFTMAX(DHYAN_CUDA_DECLARE, T)

}  // namespace dhyan::cuda::backend

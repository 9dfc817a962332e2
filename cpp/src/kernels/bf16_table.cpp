#include "kernels/gemm_bf16.h"

namespace dhyan {
// The only exported symbol of this unit.
Bf16Kernels bf16_table_v4() { return {pack_pairs, gemm_pairs}; }
}  // namespace dhyan

// What kernels and those who call them share: the type of sizes and indices, and the two terms that scores are made of.
#pragma once

#include <cstdint>

namespace dhyan {

using Index = std::int64_t;

enum class Term { product, tanh };  // q . k, and w . tanh(q + k)

}  // namespace dhyan

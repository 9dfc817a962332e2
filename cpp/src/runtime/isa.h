// Which instruction set's kernels run. Chosen once, on first use; DHYAN_ISA forces one.
#pragma once

#include <string>
#include <vector>

#include "kernels/attention_table.h"
#include "kernels/dense_table.h"

namespace dhyan {

struct Variant {
  const char* isa;  // "base", "x86-64-v3", "x86-64-v4", "native"
  AttentionTable attention;
  DenseTable dense;
};

const Variant& active_variant();             // std::invalid_argument when DHYAN_ISA names none that runs here
void set_isa(const std::string& isa);        // the same check; "" returns to the automatic choice
std::vector<std::string> runnable_isas();    // built in and supported by this CPU, slowest first

// Products in bfloat16 beside the active variant; null where build, CPU or a forced instruction set have none.
const Bf16Kernels* bf16_kernels();
// On: what this thread packs from now on is rounded to bfloat16, and so are the products that read it (sums stay
// float); returns what was set before. It stands for an argument that everything between a training pass and its
// products would hand on. std::invalid_argument where there are no such products.
bool set_bf16_products(bool on);
bool bf16_products();
// On another thread, for the length of an item: the setting of the thread that dealt it out.
class RoundedProducts {
 public:
  explicit RoundedProducts(bool on) : before_(set_bf16_products(on)) {}
  ~RoundedProducts() { set_bf16_products(before_); }
  RoundedProducts(const RoundedProducts&) = delete;

 private:
  bool before_;
};

template <class T> const AttentionKernels<T>& attention_kernels();
template <class T> const DenseKernels<T>& dense_kernels();
template <> inline const AttentionKernels<float>& attention_kernels() { return active_variant().attention.f32; }
template <> inline const AttentionKernels<double>& attention_kernels() { return active_variant().attention.f64; }
template <> inline const DenseKernels<float>& dense_kernels() { return active_variant().dense.f32; }
template <> inline const DenseKernels<double>& dense_kernels() { return active_variant().dense.f64; }

}  // namespace dhyan

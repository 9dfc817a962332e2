// Which instruction set's kernels run. Chosen once, on first use; DHYAN_ISA forces one.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels/attention_table.h"
#include "cpu/kernels/dense_table.h"

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

template <class T> const AttentionKernels<T>& attention_kernels();
template <class T> const DenseKernels<T>& dense_kernels();
template <> inline const AttentionKernels<float>& attention_kernels() { return active_variant().attention.f32; }
template <> inline const AttentionKernels<double>& attention_kernels() { return active_variant().attention.f64; }
template <> inline const DenseKernels<float>& dense_kernels() { return active_variant().dense.f32; }
template <> inline const DenseKernels<double>& dense_kernels() { return active_variant().dense.f64; }

}  // namespace dhyan

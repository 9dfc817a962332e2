#include "runtime/isa.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <utility>

namespace dhyan {

#define DHYAN_DECLARE(variant)               \
  AttentionTable attention_table_##variant(); \
  DenseTable dense_table_##variant();
DHYAN_DECLARE(base)
#ifdef DHYAN_HAVE_V3
DHYAN_DECLARE(v3)
#endif
#ifdef DHYAN_HAVE_V4
DHYAN_DECLARE(v4)
#endif
#ifdef DHYAN_HAVE_NATIVE
DHYAN_DECLARE(native)
#endif
#ifdef DHYAN_HAVE_BF16
Bf16Kernels bf16_table_v4();
#endif

namespace {

thread_local bool in_bf16 = false;

#if defined(__x86_64__)
bool has_v3() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2");
}
bool has_v4() {
  return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

const std::vector<Variant>& variants() {
  // Never destroyed: a thread may be in a kernel while the process exits.
  static const auto& all = *new std::vector<Variant>([] {
    std::vector<Variant> list;
    list.push_back({"base", attention_table_base(), dense_table_base()});
#ifdef DHYAN_HAVE_V3
    if (has_v3()) list.push_back({"x86-64-v3", attention_table_v3(), dense_table_v3()});
#endif
#ifdef DHYAN_HAVE_V4
    if (has_v4()) list.push_back({"x86-64-v4", attention_table_v4(), dense_table_v4()});
#endif
#ifdef DHYAN_HAVE_NATIVE
    list.push_back({"native", attention_table_native(), dense_table_native()});
#endif
    return list;
  }());
  return all;
}

const Variant& find(const std::string& isa, const char* where) {
  std::string names;
  for (const Variant& v : variants()) {
    if (isa == v.isa) return v;
    names += names.empty() ? v.isa : std::string(", ") + v.isa;
  }
  throw std::invalid_argument(std::string(where) + " is '" + isa + "', this CPU and build have: " + names);
}

std::atomic<const Variant*> active{nullptr};

}  // namespace

const Variant& active_variant() {
  if (const Variant* chosen = active.load(std::memory_order_acquire)) return *chosen;
  const char* forced = std::getenv("DHYAN_ISA");
  const Variant& chosen = forced && *forced ? find(forced, "DHYAN_ISA") : variants().back();
  active.store(&chosen, std::memory_order_release);
  return chosen;
}

void set_isa(const std::string& isa) {
  active.store(isa.empty() ? nullptr : &find(isa, "isa"), std::memory_order_release);
}

const Bf16Kernels* bf16_kernels() {
#ifdef DHYAN_HAVE_BF16
  static const Bf16Kernels kernels = bf16_table_v4();
  // Panels are cut as those of the float kernels are, so both must have one width.
  if (__builtin_cpu_supports("avx512bf16") && has_v4() && active_variant().dense.f32.nr == 32) return &kernels;
#endif
  return nullptr;
}

bool set_bf16_products(bool on) {
  if (on && !bf16_kernels())
    throw std::invalid_argument("this CPU and build have no products in bfloat16 (AVX512-BF16)");
  return std::exchange(in_bf16, on);
}
bool bf16_products() { return in_bf16; }

std::vector<std::string> runnable_isas() {
  std::vector<std::string> names;
  for (const Variant& v : variants()) names.push_back(v.isa);
  return names;
}

}  // namespace dhyan

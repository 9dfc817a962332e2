// The multiply-add peak of this machine: independent chains of vector FMAs in registers, on every thread at once.
// usage: fma_peak THREADS    prints GFLOP/s, the best of 100 rounds
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define CHAINS 12 /* latency 4, two units: 8 are enough; 12 fit into 16 registers beside two factors */
#define STEPS 2000000
typedef float Lanes __attribute__((vector_size(BYTES)));

static float round_of_work(float seed) {
  Lanes x = {0}, y = {0}, a[CHAINS];
  x = x + (1.0f - seed * 1e-9f);
  y = y + seed * 1e-9f;
  for (int c = 0; c < CHAINS; ++c) a[c] = x * (float)(c + 1);
  for (long i = 0; i < STEPS; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < CHAINS; ++c) a[c] = a[c] * x + y;
    __asm__ volatile("" : "+x"(x), "+x"(y)); /* keeps the loop as it is written */
  }
  float sum = 0;
  for (int c = 0; c < CHAINS; ++c)
    for (unsigned l = 0; l < BYTES / sizeof(float); ++l) sum += a[c][l];
  return sum;
}

int main(int argc, char** argv) {
  const int threads = argc > 1 ? atoi(argv[1]) : 1;
  double best = 0, kept = 0;
  for (int round = 0; round < 100; ++round) {
    const double start = omp_get_wtime();
#pragma omp parallel num_threads(threads) reduction(+ : kept)
    kept += round_of_work((float)(argc + omp_get_thread_num()));
    const double seconds = omp_get_wtime() - start;
    const double flops = 2.0 * CHAINS * STEPS * (BYTES / sizeof(float)) * threads;
    if (flops / seconds > best) best = flops / seconds;
  }
  printf("%.1f %d\n", best * 1e-9, kept == 12345.0); /* kept is printed so that it cannot be dropped */
  return 0;
}

// An OpenMP team, for programs whose other parts use one as well. team_pool.cpp says why it is not the default. Where
// the system gives no more threads it ends the process; the pool does with those it has.
#include <omp.h>

#include "runtime/team.h"

namespace dhyan {

const char* const kTeam = "openmp";

void run_team(Region& region, int threads) {
#pragma omp parallel num_threads(threads)
  {
    const int place = omp_get_thread_num();
    if (place > 0) block_signals();
    region.work(place);
  }
}

}  // namespace dhyan

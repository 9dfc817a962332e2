"""`parallel_for` over each of its three teams, compiled by themselves: what every build of the core relies on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from helpers.cuda_emulator import COMPILER, ROOT

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")

TEAMS = {"pool": ["-pthread"], "openmp": ["-fopenmp", "-pthread"], "none": ["-pthread"]}

DRIVER = r"""
#include <atomic>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>
#ifdef __unix__
#include <csignal>
#include <sys/wait.h>
#include <unistd.h>
#endif
#include "runtime/threads.h"
using namespace dhyan;

constexpr std::int64_t kWork = kSerialWork;

// What 1000 items write: each its own number, once. True: all did.
bool every_item_once(bool backwards) {
  std::vector<std::atomic<int>> seen(1000);
  parallel_for(1000, kWork, [&](std::int64_t i) { ++seen[i]; }, backwards);
  for (auto& n : seen)
    if (n != 1) return false;
  return true;
}

void items() { std::printf("%d %d", every_item_once(false), every_item_once(true)); }

// Eight threads at once, of whom one at a time has the team.
void eight_callers() {
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int n = 0; n < 8; ++n)
    callers.emplace_back([&] {
      for (int i = 0; i < 200; ++i) wrong += !every_item_once(i % 2);
    });
  for (auto& caller : callers) caller.join();
  std::printf("%d", wrong.load());
}

// The error comes out of the region, no item begins after all threads know of it, and the next region is whole.
void errors() {
  int caught = 0;
  for (int i = 0; i < 100; ++i) try {
      parallel_for(1000, kWork, [&](std::int64_t item) {
        if (item == i * 10) throw std::runtime_error(std::to_string(i));
      });
    } catch (const std::runtime_error& error) {
      caught += error.what() == std::to_string(i);
    }
  std::printf("%d %d", caught, every_item_once(false));
}

// What is called inside a region has one thread: before, in either item, after.
void nested() {
  int seen[4] = {threads_here(), 0, 0, 0};
  parallel_for(2, kWork, [&](std::int64_t item) {
    seen[1 + item] = threads_here();
    parallel_for(2, kWork, [&](std::int64_t) { seen[1 + item] += threads_here() - 1; });
  });
  seen[3] = threads_here();
  std::printf("%d %d %d %d", seen[0], seen[1], seen[2], seen[3]);
}

// Where another thread's region has the team, a region runs on one thread, and what it opens does too.
void beside_another() {
  int seen[4] = {threads_here(), 0, 0, 0};
  std::atomic<bool> taken{false}, done{false};
  std::thread other([&] {
    parallel_for(2, kWork, [&](std::int64_t) {
      taken = true;
      while (!done) std::this_thread::yield();
    });
  });
  while (!taken) std::this_thread::yield();
  try {
    parallel_for(2, kWork, [&](std::int64_t item) {
      seen[1 + item] = threads_here();
      if (item == 1) throw item;
    });
  } catch (std::int64_t) {
    seen[3] = threads_here();
  }
  done = true;
  other.join();
  std::printf("%d %d %d %d", seen[0], seen[1], seen[2], seen[3]);
}

// The thread that entered from Python asks for signals between items, and what asking throws ends the region.
void interrupt() {
  set_interrupt_check([] { throw std::runtime_error("stop"); });
  std::atomic<bool> asked{false};
  try {
    const InterruptScope scope;
    for (;;)
      parallel_for(8, kWork, [](std::int64_t) { std::this_thread::sleep_for(std::chrono::milliseconds(5)); });
  } catch (const std::runtime_error& error) {
    asked = std::strcmp(error.what(), "stop") == 0;
  }
  set_interrupt_check(nullptr);
  std::printf("%d %d", asked.load(), every_item_once(false));
}

// A child forked after the team was used has one thread, and does not wait for those that it has not got.
void forked() {
#ifdef __unix__
  const bool before = every_item_once(false);
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    _exit(num_threads() == 1 && every_item_once(false) ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  std::printf("%d %d %d", before, status, every_item_once(false));
#endif
}

int main(int, char** arguments) {
  set_num_threads(3);
  const std::string name = arguments[1];
  if (name == "threading") std::printf("%s %d", threading(), num_threads());
  if (name == "items") items();
  if (name == "eight_callers") eight_callers();
  if (name == "errors") errors();
  if (name == "nested") nested();
  if (name == "beside_another") beside_another();
  if (name == "interrupt") interrupt();
  if (name == "forked") forked();
}
"""

# What the driver prints; {n}: the threads of the team.
EXPECTED = {
    "threading": "{team} {n}",
    "items": "1 1",
    "eight_callers": "0",
    "errors": "100 1",
    "nested": "{n} 1 1 {n}",
    "beside_another": "{n} 1 1 {n}",
    "interrupt": "1 1",
    "forked": "1 0 1",
}


@pytest.fixture(scope="module", params=TEAMS)
def team(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A team, and the driver built with it."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "driver.cpp").write_text(DRIVER, encoding="utf-8")
    sources = ROOT / "cpp" / "src"
    units = [sources / "runtime" / name for name in ("threads.cpp", f"team_{request.param}.cpp")]
    build = [str(COMPILER), "-std=c++17", "-O1", *TEAMS[request.param], f"-I{sources}", "-o", folder / "driver"]
    subprocess.run([*build, folder / "driver.cpp", *units], check=True)
    return request.param, folder / "driver"


@pytest.mark.parametrize("name", EXPECTED)
def test_a_team_keeps_the_contract_of_parallel_for(team: tuple[str, Path], name: str) -> None:
    done = subprocess.run([team[1], name], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout == EXPECTED[name].format(team=team[0], n=1 if team[0] == "none" else 3)

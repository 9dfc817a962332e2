"""Check the CUDA side on a GPU, then time it: `python3 bench/gpu.py --json FILE`. The whole of it is in gpu/run.py."""

from __future__ import annotations

import sys

from gpu.run import main

if __name__ == "__main__":
    sys.exit(main())

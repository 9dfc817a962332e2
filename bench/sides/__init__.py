"""Those who are measured: dhyan, NumPy and PyTorch, each in a process of its own."""

import paths as paths

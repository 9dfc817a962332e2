"""The CUDA side on a GPU: checked, then timed beside PyTorch."""

import paths as paths

"""`python -m dhyan`: the command line."""

import sys

from dhyan.cli import main

if __name__ == "__main__":
    sys.exit(main())

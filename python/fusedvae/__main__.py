# SPDX-License-Identifier: MIT
"""`python -m fusedvae` is the command `fusedvae`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())

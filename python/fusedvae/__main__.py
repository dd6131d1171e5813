# SPDX-License-Identifier: MIT
"""`python -m fusedvae` is the command `fusedvae`, and tells other build systems where the engine lies:

python -m fusedvae --cmake-dir    the folder for find_package(fusedvae): -Dfusedvae_DIR=...
python -m fusedvae --includes     the compiler's option for fusedvae.h and fusedvae.hpp
python -m fusedvae --libs         the linker's options for libfusedvae
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent
ANSWERS = {
    "--cmake-dir": lambda: f"{FOLDER / 'lib' / 'cmake' / 'fusedvae'}",
    "--includes": lambda: f"-I{FOLDER / 'include'}",
    "--libs": lambda: f"-L{FOLDER / 'lib'} -lfusedvae -Wl,-rpath,{FOLDER / 'lib'}",
}


def main() -> int:
    if len(sys.argv) == 2 and sys.argv[1] in ANSWERS:
        if not (FOLDER / "include").is_dir():
            print("fusedvae: error: this copy runs from its source folder; install it first", file=sys.stderr)
            return 1
        print(ANSWERS[sys.argv[1]]())
        return 0
    from .cli import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())

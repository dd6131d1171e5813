# SPDX-License-Identifier: MIT
"""kill -9 at random moments loses nothing: a short run of tests/tools/kill_training.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "kill_training.py"


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_killed_trainings_end_as_the_others_do():
    done = subprocess.run([sys.executable, TOOL, "--kills", "5"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "5 kills in" in done.stdout

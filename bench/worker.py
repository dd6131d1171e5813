# SPDX-License-Identifier: MIT
"""One arm in a process of its own, so that no framework's threads, flags or memory reach another's timing.

Worker starts this file as a program: one JSON request per line on standard input, ["verb", arguments...], and one
JSON answer per line, with the seconds that the verb took. Between requests the process is stopped by a signal: a
thread pool that spins while it waits cannot take a core from the arm that is being timed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, is_dataclass
from pathlib import Path

from arms import Unavailable


class Worker:
    """A handle on an arm's process: `worker.ask("train", 3)` -> (value, seconds)."""

    def __init__(self, arm: str, threads: int):
        self.arm = arm
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "OPENBLAS_NUM_THREADS": str(threads),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",  # compiles in the worker itself: no helpers left behind, idle or not
            "JAX_PLATFORMS": "cpu",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), arm, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, verb: str, *arguments):
        self.process.send_signal(signal.SIGCONT)
        packed = [asdict(a) if is_dataclass(a) else a for a in arguments]
        try:
            print(json.dumps([verb, *packed]), file=self.process.stdin, flush=True)
            answer = json.loads(self.process.stdout.readline())
        except (BrokenPipeError, ValueError):
            raise RuntimeError(f"{self.arm}: its process ended with status {self.process.wait()}") from None
        self.process.send_signal(signal.SIGSTOP)
        if "unavailable" in answer:
            raise Unavailable(answer["unavailable"])
        if "error" in answer:
            raise RuntimeError(f"{self.arm}: {verb} failed\n{answer['error']}")
        return answer["value"], answer["seconds"]

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception) -> None:
        self.process.kill()  # works on a stopped process, and the arm has nothing to save
        self.process.communicate()


def serve(arm_name: str, threads: int) -> None:
    # What the frameworks print goes to standard error; the answers keep the pipe for themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if hasattr(os, "sched_setaffinity"):  # `threads` cores for everybody; JAX has no other way to be told
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])

    import arms
    from problems import Problem

    arm = None
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        arguments = [Problem(**{**a, "hidden": tuple(a["hidden"])}) if isinstance(a, dict) else a for a in arguments]
        try:
            if arm is None:
                arm = arms.create(arm_name, threads)
            start = time.perf_counter()
            value = getattr(arm, verb)(*arguments)
            answer = {"value": value, "seconds": time.perf_counter() - start}
        except arms.Unavailable as reason:
            answer = {"unavailable": str(reason)}
        except Exception:  # whatever it is, the asking process tells it
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))

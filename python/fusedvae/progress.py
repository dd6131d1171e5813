# SPDX-License-Identifier: MIT
"""Progress bars for Trainer.fit and train_ensemble: tqdm's or rich's where a terminal or notebook shows one, or lines.

It draws on ticks (about twenty a second, between two steps) and at the end, never for batches or each short epoch, so
that its cost does not depend on how short they are.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from typing import Any, Protocol, TextIO

from . import _checks
from ._readers import require

# Seconds between two lines where no terminal redraws a bar.
LINE_INTERVAL = 1.0
# What matters comes first: a narrow terminal cuts the end.
BAR_FORMAT = "{desc} {percentage:3.0f}% |{bar}| {remaining} left, {rate_noinv_fmt}"
STYLES = ("tqdm", "rich")


class ProgressBar:
    """A callback that shows steps, losses in nats per row and speed on `file` (default stderr).

    style: "tqdm", or "rich" (ImportError where it is missing). A terminal or a notebook shows a bar; where there is
    neither, or no tqdm, a line comes at most once a second.

    >>> import fusedvae as fv
    >>> trainer = fv.Trainer(fv.Model(fv.Config(input_shape=4, latent=1, hidden=(8,))))
    >>> x = [[0.0, 1.0, 0.0, 1.0]] * 64
    >>> history = trainer.fit(x, epochs=2, callbacks=[ProgressBar(sys.stdout)])  # doctest: +ELLIPSIS
    epoch 2/2  loss ...
    """

    def __init__(self, file: TextIO | None = None, style: str = "tqdm") -> None:
        self._file = sys.stderr if file is None else file
        self._style = _checks.choice("style", style, STYLES)
        if style == "rich":
            require("rich.progress", "progress", 'progress="rich"')
        self._bar: _Bar | None = None
        self._counts_steps = True
        self._first = 0
        self._last_line = 0.0
        self._held_out = ""

    def on_train_begin(self, trainer: Any, progress: Any) -> None:
        self._counts_steps = progress.batches > 0  # an iterable may not say how many
        self._first = progress.step if self._counts_steps else progress.epoch
        self._last_line = time.monotonic()
        left, unit = progress.epochs - progress.epoch, " epochs"
        if self._counts_steps:
            left, unit = left * progress.batches - progress.batch, " steps"
        self._bar = _open(left, unit, self._file, self._style)

    def on_tick(self, trainer: Any, progress: Any) -> None:
        if self._bar is not None:
            self._draw(progress)

    def on_epoch_end(self, trainer: Any, progress: Any) -> None:
        if progress.validation is not None:
            self._held_out = f", held out {progress.validation.loss:.2f}"
        last = progress.epoch + 1 >= progress.epochs
        if self._bar is not None:
            if last:
                self._draw(progress, 1)
        elif last or time.monotonic() - self._last_line >= LINE_INTERVAL:
            self._last_line = time.monotonic()
            print(self._line(progress), file=self._file, flush=True)

    def on_train_end(self, trainer: Any, progress: Any) -> None:
        self.close()

    def after_fit(self, trainer: Any, error: BaseException | None) -> None:
        self.close()  # also after an exception

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _draw(self, progress: Any, finished: int = 0) -> None:
        assert self._bar is not None
        done = progress.step if self._counts_steps else progress.epoch + finished
        self._bar.draw(done - self._first, self._line(progress))

    def _line(self, progress: Any) -> str:
        """The epoch, its means so far, and the latest held-out loss."""
        loss, reconstruction, kl = progress.train
        epoch = f"epoch {min(progress.epoch + 1, progress.epochs)}/{progress.epochs}"
        return f"{epoch}  loss {loss:.2f}, rec {reconstruction:.2f}, KL {kl:.2f}{self._held_out}"


class EnsembleBar:
    """The callback of all trainings of an ensemble: one bar over their epochs, or lines as `ProgressBar`'s."""

    def __init__(self, trainings: int, file: TextIO | None = None, style: str = "tqdm") -> None:
        self._trainings = trainings
        self._file = sys.stderr if file is None else file
        self._style = _checks.choice("style", style, STYLES)
        if style == "rich":
            require("rich.progress", "progress", 'progress="rich"')
        self._bar: _Bar | None = None
        self._epochs: dict[int, float] = {}  # of each training that has begun
        self._left: dict[int, int] = {}  # epochs that it began with
        self._finished = 0
        self._last_line = time.monotonic()
        self._lock = threading.RLock()  # trainings call from threads of their own

    def on_train_begin(self, trainer: Any, progress: Any) -> None:
        with self._lock:
            if not self._left:
                total = self._trainings * (progress.epochs - progress.epoch)
                self._bar = _open(total, " epochs", self._file, self._style)
            self._left[id(trainer)] = progress.epochs - progress.epoch
            self._epochs[id(trainer)] = 0.0

    def on_tick(self, trainer: Any, progress: Any) -> None:
        if self._bar is not None:
            self._tell(trainer, progress, progress.batch / progress.batches)

    def on_epoch_end(self, trainer: Any, progress: Any) -> None:
        self._tell(trainer, progress, 1.0)

    def on_train_end(self, trainer: Any, progress: Any) -> None:
        with self._lock:
            self._finished += 1
            if self._finished == self._trainings:
                self.close()

    def close(self) -> None:
        """Leaves the bar as it stands."""
        with self._lock:
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def _tell(self, trainer: Any, progress: Any, part: float) -> None:
        me = id(trainer)
        with self._lock:
            self._epochs[me] = progress.epoch + part - (progress.epochs - self._left[me])
            done = sum(self._epochs.values())
            text = f"{self._finished} of {self._trainings} models done  loss {progress.train.loss:.2f}"
            if self._bar is not None:
                self._bar.draw(done, text)
            elif time.monotonic() - self._last_line >= LINE_INTERVAL:
                self._last_line = time.monotonic()
                print(text, file=self._file, flush=True)


class _Bar(Protocol):
    def draw(self, done: float, text: str) -> None: ...
    def close(self) -> None: ...


def _open(total: int, unit: str, file: TextIO, style: str) -> _Bar | None:
    """A bar where something shows one and its library is there."""
    notebook = _in_notebook() and file is sys.stderr
    if not notebook and not file.isatty():
        return None
    try:
        return (_Rich if style == "rich" else _Tqdm)(total, unit, file, notebook)
    except ImportError:
        return None


# Ticks are the clock of both: neither their threads nor their throttles have anything to add.


class _Tqdm:
    def __init__(self, total: int, unit: str, file: TextIO, notebook: bool) -> None:
        widgets = notebook and importlib.util.find_spec("ipywidgets") is not None
        module = importlib.import_module("tqdm.notebook" if widgets else "tqdm")

        class Bar(module.tqdm):  # type: ignore[misc, name-defined]
            monitor_interval = 0

        self._bar = Bar(total=total, file=file, unit=unit, mininterval=0, dynamic_ncols=True, bar_format=BAR_FORMAT)

    def draw(self, done: float, text: str) -> None:
        self._bar.n = done
        self._bar.set_description_str(text, refresh=False)
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()


class _Rich:
    def __init__(self, total: int, unit: str, file: TextIO, notebook: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            console=Console(file=None if notebook else file),
            auto_refresh=False,
        )
        self._task = self._progress.add_task("", total=total)
        self._progress.start()

    def draw(self, done: float, text: str) -> None:
        self._progress.update(self._task, completed=done, description=text, refresh=True)

    def close(self) -> None:
        self._progress.stop()


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this: its shell is another than a terminal's."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and type(ipython.get_ipython()).__name__ == "ZMQInteractiveShell"

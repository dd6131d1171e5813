# SPDX-License-Identifier: MIT
"""A progress bar for Trainer.fit: tqdm's where a terminal shows it, else a line now and then.

It draws on ticks (about twenty a second, between two steps) and at the end, never for batches or each short epoch, so
that its cost does not depend on how short they are.
"""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

# Seconds between two lines where no terminal redraws a bar.
LINE_INTERVAL = 1.0
# What matters comes first: a narrow terminal cuts the end.
BAR_FORMAT = "{desc} {percentage:3.0f}% |{bar}| {remaining} left, {rate_noinv_fmt}"


class ProgressBar:
    """A callback that shows steps, losses in nats per row and speed on `file` (default stderr).

    >>> import fusedvae as fv
    >>> trainer = fv.Trainer(fv.Model(fv.Config(input_shape=4, latent=1, hidden=(8,))))
    >>> x = [[0.0, 1.0, 0.0, 1.0]] * 64
    >>> history = trainer.fit(x, epochs=2, callbacks=[ProgressBar(sys.stdout)])  # doctest: +ELLIPSIS
    epoch 2/2  loss ...
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = sys.stderr if file is None else file
        self._bar: Any = None
        self._first_step = 0
        self._last_line = 0.0
        self._held_out = ""

    def on_train_begin(self, trainer: Any, progress: Any) -> None:
        self._first_step = progress.step
        self._last_line = time.monotonic()
        if not self._file.isatty():
            return
        try:
            from tqdm import tqdm
        except ImportError:
            return

        class Bar(tqdm):  # type: ignore[misc]
            monitor_interval = 0  # ticks are the clock: tqdm's monitor thread and throttle have nothing to add

        steps = (progress.epochs - progress.epoch) * progress.batches - progress.batch
        self._bar = Bar(
            total=steps, file=self._file, unit=" steps", mininterval=0, dynamic_ncols=True, bar_format=BAR_FORMAT
        )

    def on_tick(self, trainer: Any, progress: Any) -> None:
        if self._bar is not None:
            self._redraw(progress)

    def on_epoch_end(self, trainer: Any, progress: Any) -> None:
        if progress.validation is not None:
            self._held_out = f", held out {progress.validation.loss:.2f}"
        last = progress.epoch + 1 >= progress.epochs
        if self._bar is not None:
            if last:
                self._redraw(progress)
        elif last or time.monotonic() - self._last_line >= LINE_INTERVAL:
            self._last_line = time.monotonic()
            print(self._line(progress), file=self._file, flush=True)

    def on_train_end(self, trainer: Any, progress: Any) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the bar as it stands; for runs that end in an exception."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _redraw(self, progress: Any) -> None:
        self._bar.n = progress.step - self._first_step
        self._bar.set_description_str(self._line(progress), refresh=False)
        self._bar.refresh()

    def _line(self, progress: Any) -> str:
        """The epoch, its means so far, and the latest held-out loss."""
        loss, reconstruction, kl = progress.train
        epoch = f"epoch {min(progress.epoch + 1, progress.epochs)}/{progress.epochs}"
        return f"{epoch}  loss {loss:.2f}, rec {reconstruction:.2f}, KL {kl:.2f}{self._held_out}"

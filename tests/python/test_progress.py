# SPDX-License-Identifier: MIT
"""Progress bars: tqdm's and rich's, and lines where there is no terminal."""

import io
import sys

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_rich_draws_on_a_terminal(make_trainer, noisy):
    pytest.importorskip("rich")
    out = Terminal()
    history = make_trainer().fit(noisy[0], epochs=3, callbacks=[progress.ProgressBar(out, style="rich")])
    assert f"epoch 3/3  loss {history['loss'][-1]:.2f}, rec " in out.getvalue()
    assert "100%" in out.getvalue() or "━" in out.getvalue()


@pytest.mark.parametrize("style", ["tqdm", "rich"])
def test_bars_count_epochs_where_batches_are_unknown(style: str, make_trainer, noisy):
    pytest.importorskip(style)
    out = Terminal()

    class Unsized:
        def __iter__(self):
            return iter(np.split(noisy[0], 4))

    make_trainer().fit(Unsized(), epochs=3, callbacks=[progress.ProgressBar(out, style=style)])
    assert "epoch 3/3" in out.getvalue()
    if style == "tqdm":
        assert "100%" in out.getvalue().split("\r")[-1]
        assert " epochs/s" in out.getvalue()


def test_a_bar_is_closed_after_an_exception(make_trainer, noisy):
    pytest.importorskip("rich")

    class Fail(fv.Callback):
        def on_epoch_end(self, trainer, progress):
            raise LookupError

    bar = progress.ProgressBar(Terminal(), style="rich")
    with pytest.raises(LookupError):
        make_trainer().fit(noisy[0], epochs=3, callbacks=[bar, Fail()])
    assert bar._bar is None


def test_styles_of_bars(make_trainer, noisy, capfd, monkeypatch):
    with pytest.raises(ValueError, match="unknown style 'fancy'; known are"):
        make_trainer().fit(noisy[0], epochs=1, progress="fancy")
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.delitem(sys.modules, "rich.progress", raising=False)
    with pytest.raises(ImportError, match=r"fusedvae\[progress\]"):
        make_trainer().fit(noisy[0], epochs=1, progress="rich")
    make_trainer().fit(noisy[0], epochs=2, progress="tqdm")
    assert "2/2" in capfd.readouterr().err

# SPDX-License-Identifier: MIT
"""The decoder in a browser page gives Python's images: the engine as WebAssembly, in a headless browser."""

import functools
import html
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import fusedvae as fv
import numpy as np
import pytest

HERE = Path(__file__).parent / "wasm"
PREFIX = os.environ.get("FUSEDVAE_WASM")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def page(tmp_path):
    """The folder of the page, with the decoder built into it, and its address."""
    if not PREFIX or not shutil.which("emcc"):
        pytest.skip("FUSEDVAE_WASM names no installation built by Emscripten, or there is no emcc")
    if BROWSER is None:
        pytest.skip("no browser")
    shutil.copy(HERE / "page.html", tmp_path)
    exported = ["-sEXPORTED_RUNTIME_METHODS=ccall,FS", "-sEXPORTED_FUNCTIONS=_malloc,_free"]
    module = ["-sMODULARIZE=1", "-sEXPORT_NAME=createDecoder", "-sALLOW_MEMORY_GROWTH=1"]
    source = [HERE / "decoder.c", f"-I{PREFIX}/include", f"{PREFIX}/lib/libfusedvae.a"]
    target = tmp_path / "decoder.js"
    subprocess.run(["emcc", "-O2", "-fexceptions", *source, *module, *exported, "-o", target], check=True)
    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield tmp_path, f"http://127.0.0.1:{server.server_port}/page.html"
        server.shutdown()


def opened(address, folder):
    """The page's text after it ran."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'browser'}"]
    command = [BROWSER, *options, "--virtual-time-budget=20000", "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_a_page_decodes_what_python_decodes(page):
    folder, address = page
    model = fv.Model(fv.Config(input_shape=(8, 6), hidden=(64,), latent=4), seed=1)
    model.save(folder / "model.safetensors")
    text = opened(address, folder)
    decoded = json.loads(html.unescape(re.search(r'data-decoded="([^"]*)"', text)[1]))
    # Sums of 64 and 4 products in another order, sigmoid's slope at most 1/4: far below 1e-6 of values in [0, 1].
    np.testing.assert_allclose(decoded, model.decode([[1, -1, 0, 0]]).ravel(), rtol=0, atol=1e-6)
    assert "4 dimensions to 8 x 6 pixels" in text


def test_a_page_says_what_is_wrong_with_its_file(page):
    folder, address = page
    (folder / "model.safetensors").write_bytes(b"nonsense")
    assert "'/model' is not a readable safetensors file" in opened(address, folder)

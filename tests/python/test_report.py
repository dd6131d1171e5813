# SPDX-License-Identifier: MIT
"""fusedvae.report: what the page holds, that it asks nobody for anything, and what a browser makes of it."""

import base64
import html.parser
import http.server
import json
import re
import shutil
import subprocess
import threading

import fusedvae as fv
import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
from fusedvae import report

RNG = np.random.default_rng(0)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NASTY = '<script>alert(1)</script><img src="http://example.invalid/x.png">'


class Page(html.parser.HTMLParser):
    """A page's tags with their attributes, its headings, and the cells of its tables, row by row."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.headings, self.rows, self.text = [], [], [[]], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data):
        self.text += data
        tag = self.tags[-1][0] if self.tags else ""
        if data.strip() and tag == "h2":
            self.headings.append(data.strip())
        if data.strip() and tag in ("td", "th"):
            self.rows[-1].append(data.strip())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def trained(x, held_out, epochs=3, **options):
    model = fv.Model(fv.Config(input_shape=x.shape[1:], hidden=(16,), **options))
    history = fv.Trainer(model, fv.Adam(1e-2), batch_size=20).fit(x, epochs=epochs, validation_data=held_out)
    return model, history


@pytest.fixture(scope="module")
def images():
    """A page about a model of images with a latent plane."""
    x = np.zeros((90, 6, 5), np.float32)
    x[np.arange(90), RNG.integers(0, 6, 90)] = 1
    model, history = trained(x[:60], x[60:], latent=2)
    labels = np.array([NASTY, "other"] * 15)
    return report.render(model, history, x[60:], labels, title=NASTY)


@pytest.fixture(scope="module")
def table():
    """A page about a table whose second column is noise and whose third is constant; its rows and model."""
    code = RNG.standard_normal((200, 1))
    x = np.hstack((code, RNG.standard_normal((200, 1)), np.full((200, 1), 2.0), 3 * code)).astype(np.float32)
    model, history = trained(x[:150], x[150:], epochs=40, latent=1, likelihood=fv.Gaussian("feature"))
    return report.render(model, history, x[150:]), x[150:], model


def test_page_of_images(images):
    page = Page(images)
    assert page.headings == [
        "Model",
        "Training",
        "Reconstructions",
        "Samples",
        "Traversals",
        "The latent plane",
        "Embedding",
        "Use of the latent dimensions",
        "Scores",
    ]
    assert ["latent", "2"] in page.rows
    assert ["parameters", f"{30 * 16 + 16 + 16 * 4 + 4 + 2 * 16 + 16 + 16 * 30 + 30:,}"] in page.rows
    names = next(row for row in page.rows if row[:2] == ["epoch", "step"])
    assert names == [
        "epoch",
        "step",
        "loss",
        "reconstruction",
        "KL",
        "held-out loss",
        "held-out KL",
        "learning rate",
        "beta",
    ]
    assert [row[:2] for row in page.rows if len(row) == 9][1:] == [["1", "3"], ["2", "6"], ["3", "9"]]
    pictures = page.all("img")
    assert len(pictures) == 8
    for picture in pictures:
        content = base64.b64decode(picture["src"].removeprefix("data:image/png;base64,"), validate=True)
        assert content.startswith(b"\x89PNG")
        assert picture["alt"]


def test_page_of_a_table(table):
    text, x, model = table
    page = Page(text)
    assert page.headings[2:] == ["Embedding", "Use of the latent dimensions", "Scores", "Columns"]
    start = next(i for i, row in enumerate(page.rows) if row[:1] == ["column"])
    found = {row[0]: row[1:] for row in page.rows[start + 1 :]}
    assert next(iter(found)) == "x1"  # noise comes back worst
    assert found["x2"][2] == "constant"
    back = model.reconstruct(x)
    share = 1 - ((back - x)[:, 3] ** 2).mean() / x[:, 3].var()
    assert found["x3"] == [f"{x[:, 3].std():.4g}", f"{np.sqrt(((back - x)[:, 3] ** 2).mean()):.4g}", f"{share:.3f}"]
    assert share > 0.5


def test_page_asks_nobody_and_escapes(images, table):
    for text in (images, table[0]):
        page = Page(text)
        assert not page.all("script")
        assert not page.all("link")[1:]
        for tag, attributes in page.tags:
            for name in ("src", "href", "action", "srcset"):
                assert attributes.get(name, "data:").startswith("data:"), tag
        assert "url(" not in text
        assert "@import" not in text
        policy = next(
            meta["content"] for meta in page.all("meta") if "content" in meta and "default-src" in meta["content"]
        )
        assert policy.startswith("default-src 'none'")
    assert NASTY not in images
    assert NASTY in Page(images).text


def test_same_arguments_same_bytes(tmp_path):
    model = fv.Model(fv.Config(input_shape=4, latent=1))
    x = RNG.random((50, 4))
    pages = []
    for name in ("a.html", "b.html"):
        report.write(tmp_path / name, model, x=x, labels=np.arange(50) % 3)
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_page_without_rows_or_epochs():
    model = fv.Model(fv.Config(input_shape=4, latent=1))
    page = Page(report.render(model, fv.History([])))
    assert page.headings == ["Model"]
    assert not page.all("img")


def test_many_rows_columns_and_epochs_stay_readable():
    x = RNG.random((3000, 230), dtype=np.float32)
    model, history = trained(x[:100], None, epochs=40, latent=20, likelihood="gaussian")
    page = Page(report.render(model, history, x, labels=RNG.random(3000)))
    assert "ELBO of 2000 rows" in page.text
    assert "30 better columns are not shown" in page.text
    assert len([row for row in page.rows if len(row) == 7]) == 1 + report.EPOCHS_LISTED


def test_a_detector_is_what_scores_show():
    model = fv.Model(fv.Config(input_shape=4, latent=1))
    x = RNG.random((50, 4))
    plain = report.render(model, x=x)
    assert "ELBO of each row, from 10 draws of z." in plain
    assert ["detector", "none"] in Page(plain).rows
    model.detector = fv.Detector("reconstruction", threshold=float(np.median(model.score(x, "reconstruction"))))
    page = Page(report.render(model, x=x, labels=["a", "b"] * 25))
    assert "minus the mean squared error of each row." in page.text
    assert ["detector", repr(model.detector)] in page.rows


def test_columns_of_a_table_have_names_and_categories():
    columns = [fv.Column("age", 40, 10), fv.Column("pet", categories=("cat", "dog")), fv.Column("<b>")]
    config = fv.Config(input_shape=3, hidden=(4,), latent=1, likelihood="gaussian", columns=columns)
    model = fv.Model(config)
    x = np.column_stack((RNG.normal(40, 10, 30), np.repeat([0, 1], 15), RNG.random(30)))
    page = Page(report.render(model, x=x))
    assert ["input", "3 columns, read as 4 values"] in page.rows
    right = (model.reconstruct(x)[:, 1] == x[:, 1]).mean()
    assert ["pet", f"{right:.1%} right"] in page.rows
    assert {"age", "<b>"} <= {row[0] for row in page.rows if row}


def test_wrong_rows_and_labels_leave_no_file(tmp_path):
    model = fv.Model(fv.Config(input_shape=4, latent=1))
    with pytest.raises(TypeError, match=r"history must be what Trainer.fit returns, not ndarray; rows are x="):
        report.write(tmp_path / "p.html", model, np.zeros((3, 4)))
    with pytest.raises(ValueError, match="the model reads 4 columns"):
        report.write(tmp_path / "p.html", model, x=np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"labels have shape \(2,\)"):
        report.write(tmp_path / "p.html", model, x=np.zeros((5, 4)), labels=[0, 1])
    with pytest.raises(FileNotFoundError):
        report.write(tmp_path / "absent" / "p.html", model)
    assert not list(tmp_path.iterdir())


# ---- in a browser ---------------------------------------------------------------------------------------------------

# Looks into the page in a frame and leaves what it finds as its own text.
PROBE = """<!DOCTYPE html><title>probe</title><link rel="icon" href="data:"><iframe id="page" src="/page.html"></iframe>
<pre id="found"></pre><script>
window.onload = () => {
  const inner = document.getElementById("page").contentWindow;
  const images = [...inner.document.images].map(image => [image.complete, image.naturalWidth, image.naturalHeight]);
  const requests = inner.performance.getEntriesByType("resource").map(entry => entry.name);
  const wide = inner.document.documentElement.scrollWidth > inner.innerWidth + 1;
  const title = inner.document.title;
  document.getElementById("found").textContent = JSON.stringify({images, requests, wide, title});
};
</script><style>iframe { width: 900px; height: 600px }</style>"""


def browse(text, folder):
    """What the probe finds, what the browser logs, and the paths it asks the server for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = {"/probe.html": PROBE, "/page.html": text}.get(self.path, "").encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            done = subprocess.run(
                [
                    BROWSER,
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-dev-shm-usage",
                    "--disable-background-networking",
                    "--disable-component-update",
                    "--no-first-run",
                    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                    f"--user-data-dir={folder}",
                    "--enable-logging=stderr",
                    "--dump-dom",
                    f"http://127.0.0.1:{server.server_port}/probe.html",
                ],
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            )
        finally:
            server.shutdown()
            thread.join()
    found = html.unescape(re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)[1])
    return json.loads(found), [line for line in done.stderr.splitlines() if "CONSOLE" in line], asked


@pytest.mark.skipif(BROWSER is None, reason="no browser here")
def test_a_browser_shows_the_page(images, table, tmp_path):
    for i, text in enumerate((images, table[0])):
        found, console, asked = browse(text, tmp_path / str(i))
        assert len(found["images"]) == len(Page(text).all("img"))
        assert all(complete and width > 100 and height > 100 for complete, width, height in found["images"])
        assert found["requests"] == []
        assert not found["wide"]  # nothing sticks out to the side
        assert console == []
        assert asked == ["/probe.html", "/page.html"]
    assert found["title"] == "A variational autoencoder"


@pytest.mark.skipif(BROWSER is None, reason="no browser here")
def test_the_browser_would_tell(tmp_path):
    """The check above sees what it must not find: requests, broken pictures, complaints, width."""
    text = '<!DOCTYPE html><body style="width: 5000px"><img src="/absent.png"><script>console.error("no")</script>'
    found, console, asked = browse(text, tmp_path)
    assert found["images"][0][1] == 0
    assert found["wide"]
    assert [name.rpartition("/")[2] for name in found["requests"]] == ["absent.png"]
    assert any('"no"' in line for line in console)
    assert "/absent.png" in asked


def test_epochs_without_held_out_rows_show_no_nan():
    x = np.random.default_rng(0).random((20, 3), dtype=np.float32)
    trainer = fv.Trainer(fv.Model(fv.Config(input_shape=3, hidden=(4,), latent=2)), batch_size=20)
    trainer.fit(x, epochs=1, validation_data=x)
    page = report.render(trainer.model, trainer.fit(x, epochs=1))
    assert ">nan<" not in page
    assert ">–<" in page

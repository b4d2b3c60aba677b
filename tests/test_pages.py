"""Pages hold all they show, and lead to one another."""

import base64
import os
import re

import nbformat
import pytest

from corrlib import pages

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
AFAR = re.compile(
    r"""(?:src|href)=["'](?!data:|#)([^"']*)|@import|import\(|<script"""
)  # what a page would load or lead to


@pytest.fixture
def notebooks(tmp_path):
    """Two executed notebooks that name each other, the first with a picture and a widget."""
    new, code = nbformat.v4, nbformat.v4.new_code_cell("1 < 2")
    picture = new.new_output("display_data", {"image/png": base64.b64encode(PIXEL).decode()})
    widget = new.new_output("display_data", {pages.WIDGET: {"model_id": "x"}, "text/plain": "Canvas(...)"})
    code.outputs = [picture, widget]
    words = "# Which <b>?\n\nOf **it** see `01_b`, [the next](01_b.ipynb), [a file](../data/README.md), [far](https://a.example)."
    found = {
        "00_a.smoke": [new.new_markdown_cell(words), code],
        "01_b.full": [new.new_markdown_cell("# And?\n\n![](attachment:a.png)\n\n*Caption.*\n\nSee `00_a`.")],
    }
    found["01_b.full"][0].attachments = {"a.png": {"image/png": base64.b64encode(b"attached").decode()}}
    for name, cells in found.items():
        nbformat.write(new.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    return [tmp_path / f"{name}.ipynb" for name in found]


def test_a_page_holds_its_files(tmp_path):
    (tmp_path / "a.png").write_bytes(PIXEL)
    (tmp_path / "b.webm").write_bytes(b"film")
    files = {tmp_path / "a.png": "one & two", tmp_path / "b.webm": "a film"}
    text = pages.write_page(tmp_path / "new" / "a.html", "A < B", files).read_text()
    assert "<title>A &lt; B</title>" in text and "one &amp; two" in text and not AFAR.findall(text)
    assert base64.b64decode(re.search(r'<video src="data:video/webm;base64,([^"]+)"', text)[1]) == b"film"
    assert base64.b64decode(re.search(r'<img src="data:image/png;base64,([^"]+)"', text)[1]) == PIXEL
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.html"]


def test_a_site_is_whole_and_its_links_lead_somewhere(tmp_path, notebooks):
    first = pages.write_site(tmp_path / "site", notebooks)
    written = {path.name: path.read_text() for path in (tmp_path / "site").iterdir()}
    assert first.name == "index.html" and set(written) == {"index.html", "00_a.smoke.html", "01_b.full.html"}
    links = {name: AFAR.findall(text) for name, text in written.items()}
    assert links["index.html"] == ["00_a.smoke.html"] * 2 + ["01_b.full.html"] * 2
    assert links["00_a.smoke.html"] == ["index.html", "01_b.full.html", "01_b.full.html", "https://a.example"]
    assert links["01_b.full.html"] == ["index.html", "00_a.smoke.html"]
    assert "Which &lt;b&gt;?" in written["index.html"] and base64.b64encode(PIXEL).decode() in written["index.html"]
    attached = f"data:image/png;base64,{base64.b64encode(b'attached').decode()}"
    assert attached in written["01_b.full.html"] and attached in written["index.html"]
    assert "<p>See 00_a.</p>" in written["index.html"]
    assert "needs a running kernel" in written["00_a.smoke.html"] and "Canvas" not in written["00_a.smoke.html"]


def test_the_newest_copy_of_each_notebook(tmp_path, notebooks):
    started = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('run = start_run("00_a", params)')])
    nbformat.write(started, tmp_path / "mine.ipynb")  # as papermill was told to name it
    nbformat.write(started, tmp_path / "00_a.1.failed.ipynb")
    nbformat.write(started, tmp_path / "00b.ipynb")
    started.cells[0].source = ""
    nbformat.write(started, tmp_path / "00b.2.ipynb")
    for age, name in enumerate(("00_a.1.failed", "00b.2", "mine", "00_a.smoke", "00b", "01_b.full")):
        os.utime(tmp_path / f"{name}.ipynb", (1e9 - age, 1e9 - age))
    assert [path.name for path in pages.newest(tmp_path)] == ["00b.2.ipynb", "mine.ipynb", "01_b.full.ipynb"]


def test_refusals(tmp_path, notebooks):
    for error, message, act in (
        (ValueError, r"should end in \.html, got .*a\.txt", lambda: pages.write_page(tmp_path / "a.txt", "", {})),
        (ValueError, r"should end in \.webm, \.png", lambda: pages.write_page(tmp_path / "a.html", "", {"a.txt": ""})),
        (FileNotFoundError, "gone", lambda: pages.write_page(tmp_path / "a.html", "", {"gone.png": ""})),
        (FileNotFoundError, "got none", lambda: pages.write_site(tmp_path / "site", [])),
        (FileNotFoundError, "gone", lambda: pages.write_site(tmp_path / "site", [tmp_path / "gone.ipynb"])),
    ):
        with pytest.raises(error, match=message):
            act()
    assert sorted(tmp_path.iterdir()) == sorted(notebooks)

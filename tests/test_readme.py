"""The README keeps its word: commands exist, names exist, links lead somewhere, numbers are the recorded ones.

A number is a link to the file that holds it, with its key as the title (`corrlib.report` writes
such tables): `[72.4](results/reported/04_evaluation.json "procedural.shipped.delta_avg")`.
"""

import re
import subprocess
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner

import corrlib
from corrlib import __main__, report

ROOT = Path(corrlib.__file__).resolve().parents[1]
STUDIES = ("claims", "departures", "video", "scaling")
REPORTED = ("results/reported", *(f"results/reported/{study}" for study in STUDIES))
FOLDERS = ("", "notebooks", "data", "corrlib/weights", *REPORTED)
PAGES = [ROOT / folder / "README.md" for folder in FOLDERS]
NUMBER = re.compile(r'\[([^\]]+)\]\((\S+?\.json) "([^"]+)"\)')

each_page = pytest.mark.parametrize("page", [p for p in PAGES if p.is_file()], ids=lambda p: str(p.relative_to(ROOT)))


def wrong_numbers(text, folder):
    """Each linked number that is not what its file holds, as (text, key)."""
    found = []
    for shown, link, key in NUMBER.findall(text):
        entry = report.read_metrics(folder / link).get(key)
        if entry is None or shown.strip(" *") != report.show(entry):
            found.append((shown, key))
    return found


def wrong_commands(text):
    """Each command in a code block, or in `...`, that this repository does not have."""
    found = []
    blocks = re.findall(r"```(?:bash|sh|console)?\n(.*?)```", text, re.DOTALL)
    spans = [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", text)
    for line in (line.split("#")[0].strip().removeprefix("$ ") for line in spans):
        words = line.split()
        if words[:1] == ["make"]:
            good = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True).returncode == 0
        elif re.match(r"(\S*python3? )-m corrlib \w", line):
            good = CliRunner().invoke(__main__.main, [words[3], "--help"]).exit_code == 0
        elif words[:1] == ["papermill"] and len(words) > 1:
            good = (ROOT / words[1]).is_file() and not unknown_parameters(ROOT / words[1], words)
        else:
            continue
        if not good:
            found.append(line)
    return found


def unknown_parameters(notebook, words):
    """Names given by -p that the notebook does not declare."""
    cell = next(c for c in nbformat.read(notebook, 4).cells if "parameters" in c.metadata.get("tags", []))
    given = [name for option, name in pairwise(words) if option in ("-p", "-r")]
    return [name for name in given if not re.search(rf"^{name}\b", cell.source, re.MULTILINE)]


def wrong_names(text):
    """Each `corrlib.name` in a Python block that is neither public nor a module."""
    blocks = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    modules = {path.stem for path in (ROOT / "corrlib").iterdir()}
    return [n for n in re.findall(r"\bcorrlib\.(\w+)", blocks) if not hasattr(corrlib, n) and n not in modules]


def wrong_links(text, folder):
    """Each relative link to a file that is not there."""
    links = re.findall(r'\]\(([^)\s]+)(?: "[^"]*")?\)', text) + re.findall(r'<img src="([^"]+)"', text)
    local = [link.split("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
    return [link for link in local if not (folder / link).exists()]


def test_the_complaints(tmp_path):
    """Each of these can fail."""
    (tmp_path / "a.json").write_text('{"b.m.delta_avg": {"value": 0.7236, "unit": "fraction", "count": 3}}')
    assert wrong_numbers('[72.4](a.json "b.m.delta_avg") and [**72.4**](a.json "b.m.delta_avg")', tmp_path) == []
    assert wrong_numbers('[72.5](a.json "b.m.delta_avg") [1](a.json "b.m.epe")', tmp_path) == [
        ("72.5", "b.m.delta_avg"),
        ("1", "b.m.epe"),
    ]
    text = "```\nmake test\nmake tea\n```\n`python -m corrlib table` `.venv/bin/python -m corrlib juggle` `make wine`"
    assert wrong_commands(text) == ["make tea", ".venv/bin/python -m corrlib juggle", "make wine"]
    assert wrong_commands("```bash\npapermill notebooks/99_gone.ipynb out.ipynb -p A 1\n```") != []
    assert wrong_names("```python\ncorrlib.no_such_name(1)\ncorrlib.coords\n```") == ["no_such_name"]
    assert wrong_links("[x](a.json) [y](gone.md#top) [z](https://example.org) [w](#here)", tmp_path) == ["gone.md"]
    assert wrong_links('<img src="gone.jpg" width="9">', tmp_path) == ["gone.jpg"]


@each_page
def test_numbers_are_the_recorded_ones(page):
    assert wrong_numbers(page.read_text(), page.parent) == []


@each_page
def test_commands_exist(page):
    assert wrong_commands(page.read_text()) == []


@each_page
def test_names_exist(page):
    assert wrong_names(page.read_text()) == []


@each_page
def test_links_lead_somewhere(page):
    assert wrong_links(page.read_text(), page.parent) == []


def test_reported_results_are_small():
    sizes = {path.name: path.stat().st_size for path in (ROOT / "results" / "reported").rglob("*") if path.is_file()}
    assert all(size <= 2**20 for size in sizes.values()), sizes

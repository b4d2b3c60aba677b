"""Notebooks in a real browser: 00_quickstart and 03_training in JupyterLab, driven by Playwright. `make test-browser`.

The explorer, once with the network beside optical flow, once with two networks; and a training, whose record is
that of the same notebook without a browser.

Not found by `make test`: it needs a Chromium on the machine, and skips where there is none. The
pictures it takes are kept in results/browser/.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch

import corrlib
from corrlib import checkpoints

try:
    from playwright import sync_api as playwright
except ImportError:
    playwright = None

ROOT = Path(corrlib.__file__).resolve().parents[1]
KEPT = ROOT / "results" / "browser"
OWN = map(str, Path.home().glob(".cache/ms-playwright/chromium-*/chrome-linux*/chrome"))  # Playwright's
CHROMIUM = next(filter(None, [*map(shutil.which, ("chromium", "chromium-browser", "google-chrome")), *OWN]), None)
QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
QUIET += "--disable-component-update --disable-sync"
SMALL = {"MAX_FRAMES": "16", "GRID": "4", "EXPLORE_FRAMES": "16"}
TRAINING = {"STEPS": 3, "CLIPS": 2, "SIZE": 48, "WIDTH": 4, "WORKERS": 0, "EVALUATE_EVERY": 9, "HELD_OUT": 1}
TRAINING |= {"CALIBRATION_CLIPS": 0}
RIVALS = {"00_quickstart": "dis", "two_models": "other.safetensors"}  # by the notebook's name
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight stay in the page
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},  # asks no server
}

pytestmark = [
    pytest.mark.skipif(playwright is None, reason="no Playwright here: pip install playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A repository with the notebooks, their parameters made small, the first again with another rival."""
    root = tmp_path_factory.mktemp("clone")
    for name in ("corrlib", "data"):
        (root / name).symlink_to(ROOT / name)
    (root / "notebooks").mkdir()
    torch.manual_seed(0)
    corrlib.save_checkpoint(root / "notebooks" / "other.safetensors", corrlib.PixelEncoder(8), {"training": "none"})
    for copy, rival in RIVALS.items():
        _copy("00_quickstart", SMALL | {"COMPARE": f'"{rival}"'}, root / "notebooks" / f"{copy}.ipynb")
    _copy("03_training", TRAINING | {"RUN_NAME": '"lab"'}, root / "notebooks" / "03_training.ipynb")
    return root


def _copy(name, parameters, to):
    """A notebook with other parameters in the cell where a person would change them."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    for key, value in parameters.items():
        cell.source, count = re.subn(rf"^({key}: \w+) = [^#]+?(  #)", rf"\1 = {value}\2", cell.source, flags=re.M)
        assert count == 1
    nbformat.write(notebook, to)


@pytest.fixture(scope="module")
def address(clone, tmp_path_factory):
    """JupyterLab on a free port, with settings of its own, as long as the tests run."""
    folder = tmp_path_factory.mktemp("jupyter")
    for plugin, settings in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    options = f"--no-browser --ServerApp.ip=127.0.0.1 --ServerApp.port={port} --IdentityProvider.token=corrlib "
    options += "--LabApp.expose_app_in_browser=True --allow-root"
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "jupyterlab", *options.split()]
        server = subprocess.Popen(command, cwd=clone, env=environment, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}/doc/tree/notebooks/{{}}.ipynb?token=corrlib"
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    KEPT.mkdir(parents=True, exist_ok=True)
    with playwright.sync_playwright() as driver:
        profile = tmp_path_factory.mktemp("profile")
        options = {"executable_path": CHROMIUM, "args": QUIET.split(), "viewport": {"width": 1440, "height": 1100}}
        browser = driver.chromium.launch_persistent_context(str(profile), **options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser, address):
    """The notebook with all of its cells run, beside optical flow."""
    return _explore(browser, address.format("00_quickstart"))


@pytest.fixture(scope="module")
def two_models(browser, address, page):
    """The notebook with two networks, the first one's page shut."""
    page.close()
    return _explore(browser, address.format("two_models"))


def _explore(browser, address):
    """The page of a notebook, all of its cells run, the explorer in sight."""
    page = _run(browser, address)
    page.locator("canvas.corrlib-canvas").nth(1).wait_for()
    page.wait_for_timeout(1000)  # the last pictures have come, and nothing moves any more
    page.get_by_role("button", name="point", exact=True).evaluate("button => button.scrollIntoView()")
    return page


def _run(browser, address):
    """The page of a notebook, all of its cells run without an error."""
    page = browser.new_page()
    page.set_default_timeout(240_000)
    _open(page, address)
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    if page.locator(".jp-Dialog").is_visible():
        page.locator(".jp-Dialog .jp-mod-accept").click()
    page.evaluate(
        """async () => {
            const panel = window.jupyterapp.shell.currentWidget;
            await panel.context.ready;
            await panel.sessionContext.ready;
            await panel.sessionContext.session.kernel.info;
            await window.jupyterapp.commands.execute('notebook:run-all-cells');
        }"""
    )
    errors = page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]')
    assert errors.all_inner_texts() == []
    return page


def _open(page, address):
    """The page, as soon as the server answers."""
    for _ in range(120):
        try:
            page.goto(address, wait_until="domcontentloaded")
            return
        except playwright.Error:
            page.wait_for_timeout(500)
    raise AssertionError(f"JupyterLab does not answer at {address}")


def pictures(page):
    """What each canvas shows."""
    return page.locator("canvas.corrlib-canvas").evaluate_all("all => all.map(c => c.toDataURL())")


def click(page, across, down, canvas=0):
    """A press on a canvas, at fractions of its size."""
    box = page.locator("canvas.corrlib-canvas").nth(canvas).bounding_box()
    page.mouse.click(box["x"] + across * box["width"], box["y"] + down * box["height"])


def told(page, pattern):
    """Waits for a line under the picture, and gives what the pattern finds in it."""
    line = page.locator(".widget-html-content", has_text=re.compile(pattern)).first
    line.wait_for()
    return [re.search(pattern, line.inner_text()).groups(), line.inner_text()]


def drag_time(page, share):
    """The handle of the time slider, dragged to a share of its length."""
    slider = page.locator(".widget-slider", has_text="frame").first
    handle, track = slider.locator(".noUi-handle").bounding_box(), slider.locator(".noUi-target").bounding_box()
    y = handle["y"] + handle["height"] / 2
    page.mouse.move(handle["x"] + handle["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(track["x"] + share * track["width"], y, steps=8)
    page.mouse.up()


def test_a_click_is_followed_and_time_moves_it(page):
    told(page, r"model: point 1 in frame 0")
    assert page.locator(".widget-image").evaluate_all("all => all.map(i => i.checkVisibility())") == [True, False]
    click(page, 0.3, 0.35)
    (x, y), _ = told(page, r"model: point 2 in frame 0 at \((\S+), (\S+)\), seen")
    assert float(x) == pytest.approx(0.3 * 456 - 0.5, abs=1.0) and float(y) == pytest.approx(0.35 * 256 - 0.5, abs=1.0)
    page.wait_for_timeout(500)  # the JPEG is decoded
    before = pictures(page)
    page.screenshot(path=KEPT / "clicked.png")
    drag_time(page, 0.8)
    (_, x2, y2), text = told(page, r"model: point 2 in frame (1[0-9]) at \((\S+), (\S+)\)")
    assert (x2, y2) != (x, y) and "DIS: point 2 in frame" in text
    page.wait_for_timeout(500)
    after = pictures(page)
    assert before[0] != after[0] and before[1] != after[1]
    page.screenshot(path=KEPT / "dragged.png")


def test_the_two_methods_answer_differently_and_the_map_is_shown(page):
    assert len(set(pictures(page))) == 2
    page.locator(".widget-dropdown select").first.select_option("correlation")
    told(page, r"most alike \((\d+), (\d+)\)")
    page.wait_for_timeout(500)
    page.screenshot(path=KEPT / "correlation.png")
    page.locator(".widget-dropdown select").first.select_option("nothing")


def test_a_box_is_carried(page):
    page.get_by_role("button", name="box", exact=True).click()
    before = pictures(page)
    box = page.locator("canvas.corrlib-canvas").first.bounding_box()
    at = [(box["x"] + a * box["width"], box["y"] + b * box["height"]) for a, b in ((0.45, 0.2), (0.6, 0.6))]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=5)
    page.mouse.up()
    page.wait_for_function(
        "b => [...document.querySelectorAll('canvas.corrlib-canvas')].every((c, i) => c.toDataURL() !== b[i])",
        arg=before,
    )
    page.wait_for_timeout(500)
    page.screenshot(path=KEPT / "box.png")


def test_what_cannot_be_done_is_a_line_of_text(page):
    page.locator(".widget-text input[placeholder^=mask]").fill("gone.png")
    page.keyboard.press("Enter")
    told(page, r"(no file gone\.png)")
    assert page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]').count() == 0
    page.screenshot(path=KEPT / "refused.png")


def test_two_networks_are_compared(two_models):
    page = two_models
    told(page, r"other model: point 1 in frame 0")
    click(page, 0.62, 0.55, canvas=1)
    (_, found), _ = told(page, r"model: point (2) in frame 0 at .*?; most alike (.*)")
    assert found
    page.wait_for_timeout(500)
    before = pictures(page)
    drag_time(page, 0.8)
    (x, y), text = told(page, r"^model: point 2 in frame 1[0-9] at \((\S+), (\S+)\)")
    (x2, y2) = re.search(r"other model: point 2 in frame 1[0-9] at \((\S+), (\S+)\)", text).groups()
    assert (x, y) != (x2, y2)  # one of them has learnt nothing
    page.wait_for_timeout(500)
    assert not set(before) & set(pictures(page))
    assert page.locator(".widget-image").evaluate_all("all => all.map(i => i.checkVisibility())") == [True, True]
    page.locator(".widget-dropdown select").first.select_option("correlation")
    page.wait_for_timeout(1000)
    page.screenshot(path=KEPT / "two_models.png")


def test_training_in_jupyterlab_gives_the_record_that_it_gives_without(browser, address, clone):
    """The same losses, and the same weights to the last bit."""
    _run(browser, address.format("03_training")).close()
    given = [part for key, value in TRAINING.items() for part in ("-p", key, str(value))]
    command = [sys.executable, "-m", "corrlib", "run-notebook", "03_training", *given, "-p", "RUN_NAME", "headless"]
    ran = subprocess.run(command, cwd=clone, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    folders = [clone / "results" / f"03_training.{name}" for name in ("lab", "headless")]
    lab, headless = ([json.loads(line) for line in (f / "history.jsonl").read_text().splitlines()] for f in folders)
    assert [record["total"] for record in lab] == [record["total"] for record in headless] and len(lab) == 3
    weights = [checkpoints.load(f / "checkpoint.safetensors").state_dict() for f in folders]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())

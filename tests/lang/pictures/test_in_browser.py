"""The pages in a real browser: no error, the right number of bars, both themes, zooming, and what is said of a bar.

One start of the browser loads all pages, each in a frame of a page that asks them and writes down what it finds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.lang.tree import PromptTrees

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
CRUEL = '</script></pre><script>window.broken = 1</script><img onerror="window.broken = 1"> & \' \u2028 `${x}` <!--'


@rf.program
def ask(s, question: str):
    s += rf.user(question)
    for branch in s.fork(2):
        branch += rf.assistant(rf.gen("answer", max_tokens=8))


HARNESS = """<!DOCTYPE html><html><body><pre id="found">nothing</pre><script>
const pages = %s, found = {};
window.onerror = function (message) { found.error = String(message); };
// Without a screen, frames of an animation may never come.
const frames = "window.requestAnimationFrame = function (draw) { return setTimeout(draw, 16); }";
function wait(ms) { return new Promise(function (go) { setTimeout(go, ms); }); }
async function look(name) {
  const frame = document.createElement("iframe");
  frame.style.width = "1366px"; frame.style.height = "768px";
  const loaded = new Promise(function (go) { frame.onload = go; });
  frame.srcdoc = pages[name].replace("<head>", "<head><script>" + frames + "</" + "script>");
  document.body.append(frame);
  await loaded;
  const view = frame.contentWindow, page = frame.contentDocument, told = {};
  view.addEventListener("error", function (event) { told.error = event.message; });
  await wait(60);
  told.broken = Boolean(view.broken) || page.images.length > 0;
  told.wide = page.documentElement.scrollWidth;
  const button = page.getElementById("theme");
  told.themes = [];
  for (let times = 0; times < 3; times++) {
    button.click();
    told.themes.push(button.textContent + " " + view.getComputedStyle(page.body).backgroundColor
      + " " + view.getComputedStyle(page.body).color);
  }
  told.bars = page.querySelectorAll("g.bar").length;
  told.details = page.querySelectorAll("details").length;
  told.graphs = page.querySelectorAll(".graph").length;
  const drawing = page.getElementById("drawing");
  async function drawn(before) {
    for (let times = 0; times < 100; times++) {
      if (drawing.getAttribute("viewBox") !== before) return drawing.getAttribute("viewBox");
      await wait(20);
    }
    return "never drawn";
  }
  if (drawing) {
    told.texts = page.querySelectorAll("#texts text").length;
    told.ticks = page.querySelectorAll("#axis text").length;
    told.whole = drawing.getAttribute("viewBox");
    const bar = page.querySelector("g.bar"), rect = bar.firstElementChild.getBoundingClientRect();
    const at = { clientX: rect.x + rect.width / 2, clientY: rect.y + 3, bubbles: true, button: 0 };
    bar.firstElementChild.dispatchEvent(new view.PointerEvent("pointermove", at));
    told.hover = page.getElementById("told").hidden ? "" : page.getElementById("told").textContent;
    const chart = page.getElementById("chart");
    chart.dispatchEvent(new view.KeyboardEvent("keydown", { key: "+", bubbles: true }));
    told.zoomed = await drawn(told.whole);
    chart.dispatchEvent(new view.KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
    told.moved = await drawn(told.zoomed);
    page.querySelector("[data-zoom=all]").click();
    told.all = await drawn(told.moved);
  }
  found[name] = told;
  frame.remove();
}
(async function () {
  for (const name in pages) await look(name);
  document.getElementById("found").textContent = JSON.stringify(found);
})();
</script></body></html>"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    folder = tmp_path_factory.mktemp("browser")
    backend = ScriptedBackend(lambda text, params: CRUEL, delay=0.002)
    rows = [{"question": f"{number} {CRUEL}"} for number in range(200)]
    few, many = ask.run_batch(rows[:3], backend=backend), ask.run_batch(rows, backend=backend)
    pages = {
        "timeline": rf.timeline(few).html(),
        "timeline of many": rf.timeline(many).html(),
        "tree": PromptTrees(few).html(),
        "explain": ask.explain(rows[:2], passes=False).html(),
    }
    harness = folder / "all.html"
    harness.write_text(HARNESS % json.dumps(pages).replace("<", "\\u003c"), encoding="utf-8")
    return asked(harness, folder)


def asked(harness: Path, folder: Path) -> dict[str, Any]:
    """What the browser finds, with what it says on its console."""
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000", "--enable-logging=stderr",
        "--dump-dom", harness.as_uri(),
    ]  # fmt: skip
    environment = {**os.environ, "HOME": str(folder)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    except subprocess.TimeoutExpired:
        pytest.skip("the browser does not come to an end on this machine")
    written = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    if written is None:
        pytest.skip(f"the browser does not run here: {done.stderr[-200:]}")
    told = json.loads(unescape(written[1]))
    told["console"] = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return told


def test_no_page_has_an_error_or_runs_what_a_model_wrote(found):
    assert found["console"] == [] and "error" not in found
    for name in ("timeline", "timeline of many", "tree", "explain"):
        assert "error" not in found[name] and found[name]["broken"] is False, name


def test_there_is_a_bar_for_each_request_and_a_line_for_each_text(found):
    assert found["timeline"]["bars"] == 6 and found["timeline of many"]["bars"] == 400
    assert found["tree"]["details"] == 3 * 3 and found["explain"]["graphs"] >= 2
    assert 2 <= found["timeline"]["ticks"] <= 11 and found["timeline"]["texts"] == 6


def test_pages_have_a_light_and_a_dark_theme_and_fit_a_laptop(found):
    for name in ("timeline", "tree", "explain"):
        light, dark, auto = found[name]["themes"]
        assert light.startswith("theme: light rgb(255, 255, 255)"), name
        assert dark.startswith("theme: dark rgb(18, 22, 28)"), name
        colours = [theme.partition("rgb")[2] for theme in (light, dark, auto)]
        assert auto.startswith("theme: auto") and colours[2] in colours[:2]
        assert found[name]["wide"] <= 1366, name


def test_a_timeline_zooms_and_says_what_a_bar_is(found):
    told = found["timeline"]
    assert "answer" in told["hover"] and "window.broken = 1</script>" in told["hover"]
    assert "branch += rf.assistant(rf.gen(" in told["hover"] and "prompt " in told["hover"]
    whole, zoomed = ([float(part) for part in told[view].split()[::2]] for view in ("whole", "zoomed"))
    assert whole[0] == 0 and zoomed[0] > 0 and zoomed[1] < whole[1]
    moved = [float(part) for part in told["moved"].split()]
    assert moved[0] > zoomed[0] and moved[2] == pytest.approx(zoomed[1])
    assert float(told["all"].split()[0]) == 0 and float(told["all"].split()[2]) == pytest.approx(whole[1])

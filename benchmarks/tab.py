"""The row *anything in the tab*: how soon a click shows something, and how soon others are answered meanwhile.

tab.py FOLDER CHECKPOINT MODEL OTHER RUNS: serves the models and drives the tab in Chromium; prints the rows as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIMIT = 0.5

FIRST = """(id) => new Promise((resolve) => {
    const part = (name) => document.querySelector(`#model_toolkit_${name}`);
    const shown = () => ["status", "progress"].map((name) => part(name).innerText);
    const before = String(shown());
    const start = performance.now();
    part(id).click();
    const look = () => String(shown()) === before ? setTimeout(look, 4) : resolve((performance.now() - start) / 1000);
    look();
})"""
"""Clicks a button and gives the seconds until the page says something else than before."""


def drive(folder: Path, checkpoint: Path, model: Path, other: Path, runs: int) -> list[tuple[str, str, str, bool]]:
    """Task, measured, budget, met."""
    from lib_toolkit.ui.launch import serving
    from tests.conftest import find_chromium, running_chromium

    chromium = find_chromium()
    if chromium is None:
        print("The tab was not measured: there is no Chromium or Chrome.", file=sys.stderr)
        return []
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "Stable-diffusion").mkdir(parents=True)
    for path in (checkpoint, model, other):
        os.link(path, folder / "Stable-diffusion" / path.name)
    try:
        with serving(folder) as address, running_chromium(chromium) as browser:
            first, meanwhile = _clicks(browser, address, (checkpoint.name, model.name, other.name), runs)
    finally:
        shutil.rmtree(folder)
    size = checkpoint.stat().st_size / 1e9
    rows = []
    for task, seconds in (
        (f"tab: first sign after Load, report, Save of a {size:.1f} GB {checkpoint.suffix} and after Compare", first),
        ("tab: a click in another page while a model is saved", meanwhile),
    ):
        middle = statistics.median(seconds)
        measured = f"{middle:.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"
        rows.append((task, measured, f"{LIMIT} s", middle <= LIMIT))
    return rows


def _clicks(browser, address: str, names: tuple[str, str, str], runs: int) -> tuple[list[float], list[float]]:
    from tests.ui.driving import Tab
    from tests.ui.story import pick

    first, meanwhile = [], []
    context = browser.new_context()
    context.set_default_timeout(300_000)
    tab, other = (_opened(context, address, Tab) for _ in range(2))
    for number in range(runs):
        tab.choose(names[0])
        first.append(tab.page.evaluate(FIRST, "load"))
        tab.wait_for("nothing is changed on disk yet")
        pick(tab.part("tabs"), "Advanced")
        first.append(tab.page.evaluate(FIRST, "report"))
        tab.page.wait_for_selector("#model_toolkit_report_html a")
        tab.write_name(f"saved-{number}")
        tab.wait_for(f"saved-{number}.safetensors", "saving")
        first.append(tab.page.evaluate(FIRST, "save"))
        # As long as it is saved, and once at least: a small model may be done before the click.
        other.choose(names[number % 2 + 1])
        meanwhile.append(other.page.evaluate(FIRST, "load"))
        other.wait_for("nothing is changed on disk yet")
        other.click("clear")
        other.wait_for("Nothing is loaded", "identity")
        tab.wait_for("Saved")
        pick(tab.part("tabs"), "Compare")
        tab.choose(names[1], "compare_a")
        tab.choose(names[2], "compare_b")
        first.append(tab.page.evaluate(FIRST, "compare_pair"))
        tab.wait_for("Compared")
        tab.click("clear")
        tab.wait_for("Nothing is loaded", "identity")
    context.close()
    return first, meanwhile


def _opened(context, address: str, kind):
    page = context.new_page()
    page.goto(address)
    tab = kind(page)
    tab.wait_for("found")
    return tab


def clicks(folder: Path, checkpoint: Path, model: Path, other: Path, runs: int) -> list[str]:
    """The arguments of a process of its own that prints the rows as JSON."""
    return [str(HERE / "tab.py"), str(folder), str(checkpoint), str(model), str(other), str(runs)]


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    print(json.dumps(drive(*map(Path, sys.argv[1:5]), int(sys.argv[5]))))

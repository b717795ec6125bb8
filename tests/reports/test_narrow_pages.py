"""The pages at the width of a telephone: none moves sideways as a whole, and what does can be seen to and reached."""

from __future__ import annotations

from itertools import pairwise

import pytest

from lib_toolkit.analysis.compare.triples import compare_with_third
from lib_toolkit.analysis.matrix.whole import measure_set
from lib_toolkit.analysis.report import analyse
from lib_toolkit.demo import make_demo
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from lib_toolkit.reports.compare_html import compare_html
from lib_toolkit.reports.compare_map import Entry, Index, index_html
from lib_toolkit.reports.matrix_html import matrix_html
from lib_toolkit.reports.report_html import report_html
from tests.reports.matrix_cases import large_set, small_set

CHECKPOINTS = "Stable-diffusion"
NARROW = 400


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Every file of the demo but the large one, which would only take time."""
    folder = tmp_path_factory.mktemp("demo")
    return sorted(path for path in make_demo(folder).made if "full-size" not in path.name)


@pytest.fixture(scope="module")
def pages(demo, tmp_path_factory):
    """Pages as files, by name: the report of each file, a comparison, sets, and the index of a map."""
    made = {}
    for path in demo:
        with open_model(path) as model:
            made[f"report-{path.name}"] = report_html(analyse(model, identify(model), names={}))
    named = {path.name: path for path in demo}
    chosen = [named[f"sd-demo{end}"] for end in (".safetensors", "-bloated.ckpt", "-wrong-vae.safetensors")]
    models = [open_model(path) for path in chosen]
    made["compare"] = compare_html(compare_with_third(models, [identify(model) for model in models]))
    for model in models:
        model.close()
    made["matrix"] = matrix_html(measure_set([path for path in demo if path.parent.name == CHECKPOINTS]))
    made["matrix-of-merges"] = matrix_html(small_set())
    made["matrix-of-many"] = matrix_html(large_set(70))
    folder = tmp_path_factory.mktemp("pages")
    entry = Entry("a group", "a long name of a model" * 3, "b", ("a", "b"), (), "a", ("A sentence. " * 9,), {"l2": 1.5})
    made["index-of-a-map"] = index_html(Index(folder, ("l0", "l2", "cossim"), None, (entry, entry)))
    for name, text in made.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8", newline="")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def opened(pages, chromium):
    """Every page with all of it unfolded, by name, each loaded once."""
    context = chromium.new_context(viewport={"width": NARROW, "height": 900}, offline=True)
    yield {path.stem: unfolded(context, path) for path in pages}
    context.close()


def unfolded(context, path):
    page = context.new_page()
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    return page


OUTSIDE = """() => {
    const wide = document.documentElement.clientWidth;
    const framed = (one) => one.closest("[role=region][tabindex='0'][aria-label], .unseen, pre, #tree");
    return [...document.querySelectorAll("body *")]
        .filter((one) => one.getBoundingClientRect().right > wide + 1 && !framed(one))
        .map((one) => `${one.tagName} ${one.textContent.slice(0, 60)}`);
}"""
"""What is cut or sticks out, and stands in no place of its own that the keyboard reaches."""

FRAMES = """() => [...document.querySelectorAll("[role=region]")].map((one) => ({
    words: one.getAttribute("aria-label"),
    over: one.scrollWidth - one.clientWidth,
    moves: getComputedStyle(one).overflowX,
    hint: getComputedStyle(one, "::before").content,
    shade: getComputedStyle(one).backgroundImage,
}))"""


def moved_and_outside(page):
    widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    return [*page.evaluate(widths), page.evaluate(OUTSIDE)]


def sized(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    return page


def test_no_page_moves_sideways(opened):
    assert len(opened) >= 12
    for name, page in opened.items():
        for width in (320, NARROW, 620, 690, 760, 1280):
            scroll, client, outside = moved_and_outside(sized(page, width))
            assert scroll <= client == width and outside == [], (name, width)


@pytest.mark.parametrize("name", ["report-sd-demo-bloated.ckpt", "compare", "matrix"])
def test_no_page_moves_sideways_on_a_telephone(pages, chromium, name):
    (path,) = [path for path in pages if path.stem == name]
    context = chromium.new_context(viewport={"width": NARROW, "height": 900}, is_mobile=True, has_touch=True)
    assert moved_and_outside(unfolded(context, path)) == [NARROW, NARROW, []]
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_moves_sideways_says_so(opened, scheme):
    seen = 0
    for name, page in opened.items():
        page.emulate_media(color_scheme=scheme)
        for frame in sized(page, NARROW).evaluate(FRAMES):
            if frame["over"] > 1:
                seen += 1
                assert frame["moves"] == "auto" and frame["words"], name
                assert "sideways" in frame["hint"] and "gradient" in frame["shade"], (name, frame["words"])
            else:
                assert frame["hint"] == "none", (name, frame["words"])
    assert seen > 20


def test_nothing_of_a_report_must_be_moved_to_be_read(opened):
    for name, page in opened.items():
        if name.startswith("report"):
            assert [one["words"] for one in sized(page, NARROW).evaluate(FRAMES) if one["over"] > 1] == [], name


def test_cells_below_each_other_say_what_they_are(opened):
    page = sized(opened["report-sd-demo-bloated.ckpt"], NARROW)
    cells = page.locator("#components tr").nth(1).locator("td")
    said = cells.evaluate_all("all => all.map((one) => getComputedStyle(one, '::before').content)")
    assert said[:2] == ['"Component"', '"Class"']
    boxes = [cell.bounding_box() for cell in cells.all()]
    assert all(above["y"] + above["height"] <= below["y"] + 1 for above, below in pairwise(boxes))


@pytest.mark.parametrize("name", ["compare", "matrix"])
def test_the_keyboard_reaches_and_moves_what_is_wide(opened, name):
    page = sized(opened[name], NARROW)
    page.bring_to_front()
    for kind in (".model-toolkit-wide", ".picture"):
        frame = page.locator(kind).first
        # Onto it and back by the Tab key alone.
        frame.focus()
        page.keyboard.press("Shift+Tab")
        assert not frame.evaluate("one => one === document.activeElement")
        page.keyboard.press("Tab")
        assert frame.evaluate("one => one === document.activeElement")
        assert frame.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
        first = frame.locator("td").first
        left = first.bounding_box()["x"] if first.count() else None
        page.keyboard.press("ArrowRight")
        page.wait_for_function("one => one.scrollLeft > 0", arg=frame.element_handle())
        if left is not None:
            # The name of a row stays in sight.
            assert abs(first.bounding_box()["x"] - left) <= 9


def test_a_wide_page_has_room_for_its_tables(opened):
    for name, page in opened.items():
        for frame in sized(page, 1280).evaluate(FRAMES):
            # Weights of many blocks are the one table that is wider still.
            blocks = frame["words"].startswith("Table: , ")
            assert frame["hint"] == "none" and (blocks or frame["over"] <= 1), (name, frame["words"])

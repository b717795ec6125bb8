"""The U of two UNets that are only partly comparable: what was not compared never looks unchanged."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from lib_toolkit.analysis.compare.pairs import compare
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from lib_toolkit.reports.compare_html import compare_html, unet_parts
from tests.analysis.samples import demo, save

UNET = "model.diffusion_model."
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """B lacks IN05, has another width in IN07 and in one tensor of OUT03, and other TIME, OUT04 and OUTC; A's OUT06 is
    zero."""
    folder = tmp_path_factory.mktemp("u")
    a, b = demo(), demo()
    for key in list(b):
        if key.startswith(f"{UNET}input_blocks.5."):
            del b[key]
        elif key.startswith(f"{UNET}input_blocks.7.") or key.startswith(f"{UNET}output_blocks.3.0.in_layers.2.bias"):
            b[key] = np.concatenate([b[key], b[key]])
        elif key.startswith((f"{UNET}time_embed", f"{UNET}output_blocks.4.")):
            b[key] = b[key] * np.float32(1.2)
        elif key.startswith(f"{UNET}out."):
            b[key] = b[key] * np.float32(1.1)
        elif key.startswith(f"{UNET}output_blocks.6."):
            a[key] = a[key] * np.float32(0)
    paths = save(folder / "a.safetensors", a), save(folder / "b.safetensors", b)
    with open_model(paths[0]) as first, open_model(paths[1]) as second:
        yield compare((first, second), (identify(first), identify(second)))


def drawn(found) -> dict[str, ElementTree.Element]:
    root = ElementTree.fromstring(unet_parts(found)[0])
    return {name: node for node in root.iter(f"{SVG}g") if (name := node.get("data-block"))}


def hatched(node) -> bool:
    return any(rect.get("fill", "").startswith("url(#u-hatch-") for rect in node.iter(f"{SVG}rect"))


def tint(node) -> float:
    return float(next(rect.get("fill-opacity") for rect in node.iter(f"{SVG}rect") if rect.get("class") == "u-tint"))


def test_blocks_without_a_figure_are_hatched_and_told_why(found):
    blocks = drawn(found)
    words = {"IN05": "not in B", "IN07": "not comparable", "OUT06": "all zero in A"}
    assert {name for name, node in blocks.items() if hatched(node)} == set(words)
    for name, why in words.items():
        shown = ["".join(text.itertext()) for text in blocks[name].iter(f"{SVG}text")]
        assert shown[-1].endswith(f" · {why}")
        assert blocks[name].find(f"{SVG}title").text.endswith(f"‖A−B‖ / ‖A‖: {why}")
    assert tint(blocks["IN04"]) == 0.0
    caption = blocks["OUT03"].find(f"{SVG}title").text
    assert caption.endswith("0 %, 0 % of the elements changed; tensors left out: 1 not comparable")


def test_the_hatching_is_a_pattern_of_the_same_picture(found):
    root = ElementTree.fromstring(unet_parts(found)[0])
    (pattern,) = root.iter(f"{SVG}pattern")
    fills = {rect.get("fill") for rect in root.iter(f"{SVG}rect")} - {None}
    assert fills == {f"url(#{pattern.get('id')})"}


def test_rails_are_tinted_as_blocks_are(found):
    blocks = drawn(found)
    assert tint(blocks["TIME"]) == pytest.approx(tint(blocks["OUT04"]), abs=0.01)
    assert tint(blocks["OUTC"]) == pytest.approx(tint(blocks["OUT04"]) / 2, abs=0.01)
    assert "‖A−B‖ / ‖A‖: 20 %" in blocks["TIME"].find(f"{SVG}title").text


def test_the_table_has_every_block_with_the_parameters_of_its_box(found):
    table = ElementTree.fromstring(unet_parts(found)[1])
    rows = {
        cells[0]: cells[1:] for tr in table.iter("tr") if (cells := [" / ".join(td.itertext()) for td in tr.iter("td")])
    }
    blocks = drawn(found)
    assert next(iter(rows)) == "TIME" and set(rows) == set(blocks)
    for name, node in blocks.items():
        shown = "".join(text for part in node.iter(f"{SVG}text") for text in part.itertext())
        assert rows[name][1] in shown, name
    assert rows["IN05"][2:] == ["not in B", "–", "–"]
    assert rows["IN07"][2:] == ["not comparable", "–", "–"]
    assert rows["OUT03"][-1].endswith(" / 1 not comparable")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hatching_is_seen(found, chromium, tmp_path, scheme):
    """Words stay within their boxes, and a hatched box is not as empty as a plain one."""
    path = tmp_path / "page.html"
    path.write_text(compare_html(found), "utf-8")
    page = chromium.new_page(viewport={"width": 1100, "height": 900}, color_scheme=scheme)
    page.goto(path.as_uri())
    outside = page.evaluate(
        """() => [...document.querySelectorAll('[data-block]')].filter(block => {
            const box = block.querySelector('.u-box').getBoundingClientRect();
            return [...block.querySelectorAll('text')].some(text => {
                const own = text.getBoundingClientRect();
                return own.left < box.left || own.right > box.right;
            });
        }).map(block => block.dataset.block)"""
    )
    assert outside == []
    page.evaluate("document.querySelectorAll('svg text').forEach(text => text.remove())")
    sizes = {name: len(page.locator(f"g[data-block={name}]").screenshot()) for name in ("IN04", "IN05")}
    assert sizes["IN05"] > 1.3 * sizes["IN04"]
    page.close()

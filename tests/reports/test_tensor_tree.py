"""The tree of tensors: everything of a real model is in it, and no file can make it large."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from lib_toolkit.architectures.registry import CHECKPOINTS
from lib_toolkit.identify import identify
from lib_toolkit.reports.tensor_tree import BUDGET, Row, rows_of, tree_html
from tests.reports.report_cases import HOSTILE, model_of


class Reader(HTMLParser):
    """Reads a tree as a browser would: whole names with the texts of their rows, and branches with their figures."""

    def __init__(self):
        super().__init__()
        self.path, self.leaves, self.branches, self.more, self.tags = [], {}, {}, [], set()
        self.cell = None

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.add(tag)
        if tag == "li":
            self.path.append(given.get("data-name"))
            self.cells = []
        self.cell = tag

    def handle_endtag(self, tag):
        if tag == "li":
            name = ".".join(part for part in self.path if part is not None)
            if self.path.pop() is not None and len(self.cells) == 5:
                self.leaves[name] = self.cells
                self.cells = []

    def handle_data(self, data):
        if not self.path:
            return
        if self.path[-1] is None:
            self.more.append(data)
            return
        self.cells.append(data)
        if len(self.cells) == 2 and "·" in data:
            self.branches[".".join(self.path)] = data
            self.cells = []


def read(tree):
    reader = Reader()
    reader.feed(tree)
    return reader


def row(key, size=2, shape=(1,)):
    return Row(key, "F16", shape, size, "Unknown")


def real_table(name):
    chosen = next(entry for entry in CHECKPOINTS if entry.name == name)
    return {part.prefix + key: shape for part in chosen.parts for key, shape in part.component.family.table().items()}


@pytest.mark.parametrize("name", ["SD-v1", "SDXL"])
def test_a_real_model_is_listed_whole(name):
    model = model_of(real_table(name))
    tree = tree_html(rows_of(model, identify(model)))
    shown = read(tree)
    assert sorted(shown.leaves) == sorted(model.tensors)
    assert not shown.more
    assert len(tree) < BUDGET / 3
    assert shown.leaves["model.diffusion_model.input_blocks.0.0.weight"][1] == "F16"
    key = "first_stage_model.decoder.conv_in.weight"
    assert shown.leaves[key] == ["weight", "F16", "[512, 4, 3, 3]", "36.9 kB", shown.leaves[key][4]]
    assert "VAE" in shown.leaves[key][4]


def test_branches_tell_what_is_below_them():
    tree = read(tree_html((row("a.b.c.x", 1000), row("a.b.c.y", 500), row("a.b.d", 7), row("e", 1))))
    assert tree.branches == {"a.b": "3 · 1.51 kB", "a.b.c": "2 · 1.50 kB"}
    assert set(tree.leaves) == {"a.b.c.x", "a.b.c.y", "a.b.d", "e"}
    assert "4 tensors, 1.51 kB." in tree_html((row("a.b.c.x", 1000), row("a.b.c.y", 500), row("a.b.d", 7), row("e", 1)))


@pytest.mark.parametrize("keys", [["a", "a.b", "a.b.c", "a."], ["..", ".", "", "..."], ["x.y", "x"]])
def test_names_that_begin_each_other_are_all_there(keys):
    assert sorted(read(tree_html(tuple(map(row, keys)))).leaves) == sorted(keys)


def told_missing(shown):
    return sum(int(match.replace(",", "")) for match in re.findall(r"and ([\d,]+) tensor", "".join(shown.more)))


@pytest.mark.parametrize(
    "keys",
    [
        [f"block.{number // 100}.layer.{number % 100}.weight" for number in range(100_000)],
        [f"{number % 4096:x}.{'<' * 300}.{number}.\u202e" for number in range(30_000)],
        [".".join(f"{(number * 7919 + step * 104729) % 65521:x}" for step in range(40)) for number in range(30_000)],
        [f"x{number}" for number in range(100_000)],
        [f"{number}{'&' * 3000}" for number in range(5000)],
    ],
    ids=["regular", "escapes", "deep", "flat", "long"],
)
def test_no_file_makes_it_large(keys):
    tree = tree_html(tuple(map(row, keys)))
    shown = read(tree)
    assert len(tree) < BUDGET + 5000
    assert len(shown.leaves) + told_missing(shown) == len(keys)
    assert 50 < len(shown.leaves) < len(keys)
    assert f"{told_missing(shown):,} tensors of them are counted but not listed" in tree


def test_small_branches_are_listed_whole_beside_a_large_one():
    keys = [f"large.{number}" for number in range(50_000)] + [f"small.{number}" for number in range(30)]
    shown = read(tree_html(tuple(map(row, keys))))
    assert sum(key.startswith("small.") for key in shown.leaves) == 30
    assert sum(key.startswith("large.") for key in shown.leaves) > 1000


def test_many_parts_and_dimensions_cannot_grow_it():
    tree = tree_html(tuple(row("a." * 100_000 + str(number), shape=(10**12,) * 400) for number in range(20)))
    assert len(tree) < 40_000
    assert "…]" in tree


def test_names_of_the_file_stay_text():
    tree = tree_html((row(HOSTILE), row(f"{HOSTILE}.a"), row(f"{HOSTILE}.b"), row('"><script>alert(1)</script>.c')))
    shown = read(tree)
    assert shown.tags <= {"div", "input", "button", "p", "ul", "li", "details", "summary", "b", "span", "i"}
    assert "\u202e" not in tree
    assert "\x00" not in tree
    # What is not shown letter by letter offers no copy of something else.
    assert tree.count("<i>") == 3


def test_nothing_to_list():
    assert "no tensors" in tree_html(())

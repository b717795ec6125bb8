"""What is told of a set: JSON by its schema, CSV, the published form, sentences, the page and its pictures."""

from __future__ import annotations

import csv
import io
import json
import re
import struct
import zlib
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import numpy as np
import pytest

from lib_toolkit.analysis.matrix.whole import measure_set
from lib_toolkit.errors import UsageError
from lib_toolkit.reports.matrix_csv import matrix_csv
from lib_toolkit.reports.matrix_html import matrix_html
from lib_toolkit.reports.matrix_json import matrix_json, matrix_schema, matrix_text
from lib_toolkit.reports.matrix_published import edge_weights, published_matrices, published_matrix_text
from lib_toolkit.reports.matrix_sentences import identical_sentences, merge_sentences, summary
from lib_toolkit.reports.matrix_svg import heat_map, label
from tests.analysis.samples import save
from tests.reports.matrix_cases import HOSTILE, large_set, small_set

ENDING = ".safetensors"


def test_the_json_follows_its_schema():
    jsonschema = pytest.importorskip("jsonschema")
    for result in (small_set(), large_set(5)):
        table = json.loads(matrix_text(result), parse_constant=lambda name: pytest.fail(f"{name} is not strict JSON"))
        jsonschema.validate(table, matrix_schema())
        assert table == json.loads(json.dumps(matrix_json(result)))
    wrong = json.loads(matrix_text(small_set()))
    wrong["merges"][0]["of"].append("third")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, matrix_schema())


def test_the_json_tells_zero_from_null_and_lists_merges():
    table = matrix_json(small_set())
    names = [model["name"].removesuffix(ENDING) for model in table["models"]]
    assert names == ["a", "b", "c", "copy", "d", "three", "other", HOSTILE]
    own = table["components"]["other"]
    assert own["l2"][0][3] == 0 and own["l0"][0][3] == 0 and own["cosine"][0][3] == 1
    assert own["l2"][0][6] is None and own["l2"][6][0] is None
    (reason,) = own["not_comparable"]
    assert reason["reason"].startswith("none of 2 tensors fits") and [0, 6] in reason["pairs"]
    assert table["identical"] == [{"component": "other", "models": [f"a{ENDING}", f"copy{ENDING}"]}]
    assert [one["name"] for one in table["failed"]] == [f"broken{ENDING}"]
    assert own["nearest"][0] == {"model": f"a{ENDING}", "nearest": f"copy{ENDING}", "distance": 0}
    assert {one["model"]: one["of"] for one in table["merges"]}[f"c{ENDING}"] == [f"a{ENDING}", f"b{ENDING}"]
    (recipe,) = table["recipes"]
    assert [part["weight"] for part in recipe["parts"]] == pytest.approx([0.5, 0.3, 0.2], abs=1e-6)
    assert len(own["families"][0]["spanning_tree"]) == 6 and own["families"][1]["models"] == [f"other{ENDING}"]
    assert isinstance(own["l0"][0][1], int) and own["changed_elements"][0][1] == 600 * 8 + 9 * 8


def test_only_the_metrics_that_were_asked_for_are_there():
    own = matrix_json(small_set(), ("l1",))["components"]["other"]
    assert "l1" in own and not {"l0", "l2", "cosine", "changed_elements"} & own.keys()


def test_csv_is_square_and_starts_no_formula():
    result = small_set()
    names = [member.name for member in result.members]
    names[1] = "=1+1"
    rows = list(csv.reader(io.StringIO(matrix_csv(result.total, "l2", names))))
    assert [len(row) for row in rows] == [9] * 9
    assert rows[0][0] == "l2" and rows[0][2] == "'=1+1" and rows[2][0] == "'=1+1"
    assert rows[1][1] == "0" and rows[1][7] == ""
    assert float(rows[1][2]) == pytest.approx(result.total.l2[0, 1])


def test_the_published_form_has_names_map_and_matrices():
    result = small_set()
    # Without a common UNet the published tool leaves every figure at 0.
    table = json.loads(published_matrix_text(result, "l2", "kw"))
    assert set(table) == {"ml", "cm", "dm"} and table["dm"] == {"other": np.zeros((8, 8)).tolist()}
    ((group, pairs),) = table["cm"]
    assert group == "kw" and len(pairs) == 28
    assert pairs[0][0][0] == "m0" and pairs[0][1][0] == "m1" and pairs[0][0][1].endswith("/a.safetensors")
    with pytest.raises(UsageError):
        published_matrices(result, "cosine")
    weights = edge_weights(np.array([[0.0, 4.0], [4.0, 0.0]]))
    assert weights.tolist() == [[0, 0.25], [0.25, 0]]


def test_the_sentences_say_who_is_what():
    result = small_set()
    assert identical_sentences(result) == [f"Other tensors: the same in a{ENDING} and copy{ENDING}."]
    told = " ".join(summary(result))
    assert "8 models compared, each with each: 28 pairs." in told and f"broken{ENDING} was left out" in told
    merges = merge_sentences(result)
    assert len(merges) == 3 and "rounding" in merges[0]
    assert merges[0].startswith(f"c{ENDING} is a merge: 0.7 × a{ENDING} + 0.3 × b{ENDING} in the other tensors")
    assert merges[1].startswith(f"three{ENDING} is a merge: 0.5 × a{ENDING} + 0.3 × b{ENDING} + 0.2 × d{ENDING} in")


class Reader(HTMLParser):
    """Collects elements, and text outside of scripts."""

    def __init__(self):
        super().__init__()
        self.tags, self.words, self.inside = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if "script" not in self.inside and "style" not in self.inside:
            self.words.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_the_page_asks_nobody_and_names_can_do_nothing():
    page = matrix_html(small_set())
    reader = read(page)
    kinds = {tag for tag, _ in reader.tags}
    assert "img" not in kinds and "link" not in kinds and "iframe" not in kinds
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    assert HOSTILE in "".join(reader.words)
    for _, attributes in reader.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png"))
    policy = next(a["content"] for tag, a in reader.tags if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "prefers-color-scheme: dark" in page and "@media print" in page


def test_identical_parts_come_first_on_the_page():
    reader = read(matrix_html(small_set()))
    headings = [attributes.get("id") for tag, attributes in reader.tags if tag == "section"]
    assert headings == ["identical", "merges", "summary", "models", "part-other"]


def pictures(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(one) for one in re.findall(r"<svg .*?</svg>", page, re.DOTALL)]


def texts(picture):
    return [one for one in picture.iter() if one.tag.endswith("}text")]


@pytest.mark.parametrize("count", [2, 3, 60, 130])
def test_every_picture_is_well_formed_and_labels_do_not_pile_up(count):
    drawn = pictures(matrix_html(large_set(count)))
    assert len(drawn) == 5
    for picture in drawn:
        wide, tall = (float(one) for one in picture.get("viewBox").split()[2:])
        rows: dict[float, list[float]] = {}
        for one in texts(picture):
            assert 0 <= float(one.get("x")) <= wide and 0 <= float(one.get("y")) <= tall
            if one.get("text-anchor") == "end" and one.get("dominant-baseline"):
                rows.setdefault(float(one.get("x")), []).append(float(one.get("y")))
        for places in rows.values():
            assert min(np.diff(sorted(places)), default=15) >= 14
    dots = [one for one in drawn[2].iter() if one.tag.endswith("}path")]
    assert len(dots) == count - 1
    # Each name can be read on a hover, however it is cut.
    whole = {one.text for one in drawn[2].iter() if one.tag.endswith("}title")}
    assert {member.name for member in large_set(count).members} <= whole


def test_labels_of_the_map_cover_nothing():
    (picture,) = [one for one in pictures(matrix_html(large_set(60))) if one.get("aria-label").startswith("Map")]
    boxes = []
    for one in texts(picture):
        wide, x, y = 6.0 * len(one.text), float(one.get("x")), float(one.get("y"))
        left = {"start": x, "end": x - wide, "middle": x - wide / 2}[one.get("text-anchor")]
        boxes.append((left, y - 10, left + wide, y + 2))
    assert len(boxes) > 5
    for place, a in enumerate(boxes):
        for b in boxes[:place]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_a_large_heat_map_is_a_picture_of_its_distances():
    apart = np.abs(np.subtract.outer(np.arange(80.0), np.arange(80.0)))
    apart[3, 5] = np.nan
    picture = ElementTree.fromstring(heat_map([str(i) for i in range(80)], apart, "x"))
    (image,) = [one for one in picture.iter() if one.tag.endswith("image")]
    import base64

    data = base64.b64decode(image.get("href").partition(",")[2])
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", data[16:24]) == (80, 80)
    start = data.index(b"IDAT") + 4
    length = struct.unpack(">I", data[start - 8 : start - 4])[0]
    pixels = (
        np.frombuffer(zlib.decompress(data[start : start + length]), np.uint8)
        .reshape(80, 321)[:, 1:]
        .reshape(80, 80, 4)
    )
    assert pixels[3, 5].tolist() == [0, 0, 0, 0] and pixels[5, 3, 3] == 255
    assert pixels[0, 79, :3].sum() > pixels[0, 40, :3].sum() > pixels[0, 0, :3].sum()


def test_long_names_keep_the_parts_that_tell_them_apart():
    names = [f"the same beginning of every name in the whole folder v{i}.vae.safetensors" for i in range(3)]
    short = [label(name) for name in names]
    assert len({one.short for one in short}) == 3 and all(len(one.short) <= 42 for one in short)
    assert short[0].whole == names[0]
    assert label("x.ckpt").short == "x" and label(".safetensors").short == ".safetensors"


def test_png_pictures_are_drawn_and_equal_names_stay_apart():
    pytest.importorskip("matplotlib")
    from lib_toolkit.reports.matrix_png import pictures as drawn
    from lib_toolkit.reports.matrix_png import published_pictures

    result = small_set()
    names = [member.name for member in result.members]
    made = drawn(result.components[0], names)
    assert set(made) == {"heatmap", "dendrogram", "graph", "map", "line"}
    assert all(data.startswith(b"\x89PNG") for data in made.values())
    matrix = np.array([[0.0, 1, 2], [1, 0, 0], [2, 0, 0]])
    published = published_pictures(matrix, ["same-beginning-1", "same-beginning-2", "$x"], "unet", "kw", "l2")
    assert {name: struct.unpack(">II", data[16:24]) for name, data in published.items()} == {
        "vg": (1600, 1200),
        "xy": (1600, 1200),
    }
    assert set(published_pictures(matrix * 0, ["a", "b", "c"], "unet", "kw", "l2")) == {"xy"}


def drawn_figures(monkeypatch, result, *kinds):
    """The figures of a result's first component, as matplotlib has them, by kind."""
    from lib_toolkit.reports import matrix_png

    figures = []
    keep = matrix_png._bytes
    monkeypatch.setattr(matrix_png, "_bytes", lambda picture: figures.append(picture) or keep(picture))
    made = matrix_png.pictures(result.components[0], [member.name for member in result.members])
    return [figures[list(made).index(kind)] for kind in kinds]


@pytest.mark.parametrize("count", [12, 60, 200])
def test_words_in_png_graphs_do_not_pile_up(monkeypatch, count):
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for picture in drawn_figures(monkeypatch, large_set(count), "graph", "map"):
        renderer = FigureCanvasAgg(picture).get_renderer()
        picture.draw_without_rendering()
        (axes,) = picture.axes
        boxes = [words.get_window_extent(renderer) for words in axes.texts]
        assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[:place])
        whole = axes.get_window_extent(renderer)
        assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 for box in boxes)
        named = [words.get_text() for words in axes.texts if "…" in words.get_text()]
        assert len(named) >= min(10, count // 2)
        assert len(set(named)) == len(named)
        # Copies share a label; distances of hundreds of edges could not be told apart.
        assert any("(+1)" in name for name in named)
        assert (count < 200) or len(named) == len(axes.texts)


def test_a_small_png_graph_names_all_models_and_distances(monkeypatch):
    pytest.importorskip("matplotlib")
    result = small_set()
    graph, placed = drawn_figures(monkeypatch, result, "graph", "map")
    words = [text.get_text() for text in graph.axes[0].texts]
    models = sum(1 + word.count("(+1)") + 2 * word.count("(+2)") for word in words if not word[0].isdigit())
    family = len(placed.axes[0].collections[0].get_offsets())
    assert models == family >= 3
    assert any(word[0].isdigit() for word in words)
    assert not any(text.get_text()[0].isdigit() for text in placed.axes[0].texts)


@cache
def set_with_gaps():
    """a, b, a copy of a, a with one NaN, and one of nothing but NaN."""
    rng = np.random.default_rng(2)
    a, b = ({"w": one, "v": one + 1} for one in rng.standard_normal((2, 40, 8)).astype("<f4"))
    sick = {**a, "w": a["w"].copy()}
    sick["w"][3, 5] = np.nan
    nothing = {key: np.full_like(value, np.nan) for key, value in a.items()}
    models = {"a": a, "b": b, "copy": a, "sick": sick, "nothing": nothing}
    with TemporaryDirectory() as name:
        return measure_set([save(Path(name) / f"{model}{ENDING}", arrays) for model, arrays in models.items()])


def test_a_png_heat_map_says_0_of_equal_models_alone(monkeypatch):
    pytest.importorskip("matplotlib")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    heat, line = drawn_figures(monkeypatch, set_with_gaps(), "heatmap", "line")
    axes = heat.axes[0]
    names = [one.get_text() for one in axes.get_yticklabels()]
    assert sorted(names) == ["a", "b", "copy", "sick"], "what has no number in common with any other is in no picture"
    place = {name: names.index(name) for name in names}
    shown = axes.images[0].get_array()
    assert shown[place["a"], place["copy"]] == 0 and shown[place["a"], place["b"]] > 0
    assert axes.get_legend().get_texts()[0].get_text() == "no distance (matrix.json says why)"
    assert axes.get_legend().legend_handles[0].get_hatch() == axes.patch.get_hatch() == "////"
    canvas = FigureCanvasAgg(heat)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    zero = np.round(255 * np.array(matplotlib.colormaps["viridis"](0.0)))

    def colours(x: str, y: str):
        """All that is drawn in the middle of a cell."""
        left, top = axes.transData.transform((place[x] - 0.3, place[y] - 0.3))
        right, bottom = axes.transData.transform((place[x] + 0.3, place[y] + 0.3))
        rows = len(pixels) - np.array([top, bottom]).round().astype(int)
        inside = pixels[rows[0] : rows[1], int(left) : int(right)].reshape(-1, 4)
        return np.unique(inside, axis=0).astype(int)

    assert len(colours("a", "copy")) == 1 and np.abs(colours("a", "copy")[0] - zero).max() <= 1
    for x, y in (("a", "sick"), ("sick", "a"), ("copy", "sick")):
        seen = colours(x, y)
        assert len(seen) > 2, "a hatch has more than one colour"
        assert np.abs(seen - zero).sum(axis=1).min() > 100, "and none is that of 0"
    points = line.axes[0].lines[0].get_xydata()
    assert points.tolist() == [[0, 0], [1, pytest.approx(shown[place["a"], place["b"]])], [2, 0]]
    assert [one.get_text() for one in line.axes[0].get_xticklabels()] == ["a", "b", "copy", "sick"]


def test_a_png_heat_map_without_gaps_has_no_legend(monkeypatch):
    pytest.importorskip("matplotlib")
    (heat,) = drawn_figures(monkeypatch, large_set(5), "heatmap")
    assert heat.axes[0].get_legend() is None and not heat.axes[0].patch.get_hatch()

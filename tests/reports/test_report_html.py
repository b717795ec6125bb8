"""The page as text: the elements that a browser would make, its policy, and sentences that are true."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from lib_toolkit.architectures.registry import architecture
from lib_toolkit.dtypes import DType
from lib_toolkit.formats import open_model
from lib_toolkit.reports.report_html import report_html
from lib_toolkit.reports.report_tensors import embedded
from tests.making import stamped_safetensors
from tests.reports.report_cases import FINDINGS, HISTORY, HOSTILE, MERGE, model_of, report_of

TABLE = architecture("sd-v1-demo").table()
VOID = {"meta", "input"}


class Page(HTMLParser):
    """Elements, attributes and words; scripts and styles apart."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open, self.words, self.raw = [], [], [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            self.raw.append(data)
        else:
            self.words += data


def page_of(report):
    page = Page(report_html(report))
    assert page.open == []
    return page


def tensors_in(text):
    return json.loads(re.search(r'id="tensor-data">(.*?)</script>', text, re.S)[1])


def test_hostile_names_add_no_element():
    fine = page_of(report_of(model_of({**TABLE, "x": (3,)}, metadata={"x": "x"}), FINDINGS, full=False))
    bad = page_of(report_of(model_of({**TABLE, HOSTILE: (3,)}, DType.F16, "x.safetensors",
                                     metadata={HOSTILE: HOSTILE}), FINDINGS, full=False))  # fmt: skip
    assert bad.tags == fine.tags
    assert {(tag, name) for tag, name, _ in bad.attributes} == {(tag, name) for tag, name, _ in fine.attributes}
    assert "\\u202egnp.exe" in bad.words


@pytest.mark.parametrize("text", [HOSTILE, "\u2028\u2029", "<!--<script>", "]]>", "&lt;", "\ud800", "\x00", "'\"\\"])
def test_embedded_data_stays_in_its_element(text):
    written = embedded({text: [text]})
    assert written.isascii()
    assert not re.search("[<>&]", written)
    assert json.loads(written) == {text: [text]}


def test_page_is_valid_text_whatever_the_file_holds():
    report = report_of(model_of({"\ud800.x": (1,)}, metadata={"\udfff": "\ud800" * 200}, name="a\udc80b"), full=False)
    report_html(report).encode("utf-8")


def test_policy_lets_the_one_script_run_and_nothing_else():
    text = report_html(report_of(model_of(TABLE), full=False))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")


def test_page_asks_nobody():
    page = page_of(report_of(model_of(TABLE, metadata={**MERGE, **HISTORY}), FINDINGS, full=False))
    assert not {"link", "img", "iframe", "object", "base", "form"} & set(page.tags)
    links = [value for _, name, value in page.attributes if name in ("href", "src", "action")]
    assert links
    assert all(link.startswith("#") for link in links)
    ids = {value for _, name, value in page.attributes if name == "id"}
    assert {link[1:] for link in links} <= ids
    assert not any(re.search(r"url\(|@import|https?:", raw) for raw in page.raw)
    assert not any(name.startswith("on") for _, name, _ in page.attributes)


def test_the_verdict_comes_first_and_sentences_are_true(tmp_path):
    path = tmp_path / "full.safetensors"
    table = architecture("sd1").table(ema=True)
    kinds = {key: ("I64" if key.endswith("position_ids") else "F32", shape) for key, shape in table.items()}
    stamped_safetensors(path, kinds)
    with open_model(path) as model:
        words = page_of(report_of(model, full=False)).words
    size = path.stat().st_size
    assert "full.safetensors is an SD-v1 (checkpoint), intact: nothing that belongs to it is missing." in words
    # 859.5 million weights of the UNet twice, 123.1 million of the text encoder, 83.7 million of the VAE
    assert f"safetensors, {size:,} bytes, 1,817 tensors, 1.9B parameters" in words
    assert "859,520,964" in words
    assert "Only the header was read" in words
    assert words.index("intact") < words.index("What the bytes are") < words.index("Findings")
    dropped = 859_520_964 * 4
    assert "leaves out 686 items of 3.44 GB: EMA copy, used only for training further" in words
    assert round(dropped / 1e9, 2) == 3.44


def test_findings_with_their_remedies_by_severity():
    page = page_of(report_of(model_of(TABLE), FINDINGS[::-1], full=False))
    places = [page.words.index(one.sentence) for one in FINDINGS]
    assert places == sorted(places)
    assert "What helps: Let them be rewritten. Images change slightly. model-toolkit prune --fix-clip" in page.words


def test_no_finding_is_said_as_far_as_it_was_looked():
    quick = page_of(report_of(model_of(TABLE), full=False)).words
    assert "Nothing is wrong with the header, all that was read, as far as it was checked." in quick


def test_figures_to_copy():
    report = report_of(model_of(TABLE), full=False)
    full = replace(report_of(model_of({}), full=True), model=report.model, found=report.found)
    page = page_of(full)
    copied = [value for tag, name, value in page.attributes if (tag, name) == ("button", "data-copy")]
    assert copied == ["2020/2982/----", f"mtk1:{99:064x}"]
    assert "The VAE's figure is that of the NAI VAE." in page.words
    assert "no: this file has another" in page.words
    assert "cannot be checked" in page.words


def test_merge_is_a_tree_of_lists():
    text = report_html(report_of(model_of(TABLE, metadata=MERGE, name="mine.safetensors"), full=False))
    drawn = re.search(r'<ul class="merge">.*?</section>', text, re.S)[0]
    assert drawn.count("<li>") == 5
    assert "its own ancestor: the recipe goes round in a circle" in drawn
    assert "the file tells nothing more of it" in drawn
    assert drawn.index("first.safetensors") < drawn.index("second.safetensors")


def test_long_metadata_is_folded_and_cut():
    metadata = {"short": "tiny", "long": "y" * 100_000, "json": json.dumps({"a": [1, 2], "b": "z" * 200})}
    text = report_html(report_of(model_of(TABLE, metadata=metadata), full=False))
    assert "<dd>tiny</dd>" in text
    assert "(100,000 characters)" in text
    assert 15_000 < text.count("y") < 40_000
    assert "the JSON report holds it whole" in text
    assert "{\n  &quot;a&quot;: [\n    1,\n    2\n  ]," in text


def test_the_page_carries_every_tensor():
    model = model_of({**TABLE, "stray.weight": (7, 3)})
    data = tensors_in(report_html(report_of(model, full=False)))
    assert [row[0] for row in data["rows"]] == list(model.tensors)
    key, kind, shape, size, part, role, remark = data["rows"][-1]
    assert (key, data["types"][kind], shape, size) == ("stray.weight", "F16", [7, 3], 42)
    assert (data["parts"][part], data["roles"][role], remark) == ("Unknown", "unknown", "")
    assert sum(row[3] for row in data["rows"]) == model.origin.size - 1000


def test_seven_thousand_tensors_make_a_page_of_less_than_a_megabyte():
    table = {
        f"block_{i}.layer_{j}.{end}.weight": (8, 4) for i in range(70) for j in range(50) for end in ("up", "down")
    }
    text = report_html(report_of(model_of(table), full=False))
    assert len(tensors_in(text)["rows"]) == 7000
    assert len(text) < 1_000_000

"""The report as Markdown and as text: the facts are there, and names from files stay names."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from lib_toolkit.analysis.results import TensorHealth
from lib_toolkit.architectures.registry import architecture
from lib_toolkit.dtypes import DType
from lib_toolkit.reports.report_markdown import report_markdown, report_text
from lib_toolkit.reports.report_sections import sections
from tests.reports.report_cases import FINDINGS, HISTORY, HOSTILE, MERGE, model_of, report_of

TABLE = architecture("sd-v1-demo").table(ema=True)
TRAPS = [
    "a | b", "`", "``x```", "` | `", "[x](http://evil.example)", "![x](y)", "<b>", "&lt;", "# head", "* item", "1. one",
    "---", "@someone", "http://evil.example/a", "www.evil.example", "\\", "\\|", " `a` ", "a\nb", "~~gone~~", HOSTILE,
]  # fmt: skip


def rendered(markdown):
    module = pytest.importorskip("markdown_it")
    return module.MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)


def report(metadata=None, name="some_model.safetensors", table=TABLE, **changes):
    model = model_of(table, DType.F32, name, metadata=metadata or {})
    return replace(report_of(model, full=False), **changes)


def test_the_facts_are_there():
    text = report_markdown(report({**MERGE, **HISTORY}, findings=FINDINGS))
    assert text.startswith("# some\\_model.safetensors\n\nsome\\_model.safetensors is an SD-v1-Demo")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## What the bytes are",
        "## Findings",
        "## Components",
        "## Architecture",
        "## Tensors outside the components",
        "## Where it comes from",
        "## What it was merged from",
        "## Metadata",
    ]
    assert "- It will not work: 2 tensors hold NaN.\n  - Get the file again." in text
    assert "Images change slightly. (prune --fix-clip)" in text
    assert "    - B: second.safetensors \\[bbbbbbbbbb\\] (its own ancestor" in text
    assert (
        "| UNET-v1-Demo | UNET-v1-Demo | `model.diffusion_model.` | ldm | complete | 684 | 2,491,844 | 9.97 MB |"
        in text
    )


@pytest.mark.parametrize("trap", TRAPS)
def test_names_stay_names(trap):
    """Whatever a name holds, the page has the elements that it has without it, and shows the name."""
    fine = rendered(report_markdown(report({"xyz": "xyz", "other": "xyz"}, name="xyz", findings=FINDINGS)))
    html = rendered(report_markdown(report({trap: trap, "other": trap}, name=trap, findings=FINDINGS)))
    elements = re.compile(r"<(/?\w+)")
    # The one text that programs do not agree on in a code span stands outside of one.
    without = r"</?code>" if "\\|" in trap else "$^"
    assert elements.findall(re.sub(without, "", html)) == elements.findall(re.sub(without, "", fine))
    assert "<a " not in html
    shown = re.sub(r"<[^>]*>", "", html)
    for character in "\x00\u202e\u2028":
        assert character not in html
    visible = trap.replace("\n", "\\x0a").partition("\x00")[0].strip()
    escaped = visible.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    assert shown.count(escaped) >= 3


@pytest.mark.parametrize("trap", TRAPS)
def test_every_row_has_the_cells_of_its_head(trap):
    text = report_markdown(report({trap: trap}, table={**TABLE, trap: (3,)}))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 10
    cells = [len(re.findall(r"(?<!\\)\|", re.sub(r"\\\\", "", line))) for line in rows]
    head = 0
    for line, count, following in zip(rows, cells, [*rows[1:], ""], strict=True):
        if following.startswith("| ---"):
            head = count
        assert count == head, line


def test_long_values_are_cut():
    text = report_markdown(report({"long": "word " * 20_000}))
    assert max(map(len, text.splitlines())) < 1500
    assert "word word" in text
    assert len(text) < 20_000


def test_many_rows_are_counted():
    text = report_markdown(report({f"entry{n}": "x" for n in range(250)}))
    assert "`entry99`" in text
    assert "`entry100`" not in text
    assert "… and 150 more." in text


def test_text_for_a_terminal():
    text = report_text(report({HOSTILE: HOSTILE, **HISTORY}, name="bad\x1b[2Jname", findings=FINDINGS))
    assert all(character.isprintable() or character == "\n" for character in text)
    assert text.startswith("bad\\x1b[2Jname is an SD-v1-Demo")
    assert "\nFindings\n  - It will not work: 2 tensors hold NaN.\n" in text
    assert "`" not in text
    # columns stand below each other
    head = next(line for line in text.splitlines() if line.startswith("  Component "))
    row = next(line for line in text.splitlines() if line.startswith("  VAE-v1-Demo "))
    assert row.index("first_stage_model.") == head.index("Prefix")


def test_values_in_words():
    table = {"w": (4,), "zero": (2, 2)}
    health = {"w": TensorHealth(4, 1, 0, 0, 2, 70000.0), "zero": TensorHealth(4, 0, 0, 4, 0, 0.0)}
    one = replace(report(table=table), quick=False, health=health)
    values = next(section for section in sections(one) if section.id == "values")
    assert values.sentences == (
        "2 floating-point tensors were checked, 8 values (8): 1 NaN, none infinite, 2 beyond FP16.",
        "The largest magnitude of a weight is 7e+04, in w.",
        "1 tensor holds zeros alone.",
    )


def test_whole_numbers_are_no_weights():
    model = model_of({"w": (1,), "a.position_ids": (1, 77)})
    health = {"w": TensorHealth(1, largest=0.5), "a.position_ids": TensorHealth(77, largest=76.0)}
    one = replace(report_of(model, full=False), health=health)
    values = next(section for section in sections(one) if section.id == "values")
    assert values.sentences[1] == "The largest magnitude of a weight is 0.5, in w."

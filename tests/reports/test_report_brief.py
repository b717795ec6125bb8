"""The short form of the report: its figures with buttons to copy them, its findings, and no markup from the file."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lib_toolkit.analysis.results import Finding, Severity
from lib_toolkit.formats import open_model
from lib_toolkit.reports.report_brief import brief_html, copy_button
from tests.making import of_arrays, safetensors_bytes
from tests.reports.report_cases import FINDINGS, HOSTILE, report_of


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "some.safetensors"
    arrays = {"a.weight": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float16)}
    path.write_bytes(safetensors_bytes(of_arrays(arrays), {"note": HOSTILE}))
    with open_model(path) as model:
        yield model


def test_verdict_findings_and_figures(model):
    report = report_of(model, FINDINGS)
    shown = brief_html(report)
    assert "some.safetensors" in shown
    assert "2020/2982/----" in shown
    copies = re.findall(r'data-model-toolkit-copy="([^"]*)"', shown)
    assert {"2020/2982/----", report.hashes.sha256, report.hashes.autov2, report.hashes.autov3} <= set(copies)
    assert report.file_fingerprint in copies
    for finding in FINDINGS:
        assert finding.sentence in shown
    assert shown.index("It will not work") < shown.index("Worth a look") < shown.index("Good to know")
    assert "Get the file again. The values are lost in this one." in shown
    assert "<img" not in shown
    assert "\u202e" not in shown


def test_without_findings_it_says_so(model):
    assert "Nothing is wrong with its header and its values" in brief_html(report_of(model))


def test_a_quick_report_has_no_figures(model):
    shown = brief_html(report_of(model, full=False))
    assert "Only the header was read" in shown
    assert "data-model-toolkit-copy" not in shown


def test_many_findings_are_counted(model):
    many = tuple(Finding("odd", Severity.INFO, f"Number {number} is odd.") for number in range(100))
    shown = brief_html(report_of(model, many))
    assert shown.count("is odd.") == 40
    assert "… and 60 more in the whole report." in shown


def test_a_copied_value_is_escaped():
    assert copy_button('"><b>', "x").startswith(
        '<button type="button" data-model-toolkit-copy="&quot;&gt;&lt;b&gt;" aria-label="Copy: x">'
    )

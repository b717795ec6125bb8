"""Published reports with numbers at the edges of what numbers can be: a right result, or one clear sentence."""

from __future__ import annotations

import json

import pytest

from lib_toolkit.analysis.compare.figures import figure
from lib_toolkit.cli.main import main


def report(folder, *values):
    path = folder / "report.json"
    kv = {f"model.diffusion_model.{number}.attn1.weight": value for number, value in enumerate(values)}
    path.write_text(json.dumps({"da": [], "db": [], "err": [], "kv": kv}))
    return path


@pytest.mark.parametrize("form", ["png", "compat-png"])
@pytest.mark.parametrize("values", [(1.0, 0.9999999999999999), (1.0, 1.0), (1e20, 1e20), (0.0,), (-1.0, 1e200)])
def test_a_picture_of_values_that_hardly_differ(tmp_path, capsys, values, form):
    pytest.importorskip("matplotlib")
    path, picture = report(tmp_path, *values), tmp_path / "p.png"
    assert main(["compare", "--from-json", str(path), "--metrics", "cossim", f"--{form}", str(picture)]) == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("form", ["png", "compat-png"])
@pytest.mark.parametrize("values", [(1e308,), (1e308, 1e308), (1e308, -1e308)])
def test_values_that_no_picture_can_show(tmp_path, capsys, values, form):
    pytest.importorskip("matplotlib")
    path, picture = report(tmp_path, *values), tmp_path / "p.png"
    assert main(["compare", "--from-json", str(path), f"--{form}", str(picture)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "Values of up to 1.0e+308 have no room in a picture; ask for --json."
    ]
    assert not picture.exists()


def test_figures_of_huge_and_tiny_values():
    assert figure("l2", [3e307, 4e307]) == pytest.approx(5e307)
    assert figure("l2", [3e-200, 4e-200]) == pytest.approx(5e-200)
    assert figure("l2", [0.0, 0.0]) == 0.0
    assert figure("l2", []) == 0.0
    assert figure("l1", [1e308, 1e308]) == float("inf")


def test_huge_values_in_words_and_as_data(tmp_path, capsys):
    path = report(tmp_path, 1e308, 1e308)
    assert main(["compare", "--from-json", str(path)]) == 0
    assert "attn1: L2=1.4142e+308 (2 tensors)" in capsys.readouterr().out
    assert main(["compare", "--from-json", str(path), "--metrics", "l1", "--json", "-"]) == 0
    table = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert table["groups"][0]["figure"] is None


def test_a_whole_number_beyond_all_numbers(tmp_path, capsys):
    assert main(["compare", "--from-json", str(report(tmp_path, 10**400))]) == 2
    error = capsys.readouterr().err
    assert "has a number in kv that is too large" in error and error.count("\n") == 1


@pytest.mark.parametrize("more", [[], ["--json", "-"]])
def test_no_published_report_holds_cosine(tmp_path, capsys, more):
    assert main(["compare", "--from-json", str(report(tmp_path, 1.0)), "--metrics", "cosine", *more]) == 2
    told = capsys.readouterr()
    assert told.out == "" and "never cosine" in told.err and told.err.count("\n") == 1

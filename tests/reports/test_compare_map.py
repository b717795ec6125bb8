"""A list of pairs: what is kept of a run that was stopped, what is known again, and how it is told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from lib_toolkit.analysis.compare.kept import NAME
from lib_toolkit.errors import CancelledError, TargetError, UsageError
from lib_toolkit.progress import SILENT, Progress
from lib_toolkit.reports import compare_map
from lib_toolkit.reports.compare_map import run_map
from tests.analysis.samples import demo, half, part, save

UNET, VAE = "model.diffusion_model.", "first_stage_model."


@pytest.fixture
def models(tmp_path):
    """Three VAEs in a chain, at FP16, and something else altogether."""
    base = part(demo(), VAE)
    for number in range(3):
        save(tmp_path / f"{number}.safetensors", half({k: v + np.float32(number / 4) for k, v in base.items()}))
    save(tmp_path / "other.safetensors", {"weight": np.ones((2, 3), "<f4")})
    return tmp_path


def a_map(folder: Path, *pairs: str, group: str = "g") -> Path:
    """A map of pairs written as "A B": both the names and the files."""
    table = [[group, [[[name, f"{name}.safetensors"] for name in pair.split()] for pair in pairs]]]
    path = folder / "map.json"
    path.write_text(json.dumps(table))
    return path


def compared(path: Path, folder: Path, progress: Progress = SILENT, **options):
    return run_map(path, folder, ("l2", "cossim"), options.pop("published", None), progress, 1, **options)


class Stopped:
    """Progress that cancels at a share of all bytes, and notes what it was told."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.told = []

    def progress(self) -> Progress:
        return Progress(self.told.append, lambda: bool(self.told) and self.told[-1].share >= self.share)


def count_bytes(monkeypatch):
    read = []
    keep = compare_map.open_model

    def opening(path):
        model = keep(path)
        model.origin.file.observer = lambda offset, data: read.append(len(data))
        return model

    monkeypatch.setattr(compare_map, "open_model", opening)
    return read


@pytest.fixture
def no_pauses(monkeypatch):
    """Every byte is reported, so that a wish to stop comes where the test wants it."""
    monkeypatch.setattr("lib_toolkit.progress._REPORT_EVERY", 0.0)


def test_a_chain_goes_on_where_it_was_stopped(models, monkeypatch, no_pauses):
    path = a_map(models, "0 1", "1 2")
    whole = compared(path, models / "whole")
    read = count_bytes(monkeypatch)
    with pytest.raises(CancelledError, match="the same command goes on from there"):
        compared(path, models / "out", Stopped(0.6).progress())
    before, every = sum(read), sum((models / f"{n}.safetensors").stat().st_size for n in range(3))
    assert before > every / 2
    read.clear()
    # A kill may cut the last line off.
    state = models / "out" / NAME
    state.write_bytes(state.read_bytes()[:-7])
    index = compared(path, models / "out")
    assert sum(read) < every / 2
    assert [entry.figures for entry in index.entries] == [entry.figures for entry in whole.entries]
    for entry in index.entries:
        texts = [(models / folder / f"{entry.name}.json").read_text("utf-8") for folder in ("out", "whole")]
        assert texts[0] == texts[1]
    assert not state.exists()


def test_what_is_kept_of_another_file_is_not_taken_up(models, monkeypatch, no_pauses):
    path = a_map(models, "0 1", "1 2")
    with pytest.raises(CancelledError):
        compared(path, models / "out", Stopped(0.6).progress())
    os.utime(models / "1.safetensors", (1, 1))
    read = count_bytes(monkeypatch)
    compared(path, models / "out")
    assert sum(read) > 0.9 * sum((models / f"{n}.safetensors").stat().st_size for n in range(3))


def test_progress_runs_once_over_all_files(models, no_pauses):
    save(models / "3.safetensors", half(part(demo(), VAE)))
    save(models / "4.safetensors", half(part(demo(), VAE)))
    told = []
    compared(a_map(models, "0 1", "3 4"), models / "out", Progress(told.append))
    sizes = [(models / f"{name}.safetensors").stat().st_size for name in "0134"]
    assert {status.total for status in told} == {sum(sizes)}
    done = [status.done for status in told]
    assert done == sorted(done) and done[0] == 0 and done[-1] == sum(sizes)
    assert len(set(done)) > 50


@pytest.mark.parametrize("published", [None, "l2"])
def test_a_folder_that_takes_no_files_is_refused_before_anything_is_read(models, monkeypatch, published):
    def refused(path):
        raise AssertionError("nothing may be opened")

    monkeypatch.setattr(compare_map, "open_model", refused)
    target = models / "out"
    real = os.open

    def closed(path, flags, *mode):
        if str(path).startswith(str(target if published is None else target / "published")) and flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", closed)
    with pytest.raises(TargetError, match="takes no files"):
        compared(a_map(models, "0 1"), target, published=published)


def test_another_file_under_the_same_name_is_compared_again(models):
    path = a_map(models, "0 1")
    compared(path, models / "out")
    os.utime(models / "1.safetensors", (5, 5))
    os.utime(models / "2.safetensors", (5, 5))
    compared(path, models / "out")
    path.write_text(path.read_text().replace('"1.safetensors"', '"2.safetensors"'))
    index = compared(path, models / "out")
    assert index.known == 0
    assert index.entries[0].files[1].endswith("2.safetensors")
    assert compared(path, models / "out").known == 1


def test_counts_tell_what_failed(models):
    (models / "bad.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{nonsense")
    path = a_map(models, "0 1", "0 bad")
    assert compared(path, models / "out").lines()[-1].startswith("1 compared, 1 not compared; the index")
    again = compared(path, models / "out").lines()[-1]
    assert again.startswith("0 compared, 1 not compared, 1 known from before; the index")


def test_nothing_in_common_is_said_where_it_is_seen(models):
    path = a_map(models, "0 other")
    index = compared(path, models / "out")
    assert "there is nothing to compare" in index.lines()[0]
    cell = (models / "out" / "index.html").read_text("utf-8").split("<td")[2].partition("</td>")[0]
    assert "there is nothing to compare" in cell.rpartition('">')[2]
    assert set(index.entries[0].figures.values()) == {None}
    assert compared(path, models / "out").lines()[0] == index.lines()[0]


def test_names_that_cannot_be_files_are_told_with_their_place(models):
    with pytest.raises(UsageError, match=r"map\.json: pair 1 of group 'a/b': .*cannot be a file name"):
        compared(a_map(models, "0 1", group="a/b"), models / "out")


def test_pairs_that_would_be_one_file_are_told_apart(models):
    files = [f"{models / name}.safetensors" for name in "01"]
    path = models / "map.json"
    pair = [["c", files[0]], ["d", files[1]]]
    path.write_text(json.dumps([["a_b", [pair]], ["a", [[["b_c", files[0]], ["d", files[1]]]]]]))
    with pytest.raises(UsageError, match=r"pair 1 of group 'a' would be written to the same file .* of group 'a_b'"):
        compared(path, models / "out")

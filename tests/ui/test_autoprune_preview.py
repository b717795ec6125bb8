"""The preview of the Autoprune panel without a browser: what it tells, what it leaves alone, what it gives way to."""

from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip("gradio")

from lib_toolkit.autoprune import Run, Step, last_run, policy_of
from lib_toolkit.autoprune.lock import FolderLock
from lib_toolkit.hosts.host import Visitor
from lib_toolkit.reports.numbers import human_bytes
from lib_toolkit.ui import preview_view
from lib_toolkit.ui.previews import Previews
from tests.autoprune import samples
from tests.autoprune.samples import save
from tests.ui.clicking import said
from tests.ui.test_autoprune import ACTS, Panel

STRANGER = Visitor("10.0.0.7", "example.org", False)


@pytest.fixture
def make(tmp_path):
    made = []

    def panel(**settings):
        made.append(Panel(tmp_path, **settings))
        return made[-1]

    yield panel
    for one in made:
        one.jobs.close()


class Slow:
    """A preview that has found one file, and goes on until it is stopped or let go."""

    def __init__(self, panel):
        self.found, self.go = threading.Event(), threading.Event()
        panel.pruner.previews = Previews(panel.jobs, self)

    def __call__(self, policy, progress, report):
        step = Step("first.safetensors", "planned", reason="It would go to Failed: it is broken.", foreseen="failed")
        report(step)
        self.found.set()
        while not self.go.wait(0.01):
            progress.check()
        return Run("", "done", "", steps=(step,))


def everything(panel):
    """What lies on the disk: paths, times, contents."""
    paths = sorted(panel.drop.parent.rglob("*"))
    return [(path, path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in paths]


def test_each_file_is_told_of_and_nothing_is_changed(make):
    panel = make()
    save(panel.drop / "sub" / "big.safetensors", samples.lora())
    (panel.drop / "sub" / "big.preview.png").write_text("x")
    save(panel.drop / "clean.safetensors", samples.lora(1, "<f2"))
    save(panel.drop.parent / "Lora" / "there.safetensors", samples.lora(2, "<f2"))
    save(panel.drop / "again.safetensors", samples.lora(2))
    (panel.drop / "page.ckpt").write_text("<html>")
    (panel.drop / "comes.ckpt.part").write_text("")
    before = everything(panel)
    key, updates = panel.panel.preview(None)
    assert updates["autoprune_run"] == {"interactive": True}, "a preview gives way to a run"
    assert updates["autoprune_preview"] == {"interactive": False}
    assert updates["autoprune_cancel"] == {"interactive": True}
    assert 'data-model-toolkit-every="1000"' in updates["autoprune_progress"]["value"]
    assert "No file is looked at yet." in said(updates, "autoprune_view")
    key, updates = panel.ended((key, updates))
    assert everything(panel) == before
    assert updates["autoprune_preview"] == {"interactive": True}
    assert updates["autoprune_cancel"] == {"interactive": False}
    told = said(updates, "autoprune_view")
    _, looked = panel.panel.look(key)
    assert "What is waiting" in said(looked, "autoprune_view") and "Preview:" not in said(looked, "autoprune_view")
    panel.ended(panel.panel.run(key))
    (step,) = (one for one in last_run(policy_of(panel.host)).steps if one.file == "sub/big.safetensors")
    saved = human_bytes(step.saved)
    for words in (
        "Preview: nothing was changed",
        f"Files: 1 waiting, 1 there already, 1 to move as they are, 1 to move to Failed, 1 to prune; {saved} would be",
        f"{human_bytes(step.size)} → {human_bytes(step.target_size)} ({saved} would be saved), as "
        "Lora/sub/big.safetensors. The source would go to Done.",
        "✓ would be pruned",
        "To change: 9 × F32 → F16",
        "To go along with it: big.preview.png",
        "→ would be moved as it is",
        "it needs nothing, and would become Lora/clean.safetensors.",
        "= is there already",
        "there.safetensors holds the same already. See Lora/there.safetensors. The source would go to Done.",
        "✕ would go to Failed",
        "It would go to Failed: page.ckpt is a web page",
        "It is a download that has not ended.",
        "There was none yet.",
    ):
        assert words in told, words
    assert "What is waiting" not in told, "the preview says more of the same files"


def test_sizes_are_told_with_what_may_make_them_larger(make):
    panel = make()
    save(panel.drop / "clean.safetensors", samples.lora(1, "<f2"))
    assert "Sizes are those" not in said(panel.ended(panel.panel.preview(None))[1], "autoprune_view")
    save(panel.drop / "a.safetensors", samples.lora())
    assert "keeps its own, which only a run sees." in said(panel.ended(panel.panel.preview(None))[1], "autoprune_view")


def test_what_would_stay_is_told_with_its_reason(make):
    panel = make()
    save(panel.drop / "a.safetensors", samples.lora())
    (panel.drop.parent / "Lora").write_text("x")
    told = said(panel.ended(panel.panel.preview(None))[1], "autoprune_view")
    assert "Files: 1 to postpone." in told
    assert "! would be postponed It would stay: The folder" in told and "cannot be made: it is a file;" in told


def test_a_checkpoint_says_what_would_go(make):
    panel = make()
    arrays = samples.checkpoint()
    junk = {"optimizer_states.0": samples.values("o", (64, 64))}
    save(panel.drop / "big.safetensors", {**arrays, **junk})
    told = said(panel.ended(panel.panel.preview(None))[1], "autoprune_view")
    assert "To leave out: 1 ×" in told
    assert "as Stable-diffusion/big.safetensors." in told


def test_an_absent_drop_folder_is_not_made(make):
    panel = make()
    told = said(panel.ended(panel.panel.preview(None))[1], "autoprune_view")
    assert "Nothing lies in the drop folder." in told
    assert not panel.drop.exists()


@pytest.mark.parametrize(
    ("sources", "fate", "moved"),
    [("keep", "stay where it is", "would be copied as it is"), ("delete", "be deleted", "would be moved as it is")],
)
def test_what_would_become_of_sources_is_by_the_settings(make, sources, fate, moved):
    panel = make(sources=sources)
    save(panel.drop / "a.safetensors", samples.lora())
    save(panel.drop / "clean.safetensors", samples.lora(1, "<f2"))
    told = said(panel.ended(panel.panel.preview(None))[1], "autoprune_view")
    assert f"as Lora/a.safetensors. The source would {fate}." in told
    assert moved in told


def test_stop_ends_it_and_tells_what_was_found(make):
    panel = make()
    slow = Slow(panel)
    key, updates = panel.panel.preview(None)
    assert slow.found.wait(10)
    told = said(panel.actions.poll(key)[1], "autoprune_view")
    assert "1 file looked at so far." in told and "first.safetensors" in told
    _, updates = panel.ended(panel.panel.cancel(key))
    told = said(updates, "autoprune_view")
    assert "The preview was stopped after 1 file; nothing was changed." in told
    assert "✕ would go to Failed It would go to Failed: it is broken." in told
    assert updates["autoprune_preview"] == {"interactive": True}


def test_a_child_is_stopped_too(make):
    panel = make()
    save(panel.drop / "a.safetensors", samples.lora())
    key, _ = panel.panel.preview(None)
    _, updates = panel.ended(panel.panel.cancel(key))
    assert "was stopped after 0 files; nothing was changed." in said(updates, "autoprune_view")
    assert sorted(path.name for path in panel.drop.iterdir()) == ["a.safetensors"]


def test_every_page_sees_the_one_preview(make):
    panel = make()
    slow = Slow(panel)
    first = panel.panel.preview(None)
    assert slow.found.wait(10)
    other, seen = panel.actions.refresh(None)
    assert "data-model-toolkit-step" in seen["autoprune_progress"]["value"]
    assert "1 file looked at so far." in said(panel.panel.preview(other)[1], "autoprune_view")
    assert panel.pruner.previews.steps[1:] == (), "it was not begun once more"
    slow.go.set()
    for answer in (first, (other, seen)):
        assert "Files: 1 to move to Failed." in said(panel.ended(answer)[1], "autoprune_view")
    assert "Preview:" not in said(panel.actions.refresh(None)[1], "autoprune_view"), "later it may be out of date"


def test_run_now_takes_the_place_of_a_preview(make):
    panel = make()
    slow = Slow(panel)
    save(panel.drop / "a.safetensors", samples.lora())
    key, _ = panel.panel.preview(None)
    other, seen = panel.actions.refresh(None)
    assert slow.found.wait(10)
    key, updates = panel.panel.run(key)
    assert updates["autoprune_preview"] == {"interactive": False}
    _, updates = panel.ended((key, updates))
    _, seen = panel.ended((other, seen))
    for shown in (updates, seen):
        assert "1 pruned" in said(shown, "autoprune_view") and "Preview:" not in said(shown, "autoprune_view")


def test_beside_a_run_of_ours_there_is_none(make):
    panel = make()
    for seed in range(40):
        save(panel.drop / f"{seed}.safetensors", samples.lora(seed, modules=1))
    key, updates = panel.panel.run(None)
    other, refused = panel.panel.preview(None)
    assert "preview what is left when it has ended" in said(refused)
    assert "data-model-toolkit-step" in refused["autoprune_progress"]["value"], "the page tells of the run"
    assert panel.pruner.previews.running is None
    assert "40 pruned" in said(panel.ended((key, updates))[1], "autoprune_view")
    assert "40 pruned" in said(panel.ended((other, refused))[1], "autoprune_view")


def test_beside_a_run_of_another_program_there_is_none(make):
    panel = make()
    save(panel.drop / "a.safetensors", samples.lora())
    with FolderLock(panel.drop):
        _, updates = panel.ended(panel.panel.preview(None))
    told = said(updates, "autoprune_view")
    assert "Another run works on Autoprune now; preview what is left when it has ended." in told
    assert "model-toolkit-status model-toolkit-error" in updates["autoprune_view"]["value"]
    assert "Preview:" not in told and "What is waiting" in told


def test_a_run_that_another_program_begins_meanwhile_makes_it_worthless(make):
    panel = make()
    panel.drop.mkdir()
    slow = Slow(panel)
    answer = panel.panel.preview(None)
    assert slow.found.wait(10)
    with FolderLock(panel.drop):
        slow.go.set()
        told = said(panel.ended(answer)[1], "autoprune_view")
    assert "Another run works on Autoprune now" in told and "first.safetensors" not in told


def test_who_may_not_write_may_preview_and_stop_that(make):
    panel = make(may_write=False)
    slow = Slow(panel)
    answer = panel.panel.preview(None)
    assert slow.found.wait(10)
    assert "Saving is switched off here" in said(panel.panel.run(None, STRANGER)[1])
    assert panel.pruner.previews.running is not None
    told = said(panel.ended(panel.panel.cancel(answer[0], STRANGER))[1], "autoprune_view")
    assert "The preview was stopped" in told


def test_the_mark_of_a_run_outlives_a_preview(make):
    panel = make()
    save(panel.drop / "a.safetensors", samples.lora())
    panel.ended(panel.panel.run(None))
    mark = panel.pruner.changed
    _, updates = panel.ended(panel.panel.preview(None))
    assert mark and f'data-model-toolkit-saved="{mark}"' in updates["autoprune_view"]["value"]
    assert "1 pruned" in said(updates, "autoprune_view"), "the last run is told of too"


def test_names_are_only_text(make):
    panel = make()
    name = ACTS.replace("/", "")
    save(panel.drop / f"{name}.safetensors", samples.lora())
    (panel.drop / f"{name}.ckpt").write_text("<html>")
    _, updates = panel.ended(panel.panel.preview(None))
    assert "<img" not in updates["autoprune_view"]["value"]
    assert "onerror" in updates["autoprune_view"]["value"]
    assert str(panel.drop.parent) not in updates["autoprune_view"]["value"], "nor where the folders lie"


def test_a_long_list_is_cut_and_says_so(make):
    steps = [Step(f"f{number}", "planned", foreseen="failed") for number in range(230)]
    shown = preview_view.preview_html("Files.", steps, policy_of(make().host))
    assert shown.count("<li>") == 200
    assert "And 30 files more." in shown


def test_the_end_of_the_host_ends_it(make):
    panel = make()
    slow = Slow(panel)
    panel.panel.preview(None)
    assert slow.found.wait(10)
    begun = time.monotonic()
    panel.pruner.ended()
    assert panel.pruner.previews.running is None and time.monotonic() - begun < 10


def test_folders_that_make_no_sense_are_a_sentence(make, monkeypatch):
    panel = make()
    monkeypatch.setattr(panel.host, "output_folder", lambda kind: panel.drop)
    assert "lies in the drop folder; choose another one" in said(panel.panel.preview(None)[1])

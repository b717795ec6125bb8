"""What the controls do, without a browser: sessions, jobs, refusals, and what is left on disk."""

from __future__ import annotations

import os
import time

import pytest

from lib_toolkit import streaming
from lib_toolkit.files import SourceFile
from lib_toolkit.hosts import StandaloneHost
from lib_toolkit.jobs import Jobs
from lib_toolkit.ui import saving
from lib_toolkit.ui.actions import Actions
from lib_toolkit.ui.workspace import Controls, Session, Workspace
from tests.ui import clicking
from tests.ui.clicking import files, settled

VAE = "VAE/demo.vae.safetensors"
BLOATED = "Stable-diffusion/sd-demo-bloated.ckpt"


@pytest.fixture
def actions(models):
    jobs = Jobs()
    yield Actions(StandaloneHost(models), jobs)
    jobs.close()


def said(updates):
    return updates["status"]["value"]


def loaded(actions, name=VAE, controls=Controls()):  # noqa: B008
    return clicking.loaded(actions, name, controls)


@pytest.fixture
def slow(monkeypatch):
    usual = SourceFile.read_at

    def read_at(self, offset, out):
        time.sleep(0.01 if len(out) > 100 else 0)
        usual(self, offset, out)

    monkeypatch.setattr(streaming, "PIECE", 4096)  # else small tensors are read many at a time
    return lambda: monkeypatch.setattr(SourceFile, "read_at", read_at)


def test_every_session_has_a_key_that_cannot_be_guessed(actions):
    keys = {actions.refresh(None)[0] for _ in range(5)}
    assert len(keys) == 5
    assert all(len(key) >= 32 for key in keys)


def test_a_forged_key_gives_a_new_session_and_a_sentence(actions):
    key, _ = loaded(actions)
    other, updates = actions.save("forged", Controls())
    assert other not in {key, "forged"}
    assert "has been forgotten" in said(updates)
    assert "Nothing is loaded" in updates["identity"]["value"]


def test_sessions_are_limited_in_number_and_age():
    space = Workspace(most=3)
    keys = [space.session(None)[0] for _ in range(4)]
    assert space.session(keys[3])[0] == keys[3]
    assert space.session(keys[0])[0] != keys[0], "the oldest one went"
    old = Workspace(seconds=0.01)
    key, _ = old.session(None)
    time.sleep(0.05)
    assert old.session(key)[0] != key


def test_sessions_are_limited_in_what_they_hold_in_memory(actions):
    space = actions.desk.sessions
    first, _ = loaded(actions, BLOATED)
    (held,) = (session.tensors for session in space._sessions.values())
    assert held == 1663
    space._tensors = 2 * held
    second, _ = loaded(actions, BLOATED)
    assert set(space._sessions) == {first, second}
    third, _ = loaded(actions, BLOATED)
    actions.poll(third)
    assert set(space._sessions) == {second, third}, "the one that nobody used for the longest time went"


def test_refresh_says_what_it_found_and_a_page_that_comes_back_nothing(actions, models):
    key, _ = loaded(actions)
    (models / BLOATED).unlink()
    _, updates = actions.load(key, BLOATED, Controls())
    assert "is not among the models" in said(updates)
    assert "3 models found." in said(actions.refresh(key)[1])
    assert "status" not in actions.refresh(key, arrives=True)[1]


def test_after_a_save_the_next_name_is_proposed(actions, models):
    key, updates = loaded(actions)
    first = updates["name"]["value"]
    _, updates = settled(actions, actions.save(key, Controls(first)))
    assert "Saved" in said(updates)
    second = updates["name"]["value"]
    assert second != first and second in updates["saving"]["value"]
    assert "exists already" not in updates["saving"]["value"]
    assert "Saved" in said(settled(actions, actions.save(key, Controls(second)))[1])
    _, updates = settled(actions, actions.save(key, Controls("mine")))
    assert "mine.safetensors exists already" in updates["saving"]["value"], "a name of the user's own stays"


def test_a_session_that_works_is_not_forgotten():
    space = Workspace(most=2)
    key, session = space.session(None, Session())
    session.running = object()
    for _ in range(5):
        space.session(None)
    assert space.session(key) == (key, session)


@pytest.mark.parametrize("value", ["../secret.ckpt", "/etc/passwd", "", None, 7, ["VAE"], {"a": 1}])
def test_a_forged_source_opens_nothing(actions, monkeypatch, value):
    monkeypatch.setattr(SourceFile, "__init__", lambda *a: pytest.fail("a file was opened"))
    _, updates = settled(actions, actions.load(None, value, Controls()))
    assert 'role="alert"' in said(updates)


@pytest.mark.parametrize(
    "controls",
    [
        Controls("x", precision="fp4"),
        Controls("x", precision=["auto"]),
        Controls(["x"]),
        Controls("x", file_format="exe"),
        Controls("x", file_format=None),
    ],
)
def test_forged_choices_are_refused(actions, models, controls):
    key, _ = loaded(actions)
    before = files(models)
    for answer in (actions.save(key, controls), actions.change(key, controls), actions.load(key, VAE, controls)):
        _, updates = settled(actions, answer)
        assert "choose" in said(updates)
    assert files(models) == before


def test_forged_boxes_count_as_unticked(actions):
    key, first = loaded(actions, BLOATED)
    _, updates = settled(actions, actions.change(key, Controls(keep_ema="yes")))
    assert updates.get("keep_ema", {"value": False})["value"] is False
    assert "bytes" in first["saving"]["value"]


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "a\\b", "con", "nul.safetensors", "x\x00y", "x\u202ey", "y" * 300, " .", "x.ckpt", "C:x", ".."],
)
def test_bad_names_write_nothing(actions, models, name):
    key, _ = loaded(actions)
    before = files(models)
    _, updates = settled(actions, actions.save(key, Controls(name)))
    assert 'role="alert"' in said(updates)
    assert files(models) == before
    _, updates = settled(actions, actions.save(key, Controls("good")))
    assert "Verified" in said(updates)


def test_a_name_that_exists_is_never_overwritten(actions, models):
    (models / "VAE" / "taken.safetensors").write_bytes(b"precious")
    key, _ = loaded(actions)
    _, updates = settled(actions, actions.save(key, Controls("taken")))
    assert "exists already" in said(updates)
    assert (models / "VAE" / "taken.safetensors").read_bytes() == b"precious"


def test_a_name_that_is_taken_after_the_button_was_pressed(actions, models, monkeypatch):
    """The tab never replaces a file, so that its sentence may not offer to."""
    target = models / "VAE" / "race.safetensors"

    def taken(folder):
        target.write_bytes(b"precious")
        return False

    monkeypatch.setattr(saving, "_make_folder", taken)
    key, _ = loaded(actions)
    _, updates = settled(actions, actions.save(key, Controls("race")))
    assert "race.safetensors exists already; choose another name." in said(updates)
    assert "force" not in said(updates)
    assert target.read_bytes() == b"precious"


def test_proposed_names_are_free_and_follow_the_wishes(actions, models):
    key, updates = loaded(actions, BLOATED)
    assert updates["name"]["value"] == "sd-demo-bloated-pruned-fp16"
    settled(actions, actions.save(key, Controls(updates["name"]["value"])))
    _, again = loaded(actions, BLOATED)
    assert again["name"]["value"] == "sd-demo-bloated-pruned-fp16(1)"
    _, kept = settled(actions, actions.change(key, Controls("mine", precision="keep")))
    assert "name" not in kept, "a name that the user wrote stays"
    assert "mine.safetensors" in kept["saving"]["value"]


def test_a_missing_folder_is_made_for_the_result_and_not_left_after_a_failure(actions, models, slow):
    source = models / "Stable-diffusion"
    moved = models / "Components" / "in.safetensors"
    moved.parent.mkdir()
    (models / VAE).rename(moved)
    (models / "VAE").rmdir()
    key, _ = loaded(actions, "Components/in.safetensors")
    slow()
    key, updates = actions.save(key, Controls("out"))
    assert "data-model-toolkit-step" in updates["progress"]["value"]
    actions.cancel(key)
    _, updates = settled(actions, actions.poll(key))
    assert not (models / "VAE").exists()
    assert source.exists()
    _, updates = settled(actions, actions.save(key, Controls("out")))
    assert "Verified" in said(updates)
    assert (models / "VAE" / "out.safetensors").exists()


def test_only_one_save_at_a_time_in_a_session(actions, models, slow):
    key, _ = loaded(actions)
    slow()
    key, updates = actions.save(key, Controls("one"))
    assert "Saving one.safetensors" in said(updates)
    for answer in (
        actions.save(key, Controls("two")),
        actions.load(key, VAE, Controls()),
        actions.clear(key),
    ):
        assert "one.safetensors is still being saved" in said(answer[1])
        assert "progress" not in answer[1], "the running job goes on being shown"
    # Wishes that change meanwhile are planned when the save is done.
    assert actions.change(key, Controls("one", precision="keep"))[1] == {}
    _, updates = settled(actions, actions.poll(key))
    assert "Saved" in said(updates)
    assert "Nothing is left out" in updates["saving"]["value"]
    assert "F32 → F16" not in updates["saving"]["value"]
    assert "VAE/two.safetensors" not in files(models)


def test_a_file_that_changed_since_loading_is_not_saved(actions, models):
    key, _ = loaded(actions)
    before = files(models)
    os.utime(models / VAE, ns=(1, 1))
    for answer in (actions.save(key, Controls("x")), actions.change(key, Controls("x", precision="keep"))):
        _, updates = settled(actions, answer)
        assert "was changed since it was loaded; load it again" in said(updates)
    assert files(models) == before


def test_nothing_stays_open_between_clicks(actions, models):
    key, _ = loaded(actions, BLOATED)
    settled(actions, actions.change(key, Controls(keep_ema=True)))
    if os.path.isdir("/proc/self/fd"):  # noqa: PTH112
        targets = []
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
            try:
                targets.append(os.readlink(f"/proc/self/fd/{name}"))  # noqa: PTH115
            except OSError:
                continue
        assert not [target for target in targets if str(models) in target]
    (models / BLOATED).rename(models / "moved.ckpt")


def test_writing_can_be_switched_off(models):
    (models / ".model-toolkit.json").write_text('{"may_write": false}')
    actions = Actions(StandaloneHost(models), Jobs())
    key, _ = loaded(actions)
    assert "switched off" in said(settled(actions, actions.save(key, Controls("x")))[1])


def test_the_setting_for_position_ids_is_the_first_wish(models):
    (models / ".model-toolkit.json").write_text('{"fix_clip": true}')
    actions = Actions(StandaloneHost(models), Jobs())
    _, updates = loaded(actions, "Stable-diffusion/sd-demo-broken-ids.safetensors")
    assert updates["fix_clip"]["value"] is True
    assert updates["fix_clip_group"]["visible"] is True
    assert updates["keep_ema_group"]["visible"] is False


def test_a_broken_file_is_one_sentence_and_the_tab_goes_on(actions, models):
    (models / "VAE" / "torn.safetensors").write_bytes((models / VAE).read_bytes()[:5000])
    _, updates = settled(actions, actions.load(None, "VAE/torn.safetensors", Controls()))
    assert "torn.safetensors" in said(updates)
    assert 'role="alert"' in said(updates)
    assert "Traceback" not in said(updates)
    loaded(actions)


def test_clear_forgets_the_model(actions):
    key, _ = loaded(actions)
    _, updates = actions.clear(key)
    assert "Nothing is loaded" in updates["identity"]["value"]
    assert "nothing to save yet" in said(actions.save(key, Controls("x"))[1])


def test_lists_say_the_architecture_once_it_is_known(actions, models):
    def listed(updates):
        return next(label for label in updates["source"]["choices"] if label.startswith(BLOATED))

    before = listed(actions.refresh(None)[1])
    assert before.endswith(" MB")
    key, updates = settled(actions, actions.load(None, before, Controls()))
    known = updates["source"]["value"]
    assert known == listed(updates) == f"{before} · SD-v1-Demo"
    assert known in updates["import_source"]["choices"] and known in updates["compare_a"]["choices"]
    assert listed(actions.refresh(None)[1]) == known, "for everybody"
    for value in (known, before, f"{before} · something else"):
        assert "Loaded sd-demo-bloated.ckpt" in said(settled(actions, actions.load(None, value, Controls()))[1])
    os.utime(models / BLOATED, ns=(1, 1))
    assert listed(actions.refresh(key)[1]) == before, "it may be another model now"
    (models / BLOATED).unlink()
    assert "is not among the models" in said(actions.load(key, known, Controls())[1])

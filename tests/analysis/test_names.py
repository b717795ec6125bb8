"""Names that users give: where they are kept, that nothing is lost, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_toolkit.analysis.names import config_folder, give_name, read_names
from lib_toolkit.errors import TargetError, UsageError


def test_names_are_kept_and_replaced(tmp_path):
    assert read_names(tmp_path / "new") == {}
    path = give_name("mtk1:a", "NAI VAE", tmp_path / "new")
    give_name("mtk1:b", "  Ümlaut 2 ", tmp_path / "new")
    give_name("mtk1:a", "NAI VAE, again", tmp_path / "new")
    assert read_names(tmp_path / "new") == {"mtk1:a": "NAI VAE, again", "mtk1:b": "Ümlaut 2"}
    assert json.loads(path.read_text("utf-8"))["schema"] == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["fingerprints.json"]


@pytest.mark.parametrize("name", ["", "   ", "x" * 201, "a\nb", "a\x1b[31mb", "a\u202eb"])
def test_unusable_names(tmp_path, name):
    with pytest.raises(UsageError, match="printable"):
        give_name("mtk1:a", name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{", "[]", '{"names": []}', '{"names": {"a": 1}}', "[" * 100_000])
def test_damaged_file_is_not_overwritten(tmp_path, content):
    path = tmp_path / "fingerprints.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"fingerprints\.json"):
        give_name("mtk1:a", "x", tmp_path)
    assert path.read_text() == content


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TargetError, match="check the folder"):
        give_name("mtk1:a", "x", tmp_path / "file" / "below")


def test_where_settings_live(monkeypatch, tmp_path):
    for name in ("MODEL_TOOLKIT_CONFIG", "XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert config_folder() == tmp_path / ".config" / "model-toolkit"
    monkeypatch.setattr("lib_toolkit.analysis.names.os.name", "posix")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "x"))
    assert config_folder() == tmp_path / "x" / "model-toolkit"
    monkeypatch.setenv("MODEL_TOOLKIT_CONFIG", str(tmp_path / "own"))
    assert config_folder() == tmp_path / "own"

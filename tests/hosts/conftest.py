"""A fake WebUI in this process."""

from __future__ import annotations

import sys

import pytest

from lib_toolkit.hosts import WebuiHost
from tests.fakehost.host import FakeHost


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """Makes fake hosts over ``tmp_path/data``; what the last one planted goes with the test."""

    def make(flavour, *argv, files=()):
        for name in files:
            path = tmp_path / "data" / "models" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * 1500)
        fake = FakeHost(flavour, tmp_path / "data", argv)
        for name, module in fake.modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        return fake, WebuiHost()

    monkeypatch.setattr(sys, "path", list(sys.path))
    return make

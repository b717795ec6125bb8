"""``python -m lib_toolkit`` is the same as ``model-toolkit``."""

from __future__ import annotations

from lib_toolkit.cli.main import run

if __name__ == "__main__":
    run()

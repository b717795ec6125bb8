"""The tab's own style sheet and script, found in a checkout as in an installed package.

A WebUI loads both files from the checkout by itself; the standalone server puts them into its page.
"""

from __future__ import annotations

from pathlib import Path

from lib_toolkit.errors import ToolkitError

STYLE, SCRIPT = "style.css", "javascript/model_toolkit.js"

_PACKAGE = Path(__file__).resolve().parent.parent
_PLACES = (_PACKAGE / "assets", _PACKAGE.parent)
"""An installed wheel has copies in the package, a checkout the originals beside it."""


def read_asset(name: str) -> str:
    """The text of STYLE or SCRIPT. Raises ToolkitError when the installation lacks it."""
    for place in _PLACES:
        path = place / name
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise ToolkitError(f"The file {name} is missing from this installation; install the toolkit again.")

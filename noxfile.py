"""Runs all tests: the suite in this environment, then the tab's under the versions of Gradio that WebUIs have.

``nox`` runs everything, ``nox -s gradio-4`` one part; options after ``--`` go to pytest, as in ``nox -- -k vae``.
"""

from __future__ import annotations

import os
import sys

import nox

PINS = {
    # What A1111 and reForge install; with anything newer beside it, Gradio 3 answers 500 to every page.
    "gradio-3": ("gradio==3.41.2", "fastapi==0.94.1", "pydantic<2", "numpy<2"),
    # What Forge installs; it does not start beside huggingface_hub 1.
    "gradio-4": ("gradio==4.40.0", "fastapi==0.104.1", "pydantic==2.8.2", "huggingface_hub<1"),
}
SHOWN_NOWHERE = ("actions", "advanced", "autoprune", "autoprune_preview", "compare")
"""Tests of what the tab answers before any Gradio shows it: the suite has run them."""

HAS_NO_WEBUI = "tests/ui/test_story.py::test_in_our_own_server"
"""Older Gradios are those of WebUIs, where the same story is told to them."""

TAB = (
    "tests/ui",
    "tests/hosts",
    "--deselect",
    HAS_NO_WEBUI,
    *(f"--ignore=tests/ui/test_{name}.py" for name in SHOWN_NOWHERE),
)

PYTHON = None if sys.version_info < (3, 12) else "3.11"
"""These packages have no wheels for newer versions of Python than WebUIs have; where none is found, nox says so."""

PARALLEL = ("-n", str(max(3, min(4, os.cpu_count() or 1))), "--dist", "worksteal")
"""Neighbours stay together, since they share servers and models, until a process has nothing else to do. There is one
more than a small machine has processors: those that drive a browser wait for most of the time."""

nox.options.envdir = ".venv-nox"
nox.options.download_python = "never"


@nox.session(venv_backend="none")
def suite(session: nox.Session) -> None:
    """The whole suite with what is installed beside nox: the newest Gradio, and PyTorch as the yardstick."""
    session.run(sys.executable, "-m", "pytest", *PARALLEL, "--durations", "20", *session.posargs)


def under(name: str, pins: tuple[str, ...]) -> None:
    """Declare a session: the tab's tests under an older Gradio, without PyTorch."""

    @nox.session(name=name, venv_backend="venv", python=PYTHON)
    def tab(session: nox.Session) -> None:
        session.install("-e", ".[browser]", *pins)
        session.run("python", "-m", "pytest", *PARALLEL, *TAB, *session.posargs)


for name, pins in PINS.items():
    under(name, pins)

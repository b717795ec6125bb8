"""Verbs around the tab: ui starts it, demo makes a folder of small models to try it on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lib_toolkit.cli.verbs import named_path
from lib_toolkit.errors import UsageError

if TYPE_CHECKING:
    from lib_toolkit.cli.verbs import Verbs


def add_verbs(verbs: Verbs) -> None:
    """Declare ``ui`` and ``demo``."""
    ui = verbs.add_parser("ui", help="open the tab in a browser", description="Serve the Toolkit tab without a WebUI.")
    ui.add_argument("--models-dir", type=named_path, default=Path("models"), metavar="DIR", help="default: ./models")
    ui.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="default: this computer only")
    ui.add_argument("--port", type=int, default=7861, metavar="N")
    ui.set_defaults(run=_ui)
    demo = verbs.add_parser(
        "demo",
        help="make a folder of small models to play with",
        description="Make a model folder with small models of known faults, and one of full size that takes no room.",
    )
    demo.add_argument("folder", type=named_path, metavar="DIR")
    demo.set_defaults(run=_demo)


def _ui(options: argparse.Namespace) -> int:
    if not options.models_dir.is_dir():
        raise UsageError(f"The folder {options.models_dir} does not exist; name your models folder with --models-dir.")
    if not 0 <= options.port <= 65535:
        raise UsageError(f"{options.port} is not a port number; choose one from 1024 to 65535.")
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise UsageError("The tab needs gradio; install it with: pip install 'model-toolkit[standalone]'.") from None
    from lib_toolkit.ui.launch import serve

    serve(options.models_dir, options.host, options.port)
    return 0


def _demo(options: argparse.Namespace) -> int:
    from lib_toolkit.cli.terminal import progress_line
    from lib_toolkit.demo import make_demo
    from lib_toolkit.reports.numbers import counted

    with progress_line() as progress:
        demo = make_demo(options.folder, progress)
    if demo.made:
        print(f"Made {counted(len(demo.made), 'model')} in {options.folder}, with this to see:")
    for path, shows in demo.made.items():
        print(f"  {path.relative_to(options.folder)}\n      {shows}")
    if demo.kept:
        were = "was" if len(demo.kept) == 1 else "were"
        print(
            f"In {options.folder} {counted(len(demo.kept), 'name')} {were} taken already; what is there stays as it is:"
        )
    for path in demo.kept:
        print(f"  {path.relative_to(options.folder)}")
    print(
        f"Look at one with: model-toolkit inspect, or all of them with: model-toolkit ui --models-dir {options.folder}"
    )
    return 0

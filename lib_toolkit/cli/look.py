"""Verbs that only look: inspect."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from lib_toolkit.cli.verbs import named_path

if TYPE_CHECKING:
    from lib_toolkit.cli.verbs import Verbs


def add_verbs(verbs: Verbs) -> None:
    """Declare ``inspect``."""
    inspect = verbs.add_parser(
        "inspect",
        help="say what a file is",
        description="Say what a model file is, from its header alone: architecture, components, what is junk, and why.",
    )
    inspect.add_argument("file", type=named_path, metavar="FILE")
    inspect.add_argument("--json", action="store_true", help="print the result as JSON")
    inspect.add_argument("--keys", action="store_true", help="list every tensor")
    inspect.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    from lib_toolkit.edits.repair import position_ids
    from lib_toolkit.formats import open_model
    from lib_toolkit.identify import identify
    from lib_toolkit.reports.identification import identification_json, identification_text

    with open_model(options.file) as model:
        found = identify(model)
        broken = tuple(ids.sentence() for ids in position_ids(model, found) if not ids.right)
        found = replace(found, warnings=(*found.warnings, *broken))
        if options.json:
            print(json.dumps(identification_json(model, found, options.keys), indent=2))
        else:
            print(identification_text(model, found, keys=options.keys))
    return 0

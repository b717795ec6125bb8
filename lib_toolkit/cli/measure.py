"""Verbs that read values to tell models apart: metric and name."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from lib_toolkit.cli.verbs import named_path
from lib_toolkit.errors import UsageError

if TYPE_CHECKING:
    from lib_toolkit.cli.verbs import Verbs
    from lib_toolkit.identify import Identification, Match

SCHEMA = 1
"""Version of the JSON of both verbs; grows when a field changes its meaning or goes."""


def add_verbs(verbs: Verbs) -> None:
    """Declare ``metric`` and ``name``."""
    metric = verbs.add_parser(
        "metric",
        help="the figures (UNET/VAE/CLIP) of a model",
        description="Print the metric UNET/VAE/CLIP by which people compare models, and the known parts that it shows.",
    )
    metric.add_argument("file", type=named_path, metavar="FILE")
    metric.add_argument("--json", action="store_true", help="print the result as JSON")
    metric.set_defaults(run=_metric)
    name = verbs.add_parser(
        "name",
        help="give a component a name that reports will show",
        description="Give the fingerprint of a component a name; every report then says it, whatever file it is in.",
    )
    name.add_argument("file", type=named_path, metavar="FILE")
    name.add_argument("cls", metavar="CLASS", help="class, id or name of the component, such as VAE-v1")
    name.add_argument("name", metavar="NAME", help="such as 'NAI VAE'")
    name.add_argument("--json", action="store_true", help="print the result as JSON")
    name.set_defaults(run=_name)


def _metric(options: argparse.Namespace) -> int:
    from lib_toolkit.analysis.metric import metric
    from lib_toolkit.cli.terminal import progress_line
    from lib_toolkit.formats import open_model
    from lib_toolkit.identify import identify

    with open_model(options.file) as model, progress_line() as progress:
        figures = metric(model, identify(model), progress)
    if options.json:
        table = {
            "schema": SCHEMA,
            "metric": figures.text,
            "unet": figures.unet,
            "vae": figures.vae,
            "clip": figures.clip,
            "known": list(figures.known),
        }
        print(json.dumps(table, indent=2))
    else:
        print("\n".join((f"({figures.text})", *figures.known)))
    return 0


def _name(options: argparse.Namespace) -> int:
    from lib_toolkit.analysis.names import checked_name, give_name
    from lib_toolkit.analysis.report import fingerprint_of
    from lib_toolkit.cli.terminal import progress_line
    from lib_toolkit.formats import open_model
    from lib_toolkit.identify import identify
    from lib_toolkit.reports.plain import printable

    name = checked_name(options.name)
    with open_model(options.file) as model, progress_line() as progress:
        found = identify(model)
        match = _component(model.name, found, options.cls)
        value = fingerprint_of(model, found, match, progress).value
    path = give_name(value, name)
    component = match.component
    if options.json:
        table = {"schema": SCHEMA, "component": component.name, "class": component.cls, "fingerprint": value}
        print(json.dumps({**table, "name": name, "kept_in": str(path)}, indent=2))
    else:
        print(f"{value}, the {component.name} of {printable(model.name)}, is now called {name}.")
    return 0


def _component(label: str, found: Identification, cls: str) -> Match:
    """The complete component that is asked for, no EMA copy where there is another. Raises UsageError for none."""
    from lib_toolkit.architectures.registry import components

    names = {component.name for component in components(cls)}
    fitting = [match for match in found.components if match.component.name in names]
    whole = sorted((match for match in fitting if match.complete), key=lambda match: match.layout == "ema")
    if whole:
        return whole[0]
    if fitting:
        lacks = len(fitting[0].missing) + len(fitting[0].wrong_shape)
        raise UsageError(
            f"The {cls} in {label} is incomplete (tensors missing or misshapen: {lacks:,}); name it in a whole file."
        )
    inside = ", ".join(match.component.cls for match in found.components) or "no known component"
    raise UsageError(f"{label} has no {cls}; it has {inside}.")

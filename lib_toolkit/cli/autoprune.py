"""The verb that works through the drop folder: autoprune."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from lib_toolkit.cli.output import PRECISIONS
from lib_toolkit.cli.verbs import named_path
from lib_toolkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lib_toolkit.autoprune import Policy, Step
    from lib_toolkit.cli.verbs import Verbs
    from lib_toolkit.progress import Progress, Status

_OK, _BAD = 0, 2
SHORTEST = 2
"""Seconds between two looks of ``--watch``: what changes in less may still be being copied."""

_PROGRESS_EVERY = 0.5
_SWITCHES = ("precision", "vae_format", "component_format", "sources", "workers", "keep_ema", "fix_clip")
"""Options that replace a setting of the models folder."""


def add_verbs(verbs: Verbs) -> None:
    """Declare ``autoprune``."""
    parser = verbs.add_parser(
        "autoprune",
        help="prune what lies in the drop folder and move it to its place",
        description="Prune every model in DIR/Autoprune and move the result to its folder, with previews and info "
        "files; sources go to Autoprune/Done, what cannot be used to Autoprune/Failed. Settings are those of DIR.",
    )
    parser.add_argument("--models-dir", type=named_path, metavar="DIR", help="the models folder")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="one run, after two looks two seconds apart (default)")
    how.add_argument("--watch", type=float, metavar="SECONDS", help="look again and again, until stopped")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, change nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line for each step")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: by the settings, else auto")
    parser.add_argument("--vae-format", choices=("pt", "safetensors"), help="default: by the settings, else pt")
    parser.add_argument("--component-format", choices=("safetensors", "pt"), help="default: by the settings")
    parser.add_argument("--sources", choices=("done", "keep", "delete"), help="what becomes of a source; default: done")
    parser.add_argument("--workers", type=int, metavar="N", help="threads, up to 32; 0 (the default) chooses")
    parser.add_argument("--keep-ema", action="store_true", default=None, help="keep the EMA copy of the UNet")
    parser.add_argument("--fix-clip", action="store_true", default=None, help="rewrite broken CLIP position ids")
    parser.add_argument(
        "--child",
        action="store_true",
        help="for programs: the policy comes as a line of JSON on stdin; work at low priority until stdin closes",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.watch is not None and not SHORTEST <= options.watch <= 86_400:
        raise UsageError(
            f"{options.watch:g} is no number of seconds to wait between looks; choose {SHORTEST} to 86400."
        )
    if options.watch is not None and options.dry_run:
        raise UsageError("A dry run is one look; leave out --watch.")
    if options.child:
        return _as_child(options)
    from lib_toolkit.cli.terminal import progress_line

    policy = _policy(options)
    with progress_line() as progress:
        return _work(policy, options, progress, _print if options.json else None)


def _policy(options: argparse.Namespace) -> Policy:
    from lib_toolkit.autoprune import policy_of
    from lib_toolkit.hosts.standalone import StandaloneHost

    if options.models_dir is None:
        raise UsageError("Name your models folder with --models-dir DIR; its Autoprune folder is worked through.")
    wished = {name: value for name in _SWITCHES if (value := getattr(options, name)) is not None}
    return replace(policy_of(StandaloneHost(options.models_dir)), **wished)


def _as_child(options: argparse.Namespace) -> int:
    from lib_toolkit.autoprune.background import asked_to_stop, lower_priority, read_policy
    from lib_toolkit.progress import Progress

    policy = read_policy()
    lower_priority()
    with asked_to_stop() as stopped:
        return _work(policy, options, Progress(_ProgressLines(), stopped), _tell)


def _tell(table: object) -> None:
    """A line for the starter. When that one has gone, the run ends by ``asked_to_stop``, not in the midst of a step."""
    try:
        _print(table)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _work(
    policy: Policy, options: argparse.Namespace, progress: Progress, tell: Callable[[dict[str, object]], None] | None
) -> int:
    """``tell`` gets each step, and the run, in their JSON form; None for text."""
    from lib_toolkit.autoprune import run_once, watch
    from lib_toolkit.autoprune.steps import POSTPONED
    from lib_toolkit.autoprune.telling import summary

    def report(step: Step) -> None:
        if tell is None:
            _text(step)
        else:
            tell(step.as_json())

    if options.watch is not None:
        watch(policy, options.watch, progress, report)
    run = run_once(policy, progress, report, dry=options.dry_run)
    if tell is None:
        print(summary(run))
    else:
        tell(run.as_json())
    return _BAD if run.counts.get(POSTPONED) else _OK


def _text(step: Step) -> None:
    from lib_toolkit.autoprune import sentence
    from lib_toolkit.autoprune.steps import BEGUN

    if step.outcome != BEGUN:
        print(sentence(step), flush=True)


def _print(table: object) -> None:
    sys.stdout.write(json.dumps(table) + "\n")
    sys.stdout.flush()


class _ProgressLines:
    """Progress as lines of JSON, a few a second at most."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, status: Status) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _PROGRESS_EVERY
            told = {"phase": status.phase, "done": status.done, "total": status.total}
            _tell({"progress": {**told, "speed": status.speed, "left": status.left}})

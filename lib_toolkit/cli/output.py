"""What every verb that writes a model has in common: options, the target's name, writing or a dry run, the answer."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from lib_toolkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lib_toolkit.identify import Identification
    from lib_toolkit.plan import Plan
    from lib_toolkit.progress import Progress
    from lib_toolkit.writing import WriteOptions

PRECISIONS = ("auto", "fp16", "bf16", "fp32", "keep")


def add_precision(parser: argparse.ArgumentParser, default: str, meaning: str) -> None:
    """The option ``--precision``; ``meaning`` is its help."""
    parser.add_argument("--precision", choices=PRECISIONS, default=default, help=meaning)


def add_output_options(parser: argparse.ArgumentParser, formats: Sequence[str] = ("safetensors", "ckpt")) -> None:
    """How and what to write, save for the name of the result."""
    parser.add_argument("--strict", action="store_true", help="refuse when a tensor does not fit into the precision")
    parser.add_argument("--format", choices=formats, help="default: by the name, else safetensors")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would be written, write nothing; reads what would be cast, so that the size is exact",
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def target_of(options: argparse.Namespace, folder: Path, stem: str) -> tuple[Path, str]:
    """Where to write and in which format; without a name of the user's, ``stem`` in ``folder`` or a free one like it.

    Raises UsageError when name and format contradict each other, TargetError for a folder.
    """
    from lib_toolkit.plan import SUFFIXES, file_format_of
    from lib_toolkit.target import free_name, refuse_folder

    # A .pt is a checkpoint by another ending, usual for components.
    file_format = "ckpt" if options.format == "pt" else options.format
    if options.output is not None:
        if not options.output:
            raise UsageError("-o is followed by no name; give that of the new file, or leave out -o.")
        if options.output.endswith(("/", "\\")):
            raise UsageError(f"{options.output} is a folder; give the name of a file in it.")
        path = Path(options.output)
        refuse_folder(path)
        return path, file_format_of(path, file_format)
    file_format = file_format or "safetensors"
    ending = ".pt" if options.format == "pt" else SUFFIXES[file_format]
    return free_name(folder, stem, ending), file_format


def carry_out(
    plan: Plan,
    found: Identification,
    target: Path,
    how: WriteOptions,
    options: argparse.Namespace,
    progress: Progress,
    more: Mapping[str, object] | None = None,
) -> str:
    """Write the plan, or look ahead for a dry run; the answer as text, or as JSON with the entries of ``more``."""
    from lib_toolkit.reports.plans import plan_json, plan_text
    from lib_toolkit.writing import check, look_ahead, write

    hashes = None
    if options.dry_run:
        check(plan, target, how)
        plan, narrowing = look_ahead(plan, how, progress)
    else:
        written = write(plan, target, how, progress)
        plan, narrowing, hashes = written.plan, written.narrowing, written.hashes
    size = plan.predicted_size(how.file_format, how.hash_source)
    if options.json:
        done = None if options.dry_run else target.stat().st_size
        table = plan_json(plan, found, target, how.file_format, size, done, narrowing, hashes)
        return json.dumps({**table, **(more or {})}, indent=2)
    return plan_text(plan, target, size, not options.dry_run, narrowing)

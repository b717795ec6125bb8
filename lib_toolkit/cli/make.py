"""Verbs that write one model: prune and convert."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from lib_toolkit.errors import UsageError

if TYPE_CHECKING:
    from lib_toolkit.cli.verbs import Verbs
    from lib_toolkit.identify import Identification
    from lib_toolkit.plan import Plan
    from lib_toolkit.progress import Progress
    from lib_toolkit.writing import WriteOptions

_PRECISIONS = ("auto", "fp16", "bf16", "fp32", "keep")


def add_verbs(verbs: Verbs) -> None:
    """Declare ``prune`` and ``convert``."""
    prune = verbs.add_parser(
        "prune",
        help="write a clean, small copy",
        description="Write a clean copy: without EMA, training state and junk, at half precision, names repaired.",
    )
    _add_options(prune)
    prune.set_defaults(run=_run, drops=True)
    convert = verbs.add_parser(
        "convert",
        help="write a copy at another precision or in another format",
        description="Write a copy at another precision or in another format; every tensor of the state dict is kept.",
    )
    _add_options(convert)
    convert.set_defaults(run=_run, drops=False)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="IN")
    parser.add_argument("-o", "--output", metavar="OUT", help="default: a new name beside IN")
    parser.add_argument(
        "--precision",
        choices=_PRECISIONS,
        default="auto",
        help="auto (default): FP32 and FP64 become FP16, 16-bit types stay; keep: no tensor is cast",
    )
    parser.add_argument("--strict", action="store_true", help="refuse when a value is too large for the precision")
    parser.add_argument("--keep-ema", action="store_true", help="keep the EMA copy of the UNet")
    parser.add_argument("--fix-clip", action="store_true", help="rewrite broken CLIP position ids to 0…76")
    parser.add_argument("--drop-unknown", action="store_true", help="leave out tensors that the architecture lacks")
    parser.add_argument("--hash", action="store_true", help="read the whole source and store its hashes in the result")
    parser.add_argument("--format", choices=("safetensors", "ckpt"), help="default: by the name, else safetensors")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, write nothing")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _run(options: argparse.Namespace) -> int:
    from lib_toolkit.cli.terminal import progress_line
    from lib_toolkit.edits.recipes import Wishes, plan_convert, plan_prune
    from lib_toolkit.formats import open_model
    from lib_toolkit.identify import identify
    from lib_toolkit.writing import WriteOptions

    wishes = Wishes(options.precision, options.keep_ema, options.fix_clip, options.drop_unknown)
    target, file_format = _target(options)
    how = WriteOptions(file_format, options.force, options.strict, options.hash)
    with open_model(options.file) as model, progress_line() as progress:
        found = identify(model)
        plan = (plan_prune if options.drops else plan_convert)(model, found, wishes)
        print(_carry_out(plan, found, target, how, options, progress))
    return 0


def _carry_out(
    plan: Plan,
    found: Identification,
    target: Path,
    how: WriteOptions,
    options: argparse.Namespace,
    progress: Progress,
) -> str:
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
        return json.dumps(table, indent=2)
    return plan_text(plan, target, size, not options.dry_run, narrowing)


def _target(options: argparse.Namespace) -> tuple[Path, str]:
    """Where to write and in which format. Raises UsageError when name and format contradict each other."""
    from lib_toolkit.plan import SUFFIXES, file_format_of
    from lib_toolkit.target import free_name

    if options.output is not None:
        if options.output.endswith(("/", "\\")):
            raise UsageError(f"{options.output} is a folder; give the name of a file in it.")
        path = Path(options.output)
        return path, file_format_of(path, options.format)
    file_format = options.format or "safetensors"
    addition = (
        "pruned" if options.drops else "converted" if options.precision in {"auto", "keep"} else options.precision
    )
    source: Path = options.file
    return free_name(source.parent, f"{source.stem}-{addition}", SUFFIXES[file_format]), file_format

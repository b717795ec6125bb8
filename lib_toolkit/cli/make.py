"""Verbs that write one model: prune and convert."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from lib_toolkit.cli.output import add_output_options, add_precision, carry_out, target_of
from lib_toolkit.cli.verbs import named_path

if TYPE_CHECKING:
    from lib_toolkit.cli.verbs import Verbs


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
    parser.add_argument("file", type=named_path, metavar="IN")
    parser.add_argument("-o", "--output", metavar="OUT", help="default: a new name beside IN")
    add_precision(
        parser, "auto", "auto (default): FP32 and FP64 become FP16, 16-bit types stay; keep: no tensor is cast"
    )
    parser.add_argument("--keep-ema", action="store_true", help="keep the EMA copy of the UNet")
    parser.add_argument("--fix-clip", action="store_true", help="rewrite broken CLIP position ids to 0…76")
    parser.add_argument("--drop-unknown", action="store_true", help="leave out tensors that the architecture lacks")
    parser.add_argument("--hash", action="store_true", help="read the whole source and store its hashes in the result")
    add_output_options(parser)


def _run(options: argparse.Namespace) -> int:
    from lib_toolkit.cli.terminal import progress_line
    from lib_toolkit.edits.recipes import Wishes, plan_convert, plan_prune
    from lib_toolkit.formats import open_model
    from lib_toolkit.identify import identify
    from lib_toolkit.writing import WriteOptions

    wishes = Wishes(options.precision, options.keep_ema, options.fix_clip, options.drop_unknown)
    target, file_format = target_of(options, options.file.parent, f"{options.file.stem}-{_addition(options)}")
    how = WriteOptions(file_format, options.force, options.strict, options.hash)
    with open_model(options.file) as model, progress_line() as progress:
        found = identify(model)
        plan = (plan_prune if options.drops else plan_convert)(model, found, wishes)
        print(carry_out(plan, found, target, how, options, progress))
    return 0


def _addition(options: argparse.Namespace) -> str:
    """What a new name says of what was done."""
    if options.drops:
        return "pruned"
    return "converted" if options.precision in {"auto", "keep"} else str(options.precision)

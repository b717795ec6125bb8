"""``model-toolkit``: the verbs, their options, and how errors leave the program.

Exit status: 0 done, 1 a finding that was asked to fail, 2 wrong use or bad input, 130 cancelled.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from lib_toolkit import __version__
from lib_toolkit.cli import autoprune, compare, look, make, matrix, measure, parts, report, serve
from lib_toolkit.cli.verbs import Parser
from lib_toolkit.errors import CancelledError, TakenError, ToolkitError
from lib_toolkit.reports.plain import printable

OK, BAD, CANCELLED = 0, 2, 130


def run() -> NoReturn:
    """The command's entry point: does not return."""
    sys.exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        options = _parser().parse_args(arguments)
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except CancelledError as error:
        _say(str(error))
        return CANCELLED
    except KeyboardInterrupt:
        _say("Cancelled.")
        return CANCELLED
    except TakenError as error:
        # Only here is there an option to offer, and not every verb has it.
        _say(f"{str(error).removesuffix('.')}, or replace it with --force." if "force" in options else str(error))
        return BAD
    except ToolkitError as error:
        _say(str(error))
        return BAD
    except BrokenPipeError:
        _drop_output()  # whoever read it has gone
        return OK
    except OSError as error:
        _drop_output()
        _say(f"The system refused a step ({error.strerror or error}); make room or check the disk, then try again.")
        return BAD
    except Exception as error:
        if os.environ.get("MODEL_TOOLKIT_DEBUG"):
            traceback.print_exc()
        _say(
            f"Something unforeseen went wrong ({type(error).__name__}: {error}); please report it with the file's kind."
        )
        return BAD


def _drop_output() -> None:
    """What could not be printed must not be tried again, and complained about, when Python ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(sentence: str) -> None:
    print(printable(sentence), file=sys.stderr)


def _parser() -> Parser:
    parser = Parser(
        prog="model-toolkit",
        description="Know, compare and clean Stable Diffusion model files.",
        epilog="Every verb has its own help: model-toolkit VERB --help.",
    )
    parser.add_argument("--version", action="version", version=f"model-toolkit {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=Parser)
    look.add_verbs(verbs)
    make.add_verbs(verbs)
    measure.add_verbs(verbs)
    parts.add_verbs(verbs)
    report.add_verbs(verbs)
    autoprune.add_verbs(verbs)
    compare.add_verbs(verbs)
    matrix.add_verbs(verbs)
    serve.add_verbs(verbs)
    return parser

"""The parser that verbs are declared with, and the type of their collection, which has no public name."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn, TypeAlias

from lib_toolkit.errors import UsageError


class Parser(argparse.ArgumentParser):
    """A parser that reports wrong use as every other error is reported: in one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; see {self.prog} --help.")


def named_path(text: str) -> Path:
    """The type of arguments that are paths: an empty one, as of an unset variable, must not mean this folder."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty; give that of a file or folder")
    return Path(text)


Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"

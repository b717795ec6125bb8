"""The parser that verbs are declared with, and the type of their collection, which has no public name."""

from __future__ import annotations

import argparse
from typing import NoReturn, TypeAlias

from lib_toolkit.errors import UsageError


class Parser(argparse.ArgumentParser):
    """A parser that reports wrong use as every other error is reported: in one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; see {self.prog} --help.")


Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"

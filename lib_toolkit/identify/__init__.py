"""What a model is, with the evidence: ``identify(model)`` and the types of its answer."""

from __future__ import annotations

from lib_toolkit.identify.evidence import (
    Identification,
    Leftover,
    Leftovers,
    Match,
    Rejected,
    WrongShape,
)
from lib_toolkit.identify.identifying import identify

__all__ = ["Identification", "Leftover", "Leftovers", "Match", "Rejected", "WrongShape", "identify"]

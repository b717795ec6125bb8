"""Numbers with their nouns, as every message says them."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A number with its noun, in the plural where it is not one."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"

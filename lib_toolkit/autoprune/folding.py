"""When two names count as one: they differ in case, or in the way that Unicode composes letters, alone.

On other systems they would be the same file.
"""

from __future__ import annotations

import unicodedata


def folded(name: str) -> str:
    """Equal for names that count as one."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()

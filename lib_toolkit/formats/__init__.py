"""Model files: opening by content, whatever the name says, and the layouts for writing."""

from __future__ import annotations

from lib_toolkit.formats.opening import open_model

__all__ = ["open_model"]

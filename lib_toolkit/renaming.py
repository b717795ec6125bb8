"""The step that gives a file its name without ever replacing another one, and brings that to the disk."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


class BothNamesError(OSError):
    """The file has its new name, but neither that one nor the old one can be taken away."""


def rename_new(source: Path, final: Path) -> None:
    """Rename without ever replacing a file. Raises FileExistsError for a taken name, OSError for everything else."""
    rename(source, final, False)


def rename(temporary: Path, final: Path, force: bool) -> None:
    if force:
        temporary.replace(final)
        return
    if sys.platform == "win32":
        temporary.rename(final)  # refuses an existing name there
        return
    if hasattr(os, "link"):
        try:
            os.link(temporary, final)
        except FileExistsError:
            raise
        except OSError:
            pass  # a file system without hard links (FAT, some network shares)
        else:
            try:
                temporary.unlink()
            except FileNotFoundError:
                pass  # somebody else took the old name away: the new one may be the only one left
            except OSError as error:
                # It cannot go: then it has not moved, and is not to be there twice.
                try:
                    final.unlink(missing_ok=True)
                except OSError:
                    raise BothNamesError(error.errno, error.strerror) from error
                raise
            return
    if os.path.lexists(final):
        raise FileExistsError(final)
    temporary.rename(final)


def sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

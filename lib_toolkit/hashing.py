"""File hashes as the WebUI and model sites show them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from lib_toolkit.casting import scratch
from lib_toolkit.errors import CancelledError
from lib_toolkit.files import SourceFile
from lib_toolkit.progress import Progress

_CHUNK = 4 << 20
_LEGACY_OFFSET, _LEGACY_LENGTH = 0x100000, 0x10000


@dataclass(frozen=True)
class FileHashes:
    """``sha256`` of the whole file; ``autov2``: its first 10 digits; ``autov3``: the first 12 digits of the sha256 of
    what follows the safetensors header (None for other formats); ``legacy``: the first 8 digits of the sha256 of
    64 KiB at 1 MiB."""

    sha256: str
    autov2: str
    autov3: str | None
    legacy: str

    def as_dict(self) -> Mapping[str, str | None]:
        """By name, as stored in the provenance entry."""
        return {"sha256": self.sha256, "autov2": self.autov2, "autov3": self.autov3, "legacy": self.legacy}


class RunningHashes:
    """The hashes of a file whose bytes come in order; ``add_whole`` and ``add_data`` may run in different threads.

    Give every byte to both, and the first eight, which hold the length of a safetensors header, in one piece.
    """

    def __init__(self, is_safetensors: bool) -> None:
        self._safetensors = is_safetensors
        self._header = 0
        self._whole, self._data, self._legacy = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()

    def add_whole(self, offset: int, view: memoryview) -> None:
        """Bytes of the file from ``offset`` on, for the hashes of the file itself."""
        self._whole.update(view)
        self._legacy.update(view[max(0, _LEGACY_OFFSET - offset) : max(0, _LEGACY_OFFSET + _LEGACY_LENGTH - offset)])

    def add_data(self, offset: int, view: memoryview) -> None:
        """The same bytes, for the hash of what follows the header."""
        if not self._safetensors:
            return
        if offset == 0:
            self._header = 8 + int.from_bytes(view[:8], "little")
        self._data.update(view[max(0, self._header - offset) :])

    @property
    def data_sha256(self) -> str | None:
        """All 64 digits of the sha256 of what follows the header; None for other formats."""
        return self._data.hexdigest() if self._safetensors else None

    def result(self) -> FileHashes:
        """The hashes of what was given so far."""
        sha256, data = self._whole.hexdigest(), self.data_sha256
        return FileHashes(sha256, sha256[:10], data[:12] if data else None, self._legacy.hexdigest()[:8])


class SourceHasher:
    """Hashes a file in a thread of its own while other work goes on; a small file only when the hashes are wanted."""

    def __init__(self, file: SourceFile, is_safetensors: bool) -> None:
        self._file = file.reopen()
        self._hashes = RunningHashes(is_safetensors)
        self._done = 0
        self._stop = False
        self._error: BaseException | None = None
        self._result: FileHashes | None = None
        self._thread: threading.Thread | None = None
        if file.size > _CHUNK:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._hash()
        except BaseException as error:
            self._error = error
        finally:
            self._file.close()

    def _hash(self) -> FileHashes:
        with scratch(min(_CHUNK, self._file.size)) as buffer:
            for begin in range(0, self._file.size, _CHUNK):
                if self._stop:
                    raise CancelledError("Cancelled; nothing was left behind.")
                view = buffer.data[: min(_CHUNK, self._file.size - begin)]
                self._file.read_at(begin, view)
                self._hashes.add_whole(begin, view)
                self._hashes.add_data(begin, view)
                self._done = begin + len(view)
        return self._hashes.result()

    def result(self, progress: Progress) -> FileHashes:
        """Wait for the hashes. Raises what reading raised, or CancelledError."""
        progress.start("hashing the source", self._file.size)
        if self._thread is None:
            self._run()
            progress.advance(self._done)
        counted = 0
        while self._thread is not None and self._thread.is_alive():
            done = self._done
            progress.advance(done - counted)
            counted = done
            self._thread.join(0.1)
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def stop(self) -> None:
        """End early; does nothing when the work is done."""
        self._stop = True
        if self._thread is not None:
            self._thread.join()
        self._file.close()

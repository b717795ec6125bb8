"""The files of a set: which ones are meant, what they are called, and which of them can be opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lib_toolkit.errors import CancelledError, FormatError, ToolkitError, UsageError
from lib_toolkit.formats import open_model
from lib_toolkit.identify import Identification, identify
from lib_toolkit.model import Model
from lib_toolkit.progress import Progress

ENDINGS = frozenset({".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin"})
"""What a file of a folder must end in to be taken for a model."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be used, and the sentence why."""

    name: str
    path: Path
    reason: str


@dataclass(frozen=True)
class Opened:
    """The files that could be opened, in the order in which they were named, and the others."""

    models: tuple[Model, ...]
    found: tuple[Identification, ...]
    names: tuple[str, ...]
    failures: tuple[Failure, ...]


def model_files(named: Iterable[Path]) -> list[Path]:
    """Files as they are named, and of each folder its model files by name, each file once.

    Raises UsageError for a folder without models.
    """
    found: dict[Path, Path] = {}
    for path in named:
        for file in _inside(path) if path.is_dir() else (path,):
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _inside(folder: Path) -> Iterator[Path]:
    try:
        files = [path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file()]
    except OSError as error:
        raise UsageError(f"The folder {folder} cannot be read: {error.strerror}; check its permissions.") from None
    if not files:
        endings = ", ".join(sorted(ENDINGS))
        raise UsageError(f"There is no model in the folder {folder}; name one with files that end in {endings}.")
    yield from sorted(files, key=lambda path: (path.name.casefold(), path.name))


def names_of(paths: Sequence[Path]) -> tuple[str, ...]:
    """The files' names, with as many of their folders as it takes to tell them apart."""
    depth = dict.fromkeys(range(len(paths)), 1)
    whole = [path.resolve().parts for path in paths]
    while True:
        names = ["/".join(parts[-depth[place] :]) for place, parts in enumerate(whole)]
        doubled = {name for name, count in Counter(names).items() if count > 1}
        more = [place for place, name in enumerate(names) if name in doubled and depth[place] < len(whole[place])]
        if not more:
            return tuple(names)
        for place in more:
            depth[place] += 1


def open_set(paths: Sequence[Path], stack: ExitStack, progress: Progress) -> Opened:
    """Open what can be opened; ``stack`` closes it. Raises UsageError for fewer than two usable models."""
    models, found, names, failures = [], [], [], []
    for name, path in zip(names_of(paths), paths, strict=True):
        progress.check()
        try:
            model = open_model(path)
            stack.enter_context(model)
            if not model.tensors:
                raise FormatError(f"{path} holds no tensors; leave it out.")
            what = identify(model)
        except CancelledError:
            raise
        except ToolkitError as error:
            failures.append(Failure(name, path, str(error)))
            continue
        models.append(model)
        found.append(what)
        names.append(name)
    if len(models) < 2:
        raise UsageError(_too_few(len(models), failures))
    return Opened(tuple(models), tuple(found), tuple(names), tuple(failures))


def _too_few(usable: int, failures: Sequence[Failure]) -> str:
    have = "only one usable model was named" if usable else "no usable model was named"
    why = f" ({failures[0].reason})" if failures else ""
    return f"A matrix needs two models or more, {have}{why}; name more files, or a folder of them."

"""Carry out a model map: every pair's JSON and page in a folder, with an index that lets a run be taken up again.

The folder holds ``index.json`` (schema 1) and ``index.html``, for each pair ``GROUP_A_B.json`` and ``.html``, and on
request ``published/GROUP_A_B.json``. A pair is done when the index has it with the same files (path, size and time)
and the same wishes, and its results are there. While a run goes on, or after it was interrupted, what was measured of
pairs that are not done lies there too (``lib_toolkit.analysis.compare.kept``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

from lib_toolkit import __version__
from lib_toolkit.analysis.compare.kept import NAME, Kept
from lib_toolkit.analysis.compare.model_map import MapPair, batches, read_map
from lib_toolkit.analysis.compare.pairs import compare_pairs
from lib_toolkit.analysis.compare.results import Comparison
from lib_toolkit.errors import CancelledError, TargetError, ToolkitError
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from lib_toolkit.model import Model
from lib_toolkit.progress import Portion, Progress
from lib_toolkit.reports.compare_html import compare_html, page, short
from lib_toolkit.reports.compare_json import compare_json
from lib_toolkit.reports.compare_published import published, published_text
from lib_toolkit.reports.html import Html, join, table, tag
from lib_toolkit.reports.numbers import counted
from lib_toolkit.reports.plain import printable
from lib_toolkit.target import check_target
from lib_toolkit.temporary import TemporaryFile

SCHEMA = 1
INDEX = "index.json"
PUBLISHED = "published"


@dataclass(frozen=True)
class Entry:
    """A pair of the index. ``files``: the resolved paths; ``stamps``: size and time of both; ``figures`` of all weights
    by metric; ``tensors``: how many were compared; ``error``: the sentence why it could not be compared, empty where it
    was."""

    group: str
    a: str
    b: str
    files: tuple[str, str]
    stamps: tuple[tuple[int, int], ...]
    name: str
    verdicts: tuple[str, ...] = ()
    figures: Mapping[str, float | None] = field(default_factory=dict)
    error: str = ""
    tensors: int = 0

    @property
    def headline(self) -> str:
        """The most telling sentence; where nothing is in both, also that it is so."""
        return self.error or " ".join(self.verdicts[: 1 if self.tensors else 2])


@dataclass(frozen=True)
class Index:
    """The results of a map, in its order. ``known``: how many pairs were done before this run."""

    folder: Path
    metrics: tuple[str, ...]
    published: str | None
    entries: tuple[Entry, ...]
    known: int = 0

    def as_json(self) -> dict[str, object]:
        """What ``index.json`` holds."""
        return {
            "schema": SCHEMA,
            "tool": {"name": "model-toolkit", "version": __version__},
            "metrics": list(self.metrics),
            "published": self.published,
            "pairs": [asdict(entry) for entry in self.entries],
        }

    def lines(self) -> list[str]:
        """For a terminal: one line for each pair, and where the page is."""
        told = [printable(f"{entry.group}: {entry.a} and {entry.b}: {entry.headline}") for entry in self.entries]
        failed = sum(bool(entry.error) for entry in self.entries)
        counts = [f"{len(self.entries) - failed - self.known:,} compared"]
        counts += [f"{failed:,} not compared"] if failed else []
        counts += [f"{self.known:,} known from before"] if self.known else []
        return [*told, f"{', '.join(counts)}; the index is {printable(str(self.folder / 'index.html'))}."]


def run_map(
    path: Path,
    folder: Path,
    metrics: Sequence[str],
    published_metric: str | None,
    progress: Progress,
    workers: int | None = None,
) -> Index:
    """Compare every pair of the map ``path``; results go to ``folder``, which is made if need be.

    Files that cannot be opened are told with the pair, and the rest continues. Raises UsageError for a map that is
    wrong, TargetError for a folder that cannot be used, and CancelledError: what was done by then stays done.
    """
    pairs = read_map(path)
    known = _prepare(folder, tuple(metrics), published_metric)
    done = {pair: known[pair.stem] for pair in pairs if _is_done(folder, pair, known.get(pair.stem), published_metric)}
    with Kept(folder) as kept:
        run = _Run(folder, tuple(metrics), published_metric, pairs, done, kept)
        run.save()  # the folder is ours from now on, however the run ends
        try:
            run.all([pair for pair in pairs if pair not in done], progress, workers)
        except CancelledError:
            raise CancelledError(
                f"Cancelled; what was measured so far is kept in {folder}: the same command goes on from there."
            ) from None
        kept.forget()
    return run.index()


def _prepare(folder: Path, metrics: tuple[str, ...], published_metric: str | None) -> dict[str, Entry]:
    """Make the folder; the entries of an earlier run with the same wishes. Raises TargetError for folders that hold
    something else or cannot be written to, before anything is read."""
    try:
        folder.mkdir(exist_ok=True)
        strangers = any(file.name != NAME for file in folder.iterdir()) and not (folder / INDEX).is_file()
        if not strangers and published_metric is not None:
            (folder / PUBLISHED).mkdir(exist_ok=True)
    except OSError as error:
        raise TargetError(
            f"The folder {folder} cannot be used: {error.strerror or error}; choose another one."
        ) from None
    if strangers:
        raise TargetError(f"{folder} holds other files, but no {INDEX} of such a list; choose an empty folder.")
    for place in (folder, folder / PUBLISHED) if published_metric is not None else (folder,):
        check_target(place / INDEX, 0, force=True)
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        table = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if (table["schema"], tuple(table["metrics"]), table["published"]) == (SCHEMA, metrics, published_metric):
            return {str(entry["name"]): _entry(entry) for entry in table["pairs"]}
    return {}


def _entry(table: Mapping[str, object]) -> Entry:
    stamps, files, verdicts, figures = (table[name] for name in ("stamps", "files", "verdicts", "figures"))
    if not all(isinstance(one, list) for one in (stamps, files, verdicts)) or not isinstance(figures, dict):
        raise TypeError("not an entry")
    assert isinstance(stamps, list) and isinstance(files, list) and isinstance(verdicts, list)
    return Entry(
        group=str(table["group"]),
        a=str(table["a"]),
        b=str(table["b"]),
        files=(str(files[0]), str(files[1])),
        stamps=tuple((int(size), int(time)) for size, time in stamps),
        name=str(table["name"]),
        verdicts=tuple(map(str, verdicts)),
        figures=figures,
        error=str(table["error"]),
        tensors=int(str(table.get("tensors", 1))),
    )


def _is_done(folder: Path, pair: MapPair, entry: Entry | None, published_metric: str | None) -> bool:
    if entry is None:
        return False
    wanted = [folder / f"{pair.stem}.json", folder / f"{pair.stem}.html"]
    wanted += [folder / PUBLISHED / f"{pair.stem}.json"] if published_metric is not None else []
    same = entry.files == _files(pair) and entry.stamps == _stamps(pair)
    return not entry.error and same and all(file.is_file() for file in wanted)


def _files(pair: MapPair) -> tuple[str, str]:
    a, b = pair.paths
    return str(a.resolve()), str(b.resolve())


def _stamps(pair: MapPair) -> tuple[tuple[int, int], ...]:
    return tuple(_stamp(file) for file in pair.paths)


def _stamp(file: Path) -> tuple[int, int]:
    """Size and time of change; of a file that is gone, those of none."""
    try:
        status = file.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _size(pairs: Sequence[MapPair]) -> int:
    """Bytes of the pairs' files, each counted once."""
    return sum(_stamp(file)[0] for file in {file.resolve() for pair in pairs for file in pair.paths})


class _Run:
    """What is known so far of the map's pairs."""

    def __init__(
        self,
        folder: Path,
        metrics: tuple[str, ...],
        published_metric: str | None,
        pairs: Sequence[MapPair],
        done: Mapping[MapPair, Entry],
        kept: Kept,
    ) -> None:
        self._folder = folder
        self._metrics = metrics
        self._published = published_metric
        self._pairs = pairs
        self._entries = dict(done)
        self._before = len(done)
        self._kept = kept

    def all(self, pairs: Sequence[MapPair], progress: Progress, workers: int | None) -> None:
        """Compare pairs, those that share files in one pass; progress runs once over the bytes of all their files."""
        portions = batches(pairs)
        progress.start("comparing", sum(map(_size, portions)))
        for portion in portions:
            part = Portion(progress, _size(portion))
            self.batch(portion, part, workers)
            part.finish()
            self.save()

    def batch(self, pairs: Sequence[MapPair], progress: Progress, workers: int | None) -> None:
        """Compare pairs in one pass over their files, each opened once."""
        with ExitStack() as stack:
            models, errors = _open_all(pairs, stack)
            places = {file: place for place, file in enumerate(models)}
            good = [pair for pair in pairs if all(file.resolve() in places for file in pair.paths)]
            for pair in pairs:
                if pair not in good:
                    sentences = [errors[file.resolve()] for file in pair.paths if file.resolve() in errors]
                    self._add(pair, None, sentences[0])
            if not good:
                return
            opened = list(models.values())
            wanted = [(places[pair.paths[0].resolve()], places[pair.paths[1].resolve()]) for pair in good]
            try:
                identified = [identify(model) for model in opened]
                found = compare_pairs(opened, identified, wanted, progress, workers, self._kept)
            except (CancelledError, TargetError):
                raise
            except ToolkitError as error:
                self._kept.clear()
                # One file that cannot be read to its end must not take the others along.
                self._one_by_one(good, str(error), progress, workers)
                return
            for pair, comparison in zip(good, found, strict=True):
                self._add(pair, comparison)

    def _one_by_one(self, pairs: Sequence[MapPair], sentence: str, progress: Progress, workers: int | None) -> None:
        if len(pairs) == 1:
            self._add(pairs[0], None, sentence)
            return
        for pair in pairs:
            self.batch([pair], progress, workers)

    def _add(self, pair: MapPair, comparison: Comparison | None, error: str = "") -> None:
        figures: dict[str, float | None] = {}
        verdicts: tuple[str, ...] = ()
        tensors = 0
        if comparison is not None:
            total = comparison.total()
            tensors = len(comparison.compared)
            figures = {metric: total.figure(metric) if tensors else None for metric in self._metrics}
            verdicts = comparison.verdicts
            text = json.dumps(compare_json(comparison, self._metrics), indent=1) + "\n"
            _put(self._folder / f"{pair.stem}.json", text)
            _put(self._folder / f"{pair.stem}.html", compare_html(comparison, self._metrics))
            if self._published is not None:
                _put(
                    self._folder / PUBLISHED / f"{pair.stem}.json",
                    published_text(published(comparison, self._published)),
                )
        self._entries[pair] = Entry(
            group=pair.group,
            a=pair.names[0],
            b=pair.names[1],
            files=_files(pair),
            stamps=_stamps(pair),
            name=pair.stem,
            verdicts=verdicts,
            figures=figures,
            error=error,
            tensors=tensors,
        )

    def index(self) -> Index:
        """All results, in the order of the map."""
        entries = tuple(self._entries[pair] for pair in self._pairs if pair in self._entries)
        return Index(self._folder, self._metrics, self._published, entries, self._before)

    def save(self) -> None:
        """Write the index as data and as a page."""
        index = self.index()
        _put(self._folder / INDEX, json.dumps(index.as_json(), indent=1) + "\n")
        _put(self._folder / "index.html", index_html(index))


def _open_all(pairs: Sequence[MapPair], stack: ExitStack) -> tuple[dict[Path, Model], dict[Path, str]]:
    """The models by resolved path, and why others could not be opened."""
    models: dict[Path, Model] = {}
    errors: dict[Path, str] = {}
    for file in dict.fromkeys(file.resolve() for pair in pairs for file in pair.paths):
        try:
            models[file] = stack.enter_context(open_model(file))
        except ToolkitError as error:
            errors[file] = str(error)
    return models, errors


def _put(path: Path, text: str) -> None:
    with TemporaryFile(path) as file:
        file.write_at(0, memoryview(text.encode("utf-8")))
        file.sync()
        file.commit(force=True)


def index_html(index: Index) -> str:
    """The page that leads to the pages of all pairs, group by group."""
    parts: list[Html] = []
    for group in dict.fromkeys(entry.group for entry in index.entries):
        rows = [_row(entry, index.metrics) for entry in index.entries if entry.group == group]
        head = ("Pair", "What it means", *(metric.upper() for metric in index.metrics))
        numbers = frozenset(range(2, 2 + len(index.metrics)))
        parts.append(tag("section", tag("h2", group), table(head, rows, numbers)))
    body = join(
        [
            tag("p", "Comparisons", class_="eyebrow"),
            tag("h1", counted(len(index.entries), "pair")),
            tag("main", *parts),
            tag(
                "footer", f"Made by Model Toolkit {__version__}. This page asks nobody for anything: it works offline."
            ),
        ]
    )
    return page(f"Comparisons in {index.folder.name}", body)


def _row(entry: Entry, metrics: Sequence[str]) -> tuple[str, ...]:
    words = f"{entry.a} and {entry.b}"
    if entry.error:
        return words, f"Not compared: {entry.error}", *("–" for _ in metrics)
    link = tag("a", words, href=f"./{quote(entry.name)}.html")
    said = tag("span", entry.headline, title="\n".join(entry.verdicts))
    return link, said, *(short(entry.figures.get(metric)) for metric in metrics)

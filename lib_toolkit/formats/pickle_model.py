"""Which of a pickle's dicts is the model, and where everything else goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from lib_toolkit.errors import FormatError
from lib_toolkit.formats.pickle_contents import Container, Contents, Leaf, Ref, walk
from lib_toolkit.formats.pickle_nodes import Name
from lib_toolkit.formats.pickle_values import ArrayRef, MalformedError, Placeholder, RefusedTensor, TensorRef
from lib_toolkit.formats.pickles import Pickle, shown
from lib_toolkit.formats.torch_objects import is_familiar, is_plain
from lib_toolkit.tensors import WHOLE_TENSOR_CAP, Filled, Strided, Tensor, nbytes, stored_view

STATE_DICTS = (
    "state_dict",
    "model",
    "module",
    "params_ema",
    "params",
    "net",
    "model_state_dict",
    "generator",
    "g_ema",
    "ema",
    "weights",
)
"""What trainers call the dict that holds the model, most usual first."""

METADATA_KEY = "__metadata__"
"""Where this package's own checkpoints keep what safetensors files keep under the same name."""

SINGLE = "tensor"
"""The key given to the tensor of a file that holds one tensor and no dict."""


@dataclass
class Sorted:
    """The contents of a pickle by their use; the fields are those of Model, with references instead of tensors."""

    tensors: dict[str, Ref] = field(default_factory=dict)
    outside: dict[str, Ref] = field(default_factory=dict)
    values: dict[str, object] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    container: str = ""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


def sort_contents(pickle: Pickle, label: str) -> Sorted:
    """Choose the state dict and sort the rest. ``label`` names the file in messages.

    A dict is the state dict when its name is a usual one, or when it is the top level; otherwise all tensors
    are taken with their whole paths, as in hypernetworks and embeddings. The version numbers that PyTorch
    attaches to a state dict (``_metadata``) are left out. Raises FormatError when there are no tensors, when two
    things would have one name, or when the pickle is malformed.
    """
    try:
        contents = walk(pickle.value)
    except MalformedError as error:
        raise FormatError(f"{label} is damaged or forged: {error}; get it again.") from None
    found = Sorted(foreign=[name.text for name in pickle.names if not is_plain(name)])
    ranked = _candidates(contents)
    if ranked:
        found.container = contents.containers[ranked[0]].path
        _note_choice(found, contents, ranked)
    hidden_too = not ranked and not any(_visible(contents, leaf) for leaf in contents.leaves)
    for leaf in contents.leaves:
        if not isinstance(leaf.value, (TensorRef, ArrayRef)):
            _put_value(found, leaf)
        elif ranked:
            inside = leaf.owner == ranked[0]
            _put_tensor(found.tensors if inside else found.outside, leaf.key if inside else leaf.path, leaf, label)
        else:
            inside = hidden_too or _visible(contents, leaf)
            _put_tensor(found.tensors if inside else found.outside, leaf.path or SINGLE, leaf, label)
    _check_names(found, label)
    if not ranked:
        _note_flat(found, contents, hidden_too)
    _take_metadata(found, contents)
    _note_placeholders(found, pickle.names)
    return found


def _visible(contents: Contents, leaf: Leaf) -> bool:
    is_tensor = isinstance(leaf.value, (TensorRef, ArrayRef))
    return is_tensor and (leaf.owner < 0 or not contents.containers[leaf.owner].hidden)


def _candidates(contents: Contents) -> list[int]:
    """Containers that could be the state dict, the best first. Arrays count only where there are no tensors."""
    use_arrays = not any(container.tensors for container in contents.containers)
    ranks: list[tuple[tuple[int, int, int], int]] = []
    for index, container in enumerate(contents.containers):
        count = container.arrays if use_arrays else container.tensors
        if container.dicts_only and count and (rank := _rank(container)):
            ranks.append((rank, index))
    return [index for _, index in sorted(ranks)]


def _rank(container: Container) -> tuple[int, int, int] | None:
    """Smaller is better: usual names all the way, then the top level, then a usual name below other ones."""
    names = container.names
    if not names:
        return 1, 0, 0
    if names[-1] not in STATE_DICTS:
        return None
    tier = 0 if all(name in STATE_DICTS for name in names) else 2
    return tier, STATE_DICTS.index(names[-1]), len(names)


def _note_choice(found: Sorted, contents: Contents, ranked: list[int]) -> None:
    if len(ranked) < 2:
        return
    others = [contents.containers[index] for index in ranked[1:6]]
    listed = ", ".join(
        f"{shown(other.path) or 'the top level'} also holds {_count(other.tensors or other.arrays, 'tensor')}"
        for other in others
    )
    found.notes.append(f"uses {shown(found.container) or 'the top level'}; {listed}")


def _note_flat(found: Sorted, contents: Contents, hidden_too: bool) -> None:
    if not found.tensors:
        return
    if hidden_too:
        found.notes.append("no state dict: the tensors were found inside of stored program objects")
    elif contents.containers:
        example = shown(next(iter(found.tensors)))
        found.notes.append(f"holds its tensors in groups; each is called by its group and its name, such as {example}")
    else:
        found.notes.append(f"a single tensor without a name, called {SINGLE!r} here")


def _put_tensor(target: dict[str, Ref], name: str, leaf: Leaf, label: str) -> None:
    assert isinstance(leaf.value, (TensorRef, ArrayRef))
    if name in target:
        raise FormatError(
            f"{label} is ambiguous: two tensors are called {shown(name)!r}; save it again with distinct names."
        )
    target[name] = leaf.value


def _put_value(found: Sorted, leaf: Leaf) -> None:
    value = leaf.value
    name = leaf.path or "value"
    if isinstance(value, RefusedTensor):
        found.warnings.append(f"{shown(name)} is left out: it is {value.reason} ({shown(value.name)})")
        value = Placeholder(value.name, "refused")
    if name in found.values and not isinstance(value, Placeholder):
        found.warnings.append(f"two values are called {shown(name)}; the later one is kept")
    if name not in found.values or not isinstance(value, Placeholder):
        found.values[name] = value


def _check_names(found: Sorted, label: str) -> None:
    """A tensor and a value of one path: keys of different types that look alike."""
    prefix = f"{found.container}." if found.container else ""
    for name in found.tensors:
        if prefix + name in found.values or prefix + name in found.outside:
            raise FormatError(
                f"{label} is ambiguous: two things in it are called {shown(prefix + name)!r}; "
                "save it again with distinct names."
            )
    for name in found.outside:
        if name in found.values:
            raise FormatError(
                f"{label} is ambiguous: two things in it are called {shown(name)!r}; save it again with distinct names."
            )


def _take_metadata(found: Sorted, contents: Contents) -> None:
    """Move a top-level ``__metadata__`` of nothing but texts to where the metadata of a model belong."""
    inside = [index for index, container in enumerate(contents.containers) if container.names[:1] == (METADATA_KEY,)]
    if len(inside) != 1 or not contents.containers[inside[0]].dicts_only:
        return
    leaves = [leaf for leaf in contents.leaves if leaf.owner == inside[0]]
    texts = {leaf.key: leaf.value for leaf in leaves if type(leaf.value) is str}
    if len(texts) == len(leaves):
        found.metadata = texts
        for leaf in leaves:
            del found.values[leaf.path]


def _note_placeholders(found: Sorted, names: Iterable[Name]) -> None:
    by_level: dict[str, dict[str, None]] = {"info": {}, "warning": {}}
    for value in found.values.values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Placeholder) and item.level in by_level:
                by_level[item.level][item.name] = None
    told = by_level["info"] | by_level["warning"]
    lost = {name.text: None for name in names if name.text not in told and not is_plain(name) and not is_familiar(name)}
    if by_level["info"]:
        found.notes.append(f"kept as names only, nothing of them was loaded: {_listed(by_level['info'])}")
    if by_level["warning"]:
        found.warnings.append(f"names things that models do not need; none was loaded: {_listed(by_level['warning'])}")
    if lost:
        found.warnings.append(
            f"names things that no part of it uses, as no model does; none was loaded: {_listed(lost)}"
        )


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - 5} more" if len(every) > 5 else ""
    return ", ".join(shown(name) for name in every[:5]) + more


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def bind(refs: Mapping[str, Ref], open_view: Callable[[TensorRef], Tensor], label: str) -> dict[str, Tensor]:
    """Tensors for references; ``open_view`` makes those of storages. Raises FormatError for absurd views."""
    return {name: _bind(name, ref, open_view, label) for name, ref in refs.items()}


def _bind(name: str, ref: Ref, open_view: Callable[[TensorRef], Tensor], label: str) -> Tensor:
    tensor = _array_tensor(ref) if isinstance(ref, ArrayRef) else open_view(ref)
    if isinstance(tensor, Strided) and nbytes(tensor) > WHOLE_TENSOR_CAP:
        raise FormatError(
            f"{label} is forged or very unusual: {shown(name)!r} would expand to {nbytes(tensor):,} bytes; "
            "save it with contiguous tensors."
        )
    return tensor


@dataclass(frozen=True, slots=True)
class _Memory:
    """Bytes that stood in the pickle itself, as a ByteSource."""

    data: bytes

    def read_at(self, offset: int, out: memoryview) -> None:
        out.cast("B")[:] = self.data[offset : offset + out.nbytes]


def _array_tensor(ref: ArrayRef) -> Tensor:
    if not ref.fortran and not ref.big_endian:
        return Filled(ref.data, ref.dtype, ref.shape)
    steps = ref.shape if ref.fortran else ref.shape[::-1]
    stride, step = [], 1
    for size in steps:
        stride.append(step)
        step *= size
    order = stride if ref.fortran else stride[::-1]
    return stored_view(_Memory(ref.data), 0, ref.dtype, ref.shape, tuple(order), big_endian=ref.big_endian)

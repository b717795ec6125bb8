"""What PyTorch means by the calls in a pickle, recognised by text: tensors, parameters, dicts, plain values.

Source of the forms: ``torch/_utils.py``, ``torch/_tensor.py`` and ``torch/serialization.py`` of PyTorch 0.4 to
2.13. What is not recognised stays an Opaque node; nothing depends on a list being complete.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from lib_toolkit.dtypes import DType
from lib_toolkit.formats.numpy_objects import array, array_from_buffer, as_bytes, converted, number
from lib_toolkit.formats.pickle_names import PLAIN_NAMES, REFUSED_TENSORS, STORAGES, TORCH_DTYPES, is_known
from lib_toolkit.formats.pickle_nodes import Bag, Call, Mapping, Name, Pairs, Persistent
from lib_toolkit.formats.pickle_values import (
    ArrayRef,
    MalformedError,
    Opaque,
    Placeholder,
    RefusedTensor,
    StorageRef,
    TensorRef,
    UnfitError,
    check_view,
    whole_number,
    whole_numbers,
)

_Args: TypeAlias = "tuple[object, ...]"
_Rule: TypeAlias = "Callable[[Call, tuple[object, ...]], object]"
_MAX_WRAPPERS = 16
_MAX_ATTRIBUTES = 100
"""Of one object; many objects may share one list of them, so looking through it must be short."""
_TENSOR_CLASSES = frozenset({"torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter"})


@dataclass(frozen=True, slots=True)
class _Form:
    """How many arguments a rebuild function takes, and where its dtype and its bits of metadata stand."""

    least: int
    most: int
    dtype_at: int | None = None
    metadata_at: int | None = None


_FORMS = {
    "torch._utils._rebuild_tensor": _Form(4, 4),
    "torch._utils._rebuild_tensor_v2": _Form(6, 7, metadata_at=6),
    "torch._utils._rebuild_tensor_v3": _Form(7, 8, dtype_at=6, metadata_at=7),
}


def recognise(node: object) -> object:
    """What a node stands for: a TensorRef, ArrayRef, RefusedTensor, Mapping, Bag, list, Opaque or plain value.

    Looks at this node only, not at what is inside of containers. Raises MalformedError for a tensor that
    contradicts itself.
    """
    for _ in range(_MAX_WRAPPERS):
        if isinstance(node, Name):
            return node.text if node.text in TORCH_DTYPES else _placeholder(node)
        if isinstance(node, Persistent):
            return RefusedTensor("a storage", "a storage that is not a tensor")
        if not isinstance(node, Call):
            return node
        # A call in answer is what the first one wraps.
        node = _recognise_call(node)
    raise MalformedError("a tensor is wrapped too often")


def storage_of(identity: object) -> StorageRef | RefusedTensor:
    """The storage that a persistent id refers to. Raises MalformedError when it is not of PyTorch's form."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise MalformedError("it refers to something outside of it that is no storage")
    kind, key, numel = identity[1], identity[2], whole_number(identity[4], "storage size")
    if not isinstance(kind, Name):
        raise MalformedError("a storage has no type")
    if type(key) is not str and type(key) is not int:
        raise MalformedError("a storage has no key")
    dtype = STORAGES.get(kind.text)
    if dtype is None:
        return RefusedTensor(kind.text, "a tensor of a number format that is not supported")
    view = (0, numel)
    if len(identity) == 6 and identity[5] is not None:
        part = identity[5]
        if not isinstance(part, tuple) or len(part) != 3:
            raise MalformedError("a part of a storage is described wrongly")
        view = (whole_number(part[1], "storage part"), whole_number(part[2], "storage part"))
    return StorageRef(str(key), dtype, numel, view)


def is_plain(name: Name) -> bool:
    """Whether tensors and plain values need it, so that whoever calls it gets nothing else."""
    return name.text in _PLAIN


def is_familiar(name: Name) -> bool:
    """Whether it belongs to what trainers usually leave behind, such as callbacks and configurations."""
    return is_known(name.module, name.name)


def _placeholder(name: Name) -> Placeholder:
    return Placeholder(name.text, "info" if is_plain(name) or is_familiar(name) else "warning")


def _recognise_call(call: Call) -> object:
    if not isinstance(call.callee, Name):
        return Opaque(Placeholder("an object of an unknown kind", "warning"), call)
    name = call.callee.text
    args = call.args if isinstance(call.args, tuple) else ()
    if name in _FORMS:
        return _tensor(_FORMS[name], args)
    if name in REFUSED_TENSORS:
        return RefusedTensor(name, REFUSED_TENSORS[name])
    rule = _RULES.get(name)
    if rule is not None:
        try:
            return rule(call, args)
        except UnfitError:
            pass
    return Opaque(_placeholder(call.callee), call)


def _tensor(form: _Form, args: _Args) -> TensorRef | RefusedTensor:
    if not form.least <= len(args) <= form.most or not isinstance(args[0], Persistent):
        raise MalformedError("a tensor is described in an unknown way")
    storage = storage_of(args[0].identity)
    if isinstance(storage, RefusedTensor):
        return storage
    dtype: DType = storage.dtype
    if form.dtype_at is not None:
        named = args[form.dtype_at]
        text = named.text if isinstance(named, Name) else "an unnamed dtype"
        if text not in TORCH_DTYPES:
            return RefusedTensor(text, "a tensor of a number format that is not supported")
        dtype = TORCH_DTYPES[text]
    if form.metadata_at is not None and form.metadata_at < len(args) and _has_lazy_bits(args[form.metadata_at]):
        return RefusedTensor("a lazy view", "a tensor whose values are to be negated or conjugated after reading")
    ref = TensorRef(
        storage, dtype, whole_number(args[1], "offset"), _sizes(args[2], "shape"), _sizes(args[3], "strides")
    )
    check_view(ref)
    return ref


def _sizes(node: object, what: str) -> tuple[int, ...]:
    if isinstance(node, Call) and isinstance(node.callee, Name) and node.callee.text == "torch.Size":
        node = node.args[0] if isinstance(node.args, tuple) and node.args else ()
    return whole_numbers(node, what)


def _has_lazy_bits(metadata: object) -> bool:
    if not isinstance(metadata, Mapping):
        return False
    if len(metadata.pairs) > _MAX_ATTRIBUTES:
        raise MalformedError("a tensor is described in an unknown way")
    return any(isinstance(key, str) and key in ("neg", "conj") and value is not False for key, value in metadata.pairs)


def _first(_call: Call, args: _Args) -> object:
    if not args or not isinstance(args[0], Call):
        raise UnfitError
    return args[0]


def _from_type(_call: Call, args: _Args) -> object:
    if len(args) < 3 or not isinstance(args[1], Name):
        raise UnfitError
    if args[1].text not in _TENSOR_CLASSES:
        return RefusedTensor(args[1].text, "a tensor of a special class")
    return Call(args[0], args[2])


def _parameters(call: Call, _args: _Args) -> object:
    """The ``_parameters`` of a module that is nothing but a dict of them."""
    attributes = _attributes(call)
    if any(isinstance(held, (Call, Mapping)) and held.pairs for held in map(attributes.get, ("_buffers", "_modules"))):
        raise UnfitError
    found = attributes.get("_parameters")
    if not isinstance(found, (Call, Mapping)):
        raise UnfitError
    return found


def _attributes(call: Call) -> dict[str, object]:
    """The state of an object whose attributes are few. Raises UnfitError for other states."""
    if call.state is None:
        return {}
    if not isinstance(call.state, Mapping) or len(call.state.pairs) > _MAX_ATTRIBUTES:
        raise UnfitError
    if not all(isinstance(key, str) for key, _ in call.state.pairs):
        raise UnfitError
    return {str(key): value for key, value in call.state.pairs}


def _mapping(call: Call, args: _Args) -> Mapping:
    # PyTorch attaches versions of modules to a state dict; anything else could be of weight.
    if _attributes(call).keys() - {"_metadata"}:
        raise UnfitError
    pairs: Pairs = []
    for arg in args:
        if isinstance(arg, Mapping):
            pairs.extend(arg.pairs)
        elif isinstance(arg, list):
            pairs.extend(_pair(item) for item in arg)
        elif not isinstance(arg, Name):  # a name is the factory of a defaultdict
            raise UnfitError
    return Mapping(pairs + call.pairs)


def _pair(item: object) -> tuple[object, object]:
    if not isinstance(item, (list, tuple)) or len(item) != 2:
        raise UnfitError
    return item[0], item[1]


def _sequence(kind: Callable[[list[object]], object]) -> _Rule:
    def rule(call: Call, args: _Args) -> object:
        if len(args) > 1 or (args and not isinstance(args[0], (list, tuple, Bag))):
            raise UnfitError
        source = args[0] if args else []
        members = source.items if isinstance(source, Bag) else source
        return kind([*members, *call.items])  # type: ignore[misc]

    return rule


def _complex(_call: Call, args: _Args) -> complex:
    if len(args) != 2:
        raise UnfitError
    real, imaginary = args
    if not isinstance(real, float) or not isinstance(imaginary, float):
        raise UnfitError
    return complex(real, imaginary)


def _size(_call: Call, args: _Args) -> tuple[int, ...]:
    return whole_numbers(args[0] if args else (), "shape")


def _text(_call: Call, args: _Args) -> str:
    if not args or len(args) > 2 or not all(isinstance(arg, (str, int)) for arg in args):
        raise UnfitError
    return ":".join(str(arg) for arg in args)


def _numpy_tensor(_call: Call, args: _Args) -> object:
    inner = recognise(args[0]) if len(args) > 1 and isinstance(args[0], Call) and _is_array(args[0]) else None
    if not isinstance(inner, (ArrayRef, RefusedTensor)):
        raise UnfitError
    return converted(inner, args[1])


def _is_array(call: Call) -> bool:
    return isinstance(call.callee, Name) and call.callee.text in _ARRAYS


def _cpu_tensor(_call: Call, args: _Args) -> object:
    # The inner call is looked at alone here: a chain of these cannot go deeper than one.
    inner = args[0] if len(args) > 1 else None
    if not isinstance(inner, Call) or not isinstance(inner.callee, Name) or inner.callee.text not in _FORMS:
        raise UnfitError
    ref = recognise(inner)
    named = TORCH_DTYPES.get(args[1].text) if isinstance(args[1], Name) else None
    if isinstance(ref, TensorRef) and ref.dtype is not named:
        return RefusedTensor("torch._utils._rebuild_device_tensor_from_cpu_tensor", "a tensor in a converted format")
    return ref


_ARRAYS: dict[str, _Rule] = {
    f"numpy.{core}.multiarray._reconstruct": lambda call, _: array(call) for core in ("core", "_core")
} | {f"numpy.{core}.numeric._frombuffer": lambda _, args: array_from_buffer(args) for core in ("core", "_core")}

_RULES: dict[str, _Rule] = {
    **_ARRAYS,
    "numpy.core.multiarray.scalar": lambda _, args: number(args),
    "numpy._core.multiarray.scalar": lambda _, args: number(args),
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _mapping,
    "collections.Counter": _mapping,
    "builtins.dict": _mapping,
    "builtins.list": _sequence(list),
    "builtins.tuple": _sequence(tuple),
    "builtins.set": _sequence(Bag),
    "builtins.frozenset": _sequence(Bag),
    "builtins.complex": _complex,
    "builtins.bytes": lambda call, _: as_bytes(call),
    "builtins.bytearray": lambda call, _: as_bytes(call),
    "_codecs.encode": lambda call, _: as_bytes(call),
    "torch.Size": _size,
    "torch.device": _text,
    "torch.serialization._get_layout": _text,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.nn.parameter.Parameter": _first,
    "torch._tensor._rebuild_from_type": _from_type,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch._utils._rebuild_device_tensor_from_numpy": _numpy_tensor,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _cpu_tensor,
    "torch.nn.modules.container.ParameterDict": _parameters,
    "torch.nn.modules.container.ParameterList": _parameters,
}

_PLAIN = frozenset({*_FORMS, *_RULES, *_TENSOR_CLASSES, *STORAGES, *TORCH_DTYPES, *REFUSED_TENSORS, *PLAIN_NAMES})

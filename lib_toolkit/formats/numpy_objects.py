"""NumPy's arrays and numbers in pickles, recognised by the names and arguments that NumPy writes.

Source: ``__reduce__`` of ``numpy.ndarray`` (state: version, shape, dtype, order flag, bytes), of ``numpy.dtype``
(state: version, byte order, ...) and of NumPy's scalars, NumPy 1.0 to 2.4.
"""

from __future__ import annotations

import math
import struct

from lib_toolkit.dtypes import DType
from lib_toolkit.formats.pickle_names import NUMPY_DTYPES, NUMPY_SCALARS, TORCH_DTYPES
from lib_toolkit.formats.pickle_nodes import Call, Name
from lib_toolkit.formats.pickle_values import ArrayRef, MalformedError, RefusedTensor, UnfitError, whole_numbers

_MAX_WRAPPERS = 3
_LATIN1 = frozenset({"latin1", "latin-1", "iso-8859-1", "iso8859-1"})


def as_bytes(node: object) -> bytes:
    """The bytes that a node stands for, in the forms that protocols 0 to 5 use. Raises UnfitError."""
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(node, Call):
            break
        node = _unwrapped(node)
    if isinstance(node, bytes):
        return node
    if isinstance(node, str):
        try:
            return node.encode("latin-1")
        except UnicodeEncodeError:
            raise UnfitError from None
    raise UnfitError


def _unwrapped(call: Call) -> object:
    """What ``bytes(x)``, ``bytearray(x)`` or ``encode(x, "latin-1")`` is made of."""
    if not isinstance(call.callee, Name) or not isinstance(call.args, tuple):
        raise UnfitError
    name, args = call.callee.text, call.args
    plain = name in ("builtins.bytes", "builtins.bytearray")
    if plain and not args:
        return b""
    if plain and len(args) == 1 and isinstance(args[0], (bytes, Call)):
        return args[0]
    encodes = plain or name == "_codecs.encode"
    if encodes and len(args) == 2 and isinstance(args[1], str) and args[1].lower() in _LATIN1:
        return args[0]
    raise UnfitError


def _element(node: object) -> tuple[str, bool]:
    """A numpy.dtype as its type string without byte order ("f4"), and whether it is big-endian."""
    if not (isinstance(node, Call) and isinstance(node.callee, Name) and node.callee.text == "numpy.dtype"):
        raise UnfitError
    if not isinstance(node.args, tuple) or not node.args or not isinstance(node.args[0], str):
        raise UnfitError
    code = node.args[0]
    order = code[:1] if code[:1] in "<>=|" else ""
    if isinstance(node.state, tuple) and len(node.state) > 1 and isinstance(node.state[1], str):
        order = node.state[1]
    return code.lstrip("<>=|"), order == ">"


def number(args: tuple[object, ...]) -> object:
    """A NumPy scalar as a number of Python. Raises UnfitError for what is none."""
    if len(args) != 2:
        raise UnfitError
    code, big_endian = _element(args[0])
    if code not in NUMPY_SCALARS:
        raise UnfitError
    data, layout = as_bytes(args[1]), (">" if big_endian else "<") + NUMPY_SCALARS[code]
    if len(data) != struct.calcsize(layout):
        raise UnfitError
    values = struct.unpack(layout, data)
    return complex(*values) if code in ("c8", "c16") else values[0]


def array(call: Call) -> ArrayRef | RefusedTensor:
    """An array that was written as an empty one with a state. Raises UnfitError for arrays of objects or text."""
    state = call.state
    if not isinstance(state, tuple) or len(state) not in (4, 5):
        raise UnfitError
    shape, element, fortran, data = state[-4:]
    return _array(element, shape, bool(fortran), data)


def array_from_buffer(args: tuple[object, ...]) -> ArrayRef | RefusedTensor:
    """An array as protocol 5 writes it: (buffer, dtype, shape, order). Raises UnfitError."""
    if len(args) != 4:
        raise UnfitError
    data, element, shape, order = args
    return _array(element, shape, order == "F", data)


def _array(element: object, shape: object, fortran: bool, data: object) -> ArrayRef | RefusedTensor:
    code, big_endian = _element(element)
    if code == "c16":
        return RefusedTensor("numpy.ndarray", "an array of 128-bit complex numbers")
    if code not in NUMPY_DTYPES:
        raise UnfitError
    dtype, sizes, raw = NUMPY_DTYPES[code], whole_numbers(shape, "shape"), as_bytes(data)
    if len(raw) != math.prod(sizes) * dtype.itemsize:
        raise MalformedError("an array has more or fewer bytes than its shape needs")
    return ArrayRef(raw, dtype, sizes, fortran and len(sizes) > 1, big_endian and dtype.itemsize > 1)


def converted(ref: ArrayRef | RefusedTensor, target: object) -> ArrayRef | RefusedTensor:
    """An array as the dtype that PyTorch gives it after loading: the same, or BF16 that travelled as F32."""
    dtype = TORCH_DTYPES.get(target.text) if isinstance(target, Name) else None
    if isinstance(ref, RefusedTensor) or dtype is ref.dtype:
        return ref
    if dtype is DType.BF16 and ref.dtype is DType.F32 and not ref.big_endian:
        # These values were BF16 before, so the lower two bytes of each are zero.
        upper = bytearray(len(ref.data) // 2)
        upper[0::2], upper[1::2] = ref.data[2::4], ref.data[3::4]
        return ArrayRef(bytes(upper), dtype, ref.shape, ref.fortran, False)
    return RefusedTensor("torch._utils._rebuild_device_tensor_from_numpy", "a tensor in a converted number format")

"""The layout of a checkpoint (.ckpt, .pt) as PyTorch 1.6 to 2.5 wrote it, placed by hand.

Current ``torch.save`` adds entries that older WebUIs take for an attack, so the old form is written: everything
that has ever read checkpoints, and the checks of AUTOMATIC1111's WebUI, accept it. The same input always gives
the same bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from lib_toolkit.errors import TargetError
from lib_toolkit.formats.layout import Frame, Layout, Slot
from lib_toolkit.formats.pickle_model import METADATA_KEY
from lib_toolkit.formats.pickle_writer import STORAGE_CLASSES, Scalar, Storage, Value, write_pickle
from lib_toolkit.formats.zip_writer import Place, directory, directory_size, local_header, place
from lib_toolkit.tensors import Tensor, nbytes

STATE_DICT = "state_dict"
_VERSION = b"3\n"
_ROOT = "archive"
_SHOWN = 5


def checkpoint_layout(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], values: Mapping[str, Scalar]
) -> Layout:
    """Place the tensors in the order given, each in a storage of its own.

    The file holds a dict of ``state_dict``, the ``values`` and, unless empty, ``__metadata__``. Raises
    TargetError for element types that not all readers of checkpoints know, and for values that would take the
    place of the other two.
    """
    _check(tensors, values)
    storages = {key: Storage(str(number), t.dtype, t.shape) for number, (key, t) in enumerate(tensors.items())}

    def pickle(texts: Mapping[str, str]) -> bytes:
        table: dict[str, Value] = {STATE_DICT: storages, **values}
        if texts:
            table[METADATA_KEY] = texts
        return write_pickle(table)

    length = len(pickle(metadata))
    places = _place_all(tensors, length)
    keys = list(tensors)

    def frame(texts: Mapping[str, str], crcs: Mapping[str, int]) -> Frame:
        data = pickle(texts)
        if len(data) != length:
            raise AssertionError("metadata changed its length after the layout was made")
        sums = [zlib.crc32(data), *(_crc(key, tensors[key], crcs) for key in keys), zlib.crc32(_VERSION)]
        return _pieces(places, sums, data)

    slots = tuple(
        Slot(key, tensors[key], where.data_offset, where.size) for key, where in zip(keys, places[1:-1], strict=True)
    )
    return Layout(slots, places[-1].end + directory_size(places), frame, needs_crcs=True)


def _check(tensors: Mapping[str, Tensor], values: Mapping[str, Scalar]) -> None:
    unfit = [key for key, tensor in tensors.items() if tensor.dtype not in STORAGE_CLASSES]
    if unfit:
        types = ", ".join(sorted({tensors[key].dtype.name for key in unfit}))
        listed = ", ".join(unfit[:_SHOWN]) + (f" and {len(unfit) - _SHOWN} more" if len(unfit) > _SHOWN else "")
        raise TargetError(
            f"A checkpoint (.ckpt, .pt) that every WebUI opens cannot hold {types} ({listed}); "
            "save as safetensors instead."
        )
    for name in (STATE_DICT, METADATA_KEY):
        if name in values:
            raise TargetError(f"A value is called {name}, a name that checkpoints need themselves; leave it out.")


def _place_all(tensors: Mapping[str, Tensor], pickle_length: int) -> list[Place]:
    """The pickle, the storages by number, the version: in this order, each behind the one before."""
    sizes = [("data.pkl", pickle_length)]
    sizes += [(f"data/{number}", nbytes(tensor)) for number, tensor in enumerate(tensors.values())]
    sizes.append(("version", len(_VERSION)))
    places: list[Place] = []
    for name, size in sizes:
        places.append(place(f"{_ROOT}/{name}", places[-1].end if places else 0, size))
    return places


def _crc(key: str, tensor: Tensor, crcs: Mapping[str, int]) -> int:
    """A tensor without elements has the checksum of nothing, whether or not anybody took it."""
    return crcs.get(key, 0) if nbytes(tensor) == 0 else crcs[key]


def _pieces(places: Sequence[Place], crcs: Sequence[int], pickle: bytes) -> Frame:
    """Everything around the tensors: headers, the pickle, the version, the directory."""
    pieces = [(where.offset, local_header(where, crc)) for where, crc in zip(places, crcs, strict=True)]
    pieces[0] = (0, pieces[0][1] + pickle)
    pieces[-1] = (pieces[-1][0], pieces[-1][1] + _VERSION + directory(places, crcs))
    return pieces

"""Names that pickles of checkpoints hold, in tables.

No table decides what is safe, since nothing named in a file is ever looked up: they choose what a name is
understood as and the words in which it is reported. Sources of names: ``torch._utils``, ``torch.storage``
and ``torch.serialization`` of PyTorch 1.0 to 2.13; ``numpy.core.multiarray`` of NumPy 1 and 2; the standard
library's index of functions that start processes or load code.
"""

from __future__ import annotations

from lib_toolkit.dtypes import DType


def _words(text: str, prefix: str = "") -> frozenset[str]:
    return frozenset(prefix + word for word in text.split())


PYTHON2_MODULES = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "cPickle": "pickle",
    "commands": "subprocess",
    "exceptions": "builtins",
    "UserDict": "collections",
    "UserList": "collections",
}
"""Modules that Python 3 calls differently."""

_STORAGES = {
    "Double": DType.F64,
    "Float": DType.F32,
    "Half": DType.F16,
    "BFloat16": DType.BF16,
    "Long": DType.I64,
    "Int": DType.I32,
    "Short": DType.I16,
    "Char": DType.I8,
    "Byte": DType.U8,
    "Bool": DType.BOOL,
    "ComplexFloat": DType.C64,
}

STORAGES: dict[str, DType] = {
    **{f"{module}.{kind}Storage": dtype for module in ("torch", "torch.cuda") for kind, dtype in _STORAGES.items()},
    "torch.storage.UntypedStorage": DType.U8,
    "torch.storage._UntypedStorage": DType.U8,
    "torch.UntypedStorage": DType.U8,
}
"""Classes of storages and what one of their elements is."""

TORCH_DTYPES: dict[str, DType] = {
    "torch.float64": DType.F64,
    "torch.double": DType.F64,
    "torch.float32": DType.F32,
    "torch.float": DType.F32,
    "torch.float16": DType.F16,
    "torch.half": DType.F16,
    "torch.bfloat16": DType.BF16,
    "torch.float8_e4m3fn": DType.F8_E4M3,
    "torch.float8_e5m2": DType.F8_E5M2,
    "torch.float8_e4m3fnuz": DType.F8_E4M3FNUZ,
    "torch.float8_e5m2fnuz": DType.F8_E5M2FNUZ,
    "torch.float8_e8m0fnu": DType.F8_E8M0,
    "torch.complex64": DType.C64,
    "torch.int64": DType.I64,
    "torch.long": DType.I64,
    "torch.int32": DType.I32,
    "torch.int": DType.I32,
    "torch.int16": DType.I16,
    "torch.short": DType.I16,
    "torch.int8": DType.I8,
    "torch.uint64": DType.U64,
    "torch.uint32": DType.U32,
    "torch.uint16": DType.U16,
    "torch.uint8": DType.U8,
    "torch.bool": DType.BOOL,
}

NUMPY_DTYPES: dict[str, DType] = {
    "f8": DType.F64,
    "f4": DType.F32,
    "f2": DType.F16,
    "c8": DType.C64,
    "i8": DType.I64,
    "i4": DType.I32,
    "i2": DType.I16,
    "i1": DType.I8,
    "u8": DType.U64,
    "u4": DType.U32,
    "u2": DType.U16,
    "u1": DType.U8,
    "b1": DType.BOOL,
}
"""Array-protocol type strings without their byte order."""

NUMPY_SCALARS = {
    "b1": "?",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
    "f2": "e",
    "f4": "f",
    "f8": "d",
    "c8": "2f",
    "c16": "2d",
}
"""The same as formats of the struct module, for single numbers."""

REFUSED_TENSORS = {
    "torch._utils._rebuild_qtensor": "a quantised tensor of PyTorch",
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_sparse_csr_tensor": "a sparse tensor",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_wrapper_subclass": "a tensor of a special class",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without values",
    "torch._utils._rebuild_meta_tensor_no_storage_v2": "a tensor without values",
}
"""Kinds of tensors that are more than a view of a storage."""

PLAIN_NAMES = (
    _words(
        "bool bytes bytearray complex dict float frozenset int list range set slice str tuple unicode xrange",
        "builtins.",
    )
    | _words(
        """Size device dtype Tensor qint8 quint8 qint32 complex128 per_tensor_affine per_channel_affine strided
        sparse_coo ComplexDoubleStorage QInt8Storage QUInt8Storage QInt32Storage""",
        "torch.",
    )
    | _words(
        """torch.serialization._get_layout torch.storage.TypedStorage torch.storage._TypedStorage
    torch.cuda.ComplexDoubleStorage numpy.dtype numpy.ndarray collections.deque"""
    )
)
"""Names of plain values, beside those that stand for tensors."""

_FAMILIAR_MODULES = _words(
    """pytorch_lightning lightning lightning_fabric lightning_utilities omegaconf argparse easydict pathlib datetime
    enum hydra ldm sgm wandb typing collections uuid decimal fractions numpy"""
)
"""Top-level modules whose classes trainers leave in checkpoints; functions in them are another matter."""

_FAMILIAR_NAMES = _words(
    """datetime.datetime datetime.date datetime.time datetime.timedelta datetime.timezone builtins.object builtins.type
    builtins.Exception copyreg._reconstructor"""
)
"""Single names of that sort that do not look like classes."""

_RUNNING_MODULES = _words(
    """os posix nt subprocess _posixsubprocess _winapi sys importlib imp zipimport pkgutil pickle _pickle cloudpickle
    dill joblib marshal shelve operator _operator runpy pty tty socket _socket ssl ctypes _ctypes cffi shutil webbrowser
    pip setuptools distutils ensurepip venv timeit code codeop bdb pdb cProfile profile trace pydoc doctest asyncio
    multiprocessing _multiprocessing concurrent threading _thread signal gc inspect http urllib urllib2 requests httpx
    aiohttp ftplib smtplib telnetlib xmlrpc socketserver tempfile linecache sqlite3 site platform
    idlelib lib2to3 IPython tkinter antigravity popen2 paramiko fabric psutil winreg msvcrt _frozen_importlib
    _frozen_importlib_external pexpect sh"""
)

_RUNNING_NAMES = _words(
    """eval exec compile execfile getattr setattr delattr __import__ open file input raw_input breakpoint globals locals
    vars apply map filter reduce exit quit help reload""",
    "builtins.",
) | _words(
    """functools.partial functools.reduce functools.partialmethod io.open io.FileIO io.open_code _io.open _io.FileIO
    codecs.open fileinput.input logging.config.dictConfig logging.config.fileConfig logging.config.listen
    hydra.utils.instantiate hydra.utils.call yaml.load yaml.unsafe_load yaml.full_load
    torch.load torch.save torch.serialization.load torch.storage._load_from_bytes torch.compile torch.jit.load
    torch.jit.unsupported_tensor_ops.execWrapper torch.utils.bottleneck.__main__.run_cprofile torch.ops.load_library
    torch.distributed.rpc.server_process_global_profile numpy.load numpy.save numpy.fromfile
    numpy.testing._private.utils.runstring numpy.testing._private.utils.rundocs numpy.testing.runstring
    numpy.testing.rundocs numpy.memmap pandas.read_pickle pandas.eval
    _aix_support._read_cmd_output _osx_support._read_output uuid._get_command_stdout
    types.FunctionType types.CodeType"""
)

_RUNNING_PREFIXES = (
    "torch.hub.",
    "torch.utils.cpp_extension.",
    "torch._dynamo.",
    "torch._inductor.",
    "torch.fx.experimental.",
    "torch.package.",
    "numpy.f2py.",
    "numpy.distutils.",
)


def runs_programs(module: str, name: str) -> bool:
    """Whether a pickle that names this is after running code: such a file is refused as a whole.

    A name with a dot reaches through an object to its attributes, which models have no use for.
    """
    full = f"{module}.{name}"
    return (
        module.partition(".")[0] in _RUNNING_MODULES
        or full in _RUNNING_NAMES
        or full.startswith(_RUNNING_PREFIXES)
        or "." in name
        or not name
    )


def is_known(module: str, name: str) -> bool:
    """Whether the name belongs to what trainers usually leave behind: classes of callbacks, configurations, dates."""
    is_class = name.lstrip("_")[:1].isupper()
    return (is_class and module.partition(".")[0] in _FAMILIAR_MODULES) or f"{module}.{name}" in _FAMILIAR_NAMES

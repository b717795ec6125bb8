"""What each opcode of a pickle does to the machine: one small function each, in a table.

Opcodes and their arguments are those that Python's ``pickletools`` documents, protocols 0 to 5. Each raises
BrokenPickleError or CutPickleError, or one of Python's own errors where the stack does not hold what it needs.
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Callable
from typing import TypeAlias

from lib_toolkit.formats.pickle_machine import MAX_PICKLE, MAX_TEXT, BrokenPickleError, Machine
from lib_toolkit.formats.pickle_nodes import Bag, Call, Mapping, Persistent

Operation: TypeAlias = Callable[[Machine], None]

_MAX_INT_BYTES = 128
_MAX_INT_DIGITS = 309
_MAX_INDEX_DIGITS = 20
_MAX_PROTOCOL = 5

_ESCAPE = re.compile(rb"\\(?:x[0-9a-fA-F]{2}|[0-3][0-7]{0,2}|[4-7][0-7]?(?![0-7])|[\\'\"abfnrtv\n])")
"""The escapes that text of protocol 0 may hold; Python warns of others, which nothing writes."""


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("utf-8", "backslashreplace")


def _old_text(raw: bytes) -> str | bytes:
    """A string of Python 2, which may be text or bytes."""
    return raw.decode("ascii") if raw.isascii() else raw


def _raw(data: bytes) -> bytes:
    return data


def _push(value: object) -> Operation:
    def operation(m: Machine) -> None:
        m.stack.append(value)

    return operation


def _integer(width: int, signed: bool = False) -> Operation:
    def operation(m: Machine) -> None:
        m.stack.append(int.from_bytes(m.take(width), "little", signed=signed))

    return operation


def _long(width: int) -> Operation:
    def operation(m: Machine) -> None:
        m.stack.append(int.from_bytes(m.counted(width, _MAX_INT_BYTES), "little", signed=True))

    return operation


def _piece(width: int, most: int, understand: Callable[[bytes], str | bytes]) -> Operation:
    """Text or bytes whose length stands before them in ``width`` bytes."""

    def operation(m: Machine) -> None:
        m.stack.append(understand(m.counted(width, most)))

    return operation


def _byte(m: Machine) -> None:
    m.stack.append(m.byte())


def _get_byte(m: Machine) -> None:
    m.stack.append(m.memo[m.byte()])


def _put_byte(m: Machine) -> None:
    m.memo[m.byte()] = m.stack[-1]


def _extension(width: int) -> Operation:
    def operation(m: Machine) -> None:
        m.add(m.name("copyreg", f"extension {m.number(width)}"))

    return operation


def _proto(m: Machine) -> None:
    if m.number(1) > _MAX_PROTOCOL:
        raise BrokenPickleError("is in an unknown version of the pickle format")


def _frame(m: Machine) -> None:
    m.take(8)


def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.marked()


def _pop_mark(m: Machine) -> None:
    m.marked()


def _duplicate(m: Machine) -> None:
    m.stack.append(m.stack[-1])


def _int_line(m: Machine) -> None:
    raw = m.line(_MAX_INT_DIGITS + 1)
    # Protocol 0 writes booleans as numbers with a zero in front.
    m.stack.append(raw == b"01" if raw in (b"00", b"01") else int(raw))


def _long_line(m: Machine) -> None:
    m.stack.append(int(m.line(_MAX_INT_DIGITS + 2).rstrip(b"L")))


def _float_line(m: Machine) -> None:
    m.stack.append(float(m.line(_MAX_INT_DIGITS)))


def _float(m: Machine) -> None:
    m.stack.append(struct.unpack(">d", m.take(8))[0])


def _string_line(m: Machine) -> None:
    raw = m.line().strip()
    if len(raw) < 2 or raw[:1] != raw[-1:] or raw[:1] not in (b"'", b'"'):
        raise BrokenPickleError("holds text without quotes")
    if b"\\" in _ESCAPE.sub(b"", raw):
        raise BrokenPickleError("holds text with unknown escapes")
    m.stack.append(_old_text(codecs.escape_decode(raw[1:-1])[0]))


def _unicode_line(m: Machine) -> None:
    text = m.line().decode("raw-unicode-escape")
    m.stack.append(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def _tuple(m: Machine) -> None:
    items = tuple(m.marked())
    m.add(items)


def _tuple1(m: Machine) -> None:
    m.add((m.stack.pop(),))


def _tuple2(m: Machine) -> None:
    second, first = m.stack.pop(), m.stack.pop()
    m.add((first, second))


def _tuple3(m: Machine) -> None:
    third, second, first = m.stack.pop(), m.stack.pop(), m.stack.pop()
    m.add((first, second, third))


def _empty_list(m: Machine) -> None:
    m.add([])


def _list(m: Machine) -> None:
    items = m.marked()
    m.add(items)


def _extend(target: object, items: list[object]) -> None:
    if type(target) is list:
        target.extend(items)
    elif isinstance(target, (Call, Bag)):
        target.items.extend(items)
    else:
        raise BrokenPickleError("adds to something that is no list")


def _append(m: Machine) -> None:
    item = m.stack.pop()
    _extend(m.stack[-1], [item])


def _appends(m: Machine) -> None:
    items = m.marked()
    _extend(m.stack[-1], items)


def _empty_set(m: Machine) -> None:
    m.add(Bag())


def _frozen_set(m: Machine) -> None:
    items = m.marked()
    m.add(Bag(items))


def _empty_dict(m: Machine) -> None:
    m.add(Mapping())


def _pair_up(items: list[object]) -> list[tuple[object, object]]:
    if len(items) % 2:
        raise BrokenPickleError("has a key without a value")
    return list(zip(items[::2], items[1::2], strict=True))


def _dict(m: Machine) -> None:
    pairs = _pair_up(m.marked())
    m.add(Mapping(pairs))


def _set_pairs(target: object, pairs: list[tuple[object, object]]) -> None:
    if not isinstance(target, (Mapping, Call)):
        raise BrokenPickleError("sets a key of something that is no dict")
    target.pairs.extend(pairs)


def _set_item(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _set_pairs(m.stack[-1], [(key, value)])


def _set_items(m: Machine) -> None:
    pairs = _pair_up(m.marked())
    _set_pairs(m.stack[-1], pairs)


def _long_put(m: Machine) -> None:
    m.put(m.number(4))


def _long_get(m: Machine) -> None:
    m.stack.append(m.memo[m.number(4)])


def _put_line(m: Machine) -> None:
    m.put(int(m.line(_MAX_INDEX_DIGITS)))


def _memoize(m: Machine) -> None:
    m.put(len(m.memo))


def _get_line(m: Machine) -> None:
    m.stack.append(m.memo[int(m.line(_MAX_INDEX_DIGITS))])


def _global(m: Machine) -> None:
    module, name = m.line(), m.line()
    m.add(m.name(_text(module), _text(name)))


def _stack_global(m: Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise BrokenPickleError("names something without text")
    m.add(m.name(module, name))


def _inst(m: Machine) -> None:
    module, name = m.line(), m.line()
    callee = m.name(_text(module), _text(name))
    args = tuple(m.marked())
    m.add(Call(callee, args))


def _obj(m: Machine) -> None:
    callee, *args = m.marked()
    m.add(Call(callee, tuple(args)))


def _call(m: Machine) -> None:
    args, callee = m.stack.pop(), m.stack.pop()
    m.add(Call(callee, args))


def _call_with_keywords(m: Machine) -> None:
    kwargs, args, callee = m.stack.pop(), m.stack.pop(), m.stack.pop()
    m.add(Call(callee, args, kwargs))


def _build(m: Machine) -> None:
    state, target = m.stack.pop(), m.stack[-1]
    if not isinstance(target, Call):
        raise BrokenPickleError("gives a state to something that has none")
    # A second state adds to the first one; keeping both loses no tensor.
    target.state = state if target.state is None else (target.state, state)


def _persistent(m: Machine, identity: object) -> None:
    node = Persistent(identity)
    m.persistent.append(node)
    m.add(node)


def _persistent_line(m: Machine) -> None:
    _persistent(m, _text(m.line()))


def _persistent_object(m: Machine) -> None:
    _persistent(m, m.stack.pop())


def _unknown(m: Machine) -> None:
    raise BrokenPickleError(f"has an unknown step at byte {m.position - 1:,}")


_BY_CODE: dict[bytes, Operation] = {
    b"\x80": _proto,
    b"\x95": _frame,
    b"0": _pop,
    b"1": _pop_mark,
    b"2": _duplicate,
    b"(": Machine.mark,
    b"N": _push(None),
    b"\x88": _push(True),
    b"\x89": _push(False),
    b"I": _int_line,
    b"L": _long_line,
    b"J": _integer(4, signed=True),
    b"K": _byte,
    b"M": _integer(2),
    b"\x8a": _long(1),
    b"\x8b": _long(4),
    b"F": _float_line,
    b"G": _float,
    b"S": _string_line,
    b"V": _unicode_line,
    b"T": _piece(4, MAX_PICKLE, _old_text),
    b"U": _piece(1, MAX_TEXT, _old_text),
    b"X": _piece(4, MAX_TEXT, _text),
    b"\x8c": _piece(1, MAX_TEXT, _text),
    b"\x8d": _piece(8, MAX_TEXT, _text),
    b"B": _piece(4, MAX_PICKLE, _raw),
    b"C": _piece(1, MAX_PICKLE, _raw),
    b"\x8e": _piece(8, MAX_PICKLE, _raw),
    b"\x96": _piece(8, MAX_PICKLE, _raw),
    b")": _push(()),
    b"t": _tuple,
    b"\x85": _tuple1,
    b"\x86": _tuple2,
    b"\x87": _tuple3,
    b"]": _empty_list,
    b"l": _list,
    b"a": _append,
    b"e": _appends,
    b"\x8f": _empty_set,
    b"\x90": _appends,
    b"\x91": _frozen_set,
    b"}": _empty_dict,
    b"d": _dict,
    b"s": _set_item,
    b"u": _set_items,
    b"p": _put_line,
    b"q": _put_byte,
    b"r": _long_put,
    b"\x94": _memoize,
    b"g": _get_line,
    b"h": _get_byte,
    b"j": _long_get,
    b"c": _global,
    b"\x93": _stack_global,
    b"\x82": _extension(1),
    b"\x83": _extension(2),
    b"\x84": _extension(4),
    b"i": _inst,
    b"o": _obj,
    b"R": _call,
    b"\x81": _call,
    b"\x92": _call_with_keywords,
    b"b": _build,
    b"P": _persistent_line,
    b"Q": _persistent_object,
}

OPERATIONS: tuple[Operation, ...] = tuple(_BY_CODE.get(bytes([code]), _unknown) for code in range(256))
"""The operation of each byte value; bytes that are no opcode raise BrokenPickleError."""

"""Records as arrays, without a copy.

TFDS parses a record into Python's numbers and bytes and copies them twice. The records that `episodes.write` makes hold
all frames of a modality in one piece and everything else in short lists, so their arrays can be views of the record. What
was written otherwise is left to TFDS.

A record is the protobuf message tf.train.Example, {features: {name: bytes_list | float_list | int64_list}}, each list its
field 1: https://protobuf.dev/programming-guides/encoding, tensorflow/core/example/feature.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from worldmodels.data.episodes import features, flat
from worldmodels.types import Spec

LENGTH = 2  # the wire type of all that is here
BYTES_LIST, FLOAT_LIST, INT64_LIST = 1, 2, 3


class Records:
    """Episodes of a split by number, decoded anew each time; read-only arrays."""

    def __init__(self, builder: Any, split: str, spec: Spec):
        self._fields = {name: (np.dtype(f.np_dtype), f.shape[1:]) for name, f in flat(features(spec)).items()}
        self._source = builder.as_data_source(split=split)
        # Inside is the array_record source, which gives the bytes.
        self._bytes = getattr(self._source, 'data_source', None) if _as_ours(builder.info.features, spec) else None

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises what the readers raise where a record is damaged."""
        if self._bytes is None:
            return self._source[index]
        return decode(self._bytes[index], self._fields)


def decode(record: bytes, fields: dict[str, tuple[np.dtype, tuple[int, ...]]]) -> dict[str, Any]:
    """The arrays (rows, *shape) of a record, by path: a name with a slash is nested.

    Raises KeyError for a field that it does not hold, ValueError where it is no Example or its lists do not fit.
    """
    found = {}
    for number, start, stop in _messages(record, 0, len(record)):  # Example: features = 1
        if number == 1:
            for _, entry, end in _messages(record, start, stop):  # Features: a map's entries
                parts = {n: (a, b) for n, a, b in _messages(record, entry, end)}
                name = record[slice(*parts[1])].decode()
                found[name] = parts.get(2, (end, end))
    episode: dict[str, Any] = {}
    for name, (dtype, shape) in fields.items():
        if name not in found:
            raise KeyError(name)
        place = episode
        *above, leaf = name.split('/')
        for part in above:
            place = place.setdefault(part, {})
        place[leaf] = _array(record, *found[name], dtype).reshape(-1, *shape)
    return episode


def _array(record: bytes, start: int, stop: int, dtype: np.dtype) -> np.ndarray:
    """The values of one Feature, as one row of numbers."""
    for kind, first, last in _messages(record, start, stop):
        chunks = [(a, b) for number, a, b in _messages(record, first, last) if number == 1]
        if kind == BYTES_LIST:
            parts = [np.frombuffer(record, dtype, (b - a) // dtype.itemsize, a) for a, b in chunks]
        elif kind == FLOAT_LIST:
            parts = [np.frombuffer(record, '<f4', (b - a) // 4, a).astype(dtype, copy=False) for a, b in chunks]
        else:
            parts = [varints(np.frombuffer(record, np.uint8, b - a, a)).astype(dtype) for a, b in chunks]
        return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, dtype), *parts])
    return np.zeros(0, dtype)  # an empty list may be left out


def varints(encoded: np.ndarray) -> np.ndarray:
    """A row of bytes -> the int64 numbers that they are: seven bits a byte, the lowest first, 128 where more follow."""
    more = encoded >= 128
    if not more.any():
        return encoded
    ends = np.flatnonzero(~more)
    if not len(ends) or more[-1]:
        raise ValueError('a list of numbers breaks off')
    starts = np.concatenate([[0], ends[:-1] + 1])
    values = np.zeros(len(ends), np.uint64)
    for place in range(int((ends - starts).max()) + 1):
        at = np.minimum(starts + place, ends)
        bits = (encoded[at] & 127).astype(np.uint64) << np.uint64(7 * place)
        values |= np.where(starts + place <= ends, bits, np.uint64(0))
    return values.view(np.int64)


def _messages(record: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(field, start, stop) of the parts of a message that have a length, which is all that an Example is made of."""
    while start < stop:
        tag, start = _varint(record, start, stop)
        length, start = _varint(record, start, stop)
        if tag & 7 != LENGTH or start + length > stop:
            raise ValueError(f'no tf.train.Example, or one cut short, at byte {start}')
        yield tag >> 3, start, start + length
        start += length


def _varint(record: bytes, start: int, stop: int) -> tuple[int, int]:
    """A number, and where what follows it starts."""
    value = shift = 0
    while start < stop and shift < 64:
        byte = record[start]
        value |= (byte & 127) << shift
        start, shift = start + 1, shift + 7
        if byte < 128:
            return value, start
    raise ValueError(f'a number breaks off at byte {start}')


def _as_ours(found: Any, spec: Spec) -> bool:
    """Whether the fields are stored as `episodes.features` stores them."""
    wanted, there = flat(features(spec)), flat(found)
    return all(
        name in there and str(there[name].get_serialized_info()) == str(feature.get_serialized_info())
        for name, feature in wanted.items()
    )

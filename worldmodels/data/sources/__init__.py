"""Foreign data as they are: which fields, in which splits, item by item. Nothing in them is executed.

    source.kind, source.path
    source.splits                  -> {name: number of items}, as the source names them ('all' where it has none)
    source.declared                -> {field: Declared}, what the source says of its fields beyond their arrays
    source.stands                  -> where its kind keeps actions, outcomes and terminals (see `mapping.Mapping`)
    source.nbytes                  -> on disk
    source.frames                  -> in all, None where only reading would tell
    source.label(split, number)    -> what a person calls the item: a file, a record
    source.identity()              -> text that changes when the data do
    source.read(split, number, most=None) -> iterator of episodes, mostly one: {field: array with a row per frame}

A field's name is its path, 'observation/image'. Arrays may have a row less than there are frames (what lies between them).
`most` frames of an item are enough to describe it. `read` raises Unreadable for an item that is damaged.

One file per kind; `open_source` knows them by name.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import os
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from worldmodels.data.episodes import flat

KINDS = ('tfds', 'npz', 'minari', 'video')


@dataclasses.dataclass(frozen=True)
class Declared:
    """What a source says of a field: how many values (0 unknown), the first of them, their names, bounds."""

    size: int = 0
    start: int = 0
    names: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None


class Unreadable(ValueError):
    """An item that cannot be read, in one sentence."""


class Source(Protocol):
    """What every kind offers; see the module's docstring."""

    kind: str
    path: str
    splits: dict[str, int]
    declared: dict[str, Declared]
    stands: dict[str, str]
    nbytes: int
    frames: int | None

    def label(self, split: str, number: int) -> str: ...

    def identity(self) -> str: ...

    def read(self, split: str, number: int, most: int | None = None) -> Iterator[dict[str, np.ndarray]]: ...


def parse(text: str) -> tuple[str, str]:
    """'npz:/data/replay' -> ('npz', '/data/replay')."""
    kind, colon, path = text.partition(':')
    if not colon or not path:
        raise ValueError(f'source {text!r}: give KIND:PATH, as in npz:data/replay; kinds are {", ".join(KINDS)}.')
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, 1)
        raise ValueError(
            f'There is no source kind {kind!r}: '
            + (f'did you mean {near[0]!r}?' if near else f'give one of {", ".join(KINDS)}.')
        )
    return kind, os.path.abspath(os.path.expanduser(path))


def open_source(kind: str, path: str, options: dict[str, Any]) -> Source:
    """The data of one kind at a path. Raises ValueError where there are none, or an option is not the kind's."""
    make = importlib.import_module(f'worldmodels.data.sources.{kind}').Files
    known = [name for name in inspect.signature(make).parameters if name != 'path']
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f'did you mean {near[0]!r}?' if near else f'it has {", ".join(known) or "none"}.'
            raise ValueError(f'A source of kind {kind} has no option {name!r}: {hint}')
    if not os.path.exists(path):
        raise ValueError(f'There is nothing at {path!r}: give the folder of the data, as in --source={kind}:FOLDER.')
    return make(path, **options)


def numbers(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of numbers in a tree, by path; texts are no part of our episodes."""
    arrays = {name: np.asarray(value) for name, value in flat(tree).items() if value is not None}
    return {name: array for name, array in arrays.items() if array.dtype.kind in 'biuf'}

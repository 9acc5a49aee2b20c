"""One foreign episode, rows by field, becomes episodes of ours (see `mapping` and `episodes`)."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from worldmodels.data.mapping import Action, Mapping, Part


class Bad(ValueError):
    """An episode that cannot be mapped, or holds values it may not hold: one sentence with field, found and expected."""


def apply(mapping: Mapping, rows: dict[str, np.ndarray]) -> Iterator[dict[str, Any] | None]:
    """The episodes of ours that lie in one of theirs, in RLDS form (see `episodes`); None for one of a single frame.

    Raises Bad where a field is missing, is of another shape, or holds a value that it may not hold.
    """
    observation = {name: _observe(part, rows) for name, part in mapping.observation}
    counts = {name: len(values) for name, values in observation.items()}
    count = max(counts.values())
    for (name, part), values in zip(mapping.observation, observation.values()):
        if len(values) != count:
            longest = max(counts, key=counts.get)
            raise Bad(f'{", ".join(part.field)!r} has {len(values)} rows, expected {count}, as {longest!r} has.')
        observation[name] = _convert(part, values)
    between = max(count - 1, 0)
    action = np.zeros(between, np.int32)
    if mapping.action.field:
        action = _act(mapping.action, _between(mapping.action.field, rows, count, mapping.action_at))
    scalar = lambda field, place: _scalar(field, _between((field,), rows, count, place))
    paid = {
        name: scalar(field, mapping.outcomes_at) if field else np.zeros(between, np.float32)
        for name, field in (('reward', mapping.reward), *mapping.costs)
    }
    ended = scalar(mapping.terminal, mapping.terminal_at) != 0 if mapping.terminal else np.zeros(between, bool)
    discount = np.ones(between, np.float32)
    if mapping.discount:
        discount = scalar(mapping.discount, mapping.outcomes_at)
        _inside(mapping.discount, discount, 0.0, 1.0)
        ended = ended if mapping.terminal else discount == 0
    paid = {'reward': paid.pop('reward'), 'discount': np.where(ended, np.float32(0), discount), **paid}
    for start, stop in _spans(mapping, rows, count):
        inner = slice(start, stop - 1)
        if stop - start < 2:
            yield None
            continue
        early = np.flatnonzero(ended[start : stop - 2])
        if len(early):
            raise Bad(
                f'{mapping.terminal or mapping.discount!r} ends the episode at frame {start + early[0] + 1} of {count}, '
                "expected at its last frame: name a field of openings as 'first', or another field as 'terminal'."
            )
        last = np.arange(stop - start) == stop - start - 1
        yield {
            'observation': {name: values[start:stop] for name, values in observation.items()},
            'action': _padded(action[inner]),
            **{name: _padded(values[inner]) for name, values in paid.items()},
            'is_first': np.arange(stop - start) == 0,
            'is_last': last,
            'is_terminal': last & bool(ended[stop - 2]),
        }


def _spans(mapping: Mapping, rows: dict[str, np.ndarray], count: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of every episode: openings begin one, and `cut` parts what is too long as evenly as it can."""
    edges = [0, count]
    if mapping.first:
        first = _field(mapping.first, rows)
        if len(first) != count or first.ndim > 1:
            raise Bad(f'{mapping.first!r} has the shape {first.shape}, expected ({count},), a row for every frame.')
        edges = sorted({0, *np.flatnonzero(first).tolist(), count})
    for start, stop in itertools.pairwise(edges):
        pieces = -(-(stop - start) // mapping.cut) if mapping.cut else 1
        inner = np.linspace(start, stop, pieces + 1).round().astype(int).tolist()
        yield from itertools.pairwise(inner)


def _field(name: str, rows: dict[str, np.ndarray]) -> np.ndarray:
    if name not in rows:
        near = difflib.get_close_matches(name, rows, 1)
        raise Bad(
            f'There is no field {name!r}, only {", ".join(rows) or "none"}'
            + (f': did you mean {near[0]!r}?' if near else ': name another, or leave the episode out.')
        )
    values = np.asarray(rows[name])
    if values.dtype.kind not in 'biuf' or not values.ndim:
        raise Bad(
            f'{name!r} is {values.dtype} {values.shape}, expected an array of numbers with a row for every frame.'
        )
    return values


def _between(fields: tuple[str, ...], rows: dict, count: int, place: str) -> list[np.ndarray]:
    """Each field's rows by transition: row t leads from frame t to frame t + 1. All have count - 1 rows."""
    found = []
    for name in fields:
        values = _field(name, rows)
        if len(values) not in (count, count - 1):
            raise Bad(f'{name!r} has {len(values)} rows, expected {count} (the frames) or {count - 1} (between them).')
        if len(values) == count:
            values = values[1:] if place == 'arrival' else values[:-1]
        found.append(values)
    return found


def _observe(part: Part, rows: dict[str, np.ndarray]) -> np.ndarray:
    found = [_field(name, rows) for name in part.field]
    if part.kind == 'vector':
        if len({len(values) for values in found}) > 1:
            raise Bad(f'{", ".join(part.field)} have {[len(v) for v in found]} rows, expected as many each.')
        return np.concatenate([_row(values) for values in found], -1)
    return found[0]


def _convert(part: Part, values: np.ndarray) -> np.ndarray:
    """(T, *part.shape) of the modality's dtype."""
    name = ', '.join(part.field)
    if part.kind != 'vector':
        values = values.reshape(len(values), 1, 1, 1) if values.ndim == 1 else values
        values = values[..., None] if values.ndim == 3 else values
        if part.channels == 'first':
            values = np.moveaxis(values, 1, -1)
    found = values.shape[1:]
    if found != part.shape and not (part.resize and len(found) == 3 and found[2] == part.shape[2]):
        raise Bad(f'{name!r} has frames of the shape {found}, expected {part.shape}.')
    _finite(name, values)
    if part.kind == 'vector':
        return values.astype(np.float32)
    if part.kind == 'grid':
        for channel, classes in enumerate(part.classes):
            _inside(f'{name}[..., {channel}]', values[..., channel], 0, classes - 1)
        _whole(name, values)
        return values.astype(np.uint8)
    if values.dtype != np.uint8 or part.scale != 1.0:
        values = values.astype(np.float64 if values.dtype.itemsize > 4 else np.float32) * part.scale
        _inside(name, values, 0, 255, slack=0.5)
        values = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    if found != part.shape:
        values = np.stack([resized(frame, *part.shape[:2]) for frame in values])
    return values


def resized(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, C) uint8 -> (height, width, C): averaged where it shrinks, linear between pixels where it grows."""
    if frame.shape[2] == 3:
        return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
    planes = [Image.fromarray(np.ascontiguousarray(frame[..., c])) for c in range(frame.shape[2])]
    return np.stack([np.asarray(p.resize((width, height), Image.Resampling.BILINEAR)) for p in planes], -1)


def _act(action: Action, found: list[np.ndarray]) -> np.ndarray:
    """Actions by transition, in our form."""
    name = ', '.join(action.field)
    if action.kind == 'continuous':
        values = np.concatenate([_row(x) for x in found], -1)
        if values.shape[1] != action.size:
            raise Bad(f'{name!r} has {values.shape[1]} numbers a row, expected {action.size}, the size of the action.')
        values = values.astype(np.float32)
        _finite(name, values)
        _inside(name, values, action.low, action.high, slack=1e-5 * (action.high - action.low))
        return np.clip(values, np.float32(action.low), np.float32(action.high))
    values = found[0]
    if action.one_hot:
        values = _row(values)
        if values.shape[1] != action.size:
            raise Bad(f'{name!r} has {values.shape[1]} numbers a row, expected {action.size}, one for each choice.')
        wrong = np.flatnonzero(((values != 0) & (values != 1)).any(-1) | (values.sum(-1) != 1))
        if len(wrong):
            raise Bad(f'{name!r} is {values[wrong[0]].tolist()} in row {wrong[0]}, expected a single one among zeros.')
        return values.argmax(-1).astype(np.int32)
    values = _row(values)
    if values.shape[1] != 1:
        raise Bad(f'{name!r} has {values.shape[1]} numbers a row, expected one, the number of the choice.')
    values = values.reshape(len(values))
    _finite(name, values)
    _whole(name, values)
    _inside(name, values, action.start, action.start + action.size - 1)
    return (values.astype(np.int64) - action.start).astype(np.int32)


def _scalar(name: str, found: list[np.ndarray]) -> np.ndarray:
    values = _row(found[0])
    if values.shape[1] != 1:
        raise Bad(f'{name!r} has {values.shape[1]} numbers a row, expected one.')
    _finite(name, values)
    return values[:, 0].astype(np.float32)


def _row(values: np.ndarray) -> np.ndarray:
    """(T, ...) -> (T, n), also where T is 0."""
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _padded(values: np.ndarray) -> np.ndarray:
    """A row of zeros more: the last row stands for nothing."""
    return np.concatenate([values, np.zeros_like(values[:1])])


def _finite(name: str, values: np.ndarray) -> None:
    if values.dtype.kind == 'f' and not np.isfinite(values).all():
        at = np.argwhere(~np.isfinite(values))[0]
        raise Bad(f'{name!r} is {values[tuple(at)]} in row {at[0]}, expected finite numbers.')


def _whole(name: str, values: np.ndarray) -> None:
    if values.dtype.kind == 'f' and (values != np.rint(values)).any():
        at = np.argwhere(values != np.rint(values))[0]
        raise Bad(f'{name!r} is {values[tuple(at)]} in row {at[0]}, expected whole numbers.')


def _inside(name: str, values: np.ndarray, low: float, high: float, slack: float = 0.0) -> None:
    wrong = (values < low - slack) | (values > high + slack)
    if wrong.any():
        at = np.argwhere(wrong)[0]
        raise Bad(f'{name!r} is {values[tuple(at)]} in row {at[0]}, expected {low:g} to {high:g}.')

"""What a recorded episode must be before a model may learn from it: checked once, when it is read from disk.

Only what is small is looked at: lengths, shapes and types of all fields, the values of all but images, in which every
byte is a colour.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from worldmodels.types import Modality, Spec

_FLAGS = ('is_first', 'is_last', 'is_terminal')
_SLACK = 1e-5  # of a continuous action's bounds: what rounding to float32 may add


def fault(episode: dict[str, Any], spec: Spec, length: int | None = None) -> str | None:
    """What is wrong with an episode's arrays, in words that follow its name; None when nothing is.

    Args:
      episode: as `episodes` describes it. The last row's action and outcomes stand for nothing and may be anything.
      spec: of the world it was played in.
      length: frames it should have; None for as many as it has flags.
    """
    try:
        fields = _fields(episode, spec)
    except (KeyError, TypeError) as error:
        return f'has no {error}, only {", ".join(map(str, episode))}'
    rows = len(fields['is_first'][0]) if np.ndim(fields['is_first'][0]) else 0
    if not rows:
        return 'has no frames'
    if length is not None and rows != length:
        return f'has {rows} frames, where the metadata say {length}'
    for name, (array, dtype, shape) in fields.items():
        if array.shape != (rows, *shape) or array.dtype != dtype:
            return f'has {array.dtype} {array.shape} for {name}, where its spec and length say {dtype} {(rows, *shape)}'
    flags = {name: fields[name][0] for name in _FLAGS}
    if not flags['is_first'][0] or flags['is_first'][1:].any():
        return 'does not have is_first at its first frame and there alone'
    for name in ('is_last', 'is_terminal'):
        if flags[name][:-1].any():
            return f'goes on after the frame {int(flags[name].argmax())}, which has {name}'
    return _bad_action(fields['action'][0], spec) or _bad_outcome(fields, spec) or _bad_observation(fields, spec)


def _fields(episode: dict[str, Any], spec: Spec) -> dict[str, tuple[np.ndarray, np.dtype, tuple[int, ...]]]:
    """name: (array, the dtype it should have, the shape of a row)."""
    kinds = {f'observation/{k}': (episode['observation'][k], m.dtype, m.shape) for k, m in spec.observation}
    kinds['action'] = (episode['action'], spec.action.dtype, spec.action.shape)
    kinds |= {name: (episode[name], 'float32', ()) for name in spec.outcomes}
    kinds |= {name: (episode[name], 'bool', ()) for name in _FLAGS}
    return {name: (np.asarray(x), np.dtype(dtype), tuple(shape)) for name, (x, dtype, shape) in kinds.items()}


def _bad_action(action: np.ndarray, spec: Spec) -> str | None:
    taken, space = action[:-1], spec.action
    if space.kind == 'discrete':
        bad, expected = (taken < 0) | (taken >= space.size), f'a number from 0 to {space.size - 1}'
    else:
        slack = _SLACK * max(abs(space.low), abs(space.high), space.high - space.low)
        inside = (taken >= space.low - slack) & (taken <= space.high + slack)  # false for NaN
        bad, expected = ~inside, f'values from {space.low} to {space.high}'
    return _first(bad, taken, 'action', expected)


def _bad_outcome(fields: dict, spec: Spec) -> str | None:
    for name in spec.outcomes:
        paid = fields[name][0][:-1]
        bad, expected = ~np.isfinite(paid), 'a finite number'
        if name == 'discount':
            bad, expected = ~((paid >= 0) & (paid <= 1)), 'a number from 0 to 1'
        found = _first(bad, paid, name, expected)
        if found:
            return found
    return None


def _bad_observation(fields: dict, spec: Spec) -> str | None:
    for name, modality in spec.observation:
        shown = fields[f'observation/{name}'][0]
        bad, expected = _out_of_range(shown, modality)
        found = None if bad is None else _first(bad, shown, f'observation/{name}', expected)
        if found:
            return found
    return None


def _out_of_range(shown: np.ndarray, modality: Modality) -> tuple[np.ndarray | None, str]:
    if modality.kind == 'vector':
        return (None, '') if np.isfinite(shown).all() else (~np.isfinite(shown), 'finite numbers')
    # Channel by channel: one comparison with all classes takes longer.
    if modality.kind == 'grid' and any((shown[..., c] >= n).any() for c, n in enumerate(modality.classes)):
        bad = shown >= np.asarray(modality.classes)
        return bad, f'classes below {", ".join(map(str, modality.classes))} by channel'
    return None, ''


def _first(bad: np.ndarray, values: np.ndarray, name: str, expected: str) -> str | None:
    if not bad.any():
        return None
    place = np.unravel_index(int(bad.argmax()), bad.shape)
    return f'has {name} {values[place]} at frame {int(place[0])}, where {expected} is expected'

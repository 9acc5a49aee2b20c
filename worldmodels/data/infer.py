"""Guesses the mapping of foreign data from what the first episodes hold; what the user said is taken as said.

Names that are known: action(s), reward(s), discount(s), is_terminal, terminal(s) and termination(s), is_first; observations are
what lies under observation(s)/, else every other field of numbers.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
from typing import Any

import numpy as np

from worldmodels.data import mapping as mappings
from worldmodels.data.sources import Declared, Source, Unreadable

EPISODES = 8  # looked at, evenly over the splits
FRAMES = 256  # looked at of each
ROLES = {
    'reward': ('reward', 'rewards'),
    'discount': ('discount', 'discounts'),
    'terminal': ('is_terminal', 'terminal', 'terminals', 'terminations', 'termination', 'terminated'),
    'first': ('is_first', 'reset'),
}
ACTIONS = ('action', 'actions')
OBSERVATIONS = ('observation', 'observations', 'obs')
# Fields that tell of the recording, not of the world.
ASIDE = (
    'is_last', 'truncations', 'truncation', 'truncated', 'timeouts', 'timeout', 'done', 'dones', 'stepid', 'consec',
    'timestamp', 'timestamps', 'infos', 'info', 'seed', 'id', 'episode_metadata', 'next_observation', 'next_observations',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sample:
    """The first episodes of a source, or as much of them as tells what they are.

    rows     field -> arrays, one of each episode that has it
    frames   field -> frames of those episodes
    lengths  frames of each episode
    items    of the source that were looked at
    """

    rows: dict[str, list[np.ndarray]]
    frames: dict[str, list[int]]
    lengths: list[int]
    items: int


def sample(source: Source) -> Sample:
    """Raises ValueError where not one of the first episodes can be read."""
    rows: dict[str, list[np.ndarray]] = {}
    frames: dict[str, list[int]] = {}
    lengths, problem, looked = [], None, 0
    for split, count in source.splits.items():
        some = min(count, -(-EPISODES // len(source.splits)))
        for number in np.linspace(0, count - 1, some).round().astype(int).tolist():
            looked += 1
            try:
                for episode in source.read(split, number, FRAMES):
                    lengths.append(_frames(episode))
                    for name, values in episode.items():
                        rows.setdefault(name, []).append(values)
                        frames.setdefault(name, []).append(lengths[-1])
            except Unreadable as error:
                problem = error
    if not rows:
        raise ValueError(f'Nothing of {source.path!r} can be read: {problem or "it holds no episode"}')
    return Sample(rows, frames, lengths, looked)


def _frames(episode: dict[str, np.ndarray]) -> int:
    """The number that most fields have as rows, or one less."""
    counts = [len(x) for x in episode.values() if x.ndim]
    return max(counts, key=lambda n: (sum(n - 1 <= m <= n for m in counts), n), default=0)


def fields(seen: Sample) -> list[tuple[str, str, tuple[int, ...], str, str]]:
    """(name, dtype, shape of a row, least, most) of every field looked at."""
    found = []
    for name, arrays in seen.rows.items():
        extremes = [(np.nanmin(x), np.nanmax(x)) for x in arrays if x.size and x.dtype.kind in 'biuf']
        least, most = (
            f'{pick(pair[i] for pair in extremes):.4g}' if extremes else '' for i, pick in ((0, min), (1, max))
        )
        found.append((name, str(arrays[0].dtype), arrays[0].shape[1:], least, most))
    return found


def infer(source: Source, seen: Sample, given: dict[str, Any]) -> mappings.Mapping:
    """The whole mapping: `given` (JSON, any part of a mapping) and the rest as guessed.

    Modalities that are given with their fields are all there are; without, they change those that are guessed.

    Raises ValueError where a field that is named does not exist, or a choice cannot be guessed.
    """
    mappings.check(given)
    out: dict[str, Any] = {**source.stands, **given}
    for role, names in ROLES.items():
        if role not in given:
            out[role] = _first_of(seen, names)
        elif given[role]:
            _exists(given[role], seen, f'mapping.{role}')
    for name, field in given.get('costs', {}).items():
        _exists(field, seen, f'mapping.costs.{name}')
    action = given.get('action', {})
    fields = _named(action['field']) if 'field' in action else _action_fields(seen)
    for field in fields:
        _exists(field, seen, 'mapping.action.field')
    guessed, arrives = _action(fields, seen, source.declared, action)
    out['action'] = {**guessed, **action, 'field': list(fields)}
    if arrives and 'action_at' not in given:
        out['action_at'] = 'arrival'
    taken = {out[role] for role in ROLES} | set(fields) | set(out.get('costs', {}).values())
    parts = given.get('observation', {})
    if not any('field' in part for part in parts.values()):  # they only refine what is guessed
        guesses = {name: {'field': field} for name, field in _observations(seen, taken)}
        parts = {name: {**part, **parts.get(name, {})} for name, part in {**parts, **guesses}.items()}
    if not parts:
        raise ValueError(
            f'No observation was recognised among {", ".join(seen.rows)}: name one in mapping.observation.'
        )
    out['observation'] = {name: _part(name, part, seen, source.declared) for name, part in parts.items()}
    if 'splits' not in given and 'validation' not in given:
        out['splits'] = _splits(source)
    for ours, theirs in out.get('splits', {}).items():
        if theirs not in source.splits:
            raise ValueError(
                f'mapping.splits.{ours} is {theirs!r}, which the source does not have: it has {", ".join(source.splits)}.'
            )
    return mappings.Mapping.from_json(out)


def _splits(source: Source) -> dict[str, str]:
    train = next((name for name in ('train', 'training') if name in source.splits), None)
    held = next((n for n in ('validation', 'valid', 'val', 'eval', 'test') if n in source.splits), None)
    return {'train': train, 'validation': held} if train and held else {}


def _first_of(seen: Sample, names: tuple[str, ...]) -> str:
    """The field whose last name is one of these, the one with the fewest names above it."""
    found = [f for f in seen.rows if f.rpartition('/')[2] in names and _rowed(seen, f) and _width(seen, f) == 1]
    return min(found, key=lambda f: (f.count('/'), names.index(f.rpartition('/')[2])), default='')


def _action_fields(seen: Sample) -> tuple[str, ...]:
    exact = [f for f in seen.rows if f in ACTIONS]
    return tuple(exact or [f for f in seen.rows if f.partition('/')[0] in ACTIONS])


def _observations(seen: Sample, taken: set[str]) -> list[tuple[str, str]]:
    """(our name, field) of all that is seen."""
    rowed = [f for f in seen.rows if f not in taken and _rowed(seen, f)]
    fields = [f for f in rowed if f.partition('/')[0] in OBSERVATIONS]
    if not fields:
        aside = {*ASIDE, *ACTIONS, *itertools.chain(*ROLES.values())}
        fields = [f for f in rowed if f.partition('/')[0] not in aside and not f.startswith('log')]
    short = [f.rpartition('/')[2] for f in fields]
    names = []
    for field, name in zip(fields, short):
        name = name if short.count(name) == 1 else field
        if name in OBSERVATIONS:
            name = 'image' if _kind(seen.rows[field], Declared()) == 'image' else 'state'
        names.append(''.join(c if c.isalnum() else '_' for c in name))
    return list(zip(names, fields))


def _part(name: str, part: dict[str, Any], seen: Sample, declared: dict[str, Declared]) -> dict[str, Any]:
    where = f'mapping.observation.{name}'
    if not part.get('field'):
        raise ValueError(f"{where} has no field: name the source's, one of {', '.join(seen.rows)}.")
    fields = _named(part['field'])
    for field in fields:
        _exists(field, seen, where)
    arrays, says = seen.rows[fields[0]], declared.get(fields[0], Declared())
    kind = part.get('kind') or ('vector' if len(fields) > 1 else _kind(arrays, says))
    shape = arrays[0].shape[1:]
    if kind == 'vector':
        numbers = sum(int(np.prod(seen.rows[field][0].shape[1:])) for field in fields)
        return {'kind': kind, 'shape': [numbers], **part}
    if len(shape) not in (0, 2, 3) and 'shape' not in part:
        raise ValueError(
            f'{where}: {fields[0]!r} has frames of the shape {shape}, expected 2 or 3 axes for the kind {kind}.'
        )
    shape = {0: (1, 1, 1), 2: (*shape, 1)}.get(len(shape), shape)
    channels = part.get('channels') or ('first' if _channels_first(shape) and kind == 'image' else 'last')
    shape = (*shape[1:], shape[0]) if channels == 'first' else shape
    if part.get('resize'):
        shape = (*part['resize'], shape[2])
    out = {'kind': kind, 'shape': list(shape), 'channels': channels}
    if kind == 'grid':
        out['classes'] = _classes(arrays, shape[2], channels, says)
    elif arrays[0].dtype.kind == 'f':
        out['scale'] = 255.0 if max(float(np.nanmax(x, initial=0)) for x in arrays) <= 1 else 1.0
    elif arrays[0].dtype.kind == 'b':
        out['scale'] = 255.0
    # A target that was asked for is the shape, whatever else was written down.
    return {**out, **part, **({'shape': list(shape)} if part.get('resize') else {})}


def _kind(arrays: list[np.ndarray], says: Declared) -> str:
    """Bytes are a picture where there are many levels or many places, else the codes of a grid."""
    shape, dtype = arrays[0].shape[1:], arrays[0].dtype
    coloured = len(shape) == 3 and (shape[2] in (1, 3, 4) or _channels_first(shape)) and min(shape[:2]) > 1
    if dtype == np.uint8 and (coloured or len(shape) == 2):
        levels = max(int(x.max(initial=0)) for x in arrays)
        return 'image' if min(shape[:2]) >= 32 or (coloured and levels >= 32) or _channels_first(shape) else 'grid'
    if coloured and dtype.kind == 'f':
        return 'image' if all(_between(x, 0, 255) for x in arrays) else 'vector'
    codes = dtype.kind in 'biu' and all(_between(x, 0, 255) for x in arrays)
    return 'grid' if codes and (len(shape) in (2, 3) or (not shape and says.size and not says.start)) else 'vector'


def _between(values: np.ndarray, low: float, high: float) -> bool:
    return not values.size or bool(low <= np.nanmin(values) and np.nanmax(values) <= high)


def _channels_first(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4) and min(shape[1:]) > 4


def _classes(arrays: list[np.ndarray], channels: int, place: str, says: Declared) -> list[int]:
    if says.size:
        return [says.size] * channels
    axis = 1 if place == 'first' and arrays[0].ndim == 4 else 3
    found = [x if x.ndim == 4 else x.reshape(*x.shape, 1) if x.ndim == 3 else x.reshape(-1, 1, 1, 1) for x in arrays]
    return [1 + max(int(x.take(c, axis).max(initial=0)) for x in found) for c in range(channels)]


def _action(
    fields: tuple[str, ...], seen: Sample, declared: dict[str, Declared], given: dict[str, Any]
) -> tuple[dict[str, Any], bool]:
    """What actions are, and whether they look as if each stood with the frame that it led to."""
    if not fields:
        return {'kind': 'discrete', 'size': 1}, False
    arrays, says = seen.rows[fields[0]], declared.get(fields[0], Declared())
    width = sum(_width(seen, field) for field in fields)
    floats = arrays[0].dtype.kind == 'f'
    numbered = not floats or (says.low is None and all((x == np.rint(x)).all() for x in arrays))
    kind = given.get('kind') or ('discrete' if len(fields) == 1 and width == 1 and numbered else 'continuous')
    hot = len(fields) == 1 and width > 1 and all(_is_one_hot(x[1:]) for x in arrays)
    if (hot and 'kind' not in given and says.low in (None, 0.0)) or given.get('one_hot'):
        # An opening has no action that led to it: a row of zeros.
        arrives = all(len(x) and not x[0].any() for x in arrays)
        return {'kind': 'discrete', 'size': width, 'one_hot': True}, arrives
    if kind == 'discrete':
        low = says.start if says.size else min(int(np.nanmin(x, initial=0)) for x in arrays)
        start = low if says.size else min(low, 0)
        if start < 0 and not says.size and all(len(x) and x.reshape(-1)[0] == start for x in arrays):
            start = 0  # -1 stands for no action yet
        most = max(int(np.nanmax(x, initial=0)) for x in arrays)
        names = says.names if says.names else ()
        return {'kind': kind, 'size': says.size or most - start + 1, 'start': start, 'names': list(names)}, False
    low, high = says.low, says.high
    if low is None or high is None:
        flat = np.concatenate([np.ravel(x) for field in fields for x in seen.rows[field]]).astype(np.float64)
        flat = flat[np.isfinite(flat)]
        reach = float(np.abs(flat).max(initial=0.0))
        bound = 1.0 if reach <= 1 else float(np.ceil(reach))
        low, high = -bound, bound
    return {'kind': kind, 'size': width, 'low': low, 'high': high}, False


def _is_one_hot(values: np.ndarray) -> bool:
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    return bool(((flat == 0) | (flat == 1)).all() and (flat.sum(-1) == 1).all())


def _rowed(seen: Sample, field: str) -> bool:
    """Whether a field is numbers with a row for every frame, or for all but one; an episode in two may be damaged."""
    fits = [
        x.ndim and x.dtype.kind in 'biuf' and n - 1 <= len(x) <= n for x, n in zip(seen.rows[field], seen.frames[field])
    ]
    return 2 * sum(map(bool, fits)) >= len(fits)


def _width(seen: Sample, field: str) -> int:
    return int(np.prod(seen.rows[field][0].shape[1:]))


def _named(field: Any) -> tuple[str, ...]:
    return ((field,) if field else ()) if isinstance(field, str) else tuple(field)


def _exists(field: str, seen: Sample, where: str) -> None:
    if field not in seen.rows:
        near = difflib.get_close_matches(field, seen.rows, 1)
        hint = f'did you mean {near[0]!r}?' if near else f'it has {", ".join(seen.rows)}.'
        raise ValueError(f'{where} is {field!r}, which the source does not have: {hint}')

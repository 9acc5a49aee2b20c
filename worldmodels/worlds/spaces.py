"""Gymnasium's spaces as our observations and actions, and the values of the one as values of the other.

Box of uint8 (H, W), (H, W, C) or (C, H, W)    modality 'image'
Box of anything else                           modality 'vector', flattened
Discrete, MultiDiscrete, MultiBinary           modality 'grid' of one row and column, a channel for each number
Dict, Tuple                                    a modality for each of their parts, named by their keys joined with '_'

Discrete is a discrete action, a bounded Box a continuous one: where the bounds of its entries differ, actions are in
[-1, 1] and stretched to them. Any other space is refused.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from worldmodels.types import ActionSpace, Modality

CHANNELS = (1, 3, 4)
CLASSES = 256  # a grid's numbers are bytes


@dataclasses.dataclass(frozen=True)
class Part:
    """One modality, and where in an observation it is: its keys, '' where the observation is the modality itself.

    channels_first   of the picture given
    start            of a Discrete space's numbers
    """

    name: str
    keys: tuple
    modality: Modality
    given: tuple[int, ...]
    channels_first: bool = False
    start: int = 0

    def read(self, observation: Any) -> np.ndarray:
        """The modality's array. Raises ValueError for a value that its space does not hold."""
        for key in self.keys:
            observation = observation[key]
        value = np.asarray(observation)
        if value.shape != self.given:
            raise ValueError(f'observation {self.name!r} has the shape {value.shape}, its space says {self.given}')
        if self.modality.kind == 'image':
            if value.dtype != np.uint8:
                raise ValueError(f'observation {self.name!r} is {value.dtype}, its space says uint8')
            return (np.moveaxis(value, 0, -1) if self.channels_first else value).reshape(self.modality.shape)
        if self.modality.kind == 'vector':
            if not np.isfinite(value).all():
                raise ValueError(f'observation {self.name!r} holds NaN or infinity')
            return value.astype(np.float32).reshape(self.modality.shape)
        value = value.astype(np.int64).reshape(self.modality.shape) - self.start
        if (value < 0).any() or (value >= self.modality.classes).any():
            raise ValueError(f'observation {self.name!r} is {value.ravel().tolist()}, outside its space')
        return value.astype(np.uint8)


def parts(space: Any, wanted: tuple[str, ...] = ()) -> list[Part]:
    """The modalities of an observation space; only those `wanted`, if any are named.

    Raises ValueError for a space that has no form here, or a wanted name that is not there.
    """
    found = dict(_leaves(space))
    named = {'_'.join(map(str, keys)) or _sole(leaf): (keys, leaf) for keys, leaf in found.items()}
    unknown = [name for name in wanted if name not in named]
    if unknown:
        raise ValueError(f'modalities: there is no {unknown[0]!r} to keep, only {", ".join(named)}.')
    return [_part(name, keys, leaf) for name, (keys, leaf) in named.items() if not wanted or name in wanted]


def action(space: Any) -> tuple[ActionSpace, tuple[np.ndarray, np.ndarray] | int]:
    """The action space, and what `raw` needs: the first number of a Discrete, or low and high of a Box."""
    from gymnasium.spaces import Box, Discrete

    if isinstance(space, Discrete):
        return ActionSpace('discrete', int(space.n)), int(space.start)
    if not isinstance(space, Box) or not np.issubdtype(space.dtype, np.floating):
        raise ValueError(f'actions in {space} have no form here: it takes Discrete, and Box of floats; wrap the world.')
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ValueError(f'actions in {space} have no bounds: wrap the world in gymnasium.wrappers.ClipAction or such.')
    low, high = space.low.ravel(), space.high.ravel()
    if (low == low[0]).all() and (high == high[0]).all():
        return ActionSpace('continuous', low.size, (), float(low[0]), float(high[0])), (low, high)
    return ActionSpace('continuous', low.size), (low, high)


def raw(value: np.ndarray, ours: ActionSpace, theirs: tuple[np.ndarray, np.ndarray] | int, space: Any) -> Any:
    """An action of ours as the environment takes it."""
    if ours.kind == 'discrete':
        return int(value) + theirs
    low, high = theirs
    share = (np.asarray(value, np.float64) - ours.low) / (ours.high - ours.low)
    return np.clip(low + share * (high - low), low, high).astype(space.dtype).reshape(space.shape)


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, C) -> (size, size, C), every pixel the mean of what it covers."""
    if picture.shape[:2] == (size, size):
        return picture
    columns = _means(picture, size).swapaxes(0, 1)
    return np.rint(_means(columns, size).swapaxes(0, 1)).astype(np.uint8)


def _means(x: np.ndarray, size: int) -> np.ndarray:
    """(n, ...) -> (size, ...): means over equal stretches of the first axis, which may cut an entry in two."""
    # Differences of running sums: a product with a matrix does fifty times the work, and waits for BLAS's threads.
    sums = np.concatenate([np.zeros_like(x[:1], np.float64), np.cumsum(x, axis=0, dtype=np.float64)])
    edges = np.arange(size + 1) * (len(x) / size)
    whole = np.minimum(edges.astype(int), len(x) - 1)
    share = (edges - whole).reshape(-1, *(1,) * (x.ndim - 1))
    return np.diff(sums[whole] + share * x[whole], axis=0) * (size / len(x))


def _leaves(space: Any, keys: tuple = ()):
    from gymnasium.spaces import Dict, Tuple

    if isinstance(space, Dict):
        for key, inner in space.spaces.items():
            yield from _leaves(inner, (*keys, key))
    elif isinstance(space, Tuple):
        for i, inner in enumerate(space.spaces):
            yield from _leaves(inner, (*keys, i))
    else:
        yield keys, space


def _sole(leaf: Any) -> str:
    try:
        return {'image': 'image', 'grid': 'grid', 'vector': 'vector'}[_part('', (), leaf).modality.kind]
    except ValueError:
        return 'observation'


def _part(name: str, keys: tuple, space: Any) -> Part:
    from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

    shape, named = getattr(space, 'shape', None), f'{name!r} of the observation' if keys else 'the observation'
    if isinstance(space, Box) and space.dtype == np.uint8 and len(shape) == 2:
        return Part(name, keys, Modality('image', (*shape, 1)), shape)
    if isinstance(space, Box) and space.dtype == np.uint8 and len(shape) == 3 and shape[-1] in CHANNELS:
        return Part(name, keys, Modality('image', shape), shape)
    if isinstance(space, Box) and space.dtype == np.uint8 and len(shape) == 3 and shape[0] in CHANNELS:
        return Part(name, keys, Modality('image', (*shape[1:], shape[0])), shape, channels_first=True)
    if isinstance(space, Box):
        return Part(name, keys, Modality('vector', (max(1, math.prod(shape)),)), shape)
    if isinstance(space, (Discrete, MultiDiscrete, MultiBinary)):
        if isinstance(space, Discrete):
            classes, start = (int(space.n),), int(space.start)
        elif isinstance(space, MultiDiscrete):
            classes, start = tuple(int(n) for n in space.nvec.ravel()), 0
            if np.any(space.start):
                raise ValueError(f'{named} is in {space}, whose numbers do not begin at 0: wrap the world.')
        else:
            classes, start = (2,) * math.prod(shape), 0
        if max(classes) > CLASSES:
            raise ValueError(
                f'{named} is one of {max(classes)} in {space}, a grid holds at most {CLASSES}: '
                'set render=true to see the world instead, or wrap it.'
            )
        return Part(name, keys, Modality('grid', (1, 1, len(classes)), classes), shape or (), start=start)
    raise ValueError(
        f'{named} is in {space}, which has no form here: it takes Box, Discrete, MultiDiscrete, MultiBinary, and Dict and '
        'Tuple of these; name what to keep by the option modalities, or wrap the world.'
    )

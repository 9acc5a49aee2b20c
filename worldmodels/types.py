"""The shapes and records every part agrees on.

Dimension key, used as suffixes of array names everywhere in the package:

    B  batch           T  time (ticks)        N  tokens of one frame   M  context slots
    D  model width     E  token embedding     K  classes of a token    A  action vector
    H W C  image       P  values of one patch S  slots of a sequence   L  layers

Data on disk follow RLDS: the reward of a step is stored with the action that earned it, (o_t, a_t, r_t). A world model
meets the same reward one tick later, beside the frame the action led to. `Ticks` is that second form, and
`worldmodels.data.episodes.to_ticks` the only conversion.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray
PyTree = Any


@dataclasses.dataclass(frozen=True)
class Modality:
    """One named part of an observation.

    kind 'image': uint8 (H, W, C) in 0..255. kind 'grid': integers (H, W, C), channel c below classes[c].
    kind 'vector': float32 (n,).
    """

    kind: str
    shape: tuple[int, ...]
    classes: tuple[int, ...] = ()

    @property
    def dtype(self) -> str:
        return {'image': 'uint8', 'grid': 'uint8', 'vector': 'float32'}[self.kind]


@dataclasses.dataclass(frozen=True)
class ActionSpace:
    """Discrete (n choices, int32 scalar) or continuous (float32 vector within bounds).

    Inside a model an action is always a float vector (..., A): one-hot or the values themselves. The null action, the
    one before an episode's first frame, is the zero vector.
    """

    kind: str  # 'discrete' | 'continuous'
    size: int
    names: tuple[str, ...] = ()
    low: float = -1.0
    high: float = 1.0

    @classmethod
    def from_json(cls, data: dict) -> ActionSpace:
        """From its fields, names being a list. Raises KeyError or TypeError where these are none."""
        return cls(**{**data, 'names': tuple(data['names'])})

    @property
    def known(self) -> bool:
        """Whether there is anything to choose: data of which nobody knows what was done have a single choice."""
        return self.kind == 'continuous' or self.size > 1

    @property
    def shape(self) -> tuple[int, ...]:
        return () if self.kind == 'discrete' else (self.size,)

    @property
    def dtype(self) -> str:
        return 'int32' if self.kind == 'discrete' else 'float32'

    def vector(self, action: Array) -> jax.Array:
        """Raw actions (...) or (..., size) -> vectors (..., A) float32; a discrete action of -1 gives the null action."""
        if self.kind == 'discrete':
            return jax.nn.one_hot(action, self.size, dtype=jnp.float32)
        return jnp.asarray(action, jnp.float32)

    def null(self, batch: tuple[int, ...] = ()) -> np.ndarray:
        """The raw action standing before an opening frame: -1 or zeros."""
        if self.kind == 'discrete':
            return np.full(batch, -1, np.int32)
        return np.zeros((*batch, self.size), np.float32)


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a model must know of a world: its observation, its actions, the scalars it pays out.

    `outcomes` always holds 'reward' and 'discount' (discount is 0 at a terminal frame, else 1); a world adds costs.
    """

    observation: tuple[tuple[str, Modality], ...]
    action: ActionSpace
    outcomes: tuple[str, ...] = ('reward', 'discount')

    @property
    def modalities(self) -> dict[str, Modality]:
        return dict(self.observation)

    def to_json(self) -> dict:
        return {
            'observation': {k: dataclasses.asdict(m) for k, m in self.observation},
            'action': dataclasses.asdict(self.action),
            'outcomes': list(self.outcomes),
        }

    @classmethod
    def from_json(cls, data: dict) -> Spec:
        """Raises KeyError, TypeError or ValueError where the JSON is no spec."""
        spec = cls(
            observation=tuple(
                (k, Modality(m['kind'], tuple(m['shape']), tuple(m['classes']))) for k, m in data['observation'].items()
            ),
            action=ActionSpace.from_json(data['action']),
            outcomes=tuple(data['outcomes']),
        )
        spec.check()
        return spec

    def check(self) -> None:
        """Raises ValueError for kinds, sizes and names that no world has."""
        for name, modality in self.observation:
            sizes = (*modality.shape, *modality.classes)
            known = modality.kind in ('image', 'grid', 'vector')
            flat = modality.kind in ('image', 'grid') and len(modality.shape) != 3
            if not known or flat or not sizes or not all(type(n) is int and n > 0 for n in sizes):
                raise ValueError(f'the modality {name!r} is {modality}')
            if modality.kind == 'grid' and len(modality.classes) != modality.shape[-1]:
                raise ValueError(f'the modality {name!r} has {modality.shape[-1]} channels, classes {modality.classes}')
        action = self.action
        if action.kind not in ('discrete', 'continuous') or type(action.size) is not int or action.size < 1:
            raise ValueError(f'the action space is {action}')
        if not action.low <= action.high:
            raise ValueError(f'the action space has bounds {action.low} and {action.high}')
        if not {'reward', 'discount'} <= set(self.outcomes) or not self.observation:
            raise ValueError('an observation, reward and discount are needed')


@flax.struct.dataclass
class Latent:
    """z: the tokens of one frame. `index_BN` int32 (None where latents are continuous), `embedding_BNE` float.

    Gradients flow through the embedding. The latent before any frame has index K ("no token yet") and zero embedding.
    Leading axes may be (B,) or (B, T).
    """

    index_BN: jax.Array | None
    embedding_BNE: jax.Array


@flax.struct.dataclass
class Belief:
    """What crosses a cut between two ticks, and nothing else does: z, the memory's state h, and the context it shows."""

    z: Latent
    h: PyTree
    context_BMD: jax.Array


@flax.struct.dataclass
class Ticks:
    """A batch of experience as a model meets it. Arrays are (B, T, ...) unless noted.

    observation  dict of modalities, raw dtype
    action       the raw action that LED to this frame; null at an opening
    outcomes     dict of float32, what that action paid: reward, discount, costs
    is_first / is_last / is_terminal   bool; RLDS meaning, of this frame
    continues_B  bool: tick 0 goes on from the belief carried out of the previous batch's same row
    example_B    int32 global index of the row, from which its randomness is derived
    """

    observation: dict[str, Array]
    action: Array
    outcomes: dict[str, Array]
    is_first: Array
    is_last: Array
    is_terminal: Array
    continues_B: Array
    example_B: Array

    @property
    def reset_BT(self) -> jax.Array:
        """Where the belief starts anew: at openings, and at a row's start when nothing is carried into it."""
        start_B = ~jnp.asarray(self.continues_B)
        is_first_BT = jnp.asarray(self.is_first)
        return is_first_BT.at[:, 0].set(is_first_BT[:, 0] | start_B)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the N tokens of a frame lie: one (height, width) grid per modality, in order; () for tokens with no place."""

    grids: tuple[tuple[int, int], ...] = ()
    loose: int = 0

    @property
    def tokens(self) -> int:
        return self.loose + sum(h * w for h, w in self.grids)


def select(mask_B: jax.Array, new: PyTree, old: PyTree) -> PyTree:
    """Per example choose `new` where mask, else `old`; leaves are (B, ...). Never mixes: NaN in the other side stays there."""

    def pick(a, b):
        return jnp.where(mask_B.reshape(mask_B.shape + (1,) * (b.ndim - mask_B.ndim)), a, b)

    return jax.tree.map(pick, new, old)


def flat(x: jax.Array, keep: int) -> jax.Array:
    """Join all axes after the first `keep`."""
    return x.reshape((*x.shape[:keep], math.prod(x.shape[keep:])))


def nbytes(tree: PyTree) -> int:
    """Bytes of all arrays (or abstract arrays) in a tree."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def check_ticks(ticks: Ticks, spec: Spec) -> None:
    """Raises AssertionError naming the field when a batch does not have the spec's shapes and dtypes."""
    B, T = ticks.is_first.shape
    for name, modality in spec.observation:
        chex.assert_shape(ticks.observation[name], (B, T, *modality.shape))
        chex.assert_type(ticks.observation[name], jnp.dtype(modality.dtype))
    chex.assert_shape(ticks.action, (B, T, *spec.action.shape))
    chex.assert_shape([ticks.outcomes[k] for k in spec.outcomes], (B, T))
    chex.assert_shape([ticks.is_last, ticks.is_terminal], (B, T))
    chex.assert_shape([ticks.continues_B, ticks.example_B], (B,))

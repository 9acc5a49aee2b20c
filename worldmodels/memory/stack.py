r"""Several memories together, each with its own state: recent frames whole beside a bank of old ones, for instance.

$$h' = (h'_1, \dots, h'_P), \qquad c' = \Bigl[\textstyle\sum_{i \in A} W_i c'_i \,;\, W_j c'_j : j \notin A\Bigr]$$

A are the memories whose slots belong to the tokens (`Memory.aligned`): they are added token by token, and so stay the
tokens' own. All others follow as further slots, in the order of their names. A network that sees recent frames by attention
and old ones from a store beside it is that of Memorizing Transformers (Wu et al., 2022, arXiv 2203.08913); slow and fast
memories side by side are older (Clockwork RNN, Koutník et al., 2014, arXiv 1402.3511).

W_i is the identity where a memory is as wide as the stack. Bytes and cost per tick are the sums of the parts', and one
product of M_i slots x D_i x D for every part of another width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from worldmodels import rng
from worldmodels.memory.base import Memory
from worldmodels.nn.transformer import dense
from worldmodels.types import Latent, Layout, PyTree


class Stack(Memory):
    """Its state is a dict of its parts' states by name.

    Fields a config sets:
    parts: memories by name, each a section of fields with a `kind`, as `model.memory` itself is.
    width: to which the contexts of all are brought. A part with losses of its own must be as wide.
    """

    layout: Layout
    dtype: str
    parts: Mapping[str, Memory] = dataclasses.field(default=FrozenDict(), metadata={'part': 'memory'})
    width: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, part in self.parts.items():
            if _has_losses(part) and part.width != self.width:
                raise ValueError(
                    f'memory.parts.{name} is trained by a loss of its own, on its context as it is: its width, '
                    f"{part.width}, must be the stack's, {self.width}."
                )

    @property
    def aligned(self) -> bool:
        return any(part.aligned for part in self.parts.values())

    @property
    def slots(self) -> int:
        N = self.layout.tokens
        return N * self.aligned + sum(part.slots - N * part.aligned for part in self.parts.values())

    def setup(self) -> None:
        narrow = {name for name, part in self.parts.items() if part.slots and part.width != self.width}
        self.show = {name: dense(self.width, self.dtype) for name in sorted(narrow)}

    def initial(self, batch: int) -> tuple[dict[str, PyTree], jax.Array]:
        return self._together({name: part.initial(batch) for name, part in self.parts.items()})

    def step(self, h: dict[str, PyTree], z: Latent, action_BA: jax.Array) -> tuple[dict[str, PyTree], jax.Array]:
        return self._together({name: part.step(h[name], z, action_BA) for name, part in self.parts.items()})

    def sequence(
        self, h: PyTree, z: Latent, action_BTA: jax.Array, reset_BT: jax.Array
    ) -> tuple[dict[str, PyTree], jax.Array]:
        start = dict.fromkeys(self.parts) if h is None else h
        return self._together(
            {name: part.sequence(start[name], z, action_BTA, reset_BT) for name, part in self.parts.items()}
        )

    def reset(self, h: dict[str, PyTree], reset_B: jax.Array) -> dict[str, PyTree]:
        return {name: part.reset(h[name], reset_B) for name, part in self.parts.items()}

    def nbytes(self, batch: int = 1) -> int:
        return sum(part.nbytes(batch) for part in self.parts.values())

    def use(self, h: dict[str, PyTree]) -> dict[str, tuple[jax.Array, jax.Array]]:
        """What its parts tell, as 'part/name'."""
        return {f'{name}/{k}': v for name, part in self.parts.items() for k, v in part.use(h[name]).items()}

    def losses(
        self, context_BTMD: jax.Array, z: Latent, action_BTA: jax.Array, reset_BT: jax.Array, keys_BT: jax.Array
    ) -> dict[str, tuple[jax.Array, jax.Array]]:
        """The losses of its parts, each on its own slots."""
        out, start = {}, self.layout.tokens * self.aligned
        keys = dict(zip(self.parts, rng.split(keys_BT, len(self.parts)), strict=True))
        for name, part in self.parts.items():
            slots = part.slots - self.layout.tokens * part.aligned
            own = context_BTMD[:, :, start : start + slots]
            if part.aligned:
                own = jnp.concatenate([context_BTMD[:, :, : self.layout.tokens], own], 2)
            terms = part.losses(own, z, action_BTA, reset_BT, keys[name])
            if terms.keys() & out.keys():
                raise ValueError(
                    f"memory.parts.{name} has the loss '{min(terms.keys() & out.keys())}', as another part has: "
                    'weights are by name, so a stack holds one memory of that kind.'
                )
            out, start = out | terms, start + slots
        return out

    def _together(self, states: dict[str, tuple[PyTree, jax.Array]]) -> tuple[dict[str, PyTree], jax.Array]:
        """Contexts (..., M_i, D_i) as one (..., M, D): what belongs to the tokens first, added up."""
        own, further = [], []
        for name, (_, context) in states.items():
            if not self.parts[name].slots:
                continue
            shown, N = context.astype(self.dtype), self.layout.tokens * self.parts[name].aligned
            shown = self.show[name](shown) if name in self.show else shown
            own += [shown[..., :N, :]] * bool(N)
            further.append(shown[..., N:, :])
        lead = next(iter(states.values()))[1].shape[:-2]
        nothing = jnp.zeros((*lead, 0, self.width), self.dtype)
        context = jnp.concatenate([sum(own[1:], own[0]) if own else nothing, *further], -2)
        return {name: h for name, (h, _) in states.items()}, context


def _has_losses(memory: Memory) -> bool:
    if isinstance(memory, Stack):
        return any(_has_losses(part) for part in memory.parts.values())
    return type(memory).losses is not Memory.losses

r"""Several memories together, each with its own state: recent frames whole beside a bank of old ones, for instance.

$$h' = (h'_1, \dots, h'_P), \qquad c' = \Bigl[\textstyle\sum_{i \in A} W_i c'_i \,;\, W_j c'_j : j \notin A\Bigr]$$

A are the memories whose slots belong to the tokens (`Memory.aligned`): they are added token by token, and so stay the
tokens' own. All others follow as further slots, in the order of their names. A network that sees recent frames by attention
and old ones from a store beside it is that of Memorizing Transformers (Wu et al., 2022, arXiv 2203.08913); slow and fast
memories side by side are older (Clockwork RNN, Koutník et al., 2014, arXiv 1402.3511).

Bytes and cost per tick are the sums of the parts', and one product of M_i slots x D_i x D a part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from worldmodels.memory.base import Memory
from worldmodels.nn.transformer import dense
from worldmodels.types import Latent, Layout, PyTree


class Stack(Memory):
    """Its state is a dict of its parts' states by name.

    Fields a config sets:
    parts: memories by name, each a section of fields with a `kind`, as `model.memory` itself is.
    width: to which the contexts of all are brought.
    """

    layout: Layout
    dtype: str
    parts: Mapping[str, Memory] = dataclasses.field(default=FrozenDict(), metadata={'part': 'memory'})
    width: int = 128

    @property
    def aligned(self) -> bool:
        return any(part.aligned for part in self.parts.values())

    @property
    def slots(self) -> int:
        N = self.layout.tokens
        return N * self.aligned + sum(part.slots - N * part.aligned for part in self.parts.values())

    def setup(self) -> None:
        self.show = {name: dense(self.width, self.dtype) for name, part in self.parts.items() if part.slots}

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

    def _together(self, states: dict[str, tuple[PyTree, jax.Array]]) -> tuple[dict[str, PyTree], jax.Array]:
        """Contexts (..., M_i, D_i) as one (..., M, D): what belongs to the tokens first, added up."""
        own, further = [], []
        for name, (_, context) in states.items():
            if name not in self.show:
                continue
            shown, N = self.show[name](context), self.layout.tokens * self.parts[name].aligned
            own += [shown[..., :N, :]] * bool(N)
            further.append(shown[..., N:, :])
        lead = next(iter(states.values()))[1].shape[:-2]
        nothing = jnp.zeros((*lead, 0, self.width), self.dtype)
        context = jnp.concatenate([sum(own[1:], own[0]) if own else nothing, *further], -2)
        return {name: h for name, (h, _) in states.items()}, context

r"""No memory: $h_t = \varnothing$. The Markov baseline: p(z' | z, a) alone (Bai et al., 2025, arXiv 2510.20668)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from worldmodels.memory.base import Memory
from worldmodels.types import Latent, PyTree


class Nothing(Memory):
    """Remembers nothing and shows no slots; its state has no leaves."""

    slots = 0
    width = 1

    def initial(self, batch: int) -> tuple[PyTree, jax.Array]:
        return (), jnp.zeros((batch, 0, self.width), jnp.float32)

    def step(self, h: PyTree, z: Latent, action_BA: jax.Array) -> tuple[PyTree, jax.Array]:
        return self.initial(action_BA.shape[0])

    def sequence(self, h: PyTree, z: Latent, action_BTA: jax.Array, reset_BT: jax.Array) -> tuple[PyTree, jax.Array]:
        return (), jnp.zeros((*reset_BT.shape, 0, self.width), jnp.float32)

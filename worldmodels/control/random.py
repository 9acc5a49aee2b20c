r"""Actions drawn uniformly, $a \sim \mathcal U$: what World Models (Ha & Schmidhuber, 2018, arXiv 1803.10122) was trained
on."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from worldmodels import rng
from worldmodels.types import ActionSpace


@dataclasses.dataclass(frozen=True)
class Random:
    """Any action, each as likely as the others (uniform within the bounds where actions are continuous)."""

    action: ActionSpace

    def initial(self, batch: int) -> tuple:
        return ()

    def __call__(self, params, belief, policy_state, keys_B: jax.Array):
        return uniform(self.action, keys_B), policy_state, {}


def astray(
    space: ActionSpace, action_B: jax.Array, noise: float, keys_B: jax.Array, also_B: jax.Array | bool = False
) -> jax.Array:
    """Discrete actions (B,), int32, of which any action takes the place with probability `noise`, and wherever `also_B`."""
    noise_keys, draw_keys = rng.split(keys_B, 2)
    stray_B = rng.draw(lambda key: jax.random.bernoulli(key, noise), noise_keys) | also_B
    return jnp.where(stray_B, uniform(space, draw_keys), action_B).astype(jnp.int32)


def uniform(space: ActionSpace, keys_B: jax.Array) -> jax.Array:
    """Raw actions (B,) or (B, size), one per key."""
    if space.kind == 'discrete':
        return rng.draw(lambda key: jax.random.randint(key, (), 0, space.size, jnp.int32), keys_B)
    return rng.draw(lambda key: jax.random.uniform(key, space.shape, jnp.float32, space.low, space.high), keys_B)

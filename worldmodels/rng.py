"""Randomness is derived, never stored.

Every draw is a function of (seed, stream name, step, example, tick), so a resumed run, another number of devices or another
order of evaluation draws the same numbers. A key belongs to an example, not to a device.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp


def stream(seed: int, name: str) -> jax.Array:
    """A typed key for a named stream ('params', 'train', 'dream', ...) of one seed."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def per_example(key: jax.Array, step: jax.Array | int, example_B: jax.Array) -> jax.Array:
    """Keys (B,) of the examples of one step."""
    key = jax.random.fold_in(key, step)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, example_B)


def per_tick(keys_B: jax.Array, ticks: int, start: jax.Array | int = 0) -> jax.Array:
    """Keys (B, T) for ticks start .. start + T - 1."""
    t = start + jnp.arange(ticks)
    return jax.vmap(lambda k: jax.vmap(jax.random.fold_in, (None, 0))(k, t))(keys_B)


def split(keys: jax.Array, num: int) -> list[jax.Array]:
    """`num` independent arrays of keys, each shaped like `keys`: one per purpose, so no key is used twice."""
    fold = jax.random.fold_in
    for _ in range(keys.ndim):
        fold = jax.vmap(fold, (0, None))
    return [fold(keys, i) for i in range(num)]


def draw(sampler: Callable[..., jax.Array], keys: jax.Array, *args) -> jax.Array:
    """`sampler(key, *args_of_one_example)` for each key of an array of keys; args share the keys' leading axes."""
    for _ in range(keys.ndim):
        sampler = jax.vmap(sampler)
    return sampler(keys, *args)

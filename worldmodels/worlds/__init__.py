"""Worlds: batched, functional, with RLDS's names. A dreamed world has the same form.

    world.spec                              -> Spec
    world.batch                             -> how many run side by side, B
    world.reset(key)                        -> state, observation
    world.step(state, action_B, key)        -> state, observation, outcomes, is_terminal_B, is_last_B
    world.truth(state)                      -> dict of arrays (B, ...): what is really there, for scripts and scores

`observation` is a dict of arrays (B, ...) in the raw form the spec names. `outcomes` is a dict of float32 (B,): what
the action paid, reward, discount (0 where the new frame is terminal) and costs. `is_terminal` says the world ended
there; `is_last` also says when the time ran out. A world never resets itself: `worldmodels.interaction` does, from a
pool.

One file per family; `make` knows them by the part of the name before the slash.
"""

from __future__ import annotations

import difflib
import functools
import importlib
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from worldmodels import rng
from worldmodels.types import PyTree, Spec

FAMILIES = {'navix': 'worldmodels.worlds.navix'}


class World(Protocol):
    """What every batched world offers; see the module's docstring."""

    spec: Spec
    batch: int

    def reset(self, key: jax.Array) -> tuple[PyTree, dict]: ...

    def step(
        self, state: PyTree, action_B: jax.Array, key: jax.Array
    ) -> tuple[PyTree, dict, dict, jax.Array, jax.Array]: ...

    def truth(self, state: PyTree) -> dict: ...


class Lifted:
    """`batch` independent copies of a world written for one (same methods, no batch axis). Compared by identity.

    Each copy draws from a key of its own, which does not depend on how many there are.
    """

    def __init__(self, single: Any, batch: int):
        self.single, self.batch, self.spec = single, batch, single.spec

    def reset(self, key: jax.Array) -> tuple[PyTree, dict]:
        return jax.vmap(self.single.reset)(rng.per_example(key, 0, jnp.arange(self.batch)))

    def step(
        self, state: PyTree, action_B: jax.Array, key: jax.Array
    ) -> tuple[PyTree, dict, dict, jax.Array, jax.Array]:
        return jax.vmap(self.single.step)(state, action_B, rng.per_example(key, 0, jnp.arange(self.batch)))

    def truth(self, state: PyTree) -> dict:
        return jax.vmap(self.single.truth)(state)


def lift(single: Any, batch: int) -> Lifted:
    """A batched world from a single one by `jax.vmap`."""
    return Lifted(single, batch)


def names() -> list[str]:
    """Every world that can be made, as 'family/name'."""
    return [f'{family}/{name}' for family, path in FAMILIES.items() for name in importlib.import_module(path).names()]


def make(name: str, batch: int, **options) -> Lifted:
    """The world called 'family/name', `batch` copies at once. Options are the family's own (see its `load`).

    Raises ValueError for an unknown name, with the nearest known one.
    """
    family, _, rest = name.partition('/')
    module = importlib.import_module(FAMILIES[family]) if family in FAMILIES else None
    if module is None or rest not in module.names():
        raise ValueError(f"There is no world {name!r}: give 'family/name'{_nearest(name)}.")
    return _made(module, rest, batch, tuple(sorted(options.items())))


@functools.lru_cache(maxsize=8)
def _made(module: Any, name: str, batch: int, options: tuple) -> Lifted:
    # Worlds are compared by identity: the same one again compiles nothing anew.
    return lift(module.load(name, **dict(options)), batch)


def _nearest(name: str) -> str:
    known = names()
    short = {full.partition('/')[2].lower(): full for full in known}
    near = difflib.get_close_matches(name, known, 1, 0.5)
    near = near or [short[n] for n in difflib.get_close_matches(name.lower(), short, 1, 0.5)]
    return f', did you mean {near[0]!r}?' if near else f', one of {", ".join(known)}'

r"""Worlds: batched, functional, with RLDS's names (Ramos et al., 2021, arXiv 2111.02767). A dreamed world has the same
form.

$$s', o', r, \gamma \sim \mathrm{step}(s, a)$$

    world.spec                              -> Spec
    world.batch                             -> how many run side by side, B
    world.max_steps                         -> actions after which time is out, None where it never is
    world.reset(key)                        -> state, observation
    world.step(state, action_B, key)        -> state, observation, outcomes, is_terminal_B, is_last_B
    world.truth(state)                      -> dict of arrays (B, ...): what is really there, for scripts and scores

`observation` is a dict of arrays (B, ...) in the raw form the spec names. `outcomes` is a dict of float32 (B,): what
the action paid, reward, discount (0 where the new frame is terminal) and costs. `is_terminal` says the world ended
there; `is_last` also says when the time ran out. A world never resets itself: `worldmodels.interaction` does, from a
pool.

One file per family; `make` knows them by the part of the name before the slash. A family's module offers

    PACKAGES                 -> the packages it plays with, as {'import name': "how to install it"}
    names()                  -> its worlds, without the family
    options(name)            -> what can be set about one, as {name: worldmodels.worlds.options.Option}
    load(name, **options)    -> the world for one, to be lifted; it is given every option, already checked
    load_batch(name, batch, **options)    in its place: a batched world, as those outside JAX are (`worlds.host`)
    has(name)                -> whether there is such a world beside those that `names` lists; optional

and imports its packages inside functions, so that a family whose package is missing is in nobody's way.

A world of one's own has no family: it is named by its import path, 'my_package.my_module:MyWorld' (`worlds.own`).
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from worldmodels import imports, rng
from worldmodels.types import PyTree, Spec
from worldmodels.worlds.options import Option, choose

FAMILIES = {
    'atari': 'worldmodels.worlds.atari',
    'craftax': 'worldmodels.worlds.craftax',
    'crafter': 'worldmodels.worlds.crafter',
    'gymnasium': 'worldmodels.worlds.gymnasium',
    'gymnax': 'worldmodels.worlds.gymnax',
    'navix': 'worldmodels.worlds.navix',
    'recall': 'worldmodels.worlds.recall',
    'xminigrid': 'worldmodels.worlds.xminigrid',
}


class World(Protocol):
    """What every batched world offers; see the module's docstring."""

    spec: Spec
    batch: int
    max_steps: int | None

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
        self.max_steps = getattr(single, 'max_steps', None)

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


def missing() -> dict[str, str]:
    """The families that cannot be played here, each with a sentence that says how to change that."""
    return {family: sentence for family in FAMILIES if (sentence := _missing(family))}


def names(family: str | None = None) -> list[str]:
    """Every world that can be made here, as 'family/name': of one family, or of all whose packages are installed.

    Raises ValueError for a family that is not known or cannot be played.
    """
    if family is None:
        return [name for known in FAMILIES if not _missing(known) for name in names(known)]
    if family not in FAMILIES:
        raise ValueError(f'There is no family {family!r} of worlds: {", ".join(FAMILIES)} are known.')
    if sentence := _missing(family):
        raise ValueError(sentence)
    return [f'{family}/{name}' for name in _module(family).names()]


def options(name: str) -> dict[str, Option]:
    """What can be set about the world 'family/name'. Raises ValueError as `make` does."""
    if _is_own(name):
        return _own().options(name)
    family, rest = _known(name)
    return _module(family).options(rest)


def chosen(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Every option of the world 'family/name', as given, else its default. Raises ValueError as `make` does."""
    return choose(name, options(name), given)


def make(name: str, batch: int, **given) -> Any:
    """The world called 'family/name', or by an import path, `batch` copies at once: a `World`, or a `worlds.host.Host`.

    `options(name)` says what may be given. Raises ValueError for a name, an option or a value that is not known, with the
    nearest known one, and for a family whose package is missing, with how to install it.
    """
    complete = chosen(name, given)
    if _is_own(name):
        return _own().make(name, batch, **complete)
    family, rest = _known(name)
    if hasattr(_module(family), 'load_batch'):  # it has a state of its own: nobody else may hold the same one
        return _module(family).load_batch(rest, batch, **complete)
    return _made(family, rest, batch, tuple(sorted(complete.items())))


@functools.lru_cache(maxsize=8)
def _made(family: str, name: str, batch: int, chosen: tuple) -> Lifted:
    # Worlds are compared by identity: the same one again compiles nothing anew.
    return lift(_module(family).load(name, **dict(chosen)), batch)


def _is_own(name: str) -> bool:
    return imports.is_path(name) and '/' not in name


def _own() -> Any:
    return importlib.import_module('worldmodels.worlds.own')


def _module(family: str) -> Any:
    return importlib.import_module(FAMILIES[family])


@functools.cache
def _missing(family: str) -> str | None:
    module = _module(family)
    lacking = {package: how for package, how in module.PACKAGES.items() if importlib.util.find_spec(package) is None}
    if lacking:
        return f'{family} worlds need {" and ".join(lacking)}: {next(iter(lacking.values()))}.'
    return None


def _known(name: str) -> tuple[str, str]:
    family, _, rest = name.partition('/')
    if family in FAMILIES and (name in names(family) or getattr(_module(family), 'has', lambda name: False)(rest)):
        return family, rest
    own = f" A world of your own is named '{imports.FORM}'." if not family or not rest else ''
    raise ValueError(f"There is no world {name!r}: give 'family/name'{_nearest(name)}{own}")


def _nearest(name: str) -> str:
    known = names()
    short = {full.partition('/')[2].lower(): full for full in known}
    near = difflib.get_close_matches(name, known, 1, 0.5)
    near = near or [short[n] for n in difflib.get_close_matches(name.lower(), short, 1, 0.5)]
    return f', did you mean {near[0]!r}?' if near else f'; families are {", ".join(FAMILIES)}.'

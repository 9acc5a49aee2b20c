r"""How parameters begin: named distributions that are drawn after the model is traced, so that no program of draws is compiled.

$$w \sim \mathcal N(0, \sigma^2), \qquad w \sim \mathcal N_{[-2, 2]}\bigl(0, \tfrac{s}{\text{inputs}}\bigr)$$

(the second is flax's `variance_scaling`; LeCun et al., 1998, for s = 1). A hundred parameters drawn inside one program are
forty thousand lines for the compiler and 10 to 20 s on two cores. Here `shapes` traces the model's `init` once, and each
parameter comes back with its distribution; `draw` then takes each from numpy's Philox, keyed by (seed, name), which needs no
compiler and gives the same numbers on every device. Outside `shapes` these are initialisers as flax knows them.
"""

from __future__ import annotations

import contextvars
import dataclasses
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import flax.core.meta
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from worldmodels.types import PyTree

_PLANNING = contextvars.ContextVar('planning', default=False)
_CUT = 2.0  # standard deviations at which a normal distribution is cut
_CUT_STD = 0.87962566103423978  # the standard deviation that is left


@dataclasses.dataclass(frozen=True)
class Normal:
    """Normal of standard deviation `std`, cut at two of them where `cut`, `std` being what is left then."""

    std: float
    cut: bool = False

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Any:
        if _PLANNING.get():
            return _Planned(jnp.zeros(shape, dtype), self)
        if self.cut:
            return self.std / _CUT_STD * jax.random.truncated_normal(key, -_CUT, _CUT, tuple(shape), dtype)
        return self.std * jax.random.normal(key, tuple(shape), dtype)

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        x = generator.standard_normal(shape, np.float32)
        if not self.cut:
            return np.float32(self.std) * x
        x, wrong = x.reshape(-1), np.flatnonzero(np.abs(x) > _CUT)
        while wrong.size:
            x[wrong] = generator.standard_normal(wrong.size, np.float32)
            wrong = wrong[np.abs(x[wrong]) > _CUT]
        return np.float32(self.std / _CUT_STD) * x.reshape(shape)


@dataclasses.dataclass(frozen=True)
class Scaled:
    """Variance `scale` / fan-in. The axes before the last are the fan-in, but for the first `batch_axes`."""

    scale: float = 1.0
    batch_axes: int = 0

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Any:
        inputs = math.prod(shape[self.batch_axes : -1])
        return Normal(math.sqrt(self.scale / max(inputs, 1)), cut=True)(key, shape, dtype)


@dataclasses.dataclass(frozen=True)
class Constant:
    """One value everywhere."""

    value: float = 0.0

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Any:
        full = jnp.full(shape, self.value, dtype)
        return _Planned(full, self) if _PLANNING.get() else full

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, self.value, np.float32)


@dataclasses.dataclass(frozen=True)
class Spread:
    """Of the rate of a decay: the inverse softplus of 1 / time scale, the scales spread evenly in their logarithm."""

    shortest: float
    longest: float

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Any:
        rates = jnp.asarray(self.draw(None, tuple(shape)), dtype)
        return _Planned(rates, self) if _PLANNING.get() else rates

    def draw(self, generator: np.random.Generator | None, shape: tuple[int, ...]) -> np.ndarray:
        scale = np.exp(np.linspace(np.log(self.shortest), np.log(self.longest), shape[0]))
        return np.log(np.expm1(1 / scale)).astype(np.float32)


zeros = Constant(0.0)


@flax.struct.dataclass
class _Planned(flax.core.meta.AxisMetadata):
    """A parameter of which only its shape and its distribution are known yet. Modules see the value, as of any box."""

    value: Any
    how: Normal | Constant | Spread = flax.struct.field(pytree_node=False)

    def unbox(self) -> Any:
        return self.value

    def replace_boxed(self, value: Any) -> _Planned:
        return self.replace(value=value)

    def add_axis(self, index: int, params: dict) -> _Planned:
        return self

    def remove_axis(self, index: int, params: dict) -> _Planned:
        return self


def shapes(init: Callable[[jax.Array], PyTree]) -> PyTree:
    """The variables that `init(key)` would make, as shapes, and as `_Planned` where a distribution of this file makes them."""
    token = _PLANNING.set(True)
    try:
        return jax.eval_shape(init, jax.random.key(0))
    finally:
        _PLANNING.reset(token)


def draw(init: Callable[[jax.Array], PyTree], seed: int, key: jax.Array) -> PyTree:
    """What `init` makes: planned leaves by (seed, name), any other by `init(key)` itself, compiled for them alone."""
    planned = lambda x: isinstance(x, _Planned)
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes(init), planned)
    others = [i for i, (_, leaf) in enumerate(leaves) if not planned(leaf)]
    made = {}
    if others:
        made = dict(zip(others, jax.jit(lambda key: [jax.tree.leaves(init(key))[i] for i in others])(key), strict=True))

    def one(number: int, path: Any, leaf: Any) -> jax.Array:
        if number in made:
            return made[number]
        name = jax.tree_util.keystr(path)
        generator = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))
        return jnp.asarray(leaf.how.draw(generator, leaf.value.shape), leaf.value.dtype)

    return tree.unflatten([one(i, path, leaf) for i, (path, leaf) in enumerate(leaves)])

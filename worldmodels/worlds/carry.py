"""States that keep their types from step to step, as a scan wants them.

Packages often begin an episode with Python's numbers and go on with arrays of whatever type came out of a sum.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from worldmodels.types import PyTree


def dtypes(start: PyTree, after: PyTree) -> PyTree:
    """The type of every leaf that holds both what `reset` and what `step` puts there. Leaves may be abstract."""

    def both(a, b):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return a.dtype
        return jnp.result_type(a.dtype, b.dtype)

    return jax.tree.map(both, start, after)


def cast(state: PyTree, wanted: PyTree) -> PyTree:
    def one(x, dtype):
        return x if jnp.issubdtype(dtype, jax.dtypes.prng_key) else jnp.asarray(x, dtype)

    return jax.tree.map(one, state, wanted)

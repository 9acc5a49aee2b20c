r"""Rematerialisation: which results of the forward pass are kept for the backward one, and which are computed again.

$$\frac{\partial \mathcal L}{\partial x_{i-1}} = J_{f_i}(x_{i-1})^\top \frac{\partial \mathcal L}{\partial x_i}$$

needs the input x of each block i, from which all inside of it can be had again. A policy (`train.remat`) is one of

    none    keep all: fastest, and as much memory as the forward pass has results
    dots    keep what matrix products with parameters give; compute norms, activations and attention again
    blocks  keep what enters each block and each tick; compute what is inside of them again
    all     keep what a step is given; compute everything again

Chen et al. (2016, arXiv 1604.06174). The numbers are the same under every policy, but for the order of sums that a compiler
chooses. What is kept is what jax saves between the passes; on accelerators memory follows it. XLA on CPU merges what is
computed again with what was computed before, and takes about as much memory as without.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax.ad_checkpoint import checkpoint_name

from worldmodels.types import nbytes

BLOCK = 'block'
POLICIES = {
    'none': None,
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    'blocks': jax.checkpoint_policies.save_only_these_names(BLOCK),
    'all': jax.checkpoint_policies.nothing_saveable,
}


def block(x: jax.Array) -> jax.Array:
    """x itself, kept by the policy 'blocks': the result of a block of a network."""
    return checkpoint_name(x, BLOCK)


def apply(function: Callable, policy: str, looped: bool = False) -> Callable:
    """A pure function that keeps what the policy says for its gradient. `looped`: it is the body of a scan."""
    if policy == 'none':
        return function
    return jax.checkpoint(function, policy=POLICIES[policy], prevent_cse=not looped)


def kept_bytes(function: Callable, *args) -> int:
    """Bytes that are kept between the forward and the backward pass of a function, by its shapes alone."""
    return nbytes(jax.eval_shape(lambda *args: jax.vjp(function, *args)[1], *args))

"""Distributions of DreamerV3 (Hafner et al., 2023): symlog two-hot scalars, categoricals mixed with 1% uniform,
Bernoulli.

Everything is a pure function of logits and computes in float32 whatever the logits' dtype.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from worldmodels import rng


def symlog(x: jax.Array) -> jax.Array:
    """sign(x) log(1 + |x|): linear near zero, logarithmic far from it."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: jax.Array) -> jax.Array:
    """Inverse of `symlog`."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


@functools.cache
def twohot_bins(count: int) -> np.ndarray:
    """`count` (odd) values from -exp(20) to exp(20), evenly spaced under symlog and exactly symmetric about zero."""
    if count % 2 != 1:
        raise ValueError(
            f'two-hot needs an odd number of bins so that zero is one of them, got {count}: use {count + 1}.'
        )
    half = np.linspace(-20, 0, count // 2 + 1)
    half = -np.expm1(-half)
    return np.concatenate([half, -half[:-1][::-1]]).astype(np.float32)


def twohot(value: jax.Array, count: int = 255) -> jax.Array:
    """Values (...) -> weights (..., count) on the two bins beside each value, whose weighted mean is the value.

    Values beyond the outermost bins land on them.
    """
    bins = jnp.asarray(twohot_bins(count))
    value = jnp.clip(value.astype(jnp.float32), bins[0], bins[-1])
    above = jnp.clip(jnp.searchsorted(bins, value, side='right'), 1, count - 1)
    low, high = bins[above - 1], bins[above]
    share = ((value - low) / (high - low))[..., None]
    return (1 - share) * jax.nn.one_hot(above - 1, count) + share * jax.nn.one_hot(above, count)


def twohot_loss(logits: jax.Array, value: jax.Array) -> jax.Array:
    """Cross-entropy (...) of logits (..., bins) against the two-hot weights of value (...)."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.sum(jax.lax.stop_gradient(twohot(value, logits.shape[-1])) * log_probs, -1)


def twohot_mean(logits: jax.Array) -> jax.Array:
    """Mean (...) of the distribution over bins.

    Bins of opposite sign are added in pairs, so that equal probabilities cancel exactly: zero logits give exactly zero,
    although the outermost bins are 5e8 and -5e8.
    """
    probs = jax.nn.softmax(logits.astype(jnp.float32))
    weighted = probs * jnp.asarray(twohot_bins(logits.shape[-1]))
    middle = logits.shape[-1] // 2
    return jnp.sum(weighted[..., middle + 1 :] + weighted[..., :middle][..., ::-1], -1)


def unimix(logits: jax.Array, share: float) -> jax.Array:
    """Log-probabilities (..., K) of a categorical mixed with `share` of the uniform one, so that none is ever -inf."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    if share == 0:
        return log_probs
    return jnp.log((1 - share) * jnp.exp(log_probs) + share / logits.shape[-1])


def categorical_kl(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """KL(p || q) in nats, (..., K) and (..., K) log-probabilities -> (...)."""
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)


def categorical_log_prob(log_probs: jax.Array, index: jax.Array) -> jax.Array:
    """Log-probability (...) of classes index (...) under (..., K)."""
    return jnp.take_along_axis(log_probs, index[..., None], -1)[..., 0]


def categorical_sample(logits_BNK: jax.Array, keys_B: jax.Array) -> jax.Array:
    """Classes (B, N) int32; each example draws with its own key."""
    N = logits_BNK.shape[1]
    uniform_BN = rng.draw(lambda key: jax.random.uniform(key, (N,)), keys_B)
    return categorical_at(logits_BNK, uniform_BN)[0]


def categorical_at(logits: jax.Array, uniform: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Inverse of the cumulative distribution: classes (...) int32 where it reaches uniform (...) in [0, 1), and their
    log-probabilities (...), for unnormalised logits (..., K).

    One random number a draw, where Gumbel noise takes K. The classes are summed by groups of about the square root of K, then
    within the group that was hit. A class of probability zero is never drawn. Nothing is differentiated.
    """
    K = logits.shape[-1]
    width = math.isqrt(K - 1) + 1
    groups = -(-K // width)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    weights = jax.lax.stop_gradient(jnp.exp(logits - jnp.max(logits, -1, keepdims=True)))
    weights = jnp.pad(weights, [(0, 0)] * (logits.ndim - 1) + [(0, groups * width - K)])
    weights = weights.reshape(*logits.shape[:-1], groups, width)
    by_group = jnp.sum(weights, -1)
    group, left = _reached(by_group, uniform * jnp.sum(by_group, -1))
    inside = jnp.take_along_axis(weights, group[..., None, None], -2)[..., 0, :]
    place, _ = _reached(inside, left)
    weight = jnp.take_along_axis(inside, place[..., None], -1)[..., 0]
    return group * width + place, jnp.log(weight) - jnp.log(jnp.sum(by_group, -1))


def categorical_draw(logits: jax.Array, uniform: jax.Array, temperature: float) -> jax.Array:
    """Classes (...) int32 of logits (..., K) at a temperature, by one uniform number each; at 0 the most likely."""
    if temperature == 0:
        return jnp.argmax(logits, -1).astype(jnp.int32)
    return categorical_at(logits / temperature, uniform)[0]


def balanced_kl(log_q: jax.Array, log_p: jax.Array, free_nats: float) -> dict[str, jax.Array]:
    r"""DreamerV3's balanced KL of a posterior q against a prior p, both (B, N, K) log-probabilities, summed over tokens:
    {'dynamics', 'representation'}, each (B,) nats,

    $$\max(F, \mathrm{KL}[\mathrm{sg}(q) \Vert p]), \qquad \max(F, \mathrm{KL}[q \Vert \mathrm{sg}(p)])$$

    with F the `free_nats` and sg stopping gradients.
    """
    stop = jax.lax.stop_gradient
    return {
        'dynamics': jnp.maximum(jnp.sum(categorical_kl(stop(log_q), log_p), -1), free_nats),
        'representation': jnp.maximum(jnp.sum(categorical_kl(log_q, stop(log_p)), -1), free_nats),
    }


def _reached(weights: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where the running sum of weights (..., n) first passes target (...), and how much of the target is left there."""
    sums = jnp.cumsum(weights, -1)
    below = jnp.nextafter(sums[..., -1], jnp.zeros((), sums.dtype))  # rounding may have put the target past the end
    passed = sums <= jnp.minimum(target, below)[..., None]
    index = jnp.sum(passed, -1, dtype=jnp.int32)
    return index, jnp.maximum(target - jnp.max(jnp.where(passed, sums, 0), -1), 0)


def straight_through(index: jax.Array, log_probs: jax.Array) -> jax.Array:
    """One-hot (..., K) of index (...) whose gradient is that of the probabilities (Bengio et al., 2013)."""
    probs = jnp.exp(log_probs)
    return jax.nn.one_hot(index, log_probs.shape[-1]) + (probs - jax.lax.stop_gradient(probs))


def bernoulli_loss(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Minus the log-probability (...) of target in [0, 1] under sigmoid(logits); a target between is a mixture."""
    logits = logits.astype(jnp.float32)
    return -(target * jax.nn.log_sigmoid(logits) + (1 - target) * jax.nn.log_sigmoid(-logits))

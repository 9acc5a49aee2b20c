r"""Linear recurrences over all ticks at once, with resets anywhere.

$$h_t = a_t \odot h_{t-1} + b_t, \qquad S_t = \alpha_t\,(I - \beta_t k_t k_t^\top)\,S_{t-1} + \beta_t k_t v_t^\top$$

The first by an associative scan (Blelloch, 1990; Martin and Cundy, 2018, arXiv 1709.04057), the second in chunks: within
a chunk all writes are one triangular system (the WY form, Yang et al., 2024, arXiv 2406.06484; with decay, Yang et al.,
2024, arXiv 2412.06464), from chunk to chunk goes the matrix alone. All of it is float32: a decay of 0.9998 is 1 in
bfloat16.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

CHUNK = 32
"""Ticks whose writes are solved together."""


def diagonal_step(h_BD: jax.Array, log_a_BD: jax.Array, b_BD: jax.Array) -> jax.Array:
    """One tick of the first recurrence, a given by its logarithm."""
    return jnp.exp(log_a_BD) * h_BD + b_BD


def diagonal(h_BD: jax.Array, log_a_BTD: jax.Array, b_BTD: jax.Array, reset_BT: jax.Array) -> jax.Array:
    """All ticks of the first recurrence: h (B, T, D). Where `reset_BT`, h before that tick is zero, whatever it was."""
    a_BTD = jnp.exp(log_a_BTD)
    first_BD = jnp.where(reset_BT[:, 0, None], b_BTD[:, 0], a_BTD[:, 0] * h_BD + b_BTD[:, 0])

    def join(left: tuple, right: tuple) -> tuple:
        # A product would let NaN through a reset, since 0 * NaN is NaN.
        (a, b, reset), (next_a, next_b, next_reset) = left, right
        return a * next_a, jnp.where(next_reset, next_b, next_a * b + next_b), reset | next_reset

    return jax.lax.associative_scan(join, (a_BTD, b_BTD.at[:, 0].set(first_BD), reset_BT[..., None]), axis=1)[1]


def delta_step(
    s_BHKV: jax.Array, q_BHK: jax.Array, k_BHK: jax.Array, v_BHV: jax.Array, beta_BH: jax.Array, log_a_BH: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One tick of the second recurrence: (S, S^T q). Two passes over S: what k recalls is replaced by v as far as beta says."""
    s_BHKV = jnp.exp(log_a_BH)[..., None, None] * s_BHKV
    recalled_BHV = jnp.einsum('bhk,bhkv->bhv', k_BHK, s_BHKV, precision='highest')
    written_BHV = beta_BH[..., None] * (v_BHV - recalled_BHV)
    s_BHKV = s_BHKV + k_BHK[..., None] * written_BHV[..., None, :]
    return s_BHKV, jnp.einsum('bhk,bhkv->bhv', q_BHK, s_BHKV, precision='highest')


def delta(
    s_BHKV: jax.Array,
    q_BHTK: jax.Array,
    k_BHTK: jax.Array,
    v_BHTV: jax.Array,
    beta_BHT: jax.Array,
    log_a_BHT: jax.Array,
    reset_BT: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """All ticks of the second recurrence: (S after the last, what each tick's q recalls (B, H, T, V)).

    With d the rows that a chunk writes, Gamma_tj = alpha_{j+1} ... alpha_t within a segment and gamma_t the same from the
    chunk's start,

        S_t = gamma_t S + sum_{j <= t} Gamma_tj k_j d_j^T,    (I + L) d = beta (v - gamma K S),
        L_tj = beta_t Gamma_tj k_t . k_j for j < t.
    """
    B, H, T, _ = q_BHTK.shape
    inputs = (q_BHTK, k_BHTK, v_BHTV, beta_BHT[..., None], log_a_BHT[..., None])
    # A mask of zeros lets NaN through. So NaN is taken out here, and all it spoils is marked again at the end.
    spoiled_B = ~jnp.isfinite(jnp.sum(s_BHKV, (1, 2, 3))) & ~reset_BT[:, 0]
    spoiled_BT = ~jnp.isfinite(sum(jnp.sum(x, (1, 3)) for x in inputs))
    spoiled_BT = spoiled_BT.at[:, 0].set(spoiled_BT[:, 0] | spoiled_B)
    s_BHKV = jnp.where(jnp.isfinite(s_BHKV), s_BHKV, 0.0)
    inputs = [jnp.where(spoiled_BT[:, None, :, None], 0.0, x) for x in inputs]
    C = min(CHUNK, T)
    missing = -T % C  # filled with ticks that neither write nor decay
    q, k, v, beta, log_a = (
        jnp.pad(x, ((0, 0), (0, 0), (0, missing), (0, 0))).reshape(B, H, -1, C, x.shape[-1]) for x in inputs
    )
    segment = jnp.cumsum(jnp.pad(reset_BT, ((0, 0), (0, missing))).reshape(B, 1, -1, C), -1)
    carried = segment == 0
    reach = jnp.exp(jnp.cumsum(log_a, -2))
    below = jnp.tril(jnp.ones((C, C), bool), -1)
    # Sums of logarithms and not differences of sums, which would lose what is small beside what is large.
    gap = jnp.cumsum(jnp.where(below, log_a, 0.0), -2)
    one_segment = (segment[..., :, None] == segment[..., None, :]) & jnp.tril(jnp.ones((C, C), bool))
    gamma = jnp.where(one_segment, jnp.exp(gap), 0.0)
    dot = lambda equation, *args: jnp.einsum(equation, *args, precision='highest')
    lower = jnp.where(below, beta * gamma * dot('bhnik,bhnjk->bhnij', k, k), 0.0)
    read = gamma * dot('bhnik,bhnjk->bhnij', q, k)
    solved = dot('bhnij,bhnjk->bhnik', unit_lower_inverse(lower), beta * jnp.concatenate([v, reach * k], -1))
    own, against = solved[..., : v.shape[-1]], solved[..., v.shape[-1] :]
    kept = carried[..., -1:, None]

    def follow(s_BHKV: jax.Array, chunk: tuple) -> tuple[jax.Array, jax.Array]:
        own, against, asked, read, left, last, carried, kept = chunk
        seen = dot('bhik,bhkv->bhiv', jnp.concatenate([against, asked], -2), s_BHKV)
        written = own - jnp.where(carried, seen[:, :, :C], 0.0)
        y = jnp.where(carried, seen[:, :, C:], 0.0) + dot('bhij,bhjv->bhiv', read, written)
        s_BHKV = jnp.where(kept, last * s_BHKV, 0.0) + dot('bhjk,bhjv->bhkv', left, written)
        return s_BHKV, y

    chunks = (
        own, against, reach * q, read, gamma[..., -1, :, None] * k, reach[..., -1:, :], carried[..., None], kept
    )  # fmt: skip
    s_BHKV, y = jax.lax.scan(follow, s_BHKV, jax.tree.map(lambda x: jnp.moveaxis(x, 2, 0), chunks))
    y_BHTV = jnp.moveaxis(y, 0, 2).reshape(B, H, -1, v.shape[-1])[:, :, :T]
    t = jnp.arange(T)
    since_BT = jax.lax.cummax(jnp.where(reset_BT, t, 0), axis=1)
    spoiled_BT = jax.lax.cummax(jnp.where(spoiled_BT, t, -1), axis=1) >= since_BT
    y_BHTV = jnp.where(spoiled_BT[:, None, :, None], jnp.nan, y_BHTV)
    return jnp.where(spoiled_BT[:, -1, None, None, None], jnp.nan, s_BHKV), y_BHTV


def unit_lower_inverse(lower: jax.Array) -> jax.Array:
    """The inverse of I + L, L strictly lower triangular (..., C, C), block by block:

        [[A, 0], [B, D]]^-1 = [[A^-1, 0], [-D^-1 B A^-1, D^-1]]

    from blocks of one number to the whole in log2 C rounds, each of them products. No entry grows beyond the inverse's own, as
    powers of L do. Substitution by the backend's solver is no choice: training with it comes to a standstill on CPU, every
    thread waiting for the others (jax 0.10.2).
    """
    C = lower.shape[-1]
    i, j = np.ogrid[:C, :C]
    inverse, size = jnp.broadcast_to(jnp.eye(C, dtype=lower.dtype), lower.shape), 1
    while size < C:
        below = (i // (2 * size) == j // (2 * size)) & (i // size != j // size)
        inner = jnp.matmul(jnp.where(below, lower, 0.0), inverse, precision='highest')
        inverse, size = inverse - jnp.matmul(inverse, inner, precision='highest'), 2 * size
    return inverse

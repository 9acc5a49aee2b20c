r"""THE masked network: fill in the tokens that are not known, given those that are.

$$p(x_n \mid x_{\bar U}, \mathrm{given}, c), \qquad n \in U$$

One paradigm for all stages: what is masked, and what stands beside it, is data. Stage I masks modalities of one frame
and has no context; a Stage II task is a pattern of what is known; the masked transition knows (z, a, context) and
nothing of z'.

Decoding is iterative and parallel (MaskGIT, Chang et al., 2022, arXiv 2202.04200): all unknown tokens are drawn at
once, the most confident are kept, the rest drawn again; after round i of R, $\lfloor N \cos(\pi i / 2R) \rfloor$ are
unknown. Rounds, their schedule and the order in which tokens come to be known are dials at sampling time; an order that
spreads over the grid from the first round on is Halton's (Besnier et al., 2025, arXiv 2503.17076).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from worldmodels import rng
from worldmodels.nn import initializers
from worldmodels.nn.distributions import categorical_at, categorical_draw, categorical_log_prob
from worldmodels.nn.transformer import Block, dense, grid_of, rms_norm
from worldmodels.types import Layout

MASKS = ('cosine', 'upper_half')
"""Distributions of the share masked in training."""
SCHEDULES = {
    'cosine': lambda t: math.cos(0.5 * math.pi * t),
    'linear': lambda t: 1 - t,
    'square': lambda t: 1 - t**2,
    'root': lambda t: 1 - math.sqrt(t),
}
"""Shares of the tokens that are unknown at t of the rounds. The square one keeps few tokens at first, the root one many."""
ORDERS = ('confidence', 'random', 'raster', 'halton')
"""What decides which tokens are kept first."""


class Infill(nn.Module):
    """infill(tokens, known, given, context) -> logits of every token.

    Args of the call:
      index_BN: token indices, read only where known.
      known_BN: bool.
      given_BND: what is known beside each slot and aligned with it (the departure's token there, the action, aligned context).
      context_BMD: further slots that are wholly known, M may be 0.
      source_BNJ: for every slot J classes that it may be a copy of, K where there is none; None for no copies. To the logit
        of each an amount is added that the network chooses, as pointers do (Vinyals et al., 2015, arXiv 1506.03134).
    Returns logits (B, N, K), float32.
    """

    classes: int
    width: int
    depth: int
    heads: int
    hidden: int
    layout: Layout
    neighbours: bool
    dtype: str

    @nn.compact
    def __call__(
        self,
        index_BN: jax.Array,
        known_BN: jax.Array,
        given_BND: jax.Array,
        context_BMD: jax.Array,
        source_BNJ: jax.Array | None = None,
    ) -> jax.Array:
        N, D = given_BND.shape[1:]
        # Row K of the table is the mask.
        table = self.param('table', initializers.Normal(0.5), (self.classes + 1, D))
        slot_BN = jnp.where(known_BN, index_BN, self.classes)
        x_BSD = jnp.take(table, slot_BN, axis=0).astype(given_BND.dtype) + given_BND
        x_BSD = jnp.concatenate([x_BSD, context_BMD.astype(x_BSD.dtype)], 1)
        grid = grid_of(self.layout) if self.neighbours else None
        for i in range(self.depth):
            x_BSD = Block(self.heads, self.hidden, self.dtype, grid, name=f'block_{i}')(x_BSD)
        x_BND = rms_norm(self.dtype)(x_BSD[:, :N])
        logits_BNK = dense(self.classes, self.dtype, 'logits')(x_BND).astype(jnp.float32)
        if source_BNJ is None:
            return logits_BNK
        amount_BNJ = dense(source_BNJ.shape[-1], self.dtype, 'copies')(x_BND).astype(jnp.float32)
        b, n = jnp.ogrid[: x_BND.shape[0], :N]
        return logits_BNK.at[b[..., None], n[..., None], source_BNJ].add(amount_BNJ, mode='drop')


def mask_rate(u: jax.Array, schedule: str) -> jax.Array:
    """Share of tokens unknown for u uniform in [0, 1]: 'cosine' (MaskGIT) or 'upper_half', uniform in [0.5, 1] (Genie)."""
    return jnp.cos(0.5 * jnp.pi * u) if schedule == 'cosine' else 1.0 - 0.5 * u


def draw_known(keys_B: jax.Array, tokens: int, schedule: str) -> jax.Array:
    """Training masks (B, N): which tokens are known. At least one token is unknown in every example."""

    def one(key: jax.Array) -> jax.Array:
        rate_key, order_key = jax.random.split(key)
        unknown = jnp.ceil(mask_rate(jax.random.uniform(rate_key), schedule) * tokens)
        order_N = jnp.argsort(jax.random.uniform(order_key, (tokens,)))
        return order_N >= jnp.maximum(unknown, 1)

    return rng.draw(one, keys_B)


def ranks(order: str, tokens: int, grid: tuple[int, int] | None) -> np.ndarray:
    """int (N,): when each token's turn comes in a fixed order, 'raster' or 'halton'.

    Halton's sequence of bases 2 and 3 over the cells of a grid, of base 2 over the tokens where they lie on none.
    """
    if order == 'raster':
        return np.arange(tokens)
    height, width = grid or (tokens, 1)
    visited: dict[int, None] = {}
    i = 0
    while len(visited) < tokens:
        i += 1
        visited.setdefault(int(_radical(i, 2) * height) * width + int(_radical(i, 3) * width))
    return np.argsort(list(visited))


def _radical(i: int, base: int) -> float:
    """The digits of i mirrored at the point, in [0, 1): van der Corput's sequence."""
    out, share = 0.0, 1.0
    while i:
        i, digit = divmod(i, base)
        share /= base
        out += share * digit
    return out


def decode(
    logits_of: Callable[[jax.Array, jax.Array], jax.Array],
    keys_B: jax.Array,
    tokens: int,
    steps: int,
    temperature: float = 1.0,
    choice: float = 1.0,
    schedule: str = 'cosine',
    order: str = 'confidence',
    grid: tuple[int, int] | None = None,
) -> jax.Array:
    """Draw all tokens of a frame in `steps` rounds.

    Args:
      logits_of: (index_BN, known_BN) -> logits_BNK.
      keys_B: one key per example.
      tokens: N.
      steps: rounds; 1 draws everything at once, N one token a round on average.
      temperature: of the tokens; 0 takes the most likely.
      choice: Gumbel noise in the choice of the most confident tokens, annealed to 0 over the rounds.
      schedule: how many tokens are unknown after each round, a name in SCHEDULES.
      order: which are kept first, a name in ORDERS: the most 'confidence'; 'random', anew for each example; 'raster';
        'halton' (`ranks`).
      grid: where the tokens lie, for Halton's order.

    Returns:
      index_BN int32.

    Raises:
      ValueError: fewer than one round, or names that do not exist.
    """
    check_decoding(steps, schedule, order)
    B = keys_B.shape[0]
    # How many tokens are still unknown after each round: N before the first and 0 after the last.
    left = [math.floor(tokens * SCHEDULES[schedule]((i + 1) / steps) + 1e-9) for i in range(steps)]
    # All noise is drawn before the rounds begin: (rounds, B, N) numbers for the tokens, as many for the choice.
    token_keys_B, choice_keys_B = rng.split(keys_B, 2)
    uniform_RBN = rng.draw(lambda key: jax.random.uniform(key, (steps, tokens)), token_keys_B).swapaxes(0, 1)
    if order == 'confidence':
        noise_RBN = rng.draw(lambda key: jax.random.gumbel(key, (steps, tokens)), choice_keys_B).swapaxes(0, 1)
        noise_RBN = choice * (1 - (jnp.arange(steps)[:, None, None] + 1) / steps) * noise_RBN
    elif order == 'random':
        noise_RBN = jnp.tile(rng.draw(lambda key: jax.random.uniform(key, (tokens,)), choice_keys_B), (steps, 1, 1))
    else:
        noise_RBN = jnp.tile(-jnp.asarray(ranks(order, tokens, grid), jnp.float32), (steps, B, 1))

    def round_(carry: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, jax.Array, jax.Array]) -> tuple:
        index_BN, known_BN = carry
        unknown, uniform_BN, turn_BN = inputs
        logits_BNK = logits_of(index_BN, known_BN)
        if temperature == 1:
            drawn_BN, confidence_BN = categorical_at(logits_BNK, uniform_BN)
        else:
            drawn_BN = categorical_draw(logits_BNK, uniform_BN, temperature)
            confidence_BN = categorical_log_prob(jax.nn.log_softmax(logits_BNK), drawn_BN)
        if order == 'confidence':
            turn_BN = confidence_BN + turn_BN
        turn_BN = jnp.where(known_BN, jnp.inf, turn_BN)
        bar_B = jnp.sort(turn_BN, -1)[:, unknown]  # tokens exactly as confident as the last kept are kept too
        index_BN = jnp.where(known_BN, index_BN, drawn_BN.astype(jnp.int32))
        return (index_BN, turn_BN >= bar_B[:, None]), None

    start = (jnp.zeros((B, tokens), jnp.int32), jnp.zeros((B, tokens), bool))
    rounds = (jnp.asarray(left, jnp.int32), uniform_RBN, noise_RBN)
    if steps == 1:
        return round_(start, jax.tree.map(lambda x: x[0], rounds))[0][0]
    return jax.lax.scan(round_, start, rounds)[0][0]


def check_decoding(steps: int, schedule: str, order: str) -> None:
    """Raises ValueError for what `decode` cannot do."""
    if steps < 1:
        raise ValueError(f'decoding was asked for {steps} rounds; it takes at least 1.')
    for what, name, known in (('schedule', schedule, SCHEDULES), ('order', order, ORDERS)):
        if name not in known:
            raise ValueError(f"decoding was asked for the {what} '{name}'; take one of {', '.join(known)}.")

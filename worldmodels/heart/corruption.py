r"""Training against drift: what a model is given of the past is damaged, as its own dreams will be.

$$r \sim \mathcal U(0, \rho), \qquad \tilde z_n = u_n \sim \mathcal U\{1, \ldots, K\} \text{ with probability } r,
\text{ else } z_n; \qquad \tilde z = z + r\,\epsilon \text{ where latents are numbers}$$

A dream goes on from frames that the model drew itself, and in training it only ever sees true ones. Noise on the frames it
goes on from, of a level drawn anew at every tick and told to nobody, closes the gap (GameNGen, Valevski et al., 2024, arXiv
2408.14837, whose network is told the level); of tokens it replaces some, as scheduled sampling does with the model's own
(Bengio et al., 2015, arXiv 1506.03099). Memory and transition are given what is corrupted, and an outcome that reads the
departure; what they are to foretell, and what the heart is trained on, never is.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from worldmodels import rng
from worldmodels.types import Latent


def corrupt(
    z: Latent, rate: float, keys: jax.Array, classes: int | None, latent: Callable[[jax.Array], Latent]
) -> Latent:
    """Latents (..., N) of ticks, corrupted at a level of at most `rate`.

    Args:
      keys: (...), one for each tick: the same tick is corrupted alike in any batch.
      classes: K, from which replaced tokens are drawn; None where latents are numbers.
      latent: indices (..., N) -> the latent that they are.
    """
    level_keys, which_keys, what_keys = rng.split(keys, 3)
    level = rate * rng.draw(jax.random.uniform, level_keys)
    if z.index_BN is None:
        shape, dtype = z.embedding_BNE.shape[-2:], z.embedding_BNE.dtype
        noise = rng.draw(lambda key: jax.random.normal(key, shape, dtype), which_keys)
        return Latent(None, z.embedding_BNE + level[..., None, None].astype(dtype) * noise)
    tokens = z.index_BN.shape[-1:]
    hit = rng.draw(lambda key: jax.random.uniform(key, tokens), which_keys) < level[..., None]
    other = latent(rng.draw(lambda key: jax.random.randint(key, tokens, 0, classes), what_keys))
    embedding = jnp.where(hit[..., None], other.embedding_BNE.astype(z.embedding_BNE.dtype), z.embedding_BNE)
    return Latent(jnp.where(hit, other.index_BN, z.index_BN), embedding)

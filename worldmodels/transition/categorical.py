r"""The categorical transition: all tokens of the next frame drawn at once, independently given (z, a, context).

$$p(z' \mid z, a, c) = \prod_n \left[(1 - \epsilon)\,\mathrm{softmax}(\ell_n) + \epsilon / K\right]_{z'_n}$$

DreamerV3's dynamics (Hafner et al., 2023, arXiv 2301.04104) cut where nothing is pending: there h' = f(h, z, a) is
computed first and the prior reads h'; here the prior reads (z, a, context of h) through an MLP, and the recurrence,
which remembers z', is the memory's.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from worldmodels.filter import Posterior
from worldmodels.nn.dense import Dense
from worldmodels.nn.distributions import balanced_kl, categorical_log_prob, categorical_sample, unimix
from worldmodels.nn.layers import MLP, norm
from worldmodels.nn.readout import Flat, Mixer, PerToken
from worldmodels.types import Latent, Layout


class Categorical(nn.Module):
    """A prediction is an array of features: (B, hidden), or (B, N, hidden) where tokens lie on a grid (`grid_tokens`).

    Fields a config sets:
      hidden, layers: of the MLP, or of the mixer that replaces it on token grids.
      unimix: share of the uniform distribution.
      free_nats: below this a KL term is not pushed further.
      temperature: of the tokens drawn, 0 for the most likely; a dial of `sample`.
    """

    classes: int
    layout: Layout
    table: bool
    grid_tokens: bool
    aligned: bool
    dtype: str
    hidden: int = 256
    layers: int = 2
    unimix: float = 0.01
    free_nats: float = 1.0
    temperature: float = 1.0

    likelihood = True
    DIALS = ('temperature',)

    def setup(self) -> None:
        if self.grid_tokens:
            self.known = PerToken(self.hidden, self.dtype, self.classes if self.table else None, self.aligned)
            self.mixers = [Mixer(self.dtype) for _ in range(self.layers)]
            self.last = norm(self.dtype)
            self.head = Dense(self.classes, dtype=self.dtype)
        else:
            self.known = Flat(self.dtype)
            self.mlp = MLP(self.layers, self.hidden, self.dtype)
            self.head = Dense(self.layout.tokens * self.classes, dtype=self.dtype)

    def predict(self, z: Latent, action_BA: jax.Array, context_BMD: jax.Array) -> jax.Array:
        """Features of all that is known of the next frame."""
        x = self.known(z, action_BA, context_BMD)
        if not self.grid_tokens:
            return self.mlp(x)
        for mixer in self.mixers:
            x = mixer(x)
        return self.last(x)

    def log_probs(self, prediction: jax.Array) -> jax.Array:
        """log p(z' | z, a, context), (B, N, K) float32."""
        logits_BNK = self.head(prediction).reshape(prediction.shape[0], self.layout.tokens, self.classes)
        return unimix(logits_BNK, self.unimix)

    def loss(self, prediction: jax.Array, posterior: Posterior, keys_B: jax.Array) -> dict[str, jax.Array]:
        """Against a posterior with probabilities, DreamerV3's balanced KL: {'dynamics', 'representation'} (`balanced_kl`).

        Against a tokenizer's tokens, their negative log-probability in nats a token: {'transition': (B,)}.
        """
        prior_BNK = self.log_probs(prediction)
        if posterior.logits_BNK is None:
            return {'transition': -jnp.mean(categorical_log_prob(prior_BNK, posterior.latent.index_BN), -1)}
        return balanced_kl(posterior.logits_BNK, prior_BNK, self.free_nats)

    def sample(self, prediction: jax.Array, keys_B: jax.Array, **dials: Any) -> jax.Array:
        """index_BN int32. Dial: temperature, 0 for the most likely class."""
        temperature = dials.get('temperature', self.temperature)
        log_probs_BNK = self.log_probs(prediction)
        if temperature == 0:
            return jnp.argmax(log_probs_BNK, -1).astype(jnp.int32)
        return categorical_sample(log_probs_BNK / temperature, keys_B)

    def log_prob(self, prediction: jax.Array, z: Latent) -> jax.Array:
        """log p(z' | z, a, context), (B,)."""
        return jnp.sum(categorical_log_prob(self.log_probs(prediction), z.index_BN), -1)

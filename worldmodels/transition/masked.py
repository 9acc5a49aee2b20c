r"""The masked transition: p(z' | z, a, context) as infill with (z, a, context) known and z' unknown.

$$\mathcal L = -\frac{1}{|U|} \sum_{n \in U} \ln p(z'_n \mid z'_{\bar U}, z, a, c)$$

with U the tokens masked at random. MaskGIT (Chang et al., 2022, arXiv 2202.04200) over one tick, as in Genie's dynamics
(Bruce et al., 2024, arXiv 2402.15391). Its rounds of decoding re-run a small spatial network on one tick's context,
never the history. It has no tractable likelihood and trains on a stop-gradient posterior.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from worldmodels.filter import Posterior
from worldmodels.nn import initializers
from worldmodels.nn.dense import Dense
from worldmodels.nn.distributions import categorical_log_prob
from worldmodels.nn.infill import Infill, decode, draw_known
from worldmodels.nn.readout import divide
from worldmodels.nn.transformer import EmbedLatent, dense
from worldmodels.types import Latent, Layout


@flax.struct.dataclass
class Known:
    """All that is known of the next frame: aligned with its slots, in further slots, and the departure's own tokens."""

    given_BND: jax.Array
    context_BMD: jax.Array
    index_BN: jax.Array


class Masked(nn.Module):
    """Fields a config sets:
    width, depth, heads, hidden: of the infill network, hidden being the feed-forward's width.
    mask: 'cosine' or 'upper_half', the distribution of the share masked in training.
    neighbours: 3 x 3 mixing on the token grid in every block.
    persist: add to the logits of each slot's departure token a learned, slot-dependent amount: the prior of a world where
      most cells stay as they are.
    steps, temperature: how it samples unless told otherwise; both are dials of `sample`.
    """

    classes: int
    layout: Layout
    table: bool
    aligned: bool
    dtype: str
    width: int = 128
    depth: int = 2
    heads: int = 4
    hidden: int = 512
    mask: str = 'cosine'
    neighbours: bool = False
    persist: bool = True
    steps: int = 8
    temperature: float = 1.0

    likelihood = False

    def setup(self) -> None:
        D = self.width
        self.embed = EmbedLatent(D, self.dtype, self.classes if self.table else None)
        self.action = dense(D, self.dtype)
        self.context = dense(D, self.dtype)
        self.place = self.param('place', initializers.Normal(0.1), (self.layout.tokens, D))
        self.infill = Infill(
            self.classes, D, self.depth, self.heads, self.hidden, self.layout, self.neighbours, self.dtype
        )
        if self.persist:
            self.gate = Dense(1, dtype='float32', bias_init=initializers.Constant(2.0))

    def predict(self, z: Latent, action_BA: jax.Array, context_BMD: jax.Array) -> Known:
        """Slots of the context that belong to the tokens are added to them; others become further known slots."""
        given_BND = self.embed(z) + self.place.astype(self.dtype) + self.action(action_BA)[:, None]
        if not context_BMD.shape[1]:
            return Known(given_BND, given_BND[:, :0], z.index_BN)
        own_BND, further_BMD = divide(self.context(context_BMD), self.layout.tokens, self.aligned)
        return Known(given_BND + own_BND if self.aligned else given_BND, further_BMD, z.index_BN)

    def logits(self, known: Known, index_BN: jax.Array, known_BN: jax.Array) -> jax.Array:
        """Logits (B, N, K) of every slot of the next frame, given those of its tokens that are known."""
        logits_BNK = self.infill(index_BN, known_BN, known.given_BND, known.context_BMD)
        if self.persist:
            stay_BN1 = jax.nn.softplus(self.gate(known.given_BND.astype(jnp.float32)))
            logits_BNK = logits_BNK + stay_BN1 * jax.nn.one_hot(known.index_BN, self.classes)
        return logits_BNK

    def loss(self, prediction: Known, posterior: Posterior, keys_B: jax.Array) -> dict[str, jax.Array]:
        """Cross-entropy of the masked tokens, in nats a token: {'transition': (B,)}."""
        target_BN = posterior.latent.index_BN
        known_BN = draw_known(keys_B, self.layout.tokens, self.mask)
        logits_BNK = self.logits(prediction, target_BN, known_BN)
        log_prob_BNK = jax.nn.log_softmax(logits_BNK)
        nll_BN = -categorical_log_prob(log_prob_BNK, target_BN)
        asked_BN = (~known_BN).astype(jnp.float32)
        changed_BN = asked_BN * (target_BN != prediction.index_BN) * (prediction.index_BN < self.classes)
        right_BN = jnp.argmax(logits_BNK, -1) == target_BN
        self.sow('metrics', 'masked_accuracy', (jnp.sum(right_BN * asked_BN), jnp.sum(asked_BN)))
        self.sow('metrics', 'changed_accuracy', (jnp.sum(right_BN * changed_BN), jnp.sum(changed_BN)))
        return {'transition': jnp.sum(nll_BN * asked_BN, -1) / jnp.sum(asked_BN, -1)}

    def sample(self, prediction: Known, keys_B: jax.Array, **dials: Any) -> jax.Array:
        """index_BN int32. Dials: steps, temperature, choice (see nn.infill.decode)."""
        dials = {'steps': self.steps, 'temperature': self.temperature} | dials
        return decode(lambda i, k: self.logits(prediction, i, k), keys_B, self.layout.tokens, **dials)

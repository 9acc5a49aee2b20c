r"""The autoregressive transition: the tokens of the next frame one after the other, each knowing those before it.

$$p(z' \mid z, a, c) = \prod_n p(z'_n \mid z'_{\lt n}, z, a, c)$$

in raster order: the dynamics of IRIS (Micheli et al., 2023, arXiv 2209.00588) and of Genie's causal peers, over one tick's
context instead of the whole history. Its likelihood is exact, in one pass, so it trains with any heart; drawing a frame
of N tokens costs about one pass too, in N steps (`nn.causal`).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from worldmodels import rng
from worldmodels.filter import Posterior
from worldmodels.nn.causal import Causal
from worldmodels.nn.distributions import balanced_kl, categorical_draw, categorical_log_prob
from worldmodels.nn.slots import Known, Slots, check_guidance, doubled, guide, persistence, stay_gate, unsaid
from worldmodels.types import Latent, Layout


class Autoregressive(nn.Module):
    """Fields a config sets:
    width, depth, heads, hidden: of the causal network, hidden being the feed-forward's width.
    persist: add to the logits of each slot's departure token a learned, slot-dependent amount: the prior of a world where
      most cells stay as they are.
    free_nats: below this a KL term is not pushed further.
    drop_action: share of training in which nothing is said of the action; without it, no guidance.
    temperature: of the tokens drawn, 0 for the most likely. guidance: w, weight of the action in logits (1 + w) told - w
      untold; twice the cost where it is not 0. Both are dials of `sample`.
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
    persist: bool = True
    free_nats: float = 1.0
    drop_action: float = 0.0
    temperature: float = 1.0
    guidance: float = 0.0

    likelihood = True
    DIALS = ('temperature', 'guidance')

    def __post_init__(self) -> None:
        check_guidance(self.guidance, self.drop_action)
        super().__post_init__()

    def setup(self) -> None:
        table = self.classes if self.table else None
        self.slots = Slots(self.width, self.layout.tokens, table, self.aligned, self.dtype)
        nn.share_scope(self, self.slots)
        self.network = Causal(self.classes, self.width, self.depth, self.heads, self.hidden, self.dtype)
        if self.persist:
            self.gate = stay_gate()

    def predict(self, z: Latent, action_BA: jax.Array, context_BMD: jax.Array) -> Known:
        """All that is known of the next frame."""
        return self.slots(z, action_BA, context_BMD)

    def logits(self, known: Known, index_BN: jax.Array) -> jax.Array:
        """Logits (B, N, K) of every token of the next frame, given those before it."""
        return self.network(index_BN, known) + self._stay(known)

    def loss(self, prediction: Known, posterior: Posterior, keys_B: jax.Array) -> dict[str, jax.Array]:
        r"""Against a tokenizer's tokens, their negative log-probability in nats a token: {'transition': (B,)}.

        Against a posterior q with probabilities, the balanced KL (`balanced_kl`), with the tokens before each drawn from q:

        $$\mathrm{KL}[q \Vert p] = \mathbb E_{z' \sim q} \sum_n \mathrm{KL}[q_n \Vert p(\cdot \mid z'_{\lt n})]$$
        """
        index_BN = posterior.latent.index_BN
        log_probs_BNK = jax.nn.log_softmax(self.logits(unsaid(prediction, keys_B, self.drop_action), index_BN))
        right_BN = (jnp.argmax(log_probs_BNK, -1) == index_BN).astype(jnp.float32)
        changed_BN = (index_BN != prediction.departure) & (prediction.departure < self.classes)
        self.sow('metrics', 'token_accuracy', (jnp.sum(right_BN), jnp.asarray(right_BN.size, jnp.float32)))
        self.sow(
            'metrics', 'changed_accuracy', (jnp.sum(right_BN * changed_BN), jnp.sum(changed_BN, dtype=jnp.float32))
        )
        if posterior.logits_BNK is not None:
            return balanced_kl(posterior.logits_BNK, log_probs_BNK, self.free_nats)
        return {'transition': -jnp.mean(categorical_log_prob(log_probs_BNK, index_BN), -1)}

    def sample(self, prediction: Known, keys_B: jax.Array, **dials: Any) -> jax.Array:
        """index_BN int32. Dials: temperature, guidance."""
        temperature, guidance = (dials.get(name, getattr(self, name)) for name in self.DIALS)
        check_guidance(guidance, self.drop_action)
        (B, N), S = prediction.departure.shape, prediction.context_BMD.shape[1]
        known = doubled(prediction, guidance)
        rows = known.beside_BND.shape[0]
        uniform_BN = rng.draw(lambda key: jax.random.uniform(key, (N,)), keys_B)
        stay_BNK = jnp.broadcast_to(self._stay(known), (rows, N, self.classes))
        over_tokens = (known.given_BND, stay_BNK, uniform_BN)

        def draw(carry: tuple, inputs: tuple) -> tuple:
            (cache, prev_B), (slot, given_BD, stay_BK, uniform_B) = carry, inputs
            cache, logits_BK = self.network.step(cache, slot, given_BD, jnp.tile(prev_B, rows // B))
            drawn_B = categorical_draw(guide(logits_BK + stay_BK, guidance), uniform_B, temperature)
            return (cache, drawn_B), drawn_B

        start = (self.network.begin(known), jnp.full(B, self.classes, jnp.int32))
        slots = N + S + jnp.arange(N)  # the known slots stand before the tokens
        _, index_NB = jax.lax.scan(draw, start, (slots, *(x.swapaxes(0, 1) for x in over_tokens)))
        return index_NB.T

    def log_prob(self, prediction: Known, z: Latent) -> jax.Array:
        """log p(z' | z, a, context), (B,)."""
        log_probs_BNK = jax.nn.log_softmax(self.logits(prediction, z.index_BN))
        return jnp.sum(categorical_log_prob(log_probs_BNK, z.index_BN), -1)

    def _stay(self, known: Known) -> jax.Array:
        return persistence(self.gate, known, self.classes) if self.persist else jnp.zeros(())

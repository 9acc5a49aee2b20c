r"""The masked transition: p(z' | z, a, context) as infill with (z, a, context) known and z' unknown.

$$\mathcal L = -\frac{1}{|U|} \sum_{n \in U} \ln p(z'_n \mid z'_{\bar U}, z, a, c)$$

with U the tokens masked at random. MaskGIT (Chang et al., 2022, arXiv 2202.04200) over one tick, as in Genie's dynamics
(Bruce et al., 2024, arXiv 2402.15391). Its rounds of decoding re-run a small spatial network on one tick's context,
never the history. It has no tractable likelihood and trains on a stop-gradient posterior.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from worldmodels.filter import Posterior
from worldmodels.nn.distributions import categorical_log_prob
from worldmodels.nn.infill import MASKS, Infill, check_decoding, decode, draw_known
from worldmodels.nn.slots import Known, Slots, check_guidance, guided, persistence, stay_gate, surrounding, unsaid
from worldmodels.nn.transformer import grid_of
from worldmodels.types import Latent, Layout


class Masked(nn.Module):
    """Fields a config sets:
    width, depth, heads, hidden: of the infill network, hidden being the feed-forward's width.
    mask: 'cosine' or 'upper_half', the distribution of the share masked in training.
    neighbours: 3 x 3 mixing on the token grid in every block.
    persist: add to the logits of each slot's departure token a learned, slot-dependent amount: the prior of a world where
      most cells stay as they are.
    moves: the same for the tokens that stood in the 3 x 3 cells around it, in amounts that the network chooses: the prior of a
      world whose view scrolls by a cell, or whose things move to the next one.
    drop_action: share of training in which nothing is said of the action; without it, no guidance.

    How it samples unless told otherwise, all of them dials of `sample`:
    steps: rounds of decoding. schedule: how many tokens each leaves unknown: cosine, linear, square, root.
    order: which tokens are kept first: confidence, random, raster, halton. choice: noise in that, where by confidence.
    temperature: of the tokens drawn, 0 for the most likely.
    guidance: w, weight of the action in logits (1 + w) told - w untold; twice the cost where it is not 0.
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
    moves: bool = False
    drop_action: float = 0.0
    steps: int = 8
    schedule: str = 'cosine'
    order: str = 'confidence'
    choice: float = 1.0
    temperature: float = 1.0
    guidance: float = 0.0

    likelihood = False
    DIALS = ('steps', 'schedule', 'order', 'choice', 'temperature', 'guidance')

    def __post_init__(self) -> None:
        if self.mask not in MASKS:
            raise ValueError(
                f"the masked transition was asked for the mask '{self.mask}'; take one of {', '.join(MASKS)}."
            )
        check_decoding(self.steps, self.schedule, self.order)
        check_guidance(self.guidance, self.drop_action)
        if self.moves and not grid_of(self.layout):
            raise ValueError(
                'the masked transition was asked for moves, and the tokens of these frames lie on no single grid; '
                'take moves=false.'
            )
        super().__post_init__()

    def setup(self) -> None:
        table = self.classes if self.table else None
        self.slots = Slots(self.width, self.layout.tokens, table, self.aligned, self.dtype)
        nn.share_scope(self, self.slots)
        sizes = (self.classes, self.width, self.depth, self.heads, self.hidden)
        self.infill = Infill(*sizes, self.layout, self.neighbours, self.dtype)
        if self.persist:
            self.gate = stay_gate()

    def predict(self, z: Latent, action_BA: jax.Array, context_BMD: jax.Array) -> Known:
        """All that is known of the next frame."""
        return self.slots(z, action_BA, context_BMD)

    def logits(self, known: Known, index_BN: jax.Array, known_BN: jax.Array) -> jax.Array:
        """Logits (B, N, K) of every slot of the next frame, given those of its tokens that are known."""
        around_BNJ = surrounding(known.departure, grid_of(self.layout), self.classes) if self.moves else None
        logits_BNK = self.infill(index_BN, known_BN, known.given_BND, known.context_BMD, around_BNJ)
        if self.persist:
            logits_BNK = logits_BNK + persistence(self.gate, known, self.classes)
        return logits_BNK

    def loss(self, prediction: Known, posterior: Posterior, keys_B: jax.Array) -> dict[str, jax.Array]:
        """Cross-entropy of the masked tokens, in nats a token: {'transition': (B,)}."""
        target_BN = posterior.latent.index_BN
        known_BN = draw_known(keys_B, self.layout.tokens, self.mask)
        logits_BNK = self.logits(unsaid(prediction, keys_B, self.drop_action), target_BN, known_BN)
        log_prob_BNK = jax.nn.log_softmax(logits_BNK)
        nll_BN = -categorical_log_prob(log_prob_BNK, target_BN)
        asked_BN = (~known_BN).astype(jnp.float32)
        changed_BN = asked_BN * (target_BN != prediction.departure) * (prediction.departure < self.classes)
        right_BN = jnp.argmax(logits_BNK, -1) == target_BN
        self.sow('metrics', 'masked_accuracy', (jnp.sum(right_BN * asked_BN), jnp.sum(asked_BN)))
        self.sow('metrics', 'changed_accuracy', (jnp.sum(right_BN * changed_BN), jnp.sum(changed_BN)))
        return {'transition': jnp.sum(nll_BN * asked_BN, -1) / jnp.sum(asked_BN, -1)}

    def sample(self, prediction: Known, keys_B: jax.Array, **dials: Any) -> jax.Array:
        """index_BN int32. Dials: those in DIALS."""
        dials = {name: dials.get(name, getattr(self, name)) for name in self.DIALS}
        guidance = dials.pop('guidance')
        check_guidance(guidance, self.drop_action)
        logits_of = guided(self.logits, prediction, guidance)
        return decode(logits_of, keys_B, self.layout.tokens, grid=grid_of(self.layout), **dials)

r"""q(z' | context, prediction, o'): what is believed once the frame has been seen.

$$q(z' \mid \cdot) = \prod_n \left[(1 - \epsilon)\,\mathrm{softmax}(\ell_n) + \epsilon / K\right]_{z'_n}$$

of what the filter reads (Bai et al., 2025, arXiv 2510.20668; DreamerV3's posterior, Hafner et al., 2023, arXiv
2301.04104).

`reads` says what it looks at beside the frame: 'frame' nothing (it then runs in parallel over time), 'memory' the
context as it stood before the frame (the paper's filter), 'prediction' that and the transition's prediction
(DreamerV3's).
"""

from __future__ import annotations

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from worldmodels.nn.dense import Dense
from worldmodels.nn.distributions import categorical_sample, straight_through, unimix
from worldmodels.nn.layers import MLP
from worldmodels.types import Latent, Layout, PyTree, flat


@flax.struct.dataclass
class Posterior:
    """The latent of a frame and the log-probabilities (B, N, K) it was drawn from: None where the frame decided it."""

    latent: Latent
    logits_BNK: jax.Array | None


class Filter(nn.Module):
    """An MLP to N categoricals of K classes mixed with the uniform, sampled with straight-through gradients.

    Fields a config sets:
      reads: 'frame', 'memory' or 'prediction'.
      hidden, layers: of the MLP.
      unimix: share of the uniform distribution.
    """

    classes: int
    layout: Layout
    dtype: str
    reads: str = 'prediction'
    hidden: int = 256
    layers: int = 1
    unimix: float = 0.01

    @nn.compact
    def __call__(self, features: jax.Array, context_BMD: jax.Array, prediction: PyTree, keys_B: jax.Array) -> Posterior:
        """Features (B, F), context and prediction -> posterior; what `reads` leaves out may be None."""
        seen = [features]
        if self.reads in ('memory', 'prediction'):
            seen.append(context_BMD)
        if self.reads == 'prediction':
            seen += [x for x in jax.tree.leaves(prediction) if jnp.issubdtype(x.dtype, jnp.floating)]
        x = jnp.concatenate([flat(x, 1).astype(self.dtype) for x in seen], -1)
        x = MLP(self.layers, self.hidden, self.dtype)(x)
        N = self.layout.tokens
        logits_BNK = Dense(N * self.classes, dtype=self.dtype, name='logits')(x).reshape(-1, N, self.classes)
        log_probs_BNK = unimix(logits_BNK, self.unimix)
        index_BN = categorical_sample(log_probs_BNK, keys_B)
        return Posterior(Latent(index_BN, straight_through(index_BN, log_probs_BNK)), log_probs_BNK)


class Tokenized(nn.Module):
    """The filter of a tokenizer: the frame alone decided its tokens, and nothing is uncertain."""

    reads: str = 'frame'

    def __call__(self, features: Latent, context_BMD: jax.Array, prediction: PyTree, keys_B: jax.Array) -> Posterior:
        """The latent the heart encoded, as it is."""
        return Posterior(features, None)

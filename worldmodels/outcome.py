r"""p(r, gamma, ... | z, a): what an action pays. One head per outcome a world declares.

$$\hat r = \sum_i \mathrm{softmax}(\ell)_i\,\mathrm{symexp}(s_i), \qquad \hat\gamma = \sigma(\ell)$$

The discount is Bernoulli; rewards and costs are symlog two-hot over 255 bins $s_i$ in [-20, 20] with a zero-initialised
output, so that an untrained model expects exactly nothing (DreamerV3, Hafner et al., 2023, arXiv 2301.04104).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from worldmodels.nn import initializers
from worldmodels.nn.dense import Dense
from worldmodels.nn.distributions import bernoulli_loss, twohot_loss, twohot_mean
from worldmodels.nn.layers import MLP
from worldmodels.nn.readout import Flat, PerToken
from worldmodels.types import Latent, flat


class Outcome(nn.Module):
    """Fields a config sets:
    reads: 'departure', where the action is taken, or 'arrival', where it led. The world model passes that side's (z,
    context).
    units, layers: of each head's MLP.
    bins: of the two-hot distributions, odd.
    """

    names: tuple[str, ...]
    classes: int | None
    table: bool
    grid_tokens: bool
    aligned: bool
    dtype: str
    reads: str = 'arrival'
    units: int = 256
    layers: int = 1
    bins: int = 255

    @nn.compact
    def __call__(self, z: Latent, action_BA: jax.Array, context_BMD: jax.Array) -> dict[str, jax.Array]:
        """Logits by name: (B,) of the discount, (B, bins) of all others."""
        if self.grid_tokens:
            table = self.classes if self.table else None
            read = PerToken(self.units, self.dtype, table, self.aligned, name='tokens')
            x = self._pool(read(z, action_BA, context_BMD))
        else:
            x = Flat(self.dtype)(z, action_BA, context_BMD)
        out = {}
        for name in self.names:
            y = MLP(self.layers, self.units, self.dtype, name=f'{name}_mlp')(x)
            if name == 'discount':
                out[name] = Dense(1, dtype=self.dtype, name=name)(y)[..., 0].astype(jnp.float32)
            else:
                out[name] = Dense(self.bins, dtype=self.dtype, kernel_init=initializers.zeros, name=name)(y).astype(
                    jnp.float32
                )
        return out

    def _pool(self, x_BND: jax.Array) -> jax.Array:
        """Mean and maximum say what there is; a few numbers per token, kept apart, say where."""
        narrow_BNP = Dense(8, dtype=self.dtype, name='narrow')(x_BND)
        return jnp.concatenate([jnp.mean(x_BND, 1), jnp.max(x_BND, 1), flat(narrow_BNP, 1)], -1)

    def losses(self, outputs: dict[str, jax.Array], targets: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Negative log-likelihood (B,) of the targets (B,), by name."""
        return {
            name: (bernoulli_loss if name == 'discount' else twohot_loss)(outputs[name], targets[name])
            for name in self.names
        }

    def mean(self, outputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Expected outcomes (B,), by name."""
        return {
            name: jax.nn.sigmoid(outputs[name]) if name == 'discount' else twohot_mean(outputs[name])
            for name in self.names
        }

r"""A linear recurrence as a memory: a state of fixed size at any age, and all ticks of a segment at once in training.

$$h_t = e^{-\Delta_t} \odot h_{t-1} + \sqrt{1 - e^{-2 \Delta_t}} \odot \sigma(i_t) \odot u_t$$

(rule 'diagonal': RG-LRU, De et al., 2024, arXiv 2402.19427, with the decay of Mamba, Gu and Dao, 2023, arXiv 2312.00752,
and, as in minGRU, Feng et al., 2024, arXiv 2410.01201, gates that see the input alone), or

$$S_t = \alpha_t\,(I - \beta_t k_t k_t^\top)\,S_{t-1} + \beta_t k_t v_t^\top, \qquad y_t = S_t^\top q_t$$

(rule 'delta': DeltaNet, Yang et al., 2024, arXiv 2406.06484; Gated DeltaNet, Yang et al., 2024, arXiv 2412.06464).
u, i, k, q, v and the logits of the gates $\Delta = \mathrm{softplus}(\cdot)$, $\alpha = e^{-\Delta}$, $\beta = \sigma(\cdot)$
are linear in the layer's normed input; keys and queries have length 1. What is read is gated by $\mathrm{silu}(\cdot)$ of
the same input, and a feed-forward follows.

How long it remembers: at first the time scales $1 / \Delta$ are spread evenly in their logarithm, over the channels from 1
to 4,096 ticks, over the heads of the delta rule from 64 to 16,384, and any tick's input lengthens or shortens them. What
the delta rule wrote under a key stays until the same key is written again, beta being near 0 meanwhile. States are float32
whatever the compute dtype.

Bytes: 4 depth expand width for the diagonal, 4 depth expand width^2 / heads for the delta rule, at any age: 2,048 and 65,536
at the defaults. Cost per tick there, for frames of 64 tokens: 1.9 MFLOP in products of matrices (`training/flops.py`), under
either rule and in either form, at any age.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from worldmodels.memory.base import Memory
from worldmodels.nn import initializers, recurrence
from worldmodels.nn.transformer import EmbedLatent, Feed, dense, rms_norm
from worldmodels.remat import block
from worldmodels.types import Latent, flat

SLOWEST = 1e-6
"""The least Delta. The square root of the diagonal's input gate has no slope at 0."""


class Diagonal(nn.Module):
    """h (B, expand * width): every number decays at a rate of its own, which the input sets."""

    width: int
    expand: int
    dtype: str

    def setup(self) -> None:
        inner = self.expand * self.width
        self.inputs = dense(4 * inner, self.dtype)
        self.rate = self.param('rate', initializers.Spread(1, 4096), (inner,))
        self.out = dense(self.width, self.dtype)

    def _driven(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(log decay, what is added, output gate), none of which waits for h."""
        u, write, decay, show = jnp.split(self.inputs(x), 4, -1)
        delta = nn.softplus(decay.astype(jnp.float32) + self.rate) + SLOWEST
        added = jnp.sqrt(-jnp.expm1(-2 * delta)) * nn.sigmoid(write.astype(jnp.float32)) * u.astype(jnp.float32)
        return -delta, added, nn.silu(show)

    def step(self, h: jax.Array, x_BD: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_a, added, show = self._driven(x_BD)
        h = recurrence.diagonal_step(h, log_a, added)
        return h, self.out(show * h.astype(self.dtype))

    def __call__(self, h: jax.Array, x_BTD: jax.Array, reset_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_a, added, show = self._driven(x_BTD)
        h = recurrence.diagonal(h, log_a, added, reset_BT)
        return h[:, -1], self.out(show * h.astype(self.dtype))


class Delta(nn.Module):
    """S (B, heads, width / heads, expand * width / heads): an associative table, rewritten key by key."""

    width: int
    expand: int
    heads: int
    dtype: str

    def setup(self) -> None:
        inner = self.expand * self.width
        self.inputs = dense(2 * self.width + 2 * inner + 2 * self.heads, self.dtype)
        self.rate = self.param('rate', initializers.Spread(64, 16384), (self.heads,))
        self.out = dense(self.width, self.dtype)

    def _driven(self, x: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """((q, k, v, beta, log alpha), output gate): (..., heads, numbers), float32 but the gate."""
        D, V, H = self.width, self.expand * self.width, self.heads
        q, k, v, show, beta, decay = jnp.split(self.inputs(x), np.cumsum([D, D, V, V, H]), -1)
        q, k, v = (y.reshape(*y.shape[:-1], H, -1).astype(jnp.float32) for y in (q, k, v))
        q, k = (y * jax.lax.rsqrt(jnp.sum(jnp.square(y), -1, keepdims=True) + 1e-6) for y in (q, k))
        delta = nn.softplus(decay.astype(jnp.float32) + self.rate)
        return (q, k, v, nn.sigmoid(beta.astype(jnp.float32)), -delta), nn.silu(show)

    def step(self, h: jax.Array, x_BD: jax.Array) -> tuple[jax.Array, jax.Array]:
        driven, show = self._driven(x_BD)
        h, y_BHV = recurrence.delta_step(h, *driven)
        return h, self.out(show * flat(y_BHV, 1).astype(self.dtype))

    def __call__(self, h: jax.Array, x_BTD: jax.Array, reset_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        driven, show = self._driven(x_BTD)
        h, y_BHTV = recurrence.delta(h, *(jnp.moveaxis(y, 2, 1) for y in driven), reset_BT)
        return h, self.out(show * flat(jnp.moveaxis(y_BHTV, 1, 2), 2).astype(self.dtype))


RULES = ('diagonal', 'delta')


class StateSpace(Memory):
    """Fields a config sets:
    rule: 'diagonal' or 'delta'.
    width, depth, hidden: of the layers and their feed-forwards. expand: state channels per channel of the width.
    heads: of the delta rule. embedding: numbers each token is brought to before the tokens of a frame are joined.
    slots: readouts of the last layer, shown as context.
    """

    classes: int
    table: bool
    dtype: str
    rule: str = 'diagonal'
    width: int = 128
    depth: int = 2
    expand: int = 2
    heads: int = 4
    hidden: int = 512
    embedding: int = 32
    slots: int = 4

    CHOICES: ClassVar = {'rule': RULES}

    def setup(self) -> None:
        self.embed = EmbedLatent(self.embedding, self.dtype, self.classes if self.table else None)
        self.frame = dense(self.width, self.dtype)
        self.action = dense(self.width, self.dtype)
        if self.rule == 'diagonal':
            layer = lambda: Diagonal(self.width, self.expand, self.dtype)
        else:
            layer = lambda: Delta(self.width, self.expand, self.heads, self.dtype)
        self.layers = [layer() for _ in range(self.depth)]
        self.feeds = [Feed(self.hidden, self.dtype) for _ in range(self.depth)]
        self.norm = rms_norm(self.dtype)
        self.shown = dense(self.slots * self.width, self.dtype)

    def initial(self, batch: int) -> tuple[tuple[jax.Array, ...], jax.Array]:
        C = self.width // self.heads
        shape = (self.expand * self.width,) if self.rule == 'diagonal' else (self.heads, C, self.expand * C)
        h = tuple(jnp.zeros((batch, *shape), jnp.float32) for _ in range(self.depth))
        return h, jnp.zeros((batch, self.slots, self.width), self.dtype)

    def _input(self, z: Latent, action: jax.Array) -> jax.Array:
        tokens = nn.silu(self.norm(self.embed(z)))
        return self.frame(flat(tokens, tokens.ndim - 2)) + self.action(action)

    def _context(self, x: jax.Array) -> jax.Array:
        return self.shown(self.norm(x)).reshape(*x.shape[:-1], self.slots, self.width)

    def _through(self, h: tuple, x: jax.Array, run: Callable) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """(h, context) after all layers; `run(layer, state, x)` is a layer's recurrence in one form or the other."""
        after = []
        for layer, feed, state in zip(self.layers, self.feeds, h):
            state, y = run(layer, state, self.norm(x))
            x = x + y
            x = block(x + feed(self.norm(x)))
            after.append(state)
        return tuple(after), self._context(x)

    def step(self, h: tuple, z: Latent, action_BA: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """One frame more: (h, context (B, slots, width))."""
        return self._through(h, self._input(z, action_BA), lambda layer, state, x_BD: layer.step(state, x_BD))

    def sequence(
        self, h: tuple | None, z: Latent, action_BTA: jax.Array, reset_BT: jax.Array
    ) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """All frames of a segment at once, as `step` in turn: (h after the last, contexts (B, T, slots, width))."""
        h = self.initial(reset_BT.shape[0])[0] if h is None else h
        x_BTD = self._input(z, action_BTA)
        return self._through(h, x_BTD, lambda layer, state, x_BTD: layer(state, x_BTD, reset_BT))

r"""Persistent memory in the masked paradigm: slots beside the frame's tokens, trained to fill in what was masked of the past.

$$h_t = e^{-\Delta_t} \odot h_{t-1} + \sqrt{1 - e^{-2 \Delta_t}} \odot \sigma(i_t) \odot u_t, \qquad
\mathcal L_t = -\frac{1}{|U|} \sum_{n \in U} \ln p\bigl(z_{t-a, n} \mid z_{t-a, \bar U}, a, c_{t, \lt m}\bigr)$$

The first is what S slots of D numbers keep, the second, `recall`, what they are kept for: of an earlier frame of the episode,
of an age a drawn log-uniformly, the tokens U are masked, and THE masked network (`nn/infill.py`; MaskGIT, Chang et al.,
2022, arXiv 2202.04200) fills them in from the tokens left, the age, and the slots c as they are shown now. Memory is masked
too: at a share `hide` of the ticks only the first m slots are seen, m uniform from 1 to S - 1 (nested dropout, Rippel et
al., 2014, arXiv 1402.0915), so that the first slots come to hold what is needed most, and a memory may be cut afterwards
(`shown`). *From Masks to Worlds* (Bai et al., 2025, arXiv 2510.20668) names mask-based persistent memory as unexplored.

Writing: every slot asks the frame's tokens by a learned query (latents that attend to inputs, Perceiver, Jaegle et al.,
2021, arXiv 2103.03206). From what it hears come u, and for each head of the slot one gate of writing i and one of
forgetting $\Delta = \mathrm{softplus}(\cdot)$. None of it waits for h, so all ticks are written at once
(`nn/recurrence.py`; the gates are those of RG-LRU, De et al., 2024, arXiv 2402.19427, by heads). Time scales $1 / \Delta$
begin spread evenly in their logarithm from 1 to 16,384 ticks, over the heads of each slot. States are float32 whatever the
compute dtype, and normed by heads when they are read (RetNet, Sun et al., 2023, arXiv 2307.08621), so that a faint and old
one is read as well as one just written. Reading: slots see the frame, themselves and the slots before them, never those
behind, which may be hidden or cut.

Latents without classes are filled in as numbers, $\mathcal L_t$ being the mean squared error of U.

Bytes: 4 S D at any age, 4,096 at the defaults. Cost per tick there, for frames of 64 tokens: 11.1 MFLOP in products of
matrices (`training/flops.py`), in either form; `recall` is a pass of the infill network a tick, in training alone.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from worldmodels import rng
from worldmodels.memory.base import Memory
from worldmodels.nn import initializers, recurrence
from worldmodels.nn.causal import CausalBlock
from worldmodels.nn.distributions import categorical_log_prob
from worldmodels.nn.infill import Infill, draw_known
from worldmodels.nn.transformer import MASKED, EmbedLatent, Feed, attend, dense, join_heads, rms_norm
from worldmodels.types import Latent, Layout, flat

SLOWEST = 1e-6
"""The least Delta. The square root of the gate of writing has no slope at 0."""


class Write(nn.Module):
    """What each slot adds and forgets, from the frame alone: (log decay, added, gate of reading, what it heard).

    Each (..., S, width), of the first `shown` slots; the first two float32.
    """

    slots: int
    shown: int
    width: int
    heads: int
    hidden: int
    dtype: str

    @nn.compact
    def __call__(self, x_ND: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        S, H, C = self.slots, self.heads, self.width // self.heads
        norm = rms_norm(self.dtype)
        split = lambda x: x.reshape(*x.shape[:-1], H, C).swapaxes(-3, -2)
        query_SD = self.param('query', initializers.Normal(1.0), (S, self.width))[: self.shown]
        gain_H = self.param('gain', initializers.Constant(2.0), (H,))
        q_HSC = norm(split(query_SD)) * (gain_H / np.sqrt(C))[:, None, None].astype(self.dtype)
        k, v = (split(x) for x in jnp.split(dense(2 * self.width, self.dtype, 'tokens')(norm(x_ND)), 2, -1))
        heard_SD = dense(self.width, self.dtype, 'heard')(join_heads(attend(q_HSC, norm(k), v)))
        x_SD = heard_SD + self.param('slot', initializers.Normal(0.5), (S, self.width))[: self.shown].astype(self.dtype)
        x_SD = x_SD + Feed(self.hidden, self.dtype, name='feed')(norm(x_SD))
        driven = dense(2 * self.width + 2 * H, self.dtype, 'driven')(norm(x_SD))
        u, show, write, decay = jnp.split(driven, np.cumsum([self.width, self.width, H]), -1)
        # The heads of every slot go from the fastest to the slowest: which slots are seen does not decide how far back.
        rate_SH = self.param('rate', initializers.Spread(1, 16384), (H * S,)).reshape(H, S).T[: self.shown]
        delta = nn.softplus(decay.astype(jnp.float32) + rate_SH) + SLOWEST
        scale = jnp.sqrt(-jnp.expm1(-2 * delta)) * nn.sigmoid(write.astype(jnp.float32))
        return -jnp.repeat(delta, C, -1), jnp.repeat(scale, C, -1) * u.astype(jnp.float32), nn.silu(show), x_SD


class Ask(nn.Module):
    """What stood in the masked tokens of a frame of some age: logits (X, N, K), or numbers (X, N, E) without classes."""

    classes: int | None
    layout: Layout
    width: int
    depth: int
    heads: int
    hidden: int
    dtype: str

    @nn.compact
    def __call__(self, z: Latent, known_XN: jax.Array, age_X: jax.Array, context_XMD: jax.Array) -> jax.Array:
        N, E = z.embedding_BNE.shape[1:]
        place_ND = self.param('place', initializers.Normal(0.1), (N, self.width)).astype(self.dtype)
        given_XND = place_ND + dense(self.width, self.dtype, 'age')(_waves(age_X, self.width))[:, None]
        index_XN = z.index_BN
        if self.classes is None:
            # The network's own tokens are all masked, and numbers that are known stand beside them.
            told_XND = dense(self.width, self.dtype, 'numbers')(z.embedding_BNE)
            told_XND = told_XND + self.param('told', initializers.Normal(0.5), (self.width,)).astype(self.dtype)
            given_XND = given_XND + jnp.where(known_XN[..., None], told_XND, 0)
            index_XN, known_XN = jnp.zeros(known_XN.shape, jnp.int32), known_XN & False
        sizes = (self.classes or E, self.width, self.depth, self.heads, self.hidden)
        infill = Infill(*sizes, self.layout, False, self.dtype)
        return infill(index_XN, known_XN, given_XND, dense(self.width, self.dtype, 'slots')(context_XMD))


class Masked(Memory):
    """Fields a config sets:
    slots: how many there are, and width, numbers in each.
    shown: how many are kept and shown, the first ones; 0 for all. The others are shown as zeros, so that every size of
      context, and of parameters, stays.
    heads: of attention, and of gates: each slot has as many time scales.
    hidden: width of the feed-forwards. depth: blocks in which slots are read, and blocks of the network that is asked.
    hide: share of the ticks at which some of the last slots are hidden from it.
    """

    classes: int
    layout: Layout
    table: bool
    dtype: str
    slots: int = 8
    width: int = 128
    shown: int = 0
    depth: int = 1
    heads: int = 4
    hidden: int = 512
    hide: float = 0.5

    def __post_init__(self) -> None:
        if self.shown > self.slots:
            raise ValueError(
                f'memory.shown is {self.shown}: there are {self.slots} slots to show; give no more, or 0 for all.'
            )
        if self.hide and self.slots < 2:
            raise ValueError(
                f'memory.hide is {self.hide}, and of one slot none can be hidden: give slots=2 or more, or hide=0.'
            )
        super().__post_init__()

    @property
    def kept(self) -> int:
        """Slots that are kept and shown."""
        return self.shown or self.slots

    def setup(self) -> None:
        self.embed = EmbedLatent(self.width, self.dtype, self.classes if self.table else None)
        self.place = self.param('place', initializers.Normal(0.1), (self.layout.tokens, self.width))
        self.action = dense(self.width, self.dtype)
        self.write = Write(self.slots, self.kept, self.width, self.heads, self.hidden, self.dtype)
        self.read = dense(self.width, self.dtype)
        self.blocks = [CausalBlock(self.width, self.heads, self.hidden, self.dtype) for _ in range(self.depth)]
        self.norm = rms_norm(self.dtype)
        sizes = (self.width, self.depth, self.heads, self.hidden)
        self.ask = Ask(self.classes, self.layout, *sizes, self.dtype)

    def initial(self, batch: int) -> tuple[jax.Array, jax.Array]:
        h_BSD = jnp.zeros((batch, self.kept, self.width), jnp.float32)
        return h_BSD, jnp.zeros((batch, self.slots, self.width), self.dtype)

    def _driven(self, z: Latent, action: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        return self.write(self.embed(z) + self.place.astype(self.dtype) + self.action(action)[..., None, :])

    def _context(self, h_SD: jax.Array, show_SD: jax.Array, x_SD: jax.Array) -> jax.Array:
        """(..., slots, width): each slot with what it heard of the frame, and with the slots before it."""
        split = h_SD.reshape(*h_SD.shape[:-1], self.heads, -1)
        x_SD = x_SD + self.read(show_SD * flat(self.norm(split), h_SD.ndim - 1))
        bias_SS = jnp.where(np.tri(self.kept, dtype=bool), 0.0, MASKED)
        for block in self.blocks:
            x_SD, _, _ = block(x_SD, bias_SS)
        return jnp.pad(self.norm(x_SD), [(0, 0)] * (x_SD.ndim - 2) + [(0, self.slots - self.kept), (0, 0)])

    def step(self, h: jax.Array, z: Latent, action_BA: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One frame more: (h, context (B, slots, width))."""
        log_a, added, show, heard = self._driven(z, action_BA)
        h = recurrence.diagonal_step(h, log_a, added)
        return h, self._context(h, show, heard)

    def sequence(
        self, h: jax.Array | None, z: Latent, action_BTA: jax.Array, reset_BT: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """All frames of a segment at once, as `step` in turn: (h after the last, contexts (B, T, slots, width))."""
        h = self.initial(reset_BT.shape[0])[0] if h is None else h
        log_a, added, show, heard = self._driven(z, action_BTA)
        h_BTX = recurrence.diagonal(flat(h, 1), flat(log_a, 2), flat(added, 2), reset_BT)
        h_BTSD = h_BTX.reshape(added.shape)
        return h_BTSD[:, -1], self._context(h_BTSD, show, heard)

    def losses(
        self, context_BTMD: jax.Array, z: Latent, action_BTA: jax.Array, reset_BT: jax.Array, keys_BT: jax.Array
    ) -> dict[str, tuple[jax.Array, jax.Array]]:
        """`recall` at every tick that has an earlier one of its episode in the segment: nats a masked token, or squares."""
        age_keys, mask_keys, hide_keys = rng.split(keys_BT, 3)
        t_T = jnp.arange(reset_BT.shape[1])
        past_BT = t_T - jax.lax.cummax(jnp.where(reset_BT, t_T, 0), axis=1)
        age_BT = draw_age(age_keys, past_BT)
        at_BT = t_T - age_BT
        asked = jax.vmap(lambda z, at_T: jax.tree.map(lambda x: x[at_T], z))(jax.lax.stop_gradient(z), at_BT)
        seen_BT = draw_seen(hide_keys, self.slots, self.hide)
        context = jnp.where((jnp.arange(self.slots) < seen_BT[..., None])[..., None], context_BTMD, 0)
        known_XN = draw_known(mask_keys.reshape(-1), self.layout.tokens, 'cosine')
        one = lambda x: x.reshape(-1, *x.shape[2:])
        asked, X = jax.tree.map(one, asked), known_XN.shape[0]
        said = self.ask(asked, known_XN, age_BT.reshape(X), one(context)).astype(jnp.float32)
        unknown_XN, mask_BT = (~known_XN).astype(jnp.float32), (past_BT > 0).astype(jnp.float32)
        if self.classes is None:
            wrong_XN = jnp.mean(jnp.square(said - asked.embedding_BNE.astype(jnp.float32)), -1)
        else:
            wrong_XN = -categorical_log_prob(jax.nn.log_softmax(said), asked.index_BN)
            counted_XN = unknown_XN * mask_BT.reshape(X, 1)
            right_XN = (jnp.argmax(said, -1) == asked.index_BN) * counted_XN
            self.sow('metrics', 'recalled', (jnp.sum(right_XN), jnp.sum(counted_XN)))
        loss_X = jnp.sum(wrong_XN * unknown_XN, -1) / jnp.sum(unknown_XN, -1)
        return {'recall': (loss_X.reshape(age_BT.shape), mask_BT)}

    def use(self, h: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Share of the heads of slots that hold something: more than a hundredth of what all hold, in root mean square."""
        square_BSH = jnp.mean(jnp.square(h.reshape(*h.shape[:2], self.heads, -1)), -1)
        filled_BSH = square_BSH > 1e-4 * jnp.mean(square_BSH, (1, 2), keepdims=True)
        return {'filled': (jnp.mean(filled_BSH, (1, 2)).sum(), jnp.asarray(h.shape[0], jnp.float32))}


def draw_age(keys: jax.Array, past: jax.Array) -> jax.Array:
    """int32 from 1 to `past`, its logarithm uniform; 0 where there is no past."""
    uniform = rng.draw(jax.random.uniform, keys)
    age = jnp.floor((past + 1.0) ** uniform).astype(jnp.int32)
    return jnp.minimum(jnp.maximum(age, 1), past)


def draw_seen(keys: jax.Array, slots: int, hide: float) -> jax.Array:
    """How many slots are seen: all of them, or at a share `hide` of the keys 1 to slots - 1."""

    def one(key: jax.Array) -> jax.Array:
        whether, many = jax.random.split(key)
        few = jax.random.randint(many, (), 1, max(slots, 2))
        return jnp.where(jax.random.bernoulli(whether, hide), few, slots)

    return rng.draw(one, keys)


def _waves(age_X: jax.Array, width: int) -> jax.Array:
    """Sines and cosines (X, width) of ages, of periods from 2 pi to 60,000 ticks (Vaswani et al., 2017, arXiv 1706.03762)."""
    rates = 10000.0 ** -jnp.linspace(0, 1, -(-width // 2))
    angles = age_X[:, None] * rates
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)[:, :width]

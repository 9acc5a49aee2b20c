r"""A causal space-time transformer over the last frames, with a ring KV cache for acting.

$$y_t = \sum_{0 \le t - s \lt W} \mathrm{softmax}_s\left(g\,\hat q_t \cdot \hat k_s / \sqrt{C} + b_{t-s}\right) v_s$$

Every layer attends, position by position, over the last W = `length` frames, then among the tokens of a frame (axial
attention, Ho et al., 2019, arXiv 1912.12180; the layout of Genie's dynamics, Bruce et al., 2024, arXiv 2402.15391).
Queries and keys are normalised, g is learned. Time is relative: a learned bias b per head and age, so tick 10,000 costs
and means what tick 10 does. Stacked layers reach depth * (length - 1) frames back. One context slot per token.
"""

from __future__ import annotations

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from worldmodels.memory.base import Memory
from worldmodels.nn import initializers
from worldmodels.nn.transformer import QKV, Block, EmbedLatent, attend, dense, grid_of, join_heads, rms_norm
from worldmodels.types import Latent, Layout


@flax.struct.dataclass
class Ring:
    """Keys and values of the last W frames, per layer a (B, N, heads, W, C) array; slots are overwritten in turn.

    cursor_B: the slot written next. length_B: frames since the last reset, at most W; older slots are not looked at, so a
    reset costs nothing.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    cursor_B: jax.Array
    length_B: jax.Array


class TimeAttention(nn.Module):
    """Attention of each token position over its own past, in both forms."""

    heads: int
    length: int
    dtype: str

    def setup(self) -> None:
        self.qkv = QKV(self.heads, self.dtype)
        self.age_bias = self.param('age_bias', initializers.zeros, (self.heads, self.length))

    def _attend(self, q: jax.Array, k: jax.Array, v: jax.Array, age_BQS: jax.Array, seen_BQS: jax.Array) -> jax.Array:
        """q (B, N, H, Q, C), k and v (B, N, H, S, C) -> (B, N, Q, H * C). The B of ages and of what is seen may be 1."""
        bias_BHQS = jnp.moveaxis(self.age_bias[:, jnp.clip(age_BQS, 0, self.length - 1)], 0, 1)
        return join_heads(attend(q, k, v, bias_BHQS[:, None], seen_BQS[:, None, None]))

    def __call__(self, x_BNTD, past, reset_BT):
        """All ticks at once; `past` is (keys, values, length_B) oldest first, or None. Returns y and all keys, values."""
        q, k, v = self.qkv(x_BNTD)
        t = jnp.arange(reset_BT.shape[1])
        segment_BT = jnp.cumsum(reset_BT, 1)
        age_TS = t[:, None] - t[None]
        seen_BTS = (segment_BT[:, :, None] == segment_BT[:, None]) & (age_TS >= 0) & (age_TS < self.length)
        if past is not None:
            past_k, past_v, length_B = past
            W = past_k.shape[3]
            k, v = jnp.concatenate([past_k, k], 3), jnp.concatenate([past_v, v], 3)
            past_age_TW = t[:, None] + W - jnp.arange(W)
            kept_BW = (W - jnp.arange(W)) <= length_B[:, None]
            carried_BTW = (segment_BT == 0)[:, :, None] & kept_BW[:, None] & (past_age_TW < self.length)
            age_TS = jnp.concatenate([past_age_TW, age_TS], 1)
            seen_BTS = jnp.concatenate([carried_BTW, seen_BTS], 2)
        return self._attend(q, k, v, age_TS[None], seen_BTS), k, v

    def step(self, x_BND, keys, values, cursor_B, length_B):
        """One tick: writes the ring, then reads it. `length_B` counts this tick."""
        W = keys.shape[3]
        q, k, v = self.qkv(x_BND[:, :, None])
        write = jax.vmap(lambda ring, new, at: jax.lax.dynamic_update_slice_in_dim(ring, new, at, 2))
        keys, values = write(keys, k, cursor_B), write(values, v, cursor_B)
        age_BS = (cursor_B[:, None] - jnp.arange(W)) % W
        seen_BS = age_BS < length_B[:, None]
        return self._attend(q, keys, values, age_BS[:, None], seen_BS[:, None])[:, :, 0], keys, values


class SpaceTime(nn.Module):
    """One layer: over time, then over space and position-wise (`Block`)."""

    width: int
    heads: int
    hidden: int
    length: int
    grid: tuple[int, int] | None
    dtype: str

    def setup(self) -> None:
        self.space = Block(self.heads, self.hidden, self.dtype, self.grid)
        self.time_norm = rms_norm(self.dtype)
        self.time = self.over_time()
        self.out = dense(self.width, self.dtype)

    def over_time(self) -> nn.Module:
        """Its attention over time: memories that keep the past in another form have another."""
        return TimeAttention(self.heads, self.length, self.dtype)

    def __call__(self, x_BTND, *past):
        """(x, what the attention over time returns beside it)."""
        y_BNTD, *after = self.time(self.time_norm(x_BTND).swapaxes(1, 2), *past)
        x_BTND = x_BTND + self.out(y_BNTD).swapaxes(1, 2)
        x = self.space(x_BTND.reshape(-1, *x_BTND.shape[2:]))
        return x.reshape(x_BTND.shape), *after

    def step(self, x_BND, *past):
        y_BND, *after = self.time.step(self.time_norm(x_BND), *past)
        return self.space(x_BND + self.out(y_BND)), *after


class Window(Memory):
    """Fields a config sets:
    length: frames each layer sees, this one included.
    width, depth, heads, hidden: of the transformer. neighbours: 3 x 3 mixing on the token grid in every layer.
    """

    classes: int
    layout: Layout
    table: bool
    dtype: str
    length: int = 16
    width: int = 128
    depth: int = 2
    heads: int = 4
    hidden: int = 512
    neighbours: bool = False

    aligned = True

    @property
    def slots(self) -> int:
        return self.layout.tokens

    def setup(self) -> None:
        self.embed = EmbedLatent(self.width, self.dtype, self.classes if self.table else None)
        self.action = dense(self.width, self.dtype)
        self.place = self.param('place', initializers.Normal(0.1), (self.slots, self.width))
        self.layers = [self.layer() for _ in range(self.depth)]
        self.norm = rms_norm(self.dtype)

    def layer(self) -> SpaceTime:
        grid = grid_of(self.layout) if self.neighbours else None
        return SpaceTime(self.width, self.heads, self.hidden, self.length, grid, self.dtype)

    def initial(self, batch: int) -> tuple[Ring, jax.Array]:
        shape = (batch, self.slots, self.heads, self.length, self.width // self.heads)
        empty = lambda: tuple(jnp.zeros(shape, self.dtype) for _ in range(self.depth))
        count = lambda: jnp.zeros(batch, jnp.int32)
        return Ring(empty(), empty(), count(), count()), jnp.zeros((batch, self.slots, self.width), self.dtype)

    def reset(self, h: Ring, reset_B: jax.Array) -> Ring:
        return h.replace(length_B=jnp.where(reset_B, 0, h.length_B))

    def use(self, h: Ring) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Share of the ring that holds frames since the last reset."""
        return {'filled': (h.length_B.sum() / self.length, jnp.asarray(h.length_B.shape[0], jnp.float32))}

    def _input(self, z: Latent, action: jax.Array) -> jax.Array:
        return self.embed(z) + self.place.astype(self.dtype) + self.action(action)[..., None, :]

    def step(self, h: Ring, z: Latent, action_BA: jax.Array) -> tuple[Ring, jax.Array]:
        """One frame more: (h, context (B, N, D))."""
        x_BND = self._input(z, action_BA)
        length_B = jnp.minimum(h.length_B + 1, self.length)
        keys, values = [], []
        for layer, k, v in zip(self.layers, h.keys, h.values):
            x_BND, k, v = layer.step(x_BND, k, v, h.cursor_B, length_B)
            keys.append(k), values.append(v)
        h = Ring(tuple(keys), tuple(values), (h.cursor_B + 1) % self.length, length_B)
        return h, self.norm(x_BND)

    def sequence(self, h: Ring | None, z: Latent, action_BTA: jax.Array, reset_BT: jax.Array) -> tuple[Ring, jax.Array]:
        """All frames of a segment at once: (h after the last, contexts (B, T, N, D)). Means what `step` in turn means."""
        B, T = reset_BT.shape
        W = self.length
        x_BTND = self._input(z, action_BTA)
        keys, values = [], []
        for i, layer in enumerate(self.layers):
            past = None if h is None else (_unroll(h.keys[i], h), _unroll(h.values[i], h), h.length_B)
            x_BTND, k, v = layer(x_BTND, past, reset_BT)
            keys.append(self._last(k)), values.append(self._last(v))
        since_BT = jnp.where(reset_BT, jnp.arange(T), -1)
        last_reset_B = jnp.max(since_BT, 1)
        carried_B = jnp.zeros(B, jnp.int32) if h is None else h.length_B
        length_B = jnp.where(last_reset_B >= 0, T - last_reset_B, T + carried_B)
        h = Ring(tuple(keys), tuple(values), jnp.zeros(B, jnp.int32), jnp.minimum(length_B, W).astype(jnp.int32))
        return h, self.norm(x_BTND)

    def _last(self, x: jax.Array) -> jax.Array:
        """The last W of (B, N, heads, S, C), zeros standing before the first."""
        missing = self.length - x.shape[3]
        if missing > 0:
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (missing, 0), (0, 0)))
        return x[..., x.shape[3] - self.length :, :]


def _unroll(ring: jax.Array, h: Ring) -> jax.Array:
    """A ring (B, N, heads, W, C) oldest first: the slot written next is the oldest."""
    W = ring.shape[3]
    order_BW = (h.cursor_B[:, None] + jnp.arange(W)) % W
    return jnp.take_along_axis(ring, order_BW[:, None, None, :, None], 3)

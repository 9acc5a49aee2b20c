r"""Recent frames whole, older ones pooled at geometric rates: the past of thousands of frames in a fixed number of bytes.

$$v_{l+1, i} = \sum_{j = r i}^{r i + r - 1} e^{s_{l, j} - s_{l+1, i}}\,v_{l, j}, \qquad s_{l+1, i} = \log \sum_j e^{s_{l, j}}$$

keys likewise, and every tick attends over all entries that are left, L levels of at most W = `length` (Compressive
Transformer, Rae et al., 2019, arXiv 1911.05507; pooling at the rate $r^l$ is FramePack's, Zhang and Agrawala, 2025,
arXiv 2504.12626). Entries of level l stand for $r^l$ frames each: level 0 keeps the last W - r + 1 to W frames as
they were, and what leaves a level is pooled, r entries at a time, into one of the next (`nn/levels.py` is the
schedule, a function of the frames since the last reset alone). A frame's weight s is a learned function of its token,
zero at first; as sums of exponentials add up, an entry is the mean of its frames by $e^s$, however many levels it
went through, so that what mattered is not thinned out by what did not. Keys and values are each layer's own, position
by position, as in the window memory; a learned bias per head, level and age within the level takes the place of time.

It sees at least W r^(L - 1) frames back, 2,048 at the defaults. Bytes: depth N L W (2 width b + 4 heads), b those of a number
in the compute dtype, at any age: 5.3 MB at the defaults for frames of 64 tokens, float32. Cost per tick there: 74 MFLOP in
products of matrices (`training/flops.py`), in a sequence of 64 ticks or more 80, at any age.
"""

from __future__ import annotations

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from worldmodels.memory.window import SpaceTime, Window
from worldmodels.nn import initializers
from worldmodels.nn.dense import Dense
from worldmodels.nn.levels import Levels, Plan, Reading, Step
from worldmodels.nn.transformer import QKV, attend, grid_of, join_heads
from worldmodels.types import Latent

TICKS = 64
"""Of a long sequence that are attended at once: the cost of a tick then does not grow with the sequence."""


@flax.struct.dataclass
class Entries:
    """Keys and values (B, N, heads, S, C) and the logarithms of their weights, float32 (B, N, heads, S, 1)."""

    keys: jax.Array
    values: jax.Array
    weights: jax.Array

    def pooled(self, at_BJ: jax.Array, rate: int) -> Entries:
        """The entries at those J = rate * S positions, pooled by `rate`."""
        part = jax.tree.map(lambda x: x.reshape(*x.shape[:3], -1, rate, x.shape[-1]), self.at(at_BJ))
        top = jax.lax.stop_gradient(jnp.max(part.weights, 4, keepdims=True))
        share = jnp.exp(part.weights - top)
        total = jnp.sum(share, 4)
        mean = lambda x: (jnp.sum(share * x, 4) / total).astype(x.dtype)
        return Entries(mean(part.keys), mean(part.values), jnp.log(total) + top[..., 0, :])

    def at(self, at_BS: jax.Array) -> Entries:
        return jax.tree.map(lambda x: jnp.take_along_axis(x, at_BS[:, None, None, :, None], 3), self)

    def written(self, new: Entries, at_BS: jax.Array) -> Entries:
        """`new` put at those positions; a position past the end is left out."""
        put = jax.vmap(lambda old, new, at: old.at[:, :, at].set(new, mode='drop'))
        return jax.tree.map(lambda old, new: put(old, new, at_BS), self, new)


def join(*parts: Entries) -> Entries:
    return jax.tree.map(lambda *x: jnp.concatenate(x, 3), *parts)


@flax.struct.dataclass
class Pools:
    """A ring of L W entries per layer, and the frames since the last reset, which say what in it counts."""

    entries: tuple[Entries, ...]
    count_B: jax.Array


class PooledAttention(nn.Module):
    """Attention of each token position over its own past, the older part of it pooled, in both forms."""

    heads: int
    levels: Levels
    dtype: str

    def setup(self) -> None:
        self.qkv = QKV(self.heads, self.dtype)
        self.weigh = Dense(self.heads, dtype=self.dtype, kernel_init=initializers.zeros, use_bias=False)
        self.place_bias = self.param('place_bias', initializers.zeros, (self.heads, self.levels.slots))

    def _see(self, x_BNTD: jax.Array) -> tuple[jax.Array, Entries]:
        """Queries, and the ticks as entries of level 0."""
        q, k, v = self.qkv(x_BNTD)
        weights = self.weigh(x_BNTD).astype(jnp.float32)
        return q, Entries(k, v, weights.swapaxes(2, 3)[..., None])

    def _attend(self, q: jax.Array, entries: Entries, reading: Reading) -> jax.Array:
        bias_BHQS = jnp.moveaxis(self.place_bias[:, reading.place], 0, 1)
        return join_heads(attend(q, entries.keys, entries.values, bias_BHQS[:, None], reading.seen[:, None, None]))

    def __call__(self, x_BNTD: jax.Array, ring: Entries, plan: Plan) -> tuple[jax.Array, Entries]:
        """All ticks at once: (y, the ring after the last)."""
        q, new = self._see(x_BNTD)
        W, lists = self.levels.length, []
        for level in range(self.levels.levels):
            if level:
                source = plan.source[level - 1]
                new = lists[-1].pooled(source.reshape(source.shape[0], -1), self.levels.rate)
            lists.append(join(jax.tree.map(lambda x, a=level * W: x[..., a : a + W, :], ring), new))
        entries = join(*lists)
        alive = plan.alive_BS[:, None, None, :, None]
        after = jax.tree.map(lambda x: jnp.where(alive, x, jnp.zeros((), x.dtype)), entries.at(plan.ring_BS))
        return self._attend(q, entries, plan.reading), after

    def step(self, x_BND: jax.Array, ring: Entries, step: Step) -> tuple[jax.Array, Entries]:
        """One tick: pools what is to be pooled, writes, then reads."""
        q, new = self._see(x_BND[:, :, None])
        if self.levels.levels > 1:
            new = join(new, ring.pooled(step.source_BR, self.levels.rate))
        ring = ring.written(new, step.write_BL)
        return self._attend(q, ring, step.reading)[:, :, 0], ring


class PooledSpaceTime(SpaceTime):
    """A layer of the window memory over pooled time; `length` is of each level."""

    rate: int
    levels: int

    def over_time(self) -> nn.Module:
        return PooledAttention(self.heads, Levels(self.length, self.rate, self.levels), self.dtype)


class Compressive(Window):
    """Fields a config sets:
    length: entries of each level. rate: entries pooled into one of the next level. levels: how many there are.
    width, depth, heads, hidden, neighbours: as in the window memory.
    """

    length: int = 8
    rate: int = 4
    levels: int = 5

    def __post_init__(self) -> None:
        if not 2 <= self.rate <= self.length:
            raise ValueError(
                f'memory.rate is {self.rate}: it takes a whole number from 2 to the length of a level, {self.length}.'
            )
        super().__post_init__()

    def layer(self) -> SpaceTime:
        grid = grid_of(self.layout) if self.neighbours else None
        fields = (self.width, self.heads, self.hidden, self.length, grid, self.dtype, self.rate, self.levels)
        return PooledSpaceTime(*fields)

    @property
    def _levels(self) -> Levels:
        return Levels(self.length, self.rate, self.levels)

    def initial(self, batch: int) -> tuple[Pools, jax.Array]:
        shape = (batch, self.slots, self.heads, self._levels.slots)
        empty = lambda: jnp.zeros((*shape, self.width // self.heads), self.dtype)
        entries = tuple(Entries(empty(), empty(), jnp.zeros((*shape, 1))) for _ in range(self.depth))
        return Pools(entries, jnp.zeros(batch, jnp.int32)), jnp.zeros((batch, self.slots, self.width), self.dtype)

    def reset(self, h: Pools, reset_B: jax.Array) -> Pools:
        return h.replace(count_B=jnp.where(reset_B, 0, h.count_B))

    def use(self, h: Pools) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Share of the entries that were seen at the last tick."""
        seen = self._levels.step(h.count_B - 1).reading.seen
        return {'filled': (seen.sum() / self._levels.slots, jnp.asarray(seen.shape[0], jnp.float32))}

    def step(self, h: Pools, z: Latent, action_BA: jax.Array) -> tuple[Pools, jax.Array]:
        """One frame more: (h, context (B, N, D))."""
        x_BND = self._input(z, action_BA)
        step, after = self._levels.step(h.count_B), []
        for layer, ring in zip(self.layers, h.entries):
            x_BND, ring = layer.step(x_BND, ring, step)
            after.append(ring)
        return Pools(tuple(after), h.count_B + 1), self.norm(x_BND)

    def sequence(
        self, h: Pools | None, z: Latent, action_BTA: jax.Array, reset_BT: jax.Array
    ) -> tuple[Pools, jax.Array]:
        """All frames of a segment at once, as `step` in turn: (h after the last, contexts (B, T, N, D))."""
        B, T = reset_BT.shape
        h = self.initial(B)[0] if h is None else h
        inputs = (self._input(z, action_BTA), reset_BT)
        whole = T // TICKS if T > TICKS else 0
        contexts = []
        if whole:
            chunks = jax.tree.map(lambda x: x[:, : whole * TICKS].reshape(B, whole, TICKS, *x.shape[2:]), inputs)
            scan = nn.scan(
                lambda memory, h, chunk: memory._at_once(h, *chunk),
                variable_broadcast='params', split_rngs={'params': False}, in_axes=1, out_axes=1,
            )  # fmt: skip
            h, context = scan(self, h, chunks)
            contexts.append(context.reshape(B, whole * TICKS, *context.shape[3:]))
        if whole * TICKS < T:
            h, context = self._at_once(h, *(x[:, whole * TICKS :] for x in inputs))
            contexts.append(context)
        return h, jnp.concatenate(contexts, 1)

    def _at_once(self, h: Pools, x_BTND: jax.Array, reset_BT: jax.Array) -> tuple[Pools, jax.Array]:
        plan, after = self._levels.plan(h.count_B, reset_BT), []
        for layer, ring in zip(self.layers, h.entries):
            x_BTND, ring = layer(x_BTND, ring, plan)
            after.append(ring)
        return Pools(tuple(after), plan.count_B), self.norm(x_BTND)

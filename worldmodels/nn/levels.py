r"""Which past frames are pooled where, as integers: the schedule of a memory that keeps older frames at coarser rates.

$$m_0 = n, \qquad m_{l+1} = \left\lceil \max(0, m_l - W) / r \right\rceil$$

After n frames since the last reset, m_l entries of level l were ever made, each of $r^l$ frames; the first $r m_{l+1}$ of them
were pooled, r at a time, into entries of level l + 1, and the others, at most W, are seen. At the last level the newest W
are seen. All of it follows from n alone, so what is acted tick by tick and what is trained at once read the same entries
(the layout is FramePack's, Zhang and Agrawala, 2025, arXiv 2504.12626).

Entry i of level l lies in slot l W + i mod W of a ring of L W slots. Over a sequence a level's entries lie in one list, the W
slots carried in first, those made during the sequence after them in the order of their making.
"""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Reading:
    """What queries see: `seen` (..., Q, S) and `place` (..., Q, S), the level times W plus the entry's age within the level."""

    seen: jax.Array
    place: jax.Array


@flax.struct.dataclass
class Step:
    """One tick: the slots pooled for levels 1.. (B, (L - 1) r), those written (B, L), or L W where nothing is, and what is
    then seen."""

    source_BR: jax.Array
    write_BL: jax.Array
    reading: Reading


@flax.struct.dataclass
class Plan:
    """A sequence: per level from 1 the positions (B, J, r) in the list below that each new entry pools; what the ticks see of
    all lists; and where in them the ring of the end lies (B, L W), with what of it holds an entry."""

    source: tuple[jax.Array, ...]
    reading: Reading
    ring_BS: jax.Array
    alive_BS: jax.Array
    count_B: jax.Array


@dataclasses.dataclass(frozen=True)
class Levels:
    """L levels of W = `length` entries, each pooling `rate` of the level below."""

    length: int
    rate: int
    levels: int

    @property
    def slots(self) -> int:
        return self.levels * self.length

    def made(self, n: jax.Array) -> jax.Array:
        """Entries ever made at each level after n frames: (..., L + 1), the last column as if there were one level more."""
        m = [n]
        for _ in range(self.levels):
            m.append((jnp.maximum(m[-1] - self.length, 0) + self.rate - 1) // self.rate)
        return jnp.stack(m, -1)

    def _oldest(self, made: jax.Array) -> jax.Array:
        """The first entry of each level that is still seen: (..., L)."""
        pooled = self.rate * made[..., 1:]
        return pooled.at[..., -1].set(jnp.maximum(made[..., -2] - self.length, 0))

    def _held(self, made: jax.Array) -> jax.Array:
        """The entry that each slot of the ring holds, negative where none: (..., L, W)."""
        newest = made[..., :-1, None] - 1
        return newest - (newest - jnp.arange(self.length)) % self.length

    def step(self, count_B: jax.Array) -> Step:
        """The tick after `count_B` frames."""
        before, made = self.made(count_B), self.made(count_B + 1)
        L, W, r = self.levels, self.length, self.rate
        first = jnp.arange(L) * W
        newest_BL = made[:, :L] - 1
        source = r * newest_BL[:, 1:, None] + jnp.arange(r)
        source = first[:-1, None] + source % W
        write_BL = jnp.where(made[:, :L] > before[:, :L], first + newest_BL % W, L * W)
        held = self._held(made)
        seen = held >= self._oldest(made)[..., None]
        place = first[:, None] + newest_BL[..., None] - held
        flat = lambda x: x.reshape(x.shape[0], 1, L * W)
        return Step(source.reshape(source.shape[0], -1), write_BL, Reading(flat(seen & (held >= 0)), flat(place)))

    def plan(self, count_B: jax.Array, reset_BT: jax.Array) -> Plan:
        """The T ticks after `count_B` frames."""
        (B, T), W, r = reset_BT.shape, self.length, self.rate
        t = jnp.arange(T)
        segment_BT = jnp.cumsum(reset_BT, 1)
        since_BT = jax.lax.cummax(jnp.where(reset_BT, t, -1), axis=1)
        n_BT = jnp.where(since_BT >= 0, t - since_BT + 1, count_B[:, None] + t + 1)
        made, before = self.made(n_BT), self.made(n_BT - 1)
        oldest = self._oldest(made)
        made_now = made > before
        made_here = jnp.cumsum(made_now, 1)  # during the sequence, whatever was reset
        carried = self._held(self.made(count_B))
        sources, seen, place, ring, alive = [], [], [], [], []
        start = below = 0  # of this level's list among all; new entries in the list below
        for level in range(self.levels):
            m_BT, here_BT = made[..., level], made_here[..., level]
            size = T // r**level + 1 if level else T  # more are never made
            tick_BJ = jnp.sum(here_BT[:, None] <= jnp.arange(size)[:, None], -1)
            at = lambda x_BT, tick_BJ=tick_BJ: jnp.take_along_axis(x_BT, jnp.minimum(tick_BJ, T - 1), 1)
            entry_BJ = at(m_BT) - 1
            if level:
                below_BJ = at(made_here[..., level - 1]) - at(made[..., level - 1])
                sources.append(self._position(r * entry_BJ[..., None] + jnp.arange(r), below_BJ[..., None], below))
            entry = jnp.concatenate([carried[:, level], entry_BJ], 1)
            # What was carried belongs to the segment that was going on; what is made after a tick is not seen at it.
            segment = jnp.concatenate([jnp.zeros((B, W), jnp.int32), at(segment_BT)], 1)
            tick = jnp.concatenate([jnp.full((B, W), -1), tick_BJ], 1)
            known = (segment_BT[..., None] == segment[:, None]) & (tick[:, None] <= t[:, None]) & (entry >= 0)[:, None]
            seen.append(known & (entry[:, None] >= oldest[..., level, None]))
            place.append(level * W + jnp.clip(m_BT[..., None] - 1 - entry[:, None], 0, W - 1))
            held = self._held(made[:, -1])[:, level]
            ring.append(start + self._position(held, (here_BT - m_BT)[:, -1:], size))
            alive.append(held >= 0)
            below, start = size, start + W + size
        join = lambda parts: jnp.concatenate(parts, -1)
        return Plan(tuple(sources), Reading(join(seen), join(place)), join(ring), join(alive), n_BT[:, -1])

    def _position(self, entry: jax.Array, offset: jax.Array, size: int) -> jax.Array:
        """Where a level's list holds an entry: the order of its making less that of its segment's first, or its old slot."""
        order = entry + offset
        return jnp.where(order >= 0, self.length + jnp.clip(order, 0, size - 1), entry % self.length)

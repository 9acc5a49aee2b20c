r"""The integers of an episodic bank: what is in it, and a scan that says which entry is read and written at which tick.

$$q_{\mathrm{int}} = \mathrm{round}(127\,q / |q|), \qquad \mathrm{match}(q, k) = q_{\mathrm{int}} \cdot k_{\mathrm{int}}$$

Keys are unit vectors rounded to 8 bits, once, when they are made (symmetric quantisation as in Jacob et al., 2017, arXiv
1712.05877), so that matches are whole numbers: the same whatever the order of the sum, one tick at a time or many at
once, and equal for frames that are equal. Looks and places, which are not learned, are first projected by fixed
random signs (Achlioptas, 2003). Decisions read nothing else, and have no gradient.

What holds something is told by a number of the episode beside each entry: a reset adds one to the bank's own, and copies
nothing.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from worldmodels.memory import policies as policy
from worldmodels.memory.policies import Policies, View

FULL = 127
"""Of a code: its length, nearly."""


@flax.struct.dataclass
class Book:
    """All of a bank that decides: int8 codes by name, (B, S, C) each, and int32.

    written_BS: tick of the episode at which it was written; negative for what was put in from before it.
    touched_BS: tick at which it was written or last refreshed. uses_BS: times it was retrieved.
    episode_BS: for which it was written; it counts for no other. episode_B, now_B: the episode, and ticks since its start.
    """

    codes: dict[str, jax.Array]
    written_BS: jax.Array
    touched_BS: jax.Array
    uses_BS: jax.Array
    episode_BS: jax.Array
    episode_B: jax.Array
    now_B: jax.Array

    @property
    def alive_BS(self) -> jax.Array:
        return self.episode_BS == self.episode_B[:, None]


@flax.struct.dataclass
class Read:
    """What a tick retrieved, M entries, and what it wrote. With a time axis where there are several ticks.

    entry_BM: where in the bank, read before anything was written; age_BM: ticks since it was written; there_BM: false where
    the bank held fewer. entry_B: where it was written, if it was: write_B.
    """

    entry_BM: jax.Array
    age_BM: jax.Array
    there_BM: jax.Array
    entry_B: jax.Array
    write_B: jax.Array


def empty(batch: int, capacity: int, size: int, names: tuple[str, ...]) -> Book:
    entries = lambda: jnp.zeros((batch, capacity), jnp.int32)
    codes = {name: jnp.zeros((batch, capacity, size), jnp.int8) for name in names}
    count = lambda: jnp.zeros(batch, jnp.int32)
    return Book(codes, entries(), entries(), entries(), entries() - 1, count(), count())


def restart(book: Book, reset_B: jax.Array) -> Book:
    """An empty bank where `reset_B`."""
    return book.replace(episode_B=book.episode_B + reset_B, now_B=jnp.where(reset_B, 0, book.now_B))


def code(x: jax.Array) -> jax.Array:
    """(..., C) -> int8 of the same direction, each number rounded to a share of 1 / FULL. NaN has the code 0."""
    return jnp.nan_to_num(jnp.round(FULL * unit(x))).astype(jnp.int8)


def unit(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), -1, keepdims=True) + 1e-12)


def signs(rows: int, columns: int) -> jax.Array:
    """A fixed matrix of 1 and -1 that look random: projections by it keep distances, nearly (Achlioptas, 2003)."""
    at = np.arange(rows * columns, dtype=np.uint32)
    for factor, shift in ((0x85EBCA6B, 16), (0xC2B2AE35, 13), (0x27D4EB2F, 16)):
        at = (at ^ (at >> np.uint32(shift))) * np.uint32(factor)
    return jnp.asarray((1 - 2 * (at >> np.uint32(31)).astype(np.int8)).reshape(rows, columns))


def match(code_BC: jax.Array, codes_BSC: jax.Array) -> jax.Array:
    """Products of codes, (B, S) int32. Sums of whole numbers below 2^24 are exact in float32, whose products are fast."""
    dot = jnp.einsum('bc,bsc->bs', code_BC.astype(jnp.float32), codes_BSC.astype(jnp.float32))
    return dot.astype(jnp.int32)


def likeness(code_BC: jax.Array, codes_BSC: jax.Array) -> jax.Array:
    """Cosines (B, S) float32 of codes, 1 for equal ones."""
    square = lambda x: jnp.sum(jnp.square(x.astype(jnp.int32)), -1).astype(jnp.float32)
    lengths = jnp.sqrt(square(code_BC)[:, None] * square(codes_BSC))
    return match(code_BC, codes_BSC).astype(jnp.float32) / jnp.maximum(lengths, 1)


def view(book: Book, seen: dict[str, jax.Array], now_B: jax.Array) -> View:
    """The bank at a tick: what was written before it. `seen` are the tick's codes (B, C), by name, and its 'query'."""
    codes = book.codes
    return View(
        now_B=now_B,
        alive_BS=book.alive_BS & (book.written_BS < now_B[:, None]),
        age_BS=now_B[:, None] - book.written_BS,
        idle_BS=now_B[:, None] - book.touched_BS,
        uses_BS=book.uses_BS,
        match_BS=match(seen['query'], codes['key']),
        near_BS=match(seen['place'], codes['place']) if 'place' in codes else None,
        likeness_BS=likeness(seen['look'], codes['look']) if 'look' in codes else None,
    )


def tick(policies: Policies, many: int, book: Book, seen: dict[str, jax.Array]) -> tuple[Book, Read]:
    """One tick: retrieves, then writes."""
    now_B = book.now_B
    at = view(book, seen, now_B)
    entry_BM, there_BM = policy.retrieved(at, policies, many)
    number_S = jnp.arange(at.alive_BS.shape[-1])
    read_BS = jnp.any((entry_BM[..., None] == number_S) & there_BM[..., None], -2)
    update = policy.updated(at, policies, read_BS)
    write_B = policy.WRITE[policies.write](at, policies)
    age_BM = jnp.take_along_axis(at.age_BS, entry_BM, -1)
    book = book.replace(
        uses_BS=book.uses_BS + read_BS,
        touched_BS=jnp.where(update.fresh_BS, now_B[:, None], book.touched_BS),
    )
    book = write(book, seen, update.entry_B, write_B, now_B, update.again_B).replace(now_B=now_B + 1)
    return book, Read(entry_BM, age_BM, there_BM, update.entry_B, write_B)


def write(
    book: Book,
    seen: dict[str, jax.Array],
    entry_B: jax.Array,
    write_B: jax.Array,
    when_B: jax.Array,
    again_B: jax.Array,
) -> Book:
    """Puts a tick into an entry where `write_B`; where `again_B`, its uses go on."""
    here_BS = written_to(book.uses_BS.shape[1], entry_B, write_B)
    put = lambda new, old: jnp.where(here_BS, new[:, None], old)
    return book.replace(
        codes={n: jnp.where(here_BS[..., None], seen[n][:, None], old) for n, old in book.codes.items()},
        written_BS=put(when_B, book.written_BS),
        touched_BS=put(when_B, book.touched_BS),
        uses_BS=jnp.where(here_BS & ~again_B[:, None], 0, book.uses_BS),
        episode_BS=put(book.episode_B, book.episode_BS),
    )


def written_to(capacity: int, entry_B: jax.Array, write_B: jax.Array) -> jax.Array:
    """bool (B, S): the entry that is written."""
    return (jnp.arange(capacity) == entry_B[:, None]) & write_B[:, None]


def follow(
    policies: Policies, many: int, book: Book, seen: dict[str, jax.Array], reset_BT: jax.Array
) -> tuple[Book, jax.Array, Read, jax.Array]:
    """All ticks of a segment, `seen` (B, T, C): (book, source_BS, reads (B, T, ...), from_BTM).

    Sources count the S entries carried in, then the T ticks: `source_BS` says whence each entry is in the end, `from_BTM`
    whence what was retrieved.
    """
    B, S = book.uses_BS.shape

    def step(carry: tuple[Book, jax.Array], inputs: tuple) -> tuple:
        book, source_BS = carry
        t, seen, reset_B = inputs
        book, read = tick(policies, many, restart(book, reset_B), seen)
        from_BM = jnp.take_along_axis(source_BS, read.entry_BM, 1)
        source_BS = jnp.where(written_to(S, read.entry_B, read.write_B), S + t, source_BS)
        return (book, source_BS), (read, from_BM)

    swap = lambda tree: jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)
    start = (book, jnp.broadcast_to(jnp.arange(S, dtype=jnp.int32), (B, S)))
    ticks = (jnp.arange(reset_BT.shape[1], dtype=jnp.int32), *swap((seen, reset_BT)))
    (book, source_BS), outs = jax.lax.scan(step, start, ticks)
    reads, from_BTM = swap(outs)
    return book, source_BS, reads, from_BTM


def entries(book: Book) -> dict[str, jax.Array]:
    """What the bank holds, (B, S) each: there, the tick of the episode at which it was written, age and uses.

    Ages are those that forgetting sees: ticks since an entry was written or refreshed.
    """
    age_BS = book.now_B[:, None] - book.touched_BS
    return {'there': book.alive_BS, 'tick': book.written_BS, 'age': age_BS, 'uses': book.uses_BS}


def delete(book: Book, chosen_BS: jax.Array) -> Book:
    """Without the chosen entries."""
    return book.replace(episode_BS=jnp.where(chosen_BS, -1, book.episode_BS))

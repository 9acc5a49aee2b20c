r"""An episodic bank: some frames are written as entries, a few are retrieved at every tick, each by a policy of one's choice.

$$c_{t, m} = \mathrm{norm}\bigl(w_{tm}\,(W v_{i} + a_{t - i}) + (1 - w_{tm})\,\varnothing_m\bigr), \qquad
w_{tm} = \sigma(g\,\hat q_t \cdot \hat k_i + b), \quad i = R_{t, m}$$

A frame and the action that led to it are summed up in a vector, which gives a query q, a key k and a value v. R are the
entries retrieved, `slots` of them, a being a learned vector per power of two of their age. Each slot attends to one entry
and to nothing at all ($\varnothing$, learned): attention over the best entries only, as in Memorizing Transformers (Wu et
al., 2022, arXiv 2203.08913), with one head a slot. An entry is read from the tick after it was written.

Decisions (`bank.py`, `policies.py`) are made from detached keys, as a scan over integers that says which entry is where;
all reads are then one gather from the ticks of the segment and the bank carried in. So a segment is trained in parallel,
and its gradient reaches the values, and through w the keys and queries of what was retrieved; what was not retrieved has
none.

What answers a question about tick 0 after 1,024 ticks: with `write` = 'novelty' a frame like one seen before is not
written again, so that the distractors of a world take as many entries as there are different ones, however long they go
on, and the first frame stays as long as those are fewer than `capacity`. Where every frame is new the bank is a window of
`capacity` writes, unless `forget` = 'least_used' keeps what the queries ask for. Likeness is of the frames' latents under
a fixed projection, so training cannot make all frames alike. Whether the entry is retrieved is for q and k to learn: w
raises the match of entries that help with queries that need them, and a part of k that all queries like is a learned
salience of the entry. This learning begins with entries that are retrieved by chance, where delays are short or kinds of
frames few, and with those that are like the frame that asks: q is k plus a part that is zero before training.

retrieve = 'place' compares one modality of the frame, named by `place`, under the same kind of projection: it is for
worlds that show where one is. Dead reckoning from actions is not attempted.

Bytes: capacity (b entry + keys n + 16) + 8, b being those of a number in the compute dtype and n 1, 2 with a likeness to
compare ('novelty', 'replace'), and one more with a place: 151,560 at the defaults with novelty, float32. Cost per tick
there: capacity keys n products of integers for the decisions, and those of a few dense layers, at any age. A reset costs
a counter.
"""

from __future__ import annotations

import difflib
from typing import ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from worldmodels.memory import bank
from worldmodels.memory.base import Memory
from worldmodels.memory.policies import FORGET, RETRIEVE, UPDATE, WRITE, Policies, free, retrieved
from worldmodels.nn import initializers
from worldmodels.nn.dense import Dense
from worldmodels.nn.transformer import EmbedLatent, dense, rms_norm
from worldmodels.types import Latent, Layout, Spec, flat

AGES = 16
"""Powers of two that ages are told by; 2^15 ticks and more are alike."""


@flax.struct.dataclass
class Bank:
    """Values (B, S, E), and the book that says what they are."""

    values: jax.Array
    book: bank.Book


class Retrieval(Memory):
    """Fields a config sets:
    write: 'all', 'every_k' (one tick in `every`) or 'novelty' (no entry as like as `threshold`).
    retrieve: 'content', 'recency' or 'place' (of the modality `place`).
    update: 'none', 'replace' (the entry as like as `threshold`) or 'refresh' (what is retrieved is young again).
    forget: 'oldest' or 'least_used'.
    every, threshold, place: see above; a likeness is a cosine.
    capacity: entries. entry: numbers of a value. keys: of a key. slots: entries retrieved, shown as context.
    width: of what is shown. embedding: numbers each token is brought to before the tokens of a frame are joined.
    """

    spec: Spec
    classes: int
    layout: Layout
    table: bool
    dtype: str
    write: str = 'novelty'
    retrieve: str = 'content'
    update: str = 'none'
    forget: str = 'oldest'
    every: int = 4
    threshold: float = 0.95
    place: str = ''
    capacity: int = 256
    entry: int = 128
    keys: int = 32
    slots: int = 4
    width: int = 128
    embedding: int = 32

    CHOICES: ClassVar = {
        'write': tuple(WRITE),
        'retrieve': tuple(RETRIEVE),
        'update': tuple(UPDATE),
        'forget': tuple(FORGET),
    }

    def __post_init__(self) -> None:
        if self.slots > self.capacity:
            raise ValueError(
                f'memory.slots is {self.slots}, and the bank has {self.capacity} entries: retrieve no more than it holds.'
            )
        if (self.write, self.update) == ('novelty', 'replace'):
            raise ValueError(
                "memory.write='novelty' writes no near-duplicate, so that update='replace' has nothing to replace: take "
                "write='all' to keep the latest of them, or update='none' to keep the first."
            )
        if self.retrieve == 'place':
            place_tokens(self.spec, self.layout, self.place)
        super().__post_init__()

    @property
    def policies(self) -> Policies:
        return Policies(self.write, self.retrieve, self.update, self.forget, self.every, self.threshold)

    def setup(self) -> None:
        self.embed = EmbedLatent(self.embedding, self.dtype, self.classes if self.table else None)
        self.frame = dense(self.width, self.dtype)
        self.action = dense(self.width, self.dtype)
        self.norm = rms_norm(self.dtype)
        self.query = Dense(self.keys, dtype=self.dtype, kernel_init=initializers.zeros)
        self.key = Dense(self.keys, dtype=self.dtype)
        self.value = dense(self.entry, self.dtype)
        self.shown = dense(self.width, self.dtype)
        self.ages = self.param('ages', initializers.Normal(0.1), (AGES, self.width))
        self.nothing = self.param('nothing', initializers.Normal(1.0), (self.slots, self.width))
        self.gain = self.param('gain', initializers.Constant(4.0), ())
        self.bias = self.param('bias', initializers.zeros, ())

    def initial(self, batch: int) -> tuple[Bank, jax.Array]:
        names = ('key',) + ('look',) * self.policies.compares + ('place',) * (self.retrieve == 'place')
        book = bank.empty(batch, self.capacity, self.keys, names)
        values = jnp.zeros((batch, self.capacity, self.entry), self.dtype)
        return Bank(values, book), jnp.zeros((batch, self.slots, self.width), self.dtype)

    def reset(self, h: Bank, reset_B: jax.Array) -> Bank:
        return h.replace(book=bank.restart(h.book, reset_B))

    def use(self, h: Bank) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Share of the entries that hold something."""
        alive_BS = h.book.alive_BS
        return {'filled': (alive_BS.sum() / self.capacity, jnp.asarray(alive_BS.shape[0], jnp.float32))}

    # -- what a frame gives ---------------------------------------------------------------------------------------------

    def _seen(self, z: Latent, action: jax.Array) -> tuple[dict[str, jax.Array], dict[str, jax.Array], jax.Array]:
        """(query and key (..., C) float32, codes of all that decides, values (..., E))."""
        tokens = nn.silu(self.norm(self.embed(z)))
        x = self.norm(self.frame(flat(tokens, tokens.ndim - 2)) + self.action(action))
        key = self.key(x)
        soft = {'query': key + self.query(x), 'key': key}  # at first a frame asks for what is like it
        fixed = {'look': slice(None)} if self.policies.compares else {}
        fixed |= {'place': place_tokens(self.spec, self.layout, self.place)} if self.retrieve == 'place' else {}
        raw = jax.lax.stop_gradient(z.embedding_BNE.astype(jnp.float32))
        codes = {name: bank.code(x) for name, x in jax.lax.stop_gradient(soft).items()}
        for name, part in fixed.items():
            own = flat(raw[..., part, :], raw.ndim - 2)
            codes[name] = bank.code(own @ bank.signs(own.shape[-1], self.keys).astype(jnp.float32))
        # Forward what the codes say, as the bank keeps nothing else; backward as if nothing had been rounded.
        straight = lambda x, code: bank.unit(x) + jax.lax.stop_gradient(_unit(code) - bank.unit(x))
        return {n: straight(x, codes[n]) for n, x in soft.items()}, codes, self.value(x)

    def _context(self, query: jax.Array, key_M: jax.Array, value_M: jax.Array, read: bank.Read) -> jax.Array:
        """(..., M, D) of queries (..., C) and what was retrieved for them, (..., M, C) and (..., M, E)."""
        there = read.there_BM[..., None]
        key_M, value_M = (jnp.where(there, x, jnp.zeros((), x.dtype)) for x in (key_M, value_M))
        logit_M = self.gain * jnp.sum(query[..., None, :] * key_M, -1) + self.bias
        weight = jnp.where(there, nn.sigmoid(logit_M)[..., None], 0.0).astype(self.dtype)
        power_M = jnp.clip(31 - jax.lax.clz(jnp.maximum(read.age_BM, 1)), 0, AGES - 1)
        shown = self.shown(value_M) + jnp.take(self.ages, power_M, axis=0).astype(self.dtype)
        return self.norm(weight * shown + (1 - weight) * self.nothing.astype(self.dtype))

    # -- its two forms --------------------------------------------------------------------------------------------------

    def step(self, h: Bank, z: Latent, action_BA: jax.Array) -> tuple[Bank, jax.Array]:
        """One frame more: (h, context (B, slots, width))."""
        soft, codes, value_BE = self._seen(z, action_BA)
        book, read = bank.tick(self.policies, self.slots, h.book, codes)
        context = self._context(soft['query'], *self._entries(h, read.entry_BM), read)
        return Bank(_put(h.values, value_BE, read), book), context

    def sequence(self, h: Bank | None, z: Latent, action_BTA: jax.Array, reset_BT: jax.Array) -> tuple[Bank, jax.Array]:
        """All frames of a segment at once, as `step` in turn: (h after the last, contexts (B, T, slots, width))."""
        h = self.initial(reset_BT.shape[0])[0] if h is None else h
        soft, codes, value_BTE = self._seen(z, action_BTA)
        book, source_BS, reads, from_BTM = bank.follow(self.policies, self.slots, h.book, codes, reset_BT)
        values = jnp.concatenate([h.values, value_BTE], 1)
        keys = jnp.concatenate([_unit(h.book.codes['key']), soft['key']], 1)
        context = self._context(soft['query'], _at(keys, from_BTM), _at(values, from_BTM), reads)
        return Bank(_at(values, source_BS), book), context

    def _entries(self, h: Bank, entry_BM: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _unit(_at(h.book.codes['key'], entry_BM)), _at(h.values, entry_BM)

    # -- looking into it and changing it --------------------------------------------------------------------------------

    def decisions(self, h: Bank | None, z: Latent, action_BTA: jax.Array, reset_BT: jax.Array) -> bank.Read:
        """What `sequence` retrieves and writes at each tick, (B, T, ...)."""
        h = self.initial(reset_BT.shape[0])[0] if h is None else h
        _, codes, _ = self._seen(z, action_BTA)
        return bank.follow(self.policies, self.slots, h.book, codes, reset_BT)[2]

    def entries(self, h: Bank) -> dict[str, jax.Array]:
        """What the bank holds: see `bank.entries`."""
        return bank.entries(h.book)

    def delete(self, h: Bank, chosen_BS: jax.Array) -> Bank:
        """The bank without the chosen entries. What a belief shows changes with `look`, or at its next tick."""
        return h.replace(book=bank.delete(h.book, chosen_BS))

    def insert(self, h: Bank, z: Latent, action_BA: jax.Array, age: int = 1) -> Bank:
        """The bank with one entry more, a frame (B, ...) as if it had been written `age` ticks before the last.

        It takes an empty place, or that of the entry to be forgotten. Raises ValueError for an age below 1.
        """
        if age < 1:
            raise ValueError(f'an entry of age {age} was to be inserted: give at least 1 tick before the last.')
        _, codes, value_BE = self._seen(z, action_BA)
        book = h.book
        entry_B = free(bank.view(book, codes, book.now_B), self.policies)
        read = bank.Read(None, None, None, entry_B, jnp.ones_like(entry_B, bool))
        book = bank.write(book, codes, entry_B, read.write_B, book.now_B - 1 - age, ~read.write_B)
        return Bank(_put(h.values, value_BE, read), book)

    def look(self, h: Bank, z: Latent, action_BA: jax.Array) -> tuple[bank.Read, jax.Array]:
        """What is retrieved for the frame of the last tick, and the context: no tick passes and nothing is written.

        For a belief whose bank was changed, since the context it has is of before. What the last tick itself pushed out is
        not found again.
        """
        soft, codes, _ = self._seen(z, action_BA)
        at = bank.view(h.book, codes, h.book.now_B - 1)
        entry_BM, there_BM = retrieved(at, self.policies, self.slots)
        none_B = jnp.zeros_like(h.book.now_B)
        read = bank.Read(entry_BM, jnp.take_along_axis(at.age_BS, entry_BM, 1), there_BM, none_B, none_B > 0)
        return read, self._context(soft['query'], *self._entries(h, entry_BM), read)


def place_tokens(spec: Spec, layout: Layout, place: str) -> slice:
    """Which tokens are those of the modality that shows the place. Raises ValueError where none does."""
    names = [name for name, _ in spec.observation]
    if place not in names:
        close = difflib.get_close_matches(place, names, 1)
        offer = f"did you mean '{close[0]}'? " if close else ''
        raise ValueError(
            "memory.retrieve='place' compares the modality that shows where one is, and memory.place is "
            f"'{place}'; {offer}Valid: {', '.join(names)}."
        )
    if layout.loose or len(layout.grids) != len(names):
        raise ValueError(
            "memory.retrieve='place' compares the tokens of one modality, and this heart's tokens are of the whole frame: "
            "take heart 'tokens' or 'palette', or retrieve='content'."
        )
    sizes = [h * w for h, w in layout.grids]
    at = names.index(place)
    return slice(sum(sizes[:at]), sum(sizes[: at + 1]))


def _unit(code: jax.Array) -> jax.Array:
    return code.astype(jnp.float32) / bank.FULL


def _at(x_BSD: jax.Array, index: jax.Array) -> jax.Array:
    """Rows (B, ..., D) of x by their numbers (B, ...)."""
    rows = jnp.take_along_axis(x_BSD, index.reshape(index.shape[0], -1, 1), 1)
    return rows.reshape(*index.shape, x_BSD.shape[-1])


def _put(values: jax.Array, value_BE: jax.Array, read: bank.Read) -> jax.Array:
    here_BS = bank.written_to(values.shape[1], read.entry_B, read.write_B)
    return jnp.where(here_BS[..., None], value_BE[:, None], values)

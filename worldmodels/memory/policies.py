r"""The policies of an episodic bank: what to write, what to retrieve, how to update, when to forget.

$$w_t = \mathrm{write}(v_t), \quad R_t = \mathrm{top}_M\,\mathrm{retrieve}(v_t), \quad
(s_t, f_t) = \mathrm{update}(v_t, \arg\min_s \mathrm{forget}(v_t)_s, R_t)$$

These four are what *From Masks to Worlds* (Bai et al., 2025, arXiv 2510.20668) leaves open of a persistent memory. v is a
`View` of the bank at a tick, before anything is written; s is the entry that is written where w holds, f the entries whose
age starts anew. Each policy is one function of a view, whose numbers are integers (and cosines of integers), so that nothing
here has a gradient and both forms of the memory decide alike. Writing what is like nothing remembered is Savinov et al.'s
(2018, arXiv 1810.02274), writing over what is used least Santoro et al.'s (2016, arXiv 1605.06065).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

NOTHING = -(1 << 31)
"""Below every rank: of entries that hold nothing."""
_BITS = 15


@flax.struct.dataclass
class View:
    """The S entries of a bank as a policy sees them at a tick; (B, S) int32 where nothing else is said.

    now_B: ticks since the last reset. alive_BS: bool, which entries hold something; of others nothing counts.
    age_BS: ticks since it was written. idle_BS: ticks since it was written or refreshed. uses_BS: how often it was retrieved.
    match_BS: of the tick's query with its key. near_BS: of the tick's place with its place. None unless asked for.
    likeness_BS: float32, cosine of the tick's looks and its looks. None unless asked for.
    """

    now_B: jax.Array
    alive_BS: jax.Array
    age_BS: jax.Array
    idle_BS: jax.Array
    uses_BS: jax.Array
    match_BS: jax.Array | None = None
    near_BS: jax.Array | None = None
    likeness_BS: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Policies:
    """The four by name, and their dials: write every so many ticks; a likeness of `threshold` or more is a near-duplicate."""

    write: str = 'all'
    retrieve: str = 'content'
    update: str = 'none'
    forget: str = 'oldest'
    every: int = 4
    threshold: float = 0.95

    @property
    def compares(self) -> bool:
        """Whether frames are told apart by their looks."""
        return self.write == 'novelty' or self.update == 'replace'


# -- what to write: bool (B,) ------------------------------------------------------------------------------------------


def every_tick(view: View, policies: Policies) -> jax.Array:
    return jnp.ones(view.now_B.shape, bool)


def every_k(view: View, policies: Policies) -> jax.Array:
    """The first frame, and one every so many ticks."""
    return view.now_B % policies.every == 0


def novelty(view: View, policies: Policies) -> jax.Array:
    """Frames like no entry."""
    return ~duplicates(view, policies).any(-1)


def duplicates(view: View, policies: Policies) -> jax.Array:
    """Which entries (B, S) the tick nearly repeats."""
    return view.alive_BS & (view.likeness_BS >= policies.threshold)


# -- what to retrieve: ranks (B, S) int32, the highest of entries that are alive are retrieved --------------------------


def content(view: View) -> jax.Array:
    """What the query matches best; of equals the latest."""
    return _ranked(view.match_BS, view.age_BS)


def recency(view: View) -> jax.Array:
    return -view.age_BS


def place(view: View) -> jax.Array:
    """What was seen nearest to here; of equals the latest."""
    return _ranked(view.near_BS, view.age_BS)


# -- how to update -----------------------------------------------------------------------------------------------------


@flax.struct.dataclass
class Update:
    """entry_B: the entry that a tick is written to; again_B: it is an entry's new version, which keeps its uses; fresh_BS:
    entries whose age starts anew, whether or not anything is written."""

    entry_B: jax.Array
    again_B: jax.Array
    fresh_BS: jax.Array


def keep(view: View, update: Update, read_BS: jax.Array, policies: Policies) -> Update:
    return update


def replace(view: View, update: Update, read_BS: jax.Array, policies: Policies) -> Update:
    """What nearly repeats an entry takes the place of the likest."""
    alike_BS = duplicates(view, policies)
    likest_B = jnp.argmax(jnp.where(alike_BS, view.likeness_BS, -jnp.inf), -1).astype(jnp.int32)
    again_B = alike_BS.any(-1)
    return update.replace(entry_B=jnp.where(again_B, likest_B, update.entry_B), again_B=again_B)


def refresh(view: View, update: Update, read_BS: jax.Array, policies: Policies) -> Update:
    """What is retrieved is as young as if it had just been written, for forgetting."""
    return update.replace(fresh_BS=read_BS)


# -- when to forget: ranks (B, S) int32, the lowest goes when the bank is full ------------------------------------------


def oldest(view: View) -> jax.Array:
    return -view.idle_BS


def least_used(view: View) -> jax.Array:
    """What was retrieved least often; of equals the oldest."""
    return _ranked(jnp.minimum(view.uses_BS, 1 << _BITS), view.idle_BS)


WRITE: dict[str, Callable] = {'all': every_tick, 'every_k': every_k, 'novelty': novelty}
RETRIEVE: dict[str, Callable] = {'content': content, 'recency': recency, 'place': place}
UPDATE: dict[str, Callable] = {'none': keep, 'replace': replace, 'refresh': refresh}
FORGET: dict[str, Callable] = {'oldest': oldest, 'least_used': least_used}


def retrieved(view: View, policies: Policies, many: int) -> tuple[jax.Array, jax.Array]:
    """Entries (B, many) int32, the highest first, and which of them there are."""
    rank_BS = jnp.where(view.alive_BS, RETRIEVE[policies.retrieve](view), NOTHING)
    rank_BM, entry_BM = jax.lax.top_k(rank_BS, many)
    return entry_BM, rank_BM > NOTHING


def free(view: View, policies: Policies) -> jax.Array:
    """The entry (B,) int32 that the next one takes: one that holds nothing, else the one to be forgotten."""
    rank_BS = jnp.where(view.alive_BS, FORGET[policies.forget](view), NOTHING)
    return jnp.argmin(rank_BS, -1).astype(jnp.int32)


def updated(view: View, policies: Policies, read_BS: jax.Array) -> Update:
    """Where the tick is written and what is refreshed, `read_BS` being what it retrieved."""
    none_BS = jnp.zeros_like(view.alive_BS)
    new = Update(free(view, policies), none_BS[..., 0], none_BS)
    return UPDATE[policies.update](view, new, read_BS, policies)


def _ranked(first: jax.Array, age: jax.Array) -> jax.Array:
    """One int32 by which `first`, within 16 bits, decides, and then the younger age. Ages beyond 2^15 are alike."""
    return first * (1 << _BITS) - jnp.minimum(age, (1 << _BITS) - 1)

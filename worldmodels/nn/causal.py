r"""A causal transformer over the tokens of one frame, in raster order, before which stands all that is known of it.

$$p(x \mid \mathrm{given}, c) = \prod_n p(x_n \mid x_{\lt n}, \mathrm{given}, c)$$

A language model with a prefix (Raffel et al., 2020, arXiv 1910.10683): known slots see one another, token n sees all of
them and the tokens before it. All tokens at once where they are given; one after the other, with the keys and values
of what came before kept, where they are drawn: N tokens then cost about one pass, where N passes would see each again.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from worldmodels.nn import initializers
from worldmodels.nn.slots import Known
from worldmodels.nn.transformer import MASKED, QKV, Feed, attend, dense, join_heads, rms_norm
from worldmodels.remat import block

Cache = tuple[tuple[jax.Array, jax.Array], ...]
"""Keys and values of each block, (B, heads, S + N, C): known slots first, then a place for each token."""


class CausalBlock(nn.Module):
    """A `Block` whose attention is told who sees whom."""

    width: int
    heads: int
    hidden: int
    dtype: str

    def setup(self) -> None:
        self.norm = rms_norm(self.dtype)
        self.qkv = QKV(self.heads, self.dtype)
        self.out = dense(self.width, self.dtype)
        self.feed = Feed(self.hidden, self.dtype)

    def __call__(self, x_BSD: jax.Array, bias: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
        """All slots at once: (x, keys, values)."""
        y_BSD = self.norm(x_BSD)
        q, k, v = self.qkv(y_BSD)
        return self._join(x_BSD, y_BSD, attend(q, k, v, bias)), k, v

    def step(self, x_B1D: jax.Array, keys: jax.Array, values: jax.Array, at: jax.Array) -> tuple:
        """The slot `at`, which sees what is kept of those up to it: (x, keys, values)."""
        y_B1D = self.norm(x_B1D)
        q, k, v = self.qkv(y_B1D)
        write = lambda kept, new: jax.lax.dynamic_update_slice_in_dim(kept, new.astype(kept.dtype), at, 2)
        keys, values = write(keys, k), write(values, v)
        bias_S = jnp.where(jnp.arange(keys.shape[2]) <= at, 0.0, MASKED)
        return self._join(x_B1D, y_B1D, attend(q, keys, values, bias_S)), keys, values

    def _join(self, x_BSD: jax.Array, y_BSD: jax.Array, heard: jax.Array) -> jax.Array:
        return block(x_BSD + self.out(join_heads(heard)) + self.feed(y_BSD))


class Causal(nn.Module):
    """Logits of every token given those before it: `__call__` where tokens are given, `begin` and `step` to draw them."""

    classes: int
    width: int
    depth: int
    heads: int
    hidden: int
    dtype: str

    def setup(self) -> None:
        # Row K of the table stands before the first token.
        self.table = self.param('table', initializers.Normal(0.5), (self.classes + 1, self.width))
        self.blocks = [CausalBlock(self.width, self.heads, self.hidden, self.dtype) for _ in range(self.depth)]
        self.norm = rms_norm(self.dtype)
        self.logits = dense(self.classes, self.dtype)

    def __call__(self, index_BN: jax.Array, known: Known) -> jax.Array:
        """(B, N, K) float32; those of token n do not depend on tokens from n on."""
        prev_BN = jnp.pad(index_BN[:, :-1], ((0, 0), (1, 0)), constant_values=self.classes)
        prefix_BSD = self._prefix(known)
        S, N = prefix_BSD.shape[1], index_BN.shape[1]
        slot = jnp.arange(S + N)
        seen = (slot[None] < S) | (slot[None] <= slot[:, None])
        bias = jnp.where(seen, 0.0, MASKED)
        x_BSD = jnp.concatenate([prefix_BSD, known.given_BND + self._embed(prev_BN)], 1)
        for layer in self.blocks:
            x_BSD, _, _ = layer(x_BSD, bias)
        return self._read(x_BSD[:, S:])

    def begin(self, known: Known) -> Cache:
        """What is kept of the known slots, with room for the tokens."""
        x_BSD, cache = self._prefix(known), []
        room = [(0, 0), (0, 0), (0, known.beside_BND.shape[1]), (0, 0)]
        for layer in self.blocks:
            x_BSD, *kept = layer(x_BSD, None)
            cache.append(tuple(jnp.pad(x, room) for x in kept))
        return tuple(cache)

    def step(self, cache: Cache, slot: jax.Array, given_BD: jax.Array, prev_B: jax.Array) -> tuple[Cache, jax.Array]:
        """The token of a slot, counted with the known ones, after the token before it (K before the first): (cache, logits
        (B, K)).
        """
        x_B1D, kept = (given_BD + self._embed(prev_B))[:, None], []
        for layer, (keys, values) in zip(self.blocks, cache, strict=True):
            x_B1D, *after = layer.step(x_B1D, keys, values, slot)
            kept.append(tuple(after))
        return tuple(kept), self._read(x_B1D)[:, 0]

    def _prefix(self, known: Known) -> jax.Array:
        return jnp.concatenate([known.given_BND, known.context_BMD.astype(known.beside_BND.dtype)], 1)

    def _embed(self, index: jax.Array) -> jax.Array:
        return jnp.take(self.table, index, axis=0).astype(self.dtype)

    def _read(self, x_BND: jax.Array) -> jax.Array:
        return self.logits(self.norm(x_BND)).astype(jnp.float32)

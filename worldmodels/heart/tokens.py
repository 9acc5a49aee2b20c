r"""Finite scalar quantised patches, trained as a masked autoencoder.

$$v_i = \frac{1}{h_i}\,\mathrm{round}\left(h_i\,\frac{\tanh x_i}{\tanh 1.5}\right), \qquad h_i = \frac{L_i - 1}{2}$$

to the nearest of $L_i$ levels, for each entry of a patch's vector x; $K = \prod_i L_i$.

FSQ (Mentzer et al., 2023, arXiv 2309.15505): each token is a short vector whose entries are rounded to a few levels;
the code book is implicit and cannot collapse. Patches hidden at random while training (He et al., 2021, arXiv
2111.06377) make the decoder know what belongs beside what. A tokenizer reads the frame alone.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from worldmodels import rng
from worldmodels.heart.codec import codecs, layout_of, slots_of
from worldmodels.nn import initializers
from worldmodels.nn.dense import Dense
from worldmodels.nn.transformer import Block, grid_of, rms_norm
from worldmodels.types import Latent, Layout, Spec

EDGE = 1.5


class Quantiser(nn.Module):
    """Rounds (..., len(levels)) to the levels, straight-through; indices are mixed-radix numbers of the rounded levels.

    Entries are bounded by a tanh, scaled so that |x| = `EDGE` lies on the outermost level, and rounded to the nearest of the
    levels, which are evenly spaced in [-1, 1] and symmetric whether their number is even or odd.
    """

    levels: tuple[int, ...]

    @property
    def classes(self) -> int:
        return math.prod(self.levels)

    def _basis(self) -> np.ndarray:
        return np.cumprod([1, *self.levels[:-1]]).astype(np.int32)

    def _half(self) -> np.ndarray:
        """Half the distance between the outermost levels, in steps."""
        return (np.asarray(self.levels, np.float32) - 1) / 2

    def __call__(self, x: jax.Array) -> Latent:
        half = self._half()
        offset = half % 1  # levels lie on halves where their number is even
        bounded = jnp.tanh(x.astype(jnp.float32)) / math.tanh(EDGE) * half
        rounded = jnp.clip(jnp.round(bounded - offset) + offset, -half, half)
        digits = jax.lax.stop_gradient(jnp.round(rounded + half)).astype(jnp.int32)
        straight = bounded + jax.lax.stop_gradient(rounded - bounded)
        return Latent(jnp.sum(digits * self._basis(), -1, dtype=jnp.int32), straight / np.maximum(half, 0.5))

    def embed(self, index: jax.Array) -> jax.Array:
        """Indices (...) -> the values they stand for (..., len(levels))."""
        half = self._half()
        digits = (index[..., None] // self._basis()) % np.asarray(self.levels, np.int32)
        return (digits.astype(jnp.float32) - half) / np.maximum(half, 0.5)


def saturation(x_BNE: jax.Array) -> jax.Array:
    """How far entries lie beyond |x| = 1, squared, mean over a frame (B,).

    Out there the tanh has no slope left, so that two patches which once share a code never part again. With this term
    they stay where gradients reach them: without it, rare patches of a frame were merged for good under most seeds.
    """
    return jnp.mean(jnp.square(jax.nn.relu(jnp.abs(x_BNE.astype(jnp.float32)) - 1)), (1, 2))


def draw_hidden(keys_B: jax.Array, patches: int, most: float) -> jax.Array:
    """Which patches are hidden in training, (B, N): a share uniform in [0, most] for half of the frames, none of the others."""

    def draw(key: jax.Array) -> jax.Array:
        rate_key, patch_key, whole_key = jax.random.split(key, 3)
        rate = jax.random.uniform(rate_key) * most * jax.random.bernoulli(whole_key)
        return jax.random.uniform(patch_key, (patches,)) < rate

    return rng.draw(draw, keys_B)


class Tokens(nn.Module):
    """Fields a config sets:
    levels: of the quantiser; their product is K.
    patch: side of an image's patches, in pixels.
    width, hidden, heads: of the transformers; bottleneck: width between patch and quantiser.
    encoder_depth, decoder_depth: blocks; an encoder of depth 0 codes every patch by itself.
    hide: the share of patches hidden in training is uniform in [0, hide], for half of the frames.
    """

    spec: Spec
    dtype: str
    levels: tuple[int, ...] = (8, 5, 5, 5)
    patch: int = 8
    width: int = 128
    heads: int = 4
    hidden: int = 512
    encoder_depth: int = 2
    decoder_depth: int = 2
    hide: float = 0.75
    neighbours: bool = False

    tokenizer = True

    @property
    def codecs(self) -> dict:
        return codecs(self.spec, self.patch)

    @property
    def layout(self) -> Layout:
        return layout_of(self.codecs)

    @property
    def classes(self) -> int:
        return math.prod(self.levels)

    @property
    def embedding_size(self) -> int:
        return len(self.levels)

    def setup(self) -> None:
        names = list(self.codecs)
        N, D = self.layout.tokens, self.width
        grid = grid_of(self.layout) if self.neighbours else None
        block = lambda: Block(self.heads, self.hidden, self.dtype, grid)
        self.patch_in = {k: Dense(D, dtype=self.dtype) for k in names}
        self.patch_out = {k: Dense(self.codecs[k].values, dtype=self.dtype) for k in names}
        self.hidden_patch = self.param('hidden_patch', initializers.Normal(0.5), (D,))
        self.encoder_place = self.param('encoder_place', initializers.Normal(0.1), (N, D))
        self.decoder_place = self.param('decoder_place', initializers.Normal(0.1), (N, D))
        self.encoder = [block() for _ in range(self.encoder_depth)]
        self.decoder = [block() for _ in range(self.decoder_depth)]
        self.to_code = [Dense(D, dtype=self.dtype), Dense(len(self.levels), dtype='float32')]
        self.from_code = [Dense(D, dtype=self.dtype), Dense(D, dtype=self.dtype)]
        self.encoder_norm = rms_norm(self.dtype)
        self.decoder_norm = rms_norm(self.dtype)
        self.quantiser = Quantiser(self.levels)

    def encode(self, observation: dict[str, jax.Array]) -> Latent:
        """Frames (B, ...) by modality -> tokens (B, N)."""
        return self.quantiser(self.code(observation))

    def code(self, observation: dict[str, jax.Array], hidden_BN: jax.Array | None = None) -> jax.Array:
        """What is quantised, (B, N, len(levels)). Patches where `hidden_BN` are not looked at."""
        x_BND = jnp.concatenate([self.patch_in[k](c.patches(observation[k])) for k, c in self.codecs.items()], 1)
        if hidden_BN is not None:
            x_BND = jnp.where(hidden_BN[..., None], self.hidden_patch.astype(x_BND.dtype), x_BND)
        if self.encoder_depth:
            x_BND = x_BND + self.encoder_place.astype(x_BND.dtype)
        for block in self.encoder:
            x_BND = block(x_BND)
        x_BND = jax.nn.silu(self.to_code[0](self.encoder_norm(x_BND)))
        return self.to_code[1](x_BND)

    def embed(self, index_BN: jax.Array) -> jax.Array:
        return self.quantiser.embed(index_BN)

    def decode(self, z: Latent, context_BMD: jax.Array) -> dict[str, jax.Array]:
        """Tokens -> predicted patches (B, N, P) by modality. A tokenizer's decoder reads the frame's tokens alone."""
        x_BND = self.from_code[1](jax.nn.silu(self.from_code[0](z.embedding_BNE)))
        x_BND = x_BND + self.decoder_place.astype(x_BND.dtype)
        for block in self.decoder:
            x_BND = block(x_BND)
        x_BND = self.decoder_norm(x_BND)
        own = slots_of(self.codecs)
        return {k: self.patch_out[k](x_BND[:, slots]).astype(jnp.float32) for k, slots in own.items()}

    def losses(self, prediction: dict[str, jax.Array], observation: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """{'reconstruction': (B,)}, summed over modalities."""
        return {'reconstruction': sum(c.loss(prediction[k], observation[k]) for k, c in self.codecs.items())}

    def render(self, prediction: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {k: c.render(prediction[k]) for k, c in self.codecs.items()}

    def autoencode(self, observation: dict[str, jax.Array], keys_B: jax.Array) -> dict[str, jax.Array]:
        """The masked autoencoder's losses: every patch is to be reconstructed, hidden ones too, from codes within bounds.

        {'reconstruction': (B,), 'saturation': (B,)}.
        """
        x_BNE = self.code(observation, draw_hidden(keys_B, self.layout.tokens, self.hide))
        prediction = self.decode(self.quantiser(x_BNE), jnp.zeros((keys_B.shape[0], 0, 1)))
        return self.losses(prediction, observation) | {'saturation': saturation(x_BNE)}

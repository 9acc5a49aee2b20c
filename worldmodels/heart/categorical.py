r"""DreamerV3's heart (Hafner et al., 2023, arXiv 2301.04104): an encoder and a decoder trained jointly with the dynamics
around groups of classes.

$$\mathcal L = \lVert \hat o(z, c) - o \rVert^2$$

summed over pixels in [0, 1] and symlog vectors; cross-entropy for symbols.

Tokens are N independent categoricals of K classes with no place on a grid; their embedding is the one-hot itself, E =
K.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from worldmodels.heart.codec import Codec, codecs
from worldmodels.nn.chunks import in_chunks
from worldmodels.nn.convolution import ConvDown, ConvUp
from worldmodels.nn.dense import Dense
from worldmodels.nn.layers import MLP, BlockLinear, NormDense, norm
from worldmodels.types import Latent, Layout, Modality, Spec, flat


def _coarse(modality: Modality, stages: int) -> tuple[int, int]:
    """Height and width after `stages` halvings, rounded up."""
    return -(-modality.shape[0] // 2**stages), -(-modality.shape[1] // 2**stages)


class ImageEncoder(nn.Module):
    """Halving convolutions of depth * mults channels, (B, H, W, C) in [0, 1] -> (B, F); sides are padded to divide."""

    modality: Modality
    depth: int
    mults: tuple[int, ...]
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        H, W, _ = self.modality.shape
        h, w = _coarse(self.modality, len(self.mults))
        scale = 2 ** len(self.mults)
        x = jnp.pad(x - 0.5, ((0, 0), (0, h * scale - H), (0, w * scale - W), (0, 0)))
        for mult in self.mults:
            x = nn.silu(norm(self.dtype)(ConvDown(self.depth * mult, self.dtype)(x)))
        return flat(x, 1)


def coarse(
    z_BNE: jax.Array, context_BMD: jax.Array, grid: tuple[int, int, int], units: int, blocks: int, dtype: str
) -> jax.Array:
    """z and context -> (B, h, w, channels), the first layers of a decoder; called within its compact method."""
    h, w, channels = grid
    x = NormDense(2 * units, dtype, name='latent')(flat(z_BNE, 1))
    x = Dense(h * w * channels, dtype=dtype, name='coarse')(x).reshape(-1, h, w, channels)
    if context_BMD.shape[1]:
        g = math.gcd(blocks, math.prod(context_BMD.shape[1:]), channels)
        y = BlockLinear(h * w * channels, g, dtype, name='context')(flat(context_BMD, 1))
        y = y.reshape(-1, g, h, w, channels // g).transpose(0, 2, 3, 1, 4)
        x = x + y.reshape(x.shape)
    return nn.silu(norm(dtype)(x))


class ImageDecoder(nn.Module):
    """z (B, N, E) and context (B, M, D) -> (B, H, W, C) in (0, 1): a coarse grid, then doubling convolutions.

    The context enters the coarse grid by a block-diagonal matmul, each block of it giving its own channels.
    """

    modality: Modality
    depth: int
    mults: tuple[int, ...]
    units: int
    blocks: int
    dtype: str

    @nn.compact
    def __call__(self, z_BNE: jax.Array, context_BMD: jax.Array) -> jax.Array:
        depths = [self.depth * mult for mult in self.mults]
        grid = (*_coarse(self.modality, len(self.mults)), depths[-1])
        x = coarse(z_BNE, context_BMD, grid, self.units, self.blocks, self.dtype)
        for depth in depths[-2::-1]:
            x = nn.silu(norm(self.dtype)(ConvUp(depth, self.dtype)(x)))
        x = ConvUp(self.modality.shape[2], self.dtype, name='image')(x)
        return nn.sigmoid(x[:, : self.modality.shape[0], : self.modality.shape[1]].astype(jnp.float32))


class PatchEncoder(nn.Module):
    """Patches (B, N, P) in [0, 1] -> (B, F): every patch through the same MLP, its channels side by side."""

    channels: int
    layers: int
    units: int
    dtype: str

    @nn.compact
    def __call__(self, x_BNP: jax.Array) -> jax.Array:
        x = MLP(self.layers, self.units, self.dtype)(x_BNP - 0.5)
        return flat(NormDense(self.channels, self.dtype)(x), 1)


class PatchDecoder(nn.Module):
    """z (B, N, E) and context (B, M, D) -> patches in (0, 1): a grid of channels, then the same MLP at every place of it."""

    codec: Codec
    channels: int
    layers: int
    units: int
    blocks: int
    dtype: str

    @nn.compact
    def __call__(self, z_BNE: jax.Array, context_BMD: jax.Array) -> jax.Array:
        x = coarse(z_BNE, context_BMD, (*self.codec.grid, self.channels), self.units, self.blocks, self.dtype)
        x = MLP(self.layers, self.units, self.dtype)(x.reshape(x.shape[0], -1, self.channels))
        return nn.sigmoid(Dense(self.codec.values, dtype=self.dtype, name='values')(x).astype(jnp.float32))


class FlatDecoder(nn.Module):
    """z and context side by side -> MLP -> (B, values)."""

    values: int
    layers: int
    units: int
    dtype: str

    @nn.compact
    def __call__(self, z_BNE: jax.Array, context_BMD: jax.Array) -> jax.Array:
        x = jnp.concatenate([flat(z_BNE, 1).astype(self.dtype), flat(context_BMD, 1).astype(self.dtype)], -1)
        x = MLP(self.layers, self.units, self.dtype)(x)
        return Dense(self.values, dtype=self.dtype, name='values')(x).astype(jnp.float32)


class Categorical(nn.Module):
    """Fields a config sets:
      stoch, classes: N groups of K classes.
      depth, mults: channels of the convolutions, one stage per multiplier.
      patch: 0 for DreamerV3's convolutions; else the side of patches that one MLP reads and another draws, the same at every
        place, with the channels of the last stage between: what a tile looks like is learned once, not for each place.
      units, layers: of the MLPs that read and write grids and vectors.
      blocks: of the matmul from context to the decoder's coarse grid.

    Images are convolved, or read in patches; grids (one-hot per channel) and vectors (symlog) go through MLPs. Features of
    several modalities are joined. Predictions are patches as `codec` has them: of pixels, one cell or the whole vector.
    """

    spec: Spec
    dtype: str
    stoch: int = 32
    classes: int = 16
    depth: int = 16
    mults: tuple[int, ...] = (2, 3, 4, 4)
    units: int = 256
    layers: int = 3
    blocks: int = 8
    patch: int = 0

    tokenizer = False

    @property
    def codecs(self) -> dict[str, Codec]:
        return codecs(self.spec, self.patch or 1)

    @property
    def layout(self) -> Layout:
        return Layout(loose=self.stoch)

    @property
    def embedding_size(self) -> int:
        return self.classes

    def setup(self) -> None:
        encoders, decoders = {}, {}
        for name, codec in self.codecs.items():
            m = codec.modality
            if m.kind == 'image' and self.patch:
                sizes = (self.depth * self.mults[-1], self.layers, self.units)
                encoders[name] = PatchEncoder(*sizes, self.dtype)
                decoders[name] = PatchDecoder(codec, *sizes, self.blocks, self.dtype)
            elif m.kind == 'image':
                encoders[name] = ImageEncoder(m, self.depth, self.mults, self.dtype)
                decoders[name] = ImageDecoder(m, self.depth, self.mults, self.units, self.blocks, self.dtype)
            else:
                values = math.prod(codec.grid) * codec.values
                encoders[name] = MLP(self.layers, self.units, self.dtype)
                decoders[name] = FlatDecoder(values, self.layers, self.units, self.dtype)
        self.encoders, self.decoders = encoders, decoders

    def encode(self, observation: dict[str, jax.Array]) -> jax.Array:
        """Raw observations -> features (B, F)."""
        features = []
        for name, codec in self.codecs.items():
            x_BNP = codec.patches(observation[name])
            if codec.modality.kind != 'image':
                x_BNP = flat(x_BNP, 1)
            elif not self.patch:
                x_BNP = x_BNP.reshape(-1, *codec.modality.shape)
            features.append(self._through(self.encoders[name], codec.modality, x_BNP))
        return jnp.concatenate(features, -1)

    def embed(self, index_BN: jax.Array) -> jax.Array:
        """One-hot (B, N, K); index K, no token yet, gives zeros."""
        return jax.nn.one_hot(index_BN, self.classes)

    def decode(self, z: Latent, context_BMD: jax.Array) -> dict[str, jax.Array]:
        """p(o | z, context): patches (B, N, P) by modality."""
        out = {}
        for name, codec in self.codecs.items():
            y = self._through(self.decoders[name], codec.modality, z.embedding_BNE, context_BMD)
            out[name] = y.reshape(-1, math.prod(codec.grid), codec.values)
        return out

    def _through(self, layer: nn.Module, modality: Modality, *inputs: jax.Array) -> jax.Array:
        """layer(*inputs); pictures a few at a time. Their widest activation is the first stage's, or the picture's own."""
        if modality.kind != 'image':
            return layer(*inputs)
        H, W, C = modality.shape
        widest = max(self.units // self.patch**2, C) if self.patch else max(self.depth * self.mults[0], C)
        return in_chunks(layer, 4 * H * W * widest, *inputs)

    def losses(self, prediction: dict[str, jax.Array], observation: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """{'reconstruction': (B,)}: squared error of images and symlog vectors, cross-entropy of grids, summed."""
        return {'reconstruction': sum(c.loss(prediction[k], observation[k]) for k, c in self.codecs.items())}

    def render(self, prediction: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """The mode of a prediction, raw."""
        return {name: codec.render(prediction[name]) for name, codec in self.codecs.items()}

r"""A masked autoencoder with bounded latents: numbers where `tokens` has classes.

$$z = \tanh\left(E(\tilde x)\right), \qquad
\mathcal L = \lVert D(z) - x \rVert^2 + w\,\frac{P}{32}\,\frac1S \sum_{s < S} \mathrm{mean}\,\lvert \nabla_s (D(z) - x) \rvert$$

of the P values of a picture, x with patches hidden at random as $\tilde x$, and $\nabla_s$ the differences between
neighbours in the picture halved s times. As in Dreamer 4 (Hafner et al., 2025, arXiv 2509.24527): a transformer reads
the patches beside a few learned slots, and only these slots pass on; hidden patches (He et al., 2021, arXiv 2111.06377)
make them say what belongs beside what. Its perceptual term needs the weights of a network trained on photographs; the
differences of gradients (Mathieu et al., 2015, arXiv 1511.05440) need none. A tokenizer reads the frame alone.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from worldmodels.heart.codec import codecs, layout_of, slots_of
from worldmodels.heart.tokens import draw_hidden
from worldmodels.nn import initializers
from worldmodels.nn.dense import Dense
from worldmodels.nn.transformer import Block, rms_norm
from worldmodels.types import Latent, Layout, Spec

SCALES = 3
EQUAL = 1 / 32
"""The error of a value, of a range of 1, where the perceptual term weighs about what the squared error does: 8 levels of
255. Above it the squares lead; below it the differences do, whose slope does not fade with the error."""


def edges(error_BHWC: jax.Array) -> jax.Array:
    """Mean absolute difference between neighbours of an error, over rows, columns and `SCALES` sizes of the picture, (B,)."""
    total_B, scales = jnp.zeros(error_BHWC.shape[0]), 0
    for _ in range(SCALES):
        H, W = error_BHWC.shape[1:3]
        if min(H, W) < 2:
            break
        for axis in (1, 2):
            total_B += 0.5 * jnp.mean(jnp.abs(jnp.diff(error_BHWC, axis=axis)), (1, 2, 3))
        scales += 1
        x = error_BHWC[:, : H // 2 * 2, : W // 2 * 2]
        error_BHWC = jnp.mean(x.reshape(x.shape[0], H // 2, 2, W // 2, 2, x.shape[-1]), (2, 4))
    return total_B / max(scales, 1)


class Continuous(nn.Module):
    """Fields a config sets:
    latents: slots that a frame is told by, each read by whoever reads tokens; 0 gives every patch a slot of its own.
    size: numbers in a slot, each within (-1, 1).
    patch: side of an image's patches, in pixels.
    width, hidden, heads: of the transformers; encoder_depth, decoder_depth: their blocks.
    hide: the share of patches hidden in training is uniform in [0, hide], for half of the frames.
    """

    spec: Spec
    dtype: str
    latents: int = 16
    size: int = 32
    patch: int = 8
    width: int = 128
    heads: int = 4
    hidden: int = 512
    encoder_depth: int = 2
    decoder_depth: int = 2
    hide: float = 0.9

    tokenizer = True
    classes = None

    @property
    def codecs(self) -> dict:
        return codecs(self.spec, self.patch)

    @property
    def layout(self) -> Layout:
        return Layout(loose=self.latents) if self.latents else layout_of(self.codecs)

    @property
    def embedding_size(self) -> int:
        return self.size

    def setup(self) -> None:
        names = list(self.codecs)
        N, M, D = layout_of(self.codecs).tokens, self.latents, self.width
        place = initializers.Normal(0.1)
        block = lambda: Block(self.heads, self.hidden, self.dtype)
        self.patch_in = {k: Dense(D, dtype=self.dtype) for k in names}
        self.patch_out = {k: Dense(self.codecs[k].values, dtype=self.dtype) for k in names}
        self.hidden_patch = self.param('hidden_patch', initializers.Normal(0.5), (D,))
        self.encoder_place = self.param('encoder_place', place, (N, D))
        self.decoder_place = self.param('decoder_place', place, (N, D))
        if M:
            self.ask = self.param('ask', initializers.Normal(0.5), (M, D))
            self.tell_place = self.param('tell_place', place, (M, D))
        self.encoder = [block() for _ in range(self.encoder_depth)]
        self.decoder = [block() for _ in range(self.decoder_depth)]
        self.to_latent = [Dense(D, dtype=self.dtype), Dense(self.size, dtype='float32')]
        self.from_latent = [Dense(D, dtype=self.dtype), Dense(D, dtype=self.dtype)]
        self.encoder_norm = rms_norm(self.dtype)
        self.decoder_norm = rms_norm(self.dtype)

    def encode(self, observation: dict[str, jax.Array], hidden_BN: jax.Array | None = None) -> Latent:
        """Frames (B, ...) by modality -> slots (B, M, size) without an index. Patches where `hidden_BN` are not looked at."""
        x_BSD = jnp.concatenate([self.patch_in[k](c.patches(observation[k])) for k, c in self.codecs.items()], 1)
        if hidden_BN is not None:
            x_BSD = jnp.where(hidden_BN[..., None], self.hidden_patch.astype(x_BSD.dtype), x_BSD)
        if self.encoder_depth:
            x_BSD = x_BSD + self.encoder_place.astype(x_BSD.dtype)
        if self.latents:
            x_BSD = jnp.concatenate([_each(self.ask, x_BSD), x_BSD], 1)
        for block in self.encoder:
            x_BSD = block(x_BSD)
        if self.latents:
            x_BSD = x_BSD[:, : self.latents]
        x_BSD = jax.nn.silu(self.to_latent[0](self.encoder_norm(x_BSD)))
        return Latent(None, jnp.tanh(self.to_latent[1](x_BSD)))

    def decode(self, z: Latent, context_BMD: jax.Array) -> dict[str, jax.Array]:
        """Slots -> predicted patches (B, N, P) by modality. A tokenizer's decoder reads the frame's slots alone."""
        x_BSD = self.from_latent[1](jax.nn.silu(self.from_latent[0](z.embedding_BNE)))
        if self.latents:
            x_BSD = x_BSD + self.tell_place.astype(x_BSD.dtype)
            x_BSD = jnp.concatenate([x_BSD, _each(self.decoder_place, x_BSD)], 1)
        else:
            x_BSD = x_BSD + self.decoder_place.astype(x_BSD.dtype)
        for block in self.decoder:
            x_BSD = block(x_BSD)
        x_BND = self.decoder_norm(x_BSD[:, self.latents :])
        own = slots_of(self.codecs)
        return {k: self.patch_out[k](x_BND[:, slots]).astype(jnp.float32) for k, slots in own.items()}

    def losses(self, prediction: dict[str, jax.Array], observation: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """{'reconstruction': (B,), 'perceptual': (B,)}, summed over modalities; the second of images, if there are any."""
        out = {'reconstruction': sum(c.loss(prediction[k], observation[k]) for k, c in self.codecs.items())}
        images = {k: c for k, c in self.codecs.items() if c.modality.kind == 'image'}
        if images:
            # The gradient of a difference is the difference of gradients.
            error = {k: c.picture(prediction[k] - c.patches(observation[k])) for k, c in images.items()}
            out['perceptual'] = sum(EQUAL * x[0].size * edges(x) for x in error.values())
        return out

    def render(self, prediction: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {k: c.render(prediction[k]) for k, c in self.codecs.items()}

    def autoencode(self, observation: dict[str, jax.Array], keys_B: jax.Array) -> dict[str, jax.Array]:
        """The masked autoencoder's losses: every patch is to be reconstructed, hidden ones too; those of `losses`."""
        hidden_BN = draw_hidden(keys_B, layout_of(self.codecs).tokens, self.hide)
        prediction = self.decode(self.encode(observation, hidden_BN), jnp.zeros((keys_B.shape[0], 0, 1)))
        return self.losses(prediction, observation)


def _each(slots_SD: jax.Array, like_BSD: jax.Array) -> jax.Array:
    """Learned slots, the same for every example."""
    return jnp.broadcast_to(slots_SD.astype(like_BSD.dtype), (like_BSD.shape[0], *slots_SD.shape))

r"""How one modality becomes patches and back: the only code that knows pixels from symbols.

Patches as in ViT (Dosovitskiy et al., 2020, arXiv 2010.11929); $\mathrm{symlog}(x) = \mathrm{sign}(x) \ln(1 + |x|)$ as
in DreamerV3 (arXiv 2301.04104).

image   uint8 (H, W, C)      patches of p x p pixels, values in [0, 1], squared error, rounded to uint8
grid    integer (H, W, C)    one cell a patch, channels one-hot, cross-entropy, most likely class
vector  float32 (n,)         one patch, symlog, squared error
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from worldmodels.types import Layout, Modality, Spec


@dataclasses.dataclass(frozen=True)
class Codec:
    """Patches of one modality. `patch` is the side in pixels of an image's patches."""

    modality: Modality
    patch: int

    def __post_init__(self) -> None:
        if self.modality.kind == 'image' and (
            self.modality.shape[0] % self.patch or self.modality.shape[1] % self.patch
        ):
            raise ValueError(
                f'patches of {self.patch} pixels do not tile an image of {self.modality.shape[:2]}: '
                'choose a patch that divides both sides.'
            )

    @property
    def grid(self) -> tuple[int, int]:
        if self.modality.kind == 'vector':
            return (1, 1)
        side = self.patch if self.modality.kind == 'image' else 1
        return self.modality.shape[0] // side, self.modality.shape[1] // side

    @property
    def values(self) -> int:
        """P, the numbers in one patch."""
        if self.modality.kind == 'image':
            return self.patch * self.patch * self.modality.shape[2]
        return sum(self.modality.classes) if self.modality.kind == 'grid' else self.modality.shape[0]

    def patches(self, x: jax.Array) -> jax.Array:
        """Raw (B, ...) -> float32 (B, N, P)."""
        B, (gh, gw) = x.shape[0], self.grid
        if self.modality.kind == 'image':
            p, C = self.patch, self.modality.shape[2]
            x = x.reshape(B, gh, p, gw, p, C).transpose(0, 1, 3, 2, 4, 5)
            return x.reshape(B, gh * gw, self.values).astype(jnp.float32) / 255
        if self.modality.kind == 'grid':
            hot = [jax.nn.one_hot(x[..., c], n) for c, n in enumerate(self.modality.classes)]
            return jnp.concatenate(hot, -1).reshape(B, gh * gw, self.values)
        x = x.astype(jnp.float32)
        return (jnp.sign(x) * jnp.log1p(jnp.abs(x)))[:, None]

    def loss(self, prediction_BNP: jax.Array, x: jax.Array) -> jax.Array:
        """Reconstruction loss (B,): squared error summed over values, or cross-entropy summed over cells and channels."""
        return jnp.sum(self.misses(prediction_BNP, self.patches(x)), 1)

    def misses(self, prediction: jax.Array, target: jax.Array) -> jax.Array:
        """The same patch by patch, (..., N, P) -> (..., N); leading axes broadcast."""
        if self.modality.kind != 'grid':
            return jnp.sum(jnp.square(prediction.astype(jnp.float32) - target), -1)
        miss = jnp.zeros(())
        for start, n in self._channels():
            log_prob = jax.nn.log_softmax(prediction[..., start : start + n].astype(jnp.float32))
            miss = miss - jnp.sum(log_prob * target[..., start : start + n], -1)
        return miss

    def picture(self, patches_BNP: jax.Array) -> jax.Array:
        """An image's patches where they belong, (B, H, W, C)."""
        (gh, gw), p, C = self.grid, self.patch, self.modality.shape[2]
        x = patches_BNP.reshape(-1, gh, gw, p, p, C).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(-1, *self.modality.shape)

    def render(self, prediction_BNP: jax.Array) -> jax.Array:
        """The mode of a prediction, raw."""
        B = prediction_BNP.shape[0]
        if self.modality.kind == 'image':
            return self.picture(jnp.clip(jnp.round(prediction_BNP.astype(jnp.float32) * 255), 0, 255).astype(jnp.uint8))
        if self.modality.kind == 'grid':
            best = [jnp.argmax(prediction_BNP[..., s : s + n], -1) for s, n in self._channels()]
            return jnp.stack(best, -1).reshape(B, *self.modality.shape).astype(self.modality.dtype)
        x = prediction_BNP[:, 0].astype(jnp.float32)
        return jnp.sign(x) * jnp.expm1(jnp.abs(x))

    def _channels(self) -> list[tuple[int, int]]:
        starts = [sum(self.modality.classes[:c]) for c in range(len(self.modality.classes))]
        return list(zip(starts, self.modality.classes))


def codecs(spec: Spec, patch: int) -> dict[str, Codec]:
    """One codec per modality of a spec, in its order."""
    return {name: Codec(modality, patch) for name, modality in spec.observation}


def slots_of(codecs: dict[str, Codec]) -> dict[str, slice]:
    """Which of a frame's patches are those of each modality."""
    out, start = {}, 0
    for name, codec in codecs.items():
        out[name] = slice(start, start + codec.grid[0] * codec.grid[1])
        start = out[name].stop
    return out


def layout_of(parts: dict[str, Codec]) -> Layout:
    return Layout(tuple(codec.grid for codec in parts.values()))

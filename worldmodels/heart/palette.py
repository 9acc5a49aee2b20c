r"""Nearest-neighbour patches: a code book of patches that were seen, exact on worlds made of tiles.

$$z_n = \arg\min_k \lVert x_n - b_k \rVert^2, \qquad \hat x_n = b_{z_n}$$

After the nearest-neighbour tokenizer of Dedieu et al. (2025, arXiv 2502.01591). The codes are fitted, not learned: they
live in the `constants` collection, and only the embedding of each code is trained. A tokenizer reads the frame alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from worldmodels.heart.codec import codecs, layout_of, slots_of
from worldmodels.nn import initializers
from worldmodels.types import Latent, Layout, PyTree, Spec


class Palette(nn.Module):
    """Fields a config sets:
    codes: most codes of each modality; patch: side of an image's patches in pixels; embedding: width of a code's embedding.
    distance: a patch nearer than this (squared, values in [0, 1]) to a code gets no code of its own.
    """

    spec: Spec
    dtype: str
    codes: int = 256
    patch: int = 8
    embedding: int = 32
    distance: float = 1e-4

    tokenizer = True

    @property
    def codecs(self) -> dict:
        return codecs(self.spec, self.patch)

    @property
    def layout(self) -> Layout:
        return layout_of(self.codecs)

    @property
    def classes(self) -> int:
        return self.codes * len(self.codecs)

    @property
    def embedding_size(self) -> int:
        return self.embedding

    def setup(self) -> None:
        self.table = self.param('table', initializers.Normal(1.0), (self.classes, self.embedding))
        self.book = {
            k: self.variable('constants', k, lambda c=c: initializers.zeros(None, (self.codes, c.values)))
            for k, c in self.codecs.items()
        }
        self.used = {
            k: self.variable('constants', f'{k}_used', lambda: initializers.zeros(None, (), jnp.int32))
            for k in self.codecs
        }

    def encode(self, observation: dict[str, jax.Array]) -> Latent:
        """Frames (B, ...) by modality -> the nearest code of every patch (B, N)."""
        indices = []
        for i, (name, codec) in enumerate(self.codecs.items()):
            book_KP = self.book[name].value
            patches_BNP = codec.patches(observation[name])
            # |x - c|^2 without the |x|^2 that all codes share.
            score_BNK = jnp.sum(jnp.square(book_KP), -1) - 2 * patches_BNP @ book_KP.T
            score_BNK = jnp.where(jnp.arange(self.codes) < self.used[name].value, score_BNK, jnp.inf)
            indices.append(jnp.argmin(score_BNK, -1).astype(jnp.int32) + i * self.codes)
        index_BN = jnp.concatenate(indices, 1)
        return Latent(index_BN, self.embed(index_BN))

    def embed(self, index_BN: jax.Array) -> jax.Array:
        return jnp.take(self.table, index_BN, axis=0)

    def decode(self, z: Latent, context_BMD: jax.Array) -> dict[str, jax.Array]:
        """Tokens -> their patches (B, N, P) by modality, exactly as fitted."""
        out = {}
        for i, (name, slots) in enumerate(slots_of(self.codecs).items()):
            index_BN = jnp.clip(z.index_BN[:, slots] - i * self.codes, 0, self.codes - 1)
            out[name] = jnp.take(self.book[name].value, index_BN, axis=0)
        return out

    def render(self, prediction: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {k: c.render(prediction[k]) for k, c in self.codecs.items()}

    def autoencode(self, observation: dict[str, jax.Array], keys_B: jax.Array) -> dict[str, jax.Array]:
        """Nothing to learn: codes are fitted."""
        return {}

    def fit(self, batches: Iterable[dict[str, np.ndarray]]) -> PyTree:
        """Collect codes from frames, in order of appearance, until each modality has `codes` of them.

        Args:
          batches: observations by modality, (B, ...) raw.

        Returns:
          the heart's `constants`.
        """
        books = {k: np.zeros((0, c.values), np.float32) for k, c in self.codecs.items()}
        for observation in batches:
            for name, codec in self.codecs.items():
                found = np.asarray(codec.patches(jnp.asarray(observation[name]))).reshape(-1, codec.values)
                rows = np.ascontiguousarray(found).view(np.dtype((np.void, found.dtype.itemsize * codec.values)))
                _, first = np.unique(rows.ravel(), return_index=True)
                found = found[np.sort(first)]
                found = found[_nearest(found, books[name]) > self.distance]
                new = books[name][:0]
                for patch in found:
                    if len(books[name]) + len(new) == self.codes:
                        break
                    if _nearest(patch[None], new)[0] > self.distance:
                        new = np.concatenate([new, patch[None]])
                books[name] = np.concatenate([books[name], new])
            if all(len(book) == self.codes for book in books.values()):
                break
        constants = {}
        for name, book in books.items():
            constants[name] = np.pad(book, ((0, self.codes - len(book)), (0, 0)))
            constants[f'{name}_used'] = np.asarray(len(book), np.int32)
        return constants


def _nearest(patch_MP: np.ndarray, book_KP: np.ndarray) -> np.ndarray:
    """Squared distance (M,) of each patch to the nearest code; infinite where there is none."""
    if not len(book_KP):
        return np.full(len(patch_MP), np.inf)
    a, b = patch_MP.astype(np.float64), book_KP.astype(np.float64)  # float32 would lose what is nearly equal
    return np.min(np.square(a).sum(-1)[:, None] + np.square(b).sum(-1) - 2 * a @ b.T, -1)

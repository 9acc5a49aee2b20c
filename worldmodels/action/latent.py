r"""Actions found in silence: of every change from one frame to the next, which of a few kinds it was.

$$\mathcal L = \mathbb E_{u \sim q(u \mid o, o')}\left[d_u\right] - \sum_u r_u \ln q(u \mid o, o'), \qquad
r_u \propto p(u) \exp\left(-s\,\frac{d_u}{\bar d + \epsilon}\right)$$

with $d_u$ how far the frame that a small decoder draws, $\hat o(o, u)$, is from the next one, and $\bar d$ its mean under q.
The decoder has the frame before and u alone, one of `codes`: so u comes to say what the frame before does not, and what was
done is most of that. The aim is that of Genie's latent actions (Bruce et al., 2024, arXiv 2402.15391) and LAPO's (Schmidt
and Jiang, 2023, arXiv 2312.10812); the way is expectation and maximisation instead of a quantiser:

- The codes are few, so all of them are decoded, and nothing is sampled: r is how well each explains what happened, the
  encoder q learns to foretell r, and each code's decoder learns from what q gives it.
- Codes are told apart by how far they are off against how far off all are: while nothing is known they stay alike and no
  code dies, and then they part, kind by kind. A share `floor` of everything goes to all codes alike.
- p(u), how often a code is used, is learned. Of two codes that do the same, the one that is used more takes it all.
- With `turns`, the encoder and the decoder see the same change turned by quarters of a circle, each by another: u can only
  be what is the same from all sides, as "turn left" is, where "now faces north" is not. For worlds seen from above.

The decoder draws what is to be added to the frame before, which is nothing at first: where nothing changes it has nothing to
do, and what changes decides. It has no sense of absolute place, so that a code means the same everywhere.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from worldmodels import rng
from worldmodels.heart.codec import codecs, layout_of, slots_of
from worldmodels.nn import initializers
from worldmodels.nn.dense import Dense
from worldmodels.nn.transformer import Block, dense, grid_of, rms_norm
from worldmodels.types import ActionSpace, Spec

COPIED = 4.0
"""What the class of a grid's cell that stood there before has above the others, before anything is learned."""


class Latent(nn.Module):
    """Fields a config sets:
    codes: how many latent actions there are.
    patch: side of an image's patches, in pixels.
    width, depth, heads, hidden: of the transformers that read the frames, and of what draws the next one.
    turns: encoder and decoder see the frames turned by quarters of a circle; pictures only, square ones.
    still: weight of the patches that do not change, where those that do weigh 1.
    floor: share of everything from which all codes learn alike.
    sharp: s, how decidedly the better of two codes is chosen.
    noise: epsilon, a miss that counts as none, in the units of the loss: squared levels of 0 to 1, summed over a frame.
    """

    spec: Spec
    dtype: str
    codes: int = 7
    patch: int = 8
    width: int = 64
    depth: int = 2
    heads: int = 4
    hidden: int = 128
    turns: bool = False
    still: float = 0.1
    floor: float = 0.3
    sharp: float = 16.0
    noise: float = 0.5

    latent = True

    @property
    def space(self) -> ActionSpace:
        return ActionSpace('discrete', self.codes)

    @property
    def codecs(self) -> dict:
        return codecs(self.spec, self.patch)

    def setup(self) -> None:
        layout = layout_of(self.codecs)
        block = lambda: Block(self.heads, self.hidden, self.dtype, grid_of(layout))
        into = lambda: {k: dense(self.width, self.dtype) for k in self.codecs}
        self.pair_in, self.frame_in = into(), into()
        self.encoder = [block() for _ in range(self.depth)]
        self.encoder_norm = rms_norm(self.dtype)
        self.to_code = [Dense(self.hidden, dtype=self.dtype), Dense(self.codes, dtype='float32')]
        self.usage = self.param('usage', initializers.zeros, (self.codes,))
        self.decoder = [block() for _ in range(self.depth)]
        self.decoder_norm = rms_norm(self.dtype)
        # What a code does with what is there: it scales and shifts, so that it can do another thing with another thing.
        self.scale = self.param('scale', initializers.Normal(1.0), (self.codes, self.hidden))
        self.shift = self.param('shift', initializers.Normal(1.0), (self.codes, self.hidden))
        self.change = [Dense(self.hidden, dtype=self.dtype), Dense(self.hidden, dtype=self.dtype)]
        zeros = initializers.zeros
        self.change_out = {k: Dense(c.values, dtype=self.dtype, kernel_init=zeros) for k, c in self.codecs.items()}
        self.prior_in = Dense(self.hidden, dtype=self.dtype)
        self.prior_out = Dense(self.codes, dtype='float32')

    def infer(self, before: dict[str, jax.Array], after: dict[str, jax.Array]) -> jax.Array:
        """The codes (B,) int32 of the changes between raw frames (B, ...)."""
        return jnp.argmax(self.encode(before, after), -1).astype(jnp.int32)

    def encode(self, before: dict[str, jax.Array], after: dict[str, jax.Array]) -> jax.Array:
        """Logits (B, codes) of q(u | o, o')."""
        before, after = jax.tree.map(
            jnp.asarray, (before, after)
        )  # numpy divides otherwise, and all would have changed
        x, changed = [], []
        for name, codec in self.codecs.items():
            old_BNP, new_BNP = codec.patches(before[name]), codec.patches(after[name])
            x.append(self.pair_in[name](jnp.concatenate([old_BNP, new_BNP], -1)))
            changed.append((old_BNP != new_BNP).any(-1))
        x_BND, changed_BN = jnp.concatenate(x, 1), jnp.concatenate(changed, 1)
        for block in self.encoder:
            x_BND = block(x_BND)
        x_BND = self.encoder_norm(x_BND)
        count_B1 = jnp.sum(changed_BN, 1, keepdims=True)
        mean_BD = jnp.sum(jnp.where(changed_BN[..., None], x_BND, 0), 1) / jnp.maximum(count_B1, 1)
        share_B1 = (count_B1 / changed_BN.shape[1]).astype(mean_BD.dtype)
        y_BD = jax.nn.silu(self.to_code[0](jnp.concatenate([mean_BD, share_B1, share_B1 > 0], -1)))
        return self.to_code[1](y_BD)

    def read(self, frame: dict[str, jax.Array]) -> jax.Array:
        """What the decoder makes of a frame, by patch (B, N, D)."""
        x_BND = jnp.concatenate([self.frame_in[k](c.patches(frame[k])) for k, c in self.codecs.items()], 1)
        for block in self.decoder:
            x_BND = block(x_BND)
        return self.decoder_norm(x_BND)

    def effects(self, read_BND: jax.Array, before: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Predicted patches of the next frame under each code, (B, codes, N, P) by modality."""
        y_BND = self.change[0](read_BND)[:, None]
        y_BKND = jax.nn.silu(y_BND * self.scale[:, None].astype(y_BND.dtype) + self.shift[:, None].astype(y_BND.dtype))
        y_BKND = jax.nn.silu(self.change[1](y_BKND))
        out, own = {}, slots_of(self.codecs)
        for name, codec in self.codecs.items():
            old_BNP = codec.patches(before[name]) * (COPIED if codec.modality.kind == 'grid' else 1.0)
            out[name] = old_BNP[:, None] + self.change_out[name](y_BKND[:, :, own[name]]).astype(jnp.float32)
        return out

    def misses(
        self, predicted: dict[str, jax.Array], before: dict[str, jax.Array], after: dict[str, jax.Array]
    ) -> jax.Array:
        """How far each code's prediction is from the next frame: (B, codes), summed over patches by weight."""
        total_BK = jnp.zeros(())
        for name, codec in self.codecs.items():
            miss_BKN = codec.misses(predicted[name], codec.patches(after[name])[:, None])
            changed_BN = (codec.patches(before[name]) != codec.patches(after[name])).any(-1)
            weight_BN = jnp.where(changed_BN, 1.0, self.still)
            total_BK = total_BK + jnp.sum(miss_BKN * weight_BN[:, None], -1)
        return total_BK

    def prior(self, frame: dict[str, jax.Array]) -> jax.Array:
        """Log-probabilities (B, codes) of what is done in a frame: p(u | o), as it was done in the data."""
        return self._prior(self.read(frame))

    def _prior(self, read_BND: jax.Array) -> jax.Array:
        y_BND = jax.nn.silu(self.prior_in(jax.lax.stop_gradient(read_BND)))
        return jax.nn.log_softmax(self.prior_out(jnp.max(y_BND, 1)))

    def losses(
        self, before: dict[str, jax.Array], after: dict[str, jax.Array], keys_B: jax.Array
    ) -> dict[str, jax.Array]:
        """(B,) each.

        latent_action: how far off the decoder is. action_code: cross-entropy of q against r. action_prior: of p(u) and of
        p(u | o) against q; both are told of q and q is not told of them, but for p(u) in r.
        """
        encoder_B, decoder_B = rng.split(keys_B, 2)
        pair = jax.tree.map(jnp.asarray, (before, after))
        seen, drawn = (turned(pair, encoder_B), turned(pair, decoder_B)) if self.turns else (pair, pair)
        log_q_BK = jax.nn.log_softmax(self.encode(*seen))
        log_p_K = jax.nn.log_softmax(self.usage)
        q_BK = jnp.exp(log_q_BK)
        read_BND = self.read(drawn[0])
        miss_BK = self.misses(self.effects(read_BND, drawn[0]), *drawn)
        q_BK, known_BK = jax.lax.stop_gradient((q_BK, miss_BK))
        miss_B1 = jnp.sum(q_BK * known_BK, -1, keepdims=True)
        best_BK = jax.nn.softmax(log_p_K - self.sharp * known_BK / (miss_B1 + self.noise))
        best_BK = jax.lax.stop_gradient(best_BK)
        # What is explained is left to its code; of what is not, all codes learn a share.
        share_B1 = self.floor * miss_B1 / (miss_B1 + self.noise)
        learns_BK = (1 - share_B1) * q_BK + share_B1 / self.codes
        prior_B = -jnp.sum(q_BK * (log_p_K + self._prior(read_BND)), -1)
        self.sow('metrics', 'codes_used', (jnp.exp(-jnp.sum(jnp.exp(log_p_K) * log_p_K)), jnp.ones(())))
        return {
            'latent_action': jnp.sum(learns_BK * miss_BK, -1),
            'action_code': -jnp.sum(best_BK * log_q_BK, -1),
            'action_prior': prior_B,
        }


def turned(frames: tuple[dict[str, jax.Array], ...], keys_B: jax.Array) -> tuple[dict[str, jax.Array], ...]:
    """Frames (B, S, S, C) turned by 0 to 3 quarters of a circle, drawn by example; all of an example's by the same."""
    quarters_B = rng.draw(lambda key: jax.random.randint(key, (), 0, 4), keys_B)[:, None, None, None]

    def turn(x_BHWC: jax.Array) -> jax.Array:
        x_BHWC = jnp.where(quarters_B % 2 == 1, jnp.rot90(x_BHWC, axes=(1, 2)), x_BHWC)
        return jnp.where(quarters_B >= 2, x_BHWC[:, ::-1, ::-1], x_BHWC)

    return jax.tree.map(turn, frames)

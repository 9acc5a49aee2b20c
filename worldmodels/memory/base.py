r"""The contract of a memory (Bai et al., 2025, arXiv 2510.20668, section 2.2): $h_t, c_t = f(h_{t-1}, z_t, a_{t-1})$."""

from __future__ import annotations

import flax.linen as nn
import jax

from worldmodels.types import Latent, PyTree, nbytes, select


class Memory(nn.Module):
    """M: h = f(h-, z, a-), seen from outside only as context (B, M, D).

    `step` is for acting, `sequence` for training on parallel hardware; scan(step) == sequence, with resets anywhere. Every leaf
    of h has a leading batch axis. Subclasses give `initial`, `step`, `sequence`, `slots` (M) and `width` (D).

    aligned: the first N slots of its context belong to the N tokens of the frame, one each. Others are read by all tokens.
    """

    aligned = False

    def initial(self, batch: int) -> tuple[PyTree, jax.Array]:
        """(h, context) before any frame."""
        raise NotImplementedError

    def step(self, h: PyTree, z: Latent, action_BA: jax.Array) -> tuple[PyTree, jax.Array]:
        """Remember z, reached by the action: (h, context (B, M, D))."""
        raise NotImplementedError

    def sequence(self, h: PyTree, z: Latent, action_BTA: jax.Array, reset_BT: jax.Array) -> tuple[PyTree, jax.Array]:
        """Remember T frames: (h after the last, contexts (B, T, M, D)). h None means initial; so it is wherever reset."""
        raise NotImplementedError

    def reset(self, h: PyTree, reset_B: jax.Array) -> PyTree:
        """The initial state where `reset_B`. A memory that can forget without writing overrides this."""
        return select(reset_B, self.initial(reset_B.shape[0])[0], h)

    def losses(
        self, context_BTMD: jax.Array, z: Latent, action_BTA: jax.Array, reset_BT: jax.Array, keys_BT: jax.Array
    ) -> dict[str, tuple[jax.Array, jax.Array]]:
        """What remembering is trained to do for its own sake, beside serving the others: {name: (loss_BT, mask_BT)}.

        Args:
          context_BTMD: what was shown after each tick, which a memory carried into the segment has shaped too.
          z: the frames remembered (B, T, ...); action_BTA: those that led to them, null at resets.
          reset_BT: where the belief started anew.
          keys_BT: one key per example and tick.

        `train.weights` names the terms as it names all others. Most memories have none. `z` and the context carry gradients.
        """
        return {}

    def use(self, h: PyTree) -> dict[str, tuple[jax.Array, jax.Array]]:
        """What this memory can tell of its own use, as (sum, count) over the batch, such as its share of filled places."""
        return {}

    def nbytes(self, batch: int = 1) -> int:
        """Bytes carried from tick to tick by a batch."""
        return nbytes(jax.eval_shape(lambda: self.initial(batch)[0]))

r"""DreamerV3's block GRU (Hafner et al., 2023, arXiv 2301.04104) as a memory, shown as one slot of context.

$$h' = \sigma(u - 1) \odot \tanh(\sigma(r) \odot n) + (1 - \sigma(u - 1)) \odot h$$

with (r, n, u) a block-diagonal function of a hidden layer over (h, z', a); the GRU is Cho et al.'s (2014, arXiv 1406.1078).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from worldmodels.memory.base import Memory
from worldmodels.nn import initializers
from worldmodels.nn.dense import Dense
from worldmodels.nn.layers import BlockLinear, NormDense, norm
from worldmodels.types import Latent, PyTree, flat, select


class Inputs(nn.Module):
    """What (z, a) add to the cell's hidden layer: (..., deter). Needs no h, so it runs over all ticks at once."""

    deter: int
    hidden: int
    share: float
    dtype: str

    @nn.compact
    def __call__(self, z: jax.Array, action: jax.Array) -> jax.Array:
        action = action / jax.lax.stop_gradient(jnp.maximum(1, jnp.abs(action)))
        z = NormDense(self.hidden, self.dtype, name='latent')(z)
        action = NormDense(self.hidden, self.dtype, name='action')(action)
        init = initializers.Scaled(self.share)
        x = jnp.concatenate([z, action], -1)
        return Dense(self.deter, dtype=self.dtype, kernel_init=init, name='mix')(x)


class Cell(nn.Module):
    """The part of the block GRU that waits for h: (h, driven) -> h, each (B, deter).

    DreamerV3 feeds each block with its own part of h and with projections of h, z and a, in one matmul. A matmul of
    joined inputs is a sum of matmuls: those of z and a were computed in `Inputs` and arrive summed as `driven`.
    """

    deter: int
    hidden: int
    blocks: int
    dtype: str

    @nn.compact
    def __call__(self, h: jax.Array, driven: jax.Array) -> jax.Array:
        fan_in = self.deter // self.blocks + 3 * self.hidden
        own = BlockLinear(
            self.deter, self.blocks, self.dtype, use_bias=False, share=self.deter / self.blocks / fan_in, name='own'
        )
        init = initializers.Scaled(self.hidden / fan_in)
        across = Dense(self.deter, use_bias=False, dtype=self.dtype, kernel_init=init, name='across')
        x = own(h) + across(NormDense(self.hidden, self.dtype, name='state')(h)) + driven
        x = nn.silu(norm(self.dtype, 'norm')(x))
        gates = BlockLinear(3 * self.deter, self.blocks, self.dtype, name='gates')(x)
        gates = gates.reshape(*h.shape[:-1], self.blocks, 3, self.deter // self.blocks)
        reset, candidate, update = (flat(gates[..., i, :], h.ndim - 1) for i in range(3))
        candidate = jnp.tanh(nn.sigmoid(reset) * candidate)
        update = nn.sigmoid(update - 1)
        return update * candidate + (1 - update) * h


class Recurrent(Memory):
    """Fields a config sets:
    deter: numbers in h, a multiple of `blocks`.
    hidden: width of the projections of h, z and a.
    blocks: of the block-diagonal matmuls.
    """

    dtype: str
    deter: int = 2048
    hidden: int = 256
    blocks: int = 8

    slots = 1

    @property
    def width(self) -> int:
        return self.deter

    def __post_init__(self) -> None:
        if self.deter % self.blocks:
            raise ValueError(
                f'memory.deter is {self.deter}, which {self.blocks} blocks do not divide: '
                f'take a multiple of {self.blocks}.'
            )
        super().__post_init__()

    def setup(self) -> None:
        share = 2 * self.hidden / (self.deter // self.blocks + 3 * self.hidden)
        self.inputs = Inputs(self.deter, self.hidden, share, self.dtype)
        self.cell = Cell(self.deter, self.hidden, self.blocks, self.dtype)

    def initial(self, batch: int) -> tuple[jax.Array, jax.Array]:
        h_BD = jnp.zeros((batch, self.deter), self.dtype)
        return h_BD, h_BD[:, None]

    def step(self, h: jax.Array, z: Latent, action_BA: jax.Array) -> tuple[jax.Array, jax.Array]:
        h_BD = self.cell(h, self.inputs(flat(z.embedding_BNE, 1), action_BA))
        return h_BD, h_BD[:, None]

    def sequence(self, h: PyTree, z: Latent, action_BTA: jax.Array, reset_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        h_BD = self.initial(reset_BT.shape[0])[0] if h is None else h
        driven_BTD = self.inputs(flat(z.embedding_BNE, 2), action_BTA)

        def follow(cell: Cell, h_BD: jax.Array, tick: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            driven_BD, reset_B = tick
            h_BD = cell(select(reset_B, jnp.zeros_like(h_BD), h_BD), driven_BD)
            return h_BD, h_BD

        scan = nn.scan(
            follow, variable_broadcast='params', split_rngs={'params': False}, in_axes=1, out_axes=1, unroll=2
        )
        h_BD, h_BTD = scan(self.cell, h_BD, (driven_BTD, reset_BT))
        return h_BD, h_BTD[:, :, None]

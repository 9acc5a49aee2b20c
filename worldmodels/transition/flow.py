r"""The flow transition: the numbers of the next frame carried from noise to data in as many steps as one has time for.

$$x_\tau = (1 - \tau)\,\epsilon + \tau\,z', \qquad \hat x = f(x_\tau, \tau, d \mid z, a, c), \qquad
\mathcal L = (0.9\,\tau + 0.1)\,\lVert \hat x - y \rVert^2$$

Flow matching (Lipman et al., 2022, arXiv 2210.02747) with shortcuts (Frans et al., 2024, arXiv 2410.12557), predicting
the data and weighed by a ramp, as in Dreamer 4 (Hafner et al., 2025, arXiv 2509.24527). d is the size of the step about
to be taken, a power of two from 1/64 to 1. The smallest steps learn the flow: y = z'. A step of d learns to land where
two of d/2 do, along whose mean velocity v it is told to go: y = x_tau + (1 - tau) v, no gradient through y. So one
network samples with 1 to 64 steps, a dial.

It works on one tick's context: the steps repeat a small spatial network, never the history. It has no tractable
likelihood and trains on a stop-gradient posterior.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from worldmodels import rng
from worldmodels.filter import Posterior
from worldmodels.nn.dense import Dense
from worldmodels.nn.slots import Known, Slots, check_guidance, guided, unsaid
from worldmodels.nn.transformer import Block, dense, grid_of, rms_norm
from worldmodels.types import Latent, Layout

LEVELS = 6
"""The smallest step is 2 ** -LEVELS; a step of level i has size 2 ** -i."""
FREQUENCIES = 8

Denoiser = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""(x_BNE, tau_B, level_B) -> where the data are believed to be, (B, N, E)."""


def schedule(steps: int) -> list[int]:
    """Levels of `steps` steps that lead from 0 to 1: as equal as powers of two can be, the smaller ones first, in the noise.

    Raises:
      ValueError: fewer than 1 or more than 2 ** LEVELS steps.
    """
    if not 1 <= steps <= 2**LEVELS:
        raise ValueError(f'a flow was asked for {steps} steps; it takes 1 to {2**LEVELS}.')
    level = steps.bit_length() - 1
    halved = steps - 2**level
    return [level + 1] * (2 * halved) + [level] * (2**level - halved)


def advance(x_BNE: jax.Array, data_BNE: jax.Array, tau_B: jax.Array, level_B: jax.Array) -> jax.Array:
    """A step of 2 ** -level straight towards where the data are believed to be, from x at tau < 1."""
    share_B = jnp.exp2(-level_B.astype(jnp.float32)) / (1 - tau_B)
    return x_BNE + share_B[:, None, None] * (data_BNE - x_BNE)


def integrate(denoise: Denoiser, noise_BNE: jax.Array, steps: int) -> jax.Array:
    """From noise to data in `steps` steps of a `Denoiser`."""
    levels = np.asarray(schedule(steps), np.int32)
    taus = np.concatenate([[0], np.cumsum(0.5**levels)[:-1]]).astype(np.float32)

    def step(x_BNE: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        tau_B, level_B = (jnp.full(x_BNE.shape[0], value) for value in at)
        return advance(x_BNE, denoise(x_BNE, tau_B, level_B), tau_B, level_B), None

    if steps == 1:
        return step(noise_BNE, (taus[0], levels[0]))[0]
    return jax.lax.scan(step, noise_BNE, (taus, levels))[0]


def landing(denoise: Denoiser, x_BNE: jax.Array, tau_B: jax.Array, level_B: jax.Array) -> jax.Array:
    """Where a step of `level` is to believe the data: on the line to where two steps of half its size lead. Level < LEVELS."""
    half_B = jnp.exp2(-level_B - 1.0)

    def step(y_BNE: jax.Array, now_B: jax.Array) -> tuple[jax.Array, None]:
        return advance(y_BNE, denoise(y_BNE, now_B, level_B + 1), now_B, level_B + 1), None

    end_BNE, _ = jax.lax.scan(step, x_BNE, jnp.stack([tau_B, tau_B + half_B]))
    velocity_BNE = (end_BNE - x_BNE) / (2 * half_B)[:, None, None]
    return x_BNE + (1 - tau_B)[:, None, None] * velocity_BNE


def draw_steps(keys_B: jax.Array, shortcuts: float) -> tuple[jax.Array, jax.Array]:
    """Steps to train: (tau_B, level_B). A share `shortcuts` have a level below LEVELS, all of them alike; tau is a multiple
    of the step."""

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        long_key, level_key, tau_key = jax.random.split(key, 3)
        short = jax.random.bernoulli(long_key, 1 - shortcuts)
        level = jnp.where(short, LEVELS, jax.random.randint(level_key, (), 0, LEVELS))
        count = 2**level
        return jnp.floor(jax.random.uniform(tau_key) * count) / count, level

    return rng.draw(one, keys_B)


class Network(nn.Module):
    """The denoiser: (x, tau, level, known) -> what the data are believed to be, (B, N, E) float32."""

    depth: int
    heads: int
    hidden: int
    grid: tuple[int, int] | None
    persist: bool
    dtype: str

    @nn.compact
    def __call__(self, x_BNE: jax.Array, tau_B: jax.Array, level_B: jax.Array, known: Known) -> jax.Array:
        N, D = known.given_BND.shape[1:]
        waves_BF = jnp.cos(jnp.pi * tau_B[:, None] * jnp.arange(1, FREQUENCIES + 1))
        step_BF = jnp.concatenate([waves_BF, jax.nn.one_hot(level_B, LEVELS + 1)], -1)
        step_BD = Dense(D, dtype=self.dtype, name='step_out')(
            jax.nn.silu(Dense(D, dtype=self.dtype, name='step_in')(step_BF))
        )
        x_BSD = dense(D, self.dtype, 'noisy')(x_BNE) + known.given_BND + step_BD[:, None]
        x_BSD = jnp.concatenate([x_BSD, known.context_BMD.astype(x_BSD.dtype)], 1)
        for i in range(self.depth):
            x_BSD = Block(self.heads, self.hidden, self.dtype, self.grid, name=f'block_{i}')(x_BSD)
        x_BND = rms_norm(self.dtype)(x_BSD[:, :N])
        out_BNE = Dense(x_BNE.shape[-1], dtype='float32', name='data')(x_BND)
        if self.persist:
            stay_BN1 = jax.nn.sigmoid(Dense(1, dtype='float32', name='stay')(x_BND))
            out_BNE = out_BNE + stay_BN1 * known.departure
        return out_BNE


class Flow(nn.Module):
    """Fields a config sets:
    width, depth, heads, hidden: of the network, hidden being the feed-forward's width.
    neighbours: 3 x 3 mixing on the token grid in every block.
    persist: add a learned share of each slot's departure to the data predicted: the prior of a world where most stays.
    shortcuts: share of training spent on steps above the smallest.
    drop_action: share of training in which nothing is said of the action; without it, no guidance.
    steps: taken to sample unless told otherwise, 1 to 64; temperature: standard deviation of the noise a sample starts
      from; guidance: w, weight of the action in the data believed, (1 + w) told - w untold, twice the cost where it is not
      0. All three are dials of `sample`.
    """

    layout: Layout
    aligned: bool
    dtype: str
    width: int = 128
    depth: int = 2
    heads: int = 4
    hidden: int = 512
    neighbours: bool = False
    persist: bool = True
    shortcuts: float = 0.5
    drop_action: float = 0.0
    steps: int = 4
    temperature: float = 1.0
    guidance: float = 0.0

    likelihood = False
    draws = 'numbers'
    DIALS = ('steps', 'temperature', 'guidance')

    def __post_init__(self) -> None:
        schedule(self.steps)
        check_guidance(self.guidance, self.drop_action)
        super().__post_init__()

    def setup(self) -> None:
        self.slots = Slots(self.width, self.layout.tokens, None, self.aligned, self.dtype)
        nn.share_scope(self, self.slots)
        grid = grid_of(self.layout) if self.neighbours else None
        self.network = Network(self.depth, self.heads, self.hidden, grid, self.persist, self.dtype)

    def predict(self, z: Latent, action_BA: jax.Array, context_BMD: jax.Array) -> Known:
        """All that is known of the next frame."""
        return self.slots(z, action_BA, context_BMD)

    def loss(self, prediction: Known, posterior: Posterior, keys_B: jax.Array) -> dict[str, jax.Array]:
        """Squared error of the data predicted, mean over a frame's numbers, weighed by the ramp: {'transition': (B,)}."""
        data_BNE = posterior.latent.embedding_BNE.astype(jnp.float32)
        prediction = unsaid(prediction, keys_B, self.drop_action)
        noise_keys_B, step_keys_B = rng.split(keys_B, 2)
        noise_BNE = rng.draw(lambda key: jax.random.normal(key, data_BNE.shape[1:]), noise_keys_B)
        tau_B, level_B = draw_steps(step_keys_B, self.shortcuts)
        x_BNE = noise_BNE + tau_B[:, None, None] * (data_BNE - noise_BNE)
        believed_BNE = self.network(x_BNE, tau_B, level_B, prediction)
        long_B, stop = level_B < LEVELS, jax.lax.stop_gradient
        # Where a step is of the smallest size there is no half of it: what `landing` says of it is not looked at.
        shorter = lambda x, tau, level: stop(self.network(x, tau, level, stop(prediction)))
        landing_BNE = landing(shorter, x_BNE, jnp.where(long_B, tau_B, 0), jnp.minimum(level_B, LEVELS - 1))
        target_BNE = jnp.where(long_B[:, None, None], landing_BNE, data_BNE)
        error_B = jnp.mean(jnp.square(believed_BNE - stop(target_BNE)), (1, 2))
        self.sow('metrics', 'flow_error', (jnp.sum(error_B * ~long_B), jnp.sum(~long_B).astype(jnp.float32)))
        self.sow('metrics', 'shortcut_error', (jnp.sum(error_B * long_B), jnp.sum(long_B).astype(jnp.float32)))
        return {'transition': (0.9 * tau_B + 0.1) * error_B}

    def sample(self, prediction: Known, keys_B: jax.Array, **dials: Any) -> jax.Array:
        """embedding_BNE float32. Dials: steps, 1 to 64; temperature, 0 for the one sample that no noise leads to; guidance."""
        steps, temperature, guidance = (dials.get(name, getattr(self, name)) for name in self.DIALS)
        check_guidance(guidance, self.drop_action)
        noise_BNE = rng.draw(lambda key: jax.random.normal(key, prediction.departure.shape[1:]), keys_B)
        denoise = guided(lambda known, *at: self.network(*at, known), prediction, guidance)
        return integrate(denoise, temperature * noise_BNE, steps)

r"""Signatures of failure, watched in every run: a memory that collapses or explodes, a transition that spikes.

$$\mathrm{rank} = \frac{(\mathrm{tr}\,C)^2}{\mathrm{tr}\,C^2}, \qquad
\mathrm{spike} = \frac{\ell - m}{1.4826\,\mathrm{MAD}(\ell) + 0.01\,|m|}, \quad m = \mathrm{median}(\ell)$$

after *From Masks to Worlds* (Bai et al., 2025, arXiv 2510.20668), which names incoherent transitions, memory collapse
and memory explosion. By name, as metrics `signature/NAME`:

    context_rank    participation ratio of the contexts' covariance C over a batch, 0 where they are constant. Of a count
                    sketch to `SKETCH` numbers (Charikar et al., 2002), so it is at most that
    context_usage   share of the context's numbers whose deviation is above 1% of the context's root mean square
    state_norm      root mean square of the numbers in h
    state_bytes     of one example's h
    nll_spike       how far the transition's loss is above its running median, in deviations; known to the host only
    use/NAME        what a memory tells of its own use (`Memory.use`)

A device adds up sums over its rows, and ratios are formed once all have been added: four devices say what one says. The
sums take a few passes over contexts and state and one product of (SKETCH, ticks) x (ticks, SKETCH).
"""

from __future__ import annotations

import collections
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from worldmodels.types import Belief, nbytes

SKETCH = 32
PREFIX = 'signature/'
SUMS = 'signatures'
"""The metric under which a loss function gives its `sums`."""
NLL = ('loss/transition', 'loss/dynamics')
"""The losses that are a transition's; a run has one of them."""


def sums(context_BTMD: jax.Array, belief: Belief, use: dict[str, tuple[jax.Array, jax.Array]]) -> dict[str, Any]:
    """This device's sums of a batch: contexts after each tick, the belief after the last, and the memory's own."""
    context_BTMD, h = jax.lax.stop_gradient((context_BTMD, belief.h))
    out: dict[str, Any] = {'use': dict(use)}
    floats = [x.astype(jnp.float32) for x in jax.tree.leaves(h) if jnp.issubdtype(x.dtype, jnp.floating)]
    if floats:
        rows = jnp.asarray(floats[0].shape[0], jnp.float32)
        out['h'] = (sum(jnp.sum(jnp.square(x)) for x in floats), rows * sum(x[0].size for x in floats))
        out['bytes'] = (rows * (nbytes(h) / floats[0].shape[0]), rows)
    if context_BTMD.size:
        x_XD = context_BTMD.reshape(-1, math.prod(context_BTMD.shape[2:])).astype(jnp.float32)
        y_XS = _sketch(x_XD)
        out['context'] = {
            'count': jnp.asarray(x_XD.shape[0], jnp.float32),
            'sum_D': x_XD.sum(0),
            'square_D': jnp.square(x_XD).sum(0),
            'sketch_S': y_XS.sum(0),
            'sketch_SS': y_XS.T @ y_XS,
        }
    return out


def finish(total: dict[str, Any]) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Metrics as pairs (value, 1) from the sums of all devices; counts of a memory's own are left as they are."""
    one = jnp.ones(())
    out = {f'{PREFIX}use/{name}': pair for name, pair in total['use'].items()}
    if 'h' in total:
        square, count = total['h']
        out[f'{PREFIX}state_norm'] = (jnp.sqrt(square / count), one)
        out[f'{PREFIX}state_bytes'] = total['bytes']
    if 'context' in total:
        c = total['context']
        mean_D, square_D = c['sum_D'] / c['count'], c['square_D'] / c['count']
        varies_D = square_D - jnp.square(mean_D) > 1e-4 * square_D.mean()
        mean_S = c['sketch_S'] / c['count']
        moment_SS = c['sketch_SS'] / c['count']
        covariance_SS = moment_SS - jnp.outer(mean_S, mean_S)
        trace, square = jnp.trace(covariance_SS), jnp.sum(jnp.square(covariance_SS))
        moves = trace > 1e-6 * jnp.trace(moment_SS)  # below it a difference of float32 sums says nothing
        out[f'{PREFIX}context_rank'] = (jnp.where(moves, jnp.square(trace) / jnp.where(moves, square, 1.0), 0.0), one)
        out[f'{PREFIX}context_usage'] = (varies_D.mean(), one)
    return out


def _sketch(x_XD: jax.Array) -> jax.Array:
    """Each of S sums takes every S-th number, with signs that look random: (X, D) -> (X, S), D itself where it is small."""
    X, D = x_XD.shape
    if D <= SKETCH:
        return x_XD
    mixed = jnp.arange(D, dtype=jnp.uint32) * jnp.uint32(2654435761)
    sign_D = 1.0 - 2.0 * ((mixed ^ (mixed >> 15)) >> 7 & 1).astype(jnp.float32)
    x_XD = jnp.pad(x_XD * sign_D, ((0, 0), (0, -D % SKETCH)))
    return x_XD.reshape(X, -1, SKETCH).sum(1)


@dataclasses.dataclass(frozen=True)
class Crossing:
    """A signature that has left its range, or is back in it."""

    name: str
    value: float
    limit: float
    out: bool

    def __str__(self) -> str:
        below = self.name in LOW
        if self.out:
            return (
                f'{self.name} is {self.value:.4g}, {"below" if below else "above"} {self.limit:.4g}: {MEANS[self.name]}'
            )
        return f'{self.name} is back at {self.value:.4g} ({"at least" if below else "at most"} {self.limit:.4g})'

    @property
    def metrics(self) -> dict[str, float]:
        return {f'{PREFIX}{self.name}': self.value, f'{PREFIX}{self.name}/crossed': float(self.out)}


LOW = ('context_rank', 'context_usage')
MEANS = {
    'context_rank': 'the memory shows nearly the same whatever happened (collapse)',
    'context_usage': 'most of the context never changes (collapse)',
    'state_norm': 'the state of the memory grows (explosion)',
    'state_bytes': 'the state of the memory is large (explosion)',
    'nll_spike': 'the transition was surprised far beyond its habit (incoherence)',
}
"""What can be crossed, LOW from above and the others from below, and what it means."""


class Watch:
    """Compares every step's signatures with the limits of `config.watch`, and tells of a change, not of a state.

    A crossing is told at once; that it is over, once `patience` steps in a row were in range. Nothing is told of the first
    `after` steps. What is not a number is left to the skipping of steps.
    """

    def __init__(self, config: Any, state: dict[str, Any] | None = None):
        self.limits = {name: float(config[name]) for name in MEANS}
        self.after, self.patience = config.after, config.patience
        state = state or {}
        self.recent = collections.deque(state.get('recent', ()), maxlen=config.window)
        self.good: dict[str, int] = dict(state.get('good', {}))  # of those that are out: steps in range since

    def state(self) -> dict[str, Any]:
        """As JSON: a run that goes on from it tells what one that never stopped does."""
        return {'recent': list(self.recent), 'good': dict(self.good)}

    def spike(self, nll: float) -> float | None:
        """Deviations above the median of the steps before; None until half a window of them is known."""
        if not math.isfinite(nll):
            return None
        recent = np.asarray(self.recent)
        self.recent.append(nll)
        if 2 * len(recent) < self.recent.maxlen:
            return None
        median = float(np.median(recent))
        deviation = 1.4826 * float(np.median(np.abs(recent - median))) + 0.01 * abs(median)
        return (nll - median) / max(deviation, 1e-6)

    def look(self, step: int, values: dict[str, float]) -> list[Crossing]:
        """What has changed with the metrics of a step."""
        now = {name: values.get(PREFIX + name) for name in MEANS}
        nll = next((values[name] for name in NLL if name in values), None)
        now['nll_spike'] = None if nll is None else self.spike(nll)
        told = []
        for name, value in now.items():
            if value is None or math.isnan(value) or step <= self.after:
                continue
            limit = self.limits[name]
            bad = value < limit if name in LOW else value > limit
            if bad and name not in self.good:
                told.append(Crossing(name, value, limit, True))
            if bad:
                self.good[name] = 0
            elif name in self.good:
                self.good[name] += 1
                if self.good[name] >= self.patience:
                    del self.good[name]
                    told.append(Crossing(name, value, limit, False))
        return told

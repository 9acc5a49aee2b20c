"""Every kind of memory in bfloat16, as on accelerators: step by step and all at once say the same but for rounding.

The two forms round the same sums in another order, each to 2^-9 of its value, and what comes out of a norm, a softmax and a
few products adds those up. So contexts may differ by BOUND of their own root mean square: at any one number by its fourfold,
at the mean by a fourth of it. A form that loses a tick or a reset is off by as much as the contexts are large.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import CONTEXTS, MEMORIES, SPEC, model, shaken

from worldmodels.types import Latent

B, T = 2, 12
RESET_BT = np.zeros((B, T), bool)
RESET_BT[1, 0] = RESET_BT[1, 5] = RESET_BT[1, 6] = True
BOUND = 0.05


@pytest.mark.parametrize('kind', [kind for kind in MEMORIES if kind != 'none'])
def test_scan_of_step_is_sequence_but_for_rounding(kind):
    m = model('palette', 'masked', kind, 'frame', CONTEXTS[1], 'departure', dtype='bfloat16')
    memory, N = m.memory, m.heart.layout.tokens
    keys = jax.random.split(jax.random.key(0), 3)
    z = Latent(jax.random.randint(keys[0], (B, T, N), 0, 9), jax.random.normal(keys[1], (B, T, N, 6)))
    action = jax.random.normal(keys[2], (B, T, SPEC.action.size))
    variables = shaken(memory, z, action)
    start, _ = memory.apply(variables, B, method='initial')

    def follow(h, tick):
        z, action, reset = tick
        return memory.apply(variables, memory.reset(h, reset), z, action, method='step')

    @jax.jit
    def both():
        ticks = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (z, action, jnp.asarray(RESET_BT)))
        h, stepped = jax.lax.scan(follow, start, ticks)
        again, context = memory.apply(variables, None, z, action, RESET_BT, method='sequence')
        return h, again, jnp.swapaxes(stepped, 0, 1), context

    h, again, stepped, context = both()
    assert context.dtype == stepped.dtype == jnp.bfloat16
    types = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert types(h) == types(again) == types(start)
    context, stepped = (np.asarray(x, np.float32) for x in (context, stepped))
    off = np.abs(context - stepped) / np.sqrt(np.mean(np.square(context)))
    assert np.isfinite(off).all()
    print(kind, off.mean(), off.max())
    assert off.mean() < BOUND / 4
    assert off.max() < BOUND * 4

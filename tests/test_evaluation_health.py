"""A memory that grows while it dreams is told of at the tick where it does; one that shows nothing has no signatures."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import SPEC, TRANSITIONS, experience

from worldmodels.build import build_model, init_variables
from worldmodels.evaluation import health
from worldmodels.memory.base import Memory
from worldmodels.training.config import default_config
from worldmodels.types import select

ROWS, CONTEXT, TICKS = 3, 2, 5
LIMITS = default_config().watch.to_dict()


class Grows(Memory):
    """What it carries doubles at every tick, unless told otherwise, and it shows a token."""

    factor: float = 2.0
    slots, width = 1, 4

    def initial(self, batch: int):
        return jnp.ones((batch, 2)), jnp.zeros((batch, 1, 4))

    def step(self, h, z, action_BA):
        return self.factor * h, z.embedding_BNE[:, :1, :4]

    def sequence(self, h, z, action_BTA, reset_BT):
        h = self.initial(reset_BT.shape[0])[0] if h is None else h

        def follow(h, reset_B):
            h = self.factor * select(reset_B, jnp.ones_like(h), h)
            return h, h

        return jax.lax.scan(follow, h, reset_BT.T)[0], z.embedding_BNE[:, :, :1, :4]


def examined(memory, **fields):
    chosen = {
        'heart': {'kind': 'palette', 'codes': 9, 'embedding': 6},
        'filter': {'reads': 'frame'},
        'transition': {'kind': 'categorical', **TRANSITIONS['categorical']},
        'memory': {'kind': memory, **fields},
        'outcome': {'reads': 'departure', 'units': 8},
        'context_to': ('transition',),
    }
    m = build_model(chosen, SPEC, 'float32')
    windows = jax.tree.map(np.asarray, experience(ROWS, CONTEXT + 1))
    return health.along(m, init_variables(m, 0), windows, CONTEXT, {**LIMITS, 'state_norm': 10.0}, ticks=TICKS)


def test_growth_is_told_where_it_begins():
    found = examined('test_evaluation_health:Grows')
    assert (found['dreams'], found['ticks']) == (ROWS, TICKS)
    assert found['values']['state_norm'] == pytest.approx([2.0 ** (CONTEXT + k) for k in range(TICKS + 1)])
    assert found['values']['state_bytes'] == [8.0] * (TICKS + 1)
    crossed = found['crossed']['state_norm']
    assert (crossed['tick'], crossed['value'], crossed['limit']) == (2, 16.0, 10.0)
    assert 'state_norm is 16, above 10' in crossed['text']
    json.dumps(found, allow_nan=False)


def test_where_nothing_is_carried_nothing_is_said():
    found = examined('none')
    assert (found['values'], found['crossed']) == ({}, {})


def test_what_is_no_number_is_told_of():
    found = examined('test_evaluation_health:Grows', factor=1e30)
    assert found['values']['state_norm'][-1] is None
    assert found['crossed']['state_norm']['tick'] == 0
    json.dumps(found, allow_nan=False)

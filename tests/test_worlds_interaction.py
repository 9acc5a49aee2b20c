"""The loop of policy and world, on a world one can compute by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from worldmodels import interaction, rng, worlds
from worldmodels.control.mixture import Mixture
from worldmodels.control.random import Random
from worldmodels.control.sticky import Sticky
from worldmodels.types import ActionSpace, Modality, Spec


class Counter:
    """Counts the actions since the start and pays 10 * count + action. Ends at 3; time is out at 2 if it began odd."""

    spec = Spec((('vector', Modality('vector', (2,))),), ActionSpace('discrete', 5))

    def reset(self, key):
        state = {'start': jax.random.randint(key, (), 0, 100), 'count': jnp.int32(0)}
        return state, self.observe(state)

    def step(self, state, action, key):
        count = state['count'] + 1
        state = {**state, 'count': count}
        is_terminal = count >= 3
        is_last = is_terminal | ((state['start'] % 2 == 1) & (count >= 2))
        outcomes = {'reward': (10 * count + action).astype(jnp.float32), 'discount': 1.0 - is_terminal}
        return state, self.observe(state), outcomes, is_terminal, is_last

    def observe(self, state):
        return {'vector': jnp.stack([state['start'], state['count']]).astype(jnp.float32)}

    def truth(self, state):
        return {'codes': state['start']}


@dataclasses.dataclass(frozen=True)
class Calls:
    """Acts as many as its own state counts: 0 at an opening, then 1, 2."""

    def initial(self, batch):
        return jnp.zeros((batch,), jnp.int32)

    def __call__(self, params, belief, policy_state, keys_B):
        return policy_state, policy_state + 1, {'was_first': belief.is_first}


world = worlds.lift(Counter(), 6)


def played(policy, steps, playing=None, pool_size=12):
    pool = interaction.prepare(world, jax.random.key(0), pool_size)
    playing, records = interaction.interact(world, policy, None, jax.random.key(1), steps, pool, playing)
    return playing, jax.tree.map(np.asarray, records)


def test_records_are_rlds():
    _, r = played(Calls(), 20)
    for lane in range(6):
        t = 0
        while t < 20:
            start = int(r['observation']['vector'][t, lane, 0])
            length = 3 if start % 2 else 4  # frames: two or three actions
            whole = min(length, 20 - t)
            here = slice(t, t + whole)
            assert r['observation']['vector'][here, lane, 1].tolist() == list(range(whole))
            assert (r['observation']['vector'][here, lane, 0] == start).all()
            # The row of frame k holds action k and what it paid, 10 * (k + 1) + k; the last frame's row holds nothing.
            actions = [*range(length - 1), 0]
            rewards = [*(10 * (k + 1) + k for k in range(length - 1)), 0]
            discounts = [1, 1, 0] if length == 3 else [1, 1, 0, 0]
            assert r['action'][here, lane].tolist() == actions[:whole]
            assert r['reward'][here, lane].tolist() == rewards[:whole]
            assert r['discount'][here, lane].tolist() == discounts[:whole]
            assert r['is_first'][here, lane].tolist() == [k == 0 for k in range(whole)]
            assert r['is_last'][here, lane].tolist() == [k == length - 1 for k in range(whole)]
            assert r['is_terminal'][here, lane].tolist() == [k == 3 for k in range(whole)]
            assert r['extras']['was_first'][here, lane].tolist() == [k == 0 for k in range(whole)]
            t += whole


def test_starts_come_from_the_pool():
    pool = interaction.prepare(world, jax.random.key(0), 12)
    assert pool['truth']['codes'].shape == (12,)
    _, r = played(Calls(), 40)
    starts = r['observation']['vector'][..., 0][r['is_first']]
    assert set(starts) <= set(np.asarray(pool['truth']['codes']).tolist())
    assert len(set(starts)) > 3


def test_going_on_is_the_same_as_never_having_stopped():
    _, whole = played(Sticky(Counter.spec.action), 14)
    playing, first = played(Sticky(Counter.spec.action), 7)
    _, second = played(Sticky(Counter.spec.action), 7, playing)
    jax.tree.map(lambda w, a, b: np.testing.assert_array_equal(w, np.concatenate([a, b])), whole, first, second)


def test_sticky_repeats():
    space = ActionSpace('discrete', 50)
    policy = Sticky(space, repeat=0.8)
    state, actions = policy.initial(200), []
    for t in range(11):
        action, state, _ = policy(None, None, state, rng.per_example(jax.random.key(0), t, jnp.arange(200)))
        actions.append(np.asarray(action))
    assert len(set(actions[0].tolist())) > 30  # nothing to hold on to yet
    # 0.8, and 0.2 / 50 by chance: 0.804, with a standard error of 0.009.
    assert np.mean(np.diff(np.stack(actions), axis=0) == 0) == pytest.approx(0.804, abs=0.04)


def test_mixture_gives_each_its_lanes():
    mixture = Mixture.weighted((Calls(), Random(Counter.spec.action)), (0.7, 0.3), 6)
    assert mixture.lanes == (4, 2)
    _, r = played(mixture, 20)
    np.testing.assert_array_equal(
        r['action'][:, :4], np.where(r['is_last'], 0, r['observation']['vector'][..., 1])[:, :4]
    )
    assert (r['action'][:, 4:] > 3).any()
    with pytest.raises(ValueError, match='too few'):
        Mixture.weighted((Calls(), Calls()), (0.99, 0.01), 4)

"""Whether a dream listens, what was found in frames, and the map from real actions: fitted, kept, and played, end to end."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import SPEC, config, experience

from worldmodels import rng, rollout
from worldmodels.build import build_model, init_variables
from worldmodels.control.translated import ActionMap, Recorded, Translated
from worldmodels.data.episodes import write
from worldmodels.data.pipeline import Episodes
from worldmodels.evaluation import actions, dreams
from worldmodels.types import ActionSpace, Modality, Spec

TINY = {'kind': 'latent', 'codes': 4, 'width': 16, 'heads': 2, 'hidden': 16, 'depth': 1}
CONFIG = config('tokens', 'masked', 'none', 'frame', ('transition', 'outcome'), 'departure')
B, T, CONTEXT = 4, 7, 2


@pytest.fixture(scope='module')
def trained():
    model = build_model({**CONFIG, 'action': TINY}, SPEC, 'float32')
    return model, init_variables(model, 1)


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
    """Twelve episodes of noise, with actions."""
    path = tmp_path_factory.mktemp('labelled') / 'data'
    random = np.random.default_rng(0)

    def some(count, length=8):
        for _ in range(count):
            yield {
                'observation': {'image': random.integers(0, 256, (length, 16, 16, 3)).astype(np.uint8)},
                'action': random.integers(0, 5, length).astype(np.int32),
                'reward': np.zeros(length, np.float32),
                'discount': np.ones(length, np.float32),
                'is_first': np.arange(length) == 0,
                'is_last': np.arange(length) == length - 1,
                'is_terminal': np.zeros(length, bool),
            }

    write(str(path), SPEC, {'train': some(12), 'validation': some(2)}, {'world': 'noise'})
    return Episodes(str(path), 'train')


def test_a_dream_that_does_not_listen_gains_nothing_and_one_that_does_gains_its_decibels(monkeypatch):
    windows = jax.tree.map(np.asarray, experience(B, T))
    model = types.SimpleNamespace(spec=SPEC)

    def imagined(model, variables, context, horizon, *, randomly, off):
        def dream(ticks, seed):
            true = np.asarray(ticks.observation['image'])[:, context : context + horizon].astype(np.int64)
            wrong = np.clip(true + off * (1 if true.mean() < 128 else -1), 0, 255) if randomly else true
            return dreams.Dreamed({'image': wrong.astype(np.uint8)}, {})

        return dream

    monkeypatch.setattr(dreams, 'imagined', imagined)
    deaf = actions.delta_psnr(model, None, windows, CONTEXT, off=0)
    assert deaf['image']['value'] == 0
    assert deaf['tick'] == 4
    told = actions.delta_psnr(model, None, windows, CONTEXT, batch=3, off=255)
    error = np.square(np.where(windows.observation['image'][:, CONTEXT + 3] >= 0, 1.0, 0.0)).mean()
    # Exact frames have 50 dB, as the error is floored at 1e-5; the others are off by far.
    assert 50 - 10 < told['image']['value'] <= 50
    assert error == 1
    assert told['starts'] == int(windows.is_first.shape[0]) - int(
        np.asarray(windows.is_last)[:, CONTEXT - 1 : -2].any(1).sum()
    )


def test_what_was_found_is_counted_where_the_frame_changed(trained):
    model, variables = trained
    windows = jax.tree.map(np.asarray, experience(B, T, firsts=((0, 0), (2, 3))))
    still = {k: x.copy() for k, x in windows.observation.items()}
    still['image'][1] = still['image'][1, :1]  # nothing moves in row 1
    windows = windows.replace(observation=still, is_last=np.zeros((B, T), bool))
    real, code, changed = actions.told_and_found(model, variables, windows)
    expected = np.asarray(rollout.actions_of(model, variables, windows))[:, 1:]
    np.testing.assert_array_equal(code, expected[expected >= 0])
    assert (real >= 0).all()
    assert changed.sum() == 3 * (T - 1) - 1, 'not row 1, nor the opening in row 2'
    found = actions.found(model, variables, windows, SPEC.action)
    assert sum(found['usage']) == pytest.approx(1)
    assert sum(sum(row) for _, row in found['rows']) == found['changed_ticks'] == changed.sum()
    assert 'agreement' not in actions.found(model, variables, windows, ActionSpace('discrete', 1))


def test_a_map_is_fitted_kept_and_played(trained, labelled, tmp_path):
    """From labelled steps to a dream under real actions, through a file."""
    model, variables = trained
    fitted = actions.fit_map(model, variables, labelled, 40)
    assert np.sum(fitted.counts) == 40
    fitted.save(tmp_path)
    kept = ActionMap.load(tmp_path)
    assert kept == fitted
    assert ActionMap.load(tmp_path / 'elsewhere') is None
    np.testing.assert_allclose(np.exp(kept.log_likelihood).sum(0), 1, rtol=1e-5)

    # Real action i is code i, but for the last, which is the first again.
    sure = ActionMap(SPEC.action, tuple(tuple(1000 * int(u == a % 4) for u in range(4)) for a in range(5)))
    keys_BT = rng.per_tick(rng.per_example(rng.stream(0, 'play'), 0, jnp.arange(B)), T)
    belief, _ = rollout.observe(model, variables, experience(B, T), keys_BT)
    real = jnp.asarray(np.random.default_rng(1).integers(0, 5, (B, T)), jnp.int32)
    policy = Translated(model, Recorded())
    params = {'variables': variables, 'map': sure.log_likelihood, 'policy': real}
    state = policy.initial(B)
    _, dream = rollout.imagine(
        model, variables, belief, keys_BT, policy=policy, policy_params=params, policy_state=state
    )
    np.testing.assert_array_equal(dream.action, real % 4)
    np.testing.assert_array_equal(dream.extras['action'], real)
    # It is the dream under these codes.
    _, again = rollout.imagine(model, variables, belief, keys_BT, action=real % 4)
    assert dream.observation['image'].dtype == again.observation['image'].dtype
    dreamt = dreams.played(model, variables, sure, CONTEXT, 3)(experience(B, T), 0)
    assert dreamt.observation['image'].shape == (B, 3, 16, 16, 3)


def test_maps_that_cannot_be_are_refused(trained, labelled, tmp_path):
    model, variables = trained
    given = build_model(CONFIG, SPEC, 'float32')
    with pytest.raises(ValueError, match='there is nothing to map'):
        actions.fit_map(given, None, labelled, 40)
    with pytest.raises(ValueError, match='expected 1 to 84'):
        actions.fit_map(model, variables, labelled, 1000)
    silent = types.SimpleNamespace(spec=Spec(SPEC.observation, ActionSpace('discrete', 1)), lengths=np.array([5]))
    with pytest.raises(ValueError, match='are not known'):
        actions.fit_map(model, variables, silent, 3)
    other = Spec((('image', Modality('image', (8, 8, 3))),), ActionSpace('discrete', 3))
    with pytest.raises(ValueError, match='data of the same world'):
        actions.fit_map(model, variables, types.SimpleNamespace(spec=other, lengths=np.array([5])), 3)
    (tmp_path / 'action_map.json').write_text('{"action": {}}')
    with pytest.raises(ValueError, match='delete it, and fit the map again'):
        ActionMap.load(tmp_path)

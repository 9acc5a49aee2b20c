"""Signatures of failure: each is provoked, a healthy run is quiet, and what is told is told once and after a resume too."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training_fake as fake

from worldmodels.training import checkpoint, loop, metrics, signatures
from worldmodels.training.config import default_config
from worldmodels.types import Belief


def metrics_of(context_BTMD, h):
    total = signatures.sums(jnp.asarray(context_BTMD), Belief(None, jnp.asarray(h), None), {})
    return metrics.divide(signatures.finish(total))


def test_the_rank_is_that_of_the_covariance_and_usage_the_share_that_varies():
    r = np.random.default_rng(0)
    directions = np.linalg.qr(r.normal(size=(20, 20)))[0][:3]
    x = r.normal(size=(4000, 3)) @ directions + 0.7
    x = np.concatenate([x, np.full((4000, 5), 0.3)], 1).reshape(8, 500, 5, 5).astype(np.float32)
    found = metrics_of(x, np.full((8, 6), 2.0, np.float32))
    values = np.linalg.eigvalsh(np.cov(x.reshape(4000, 25).T))
    np.testing.assert_allclose(found['signature/context_rank'], values.sum() ** 2 / (values**2).sum(), rtol=1e-2)
    np.testing.assert_allclose(found['signature/context_usage'], 20 / 25)
    np.testing.assert_allclose(found['signature/state_norm'], 2.0)
    assert found['signature/state_bytes'] == 24


def test_the_sketch_of_a_wide_context_keeps_ranks_apart():
    r = np.random.default_rng(1)
    for rank in (1, 6):
        x = (r.normal(size=(500, rank)) @ r.normal(size=(rank, 1000))).reshape(5, 100, 10, 100).astype(np.float32)
        found = metrics_of(x, np.zeros((5, 1), np.float32))['signature/context_rank']
        assert 0.6 * rank < found < 1.1 * rank
    noise = r.normal(size=(5, 100, 10, 100)).astype(np.float32)
    assert metrics_of(noise, np.zeros((5, 1), np.float32))['signature/context_rank'] > 0.8 * signatures.SKETCH


def test_constant_contexts_have_no_rank_and_no_use_whatever_their_size():
    for size in (0.0, 1.0, 1e4):
        found = metrics_of(np.full((4, 8, 2, 50), size, np.float32), np.zeros((4, 2), np.float32))
        assert found['signature/context_rank'] == found['signature/context_usage'] == 0


def test_sums_over_parts_of_a_batch_say_what_the_batch_says():
    r = np.random.default_rng(2)
    x, h = r.normal(size=(8, 6, 2, 40)).astype(np.float32), r.normal(size=(8, 7)).astype(np.float32)
    parts = [
        signatures.sums(jnp.asarray(x[i : i + 2]), Belief(None, jnp.asarray(h[i : i + 2]), None), {})
        for i in range(0, 8, 2)
    ]
    joined = metrics.divide(signatures.finish(jax.tree.map(lambda *s: sum(s), *parts)))
    whole = metrics_of(x, h)
    assert joined.keys() == whole.keys()
    np.testing.assert_allclose(list(joined.values()), list(whole.values()), rtol=1e-5)


def watch(state=None, **fields):
    config = default_config().watch
    config.update({'after': 0, 'patience': 3, 'window': 16, **fields})
    return signatures.Watch(config, state)


def told(w, name, values):
    key = signatures.NLL[0] if name == 'nll_spike' else signatures.PREFIX + name
    return [(i, c.out) for i, v in enumerate(values, 1) for c in w.look(i, {key: v}) if c.name == name]


@pytest.mark.parametrize(
    ('name', 'good', 'bad'),
    [
        ('context_rank', 5.0, 0.0),
        ('context_usage', 0.9, 0.001),
        ('state_norm', 1.0, float('inf')),
        ('state_bytes', 1e4, 2e9),
    ],
)
def test_a_crossing_is_told_once_and_once_that_it_is_over(name, good, bad):
    values = [good] * 4 + [bad] * 5 + [good, bad] + [good] * 9 + [float('nan')]
    assert told(watch(), name, values) == [(5, True), (14, False)]
    assert told(watch(after=30), name, values) == []


def test_a_spike_is_measured_against_the_running_median():
    r = np.random.default_rng(3)
    falling = list(3 * np.exp(-np.arange(300) / 60) + 0.1 * r.normal(size=300) + 1)
    assert told(watch(), 'nll_spike', falling) == []
    falling[200] += 8
    falling[201] = float('nan')
    assert told(watch(), 'nll_spike', falling) == [(201, True), (205, False)]


def test_what_is_told_goes_on_from_a_saved_state():
    values = [1.0 + 0.01 * (i % 3) for i in range(20)] + [9.0] + [1.0] * 6
    whole = told(watch(), 'nll_spike', values)
    assert whole == [(21, True), (24, False)]
    first = watch()
    cut = told(first, 'nll_spike', values[:22])
    second = watch(state=json.loads(json.dumps(first.state())))
    cut += [(i + 22, out) for i, out in told(second, 'nll_spike', values[22:])]
    assert cut == whole


def lines(workdir):
    return [json.loads(line) for line in (pathlib.Path(workdir) / metrics.FILE).read_text().splitlines()]


def test_a_healthy_run_is_quiet_and_has_its_signatures(tmp_path, capsys):
    loop.train(fake.config(**{'watch.after': 0, 'train.evaluate_every': 6}), tmp_path, fake.assemble)
    out = capsys.readouterr().out
    assert not any(meaning in out for meaning in signatures.MEANS.values())
    for prefix in ('', 'validation/'):
        last = [x for x in lines(tmp_path) if f'{prefix}loss/reward' in x][-1]
        assert last[f'{prefix}signature/context_rank'] > 1.05
        assert last[f'{prefix}signature/state_bytes'] == 4 * fake.WIDTH


def test_a_collapse_an_explosion_and_their_lines_survive_a_resume(tmp_path, capsys):
    def failing(config):
        pieces = fake.assemble(config)

        def losses(model, variables, ticks, *rest):
            out, after, found = fake.losses(model, variables, ticks, *rest)
            grown = after.replace(h=after.h * 1e4)
            return out, after, found | {signatures.SUMS: signatures.sums(jnp.ones((8, 4, 1, 3)), grown, {})}

        return loop.Pieces(**{**vars(pieces), 'losses': losses})

    for steps in (6, 12):
        loop.train(fake.config(**{'watch.after': 2, 'train.steps': steps}), tmp_path, failing)
    out = capsys.readouterr().out
    for name in ('context_rank', 'context_usage', 'state_norm'):
        assert out.count(f'step 3: {name} is') == out.count(f'{name} is') == 1
    crossed = [x for x in lines(tmp_path) if 'signature/state_norm/crossed' in x]
    assert [(x['step'], x['signature/state_norm/crossed']) for x in crossed] == [(3, 1.0)]


def test_limits_are_checked():
    from worldmodels.training.config import validate

    with pytest.raises(ValueError, match=r'config.watch.state_norm is -1.0, expected a limit'):
        validate(fake.config(**{'watch.state_norm': -1.0}))
    with pytest.raises(ValueError, match='did you mean "patience"'):
        validate(fake.config(**{'watch.patient': 3}))


def test_short_and_long_batches_compile_once_each_and_resume_to_the_bit(tmp_path, capsys):
    fields = {'data.long_length': 7, 'data.long_every': 3, 'train.steps': 8}
    loop.train(fake.config(**fields), tmp_path / 'whole', fake.assemble)
    out = capsys.readouterr().out
    assert 'batches of 8 × 4 ticks, every 3th of 7' in out
    assert 'GFLOP a step of 4 ticks' in out
    assert 'GFLOP a step of 7 ticks' in out
    for steps in (5, 8):
        loop.train(fake.config(**{**fields, 'train.steps': steps}), tmp_path / 'cut', fake.assemble)
    arrays = []
    for name in ('whole', 'cut'):
        checkpoints = checkpoint.Checkpoints(tmp_path / name)
        arrays.append(checkpoints.read_variables(8))
        checkpoints.close()
    for a, b in zip(jax.tree.leaves(arrays[0]), jax.tree.leaves(arrays[1]), strict=True):
        assert np.array_equal(a, b)
    rows = [{x['step']: x for x in lines(tmp_path / name)} for name in ('whole', 'cut')]
    assert rows[0][8] == rows[1][8]
    assert rows[0][6]['signature/state_bytes'] == 4 * fake.WIDTH  # a long one


@pytest.mark.parametrize(('long', 'every'), [(4, 3), (9, 1), (9, 0), (0, 3)])
def test_lengths_that_do_not_alternate_are_refused(long, every):
    from worldmodels.training.config import validate

    with pytest.raises(ValueError, match=r'config\.data\.long_length is'):
        validate(fake.config(**{'data.long_length': long, 'data.long_every': every}))

"""Damaged checkpoints: whatever byte of whatever file changed, nothing loads that was not saved."""

import shutil

import jax
import numpy as np
import pytest
import training_fake as fake

from worldmodels.training import checkpoint, loop, parallel, state
from worldmodels.training.optimizer import make_optimizer


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('trained')
    loop.train(fake.config(**{'train.steps': 8}), workdir, fake.assemble)
    return workdir


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / 'copy')


def files(workdir):
    return [p for p in sorted((workdir / 'checkpoints' / '8').rglob('*')) if p.is_file()]


def restored(workdir):
    """Everything that a run would go on from."""
    config, devices = fake.config(), parallel.Devices(jax.local_devices()[:1])
    variables = fake.init()
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    belief = fake.MODEL.apply(variables, 8, method='initial')
    like = state.create(variables, optimizer, config.train.parts, config.train.ema, belief)
    checkpoints = checkpoint.Checkpoints(workdir)
    try:
        got, position, metadata = checkpoints.restore(checkpoints.latest(), like, devices)
    finally:
        checkpoints.close()
    return [np.asarray(x) for x in jax.tree.leaves(got)], position, metadata


def attempt(workdir):
    """What is restored, or what is said instead."""
    try:
        return restored(workdir), ''
    except ValueError as error:
        return None, str(error)


def test_every_file_is_known_by_its_digest(trained):
    names = {p.relative_to(trained / 'checkpoints' / '8').parts[0] for p in files(trained)}
    assert names == {
        'variables', 'training', 'data', 'metadata', 'digests', '_CHECKPOINT_METADATA', 'commit_success.txt'
    }  # fmt: skip
    listing = (trained / 'checkpoints' / '8' / 'digests' / 'files.json').read_text()
    for path in files(trained):
        name = str(path.relative_to(trained / 'checkpoints' / '8'))
        if name.split('/')[0] in ('variables', 'training', 'data', 'metadata'):
            assert f'"{name}"' in listing


def test_a_flipped_byte_never_loads_as_something_else(copy, capfd):
    whole, position, metadata = restored(copy)
    random = np.random.default_rng(0)
    refused = 0
    for path in files(copy):
        before = path.read_bytes()
        for place in {0, len(before) // 2, len(before) - 1, int(random.integers(len(before)))}:
            damaged = bytearray(before)
            damaged[place] ^= 1 << int(random.integers(8))
            path.write_bytes(damaged)
            got, said = attempt(copy)
            if said:
                refused += 1
                assert f'{copy}/checkpoints/8 is damaged: delete that folder to go on from step 4' in said
                assert '\n' not in said
                with pytest.raises(ValueError, match='is damaged'):
                    checkpoint.load(copy)
                continue
            # Orbax's own notes of the step tell nothing of its content.
            assert path.name in ('_CHECKPOINT_METADATA', 'commit_success.txt', 'metadata'), path
            assert all(np.array_equal(a, b) for a, b in zip(got[0], whole))
            assert got[1:] == (position, metadata)
        path.write_bytes(before)
    assert refused > 60
    assert 'Traceback' not in capfd.readouterr().err


@pytest.mark.parametrize('change', ['truncated', 'emptied', 'deleted'])
def test_a_file_that_is_cut_or_gone_is_named(copy, change):
    for path in files(copy):
        name = str(path.relative_to(copy / 'checkpoints' / '8'))
        if not name.startswith(('variables', 'training')):
            continue
        before = path.read_bytes()
        if change == 'deleted':
            path.unlink()
        else:
            path.write_bytes(before[: len(before) // 2 if change == 'truncated' else 0])
        with pytest.raises(ValueError, match=f'is damaged: .*{name} is (missing|not as it was written)'):
            checkpoint.load(copy)
        path.write_bytes(before)


def test_the_step_before_is_still_there_once_the_damaged_one_is_deleted(copy):
    shutil.rmtree(copy / 'checkpoints' / '8')
    assert checkpoint.load(copy)[3] == 4
    loop.train(fake.config(**{'train.steps': 8}), copy, fake.assemble)
    assert checkpoint.load(copy)[3] == 8


def test_a_checkpoint_from_before_there_were_digests_loads(copy):
    shutil.rmtree(copy / 'checkpoints' / '8' / 'digests')
    assert checkpoint.load(copy)[3] == 8

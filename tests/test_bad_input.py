"""Bad configs and bad data: each is refused by the command with one sentence, before anything is written.

Runs that go wrong later are in test_bad_runs.
"""

import json
import shutil

import commands
import numpy as np
import pytest
import training_real as real

from worldmodels.data import episodes

EXPERIMENT = """
import training_real
def get_config(arg):
    return training_real.config(arg or 'masked', {path!r})
"""


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp('data') / 'noise'
    real.write_data(path)
    return path


@pytest.fixture
def train(command, tmp_path, data):
    """train(*arguments, data=...) of a small real model; the folder it wrote to must not have come to be."""

    def run(*arguments, arg='', data=data, **environment):
        experiment = tmp_path / 'experiment.py'
        experiment.write_text(EXPERIMENT.format(path=str(data)))
        before = commands.state_of(data)
        ended = command(
            'train', f'--config={experiment}:{arg}', f'--workdir={tmp_path / "run"}', *arguments, **environment
        )
        assert commands.state_of(data) == before
        assert not (tmp_path / 'run').exists()
        return ended

    return run


@pytest.mark.parametrize(
    ('word', 'says'),
    [
        # A field that does not exist, in every section.
        ('seeed=3', ['no field "seeed"', 'did you mean "seed"?']),
        ('world.nam=x', ['no field "world.nam"', '"world.name"']),
        ('data.batch_sise=3', ['no field "data.batch_sise"', '"data.batch_size"']),
        ('model.hart.patch=4', ['no field "model.hart.patch"', '"model.heart.patch"']),
        ('train.step=3', ['no field "train.step"', '"train.steps"']),
        ('train.weights.rewrad=1', ['no field "train.weights.rewrad"', '"train.weights.reward"']),
        ('optimizer.learningrate=1', ['no field "optimizer.learningrate"', '"optimizer.learning_rate"']),
        ('evaluate.start=1', ['no field "evaluate.start"', '"evaluate.starts"']),
        # A value of another type.
        ('seed=x', ["--config.seed was given 'x'", 'type int']),
        ('data.consecutive=perhaps', ["was given 'perhaps'", 'true or false']),
        ('model.heart.levels=(3,', ["was given '(3,'", 'type tuple']),
        ("model.heart={'kind': 'tokens', 'patch': 'eight'}", ["model.heart.patch is 'eight', a str", 'takes a int']),
        ('train.ema=high', ["was given 'high'", 'type float']),
        ('optimizer.b1=None', ["was given 'None'", 'type float']),
        ('train.weights.reward=nan', ['train.weights.reward is nan', 'finite']),
        ("train.weights={'reward': 'much'}", ["train.weights.reward is 'much'", 'number']),
        ('evaluate.horizon=0', ['evaluate.horizon', 'at least 1, got 0']),
        # Kinds that do not exist.
        ('model.heart.kind=token', ["model.heart.kind is 'token'", "did you mean 'tokens'?"]),
        ('model.transition.kind=mask', ["model.transition.kind is 'mask'", "'masked'"]),
        ('model.memory.kind=windo', ["model.memory.kind is 'windo'", "'window'"]),
        ('optimizer.kind=adam', ['optimizer.kind is "adam"', 'adamw']),
        ('optimizer.schedule=linear', ['optimizer.schedule is "linear"', 'cosine']),
        ('model.filter.reads=everything', ["model.filter.reads is 'everything'", 'frame, memory, prediction']),
        ('model.context_to=policy', ["model.context_to names 'policy'", 'transition']),
        ('train.parts=hart', ['train.parts names "hart"', 'heart']),
        ('train.dtype=float16', ['train.dtype is "float16"', 'bfloat16']),
        # Values out of range, and what does not fit together.
        ('data.batch_size=0', ['data.batch_size is 0', '1 or more']),
        ('data.segment_length=-4', ['data.segment_length is -4', '1 or more']),
        ('data.segment_length=100000', ['100000', 'frames']),
        ('train.steps=0', ['train.steps is 0', '1 or more']),
        ('train.ema=1', ['train.ema is 1.0', 'below 1']),
        ('seed=-1', ['seed is -1', '0']),
        ('optimizer.learning_rate=0', ['optimizer.learning_rate is 0.0', 'positive']),
        ('optimizer.learning_rate=inf', ['optimizer.learning_rate is inf', 'finite']),
        ('optimizer.b2=1.5', ['optimizer.b2 is 1.5', 'below 1']),
        ('model.heart.patch=7', ['7', '16', 'patch']),
        ('model.heart.heads=3', ['heads', '3', '8']),
        ('model.memory.length=0', ['memory', 'length', '0']),
        ('model.heart.levels=()', ['heart', 'levels']),
        ('train.init_from.path=/nowhere', ['/nowhere', 'not the workdir of a run']),
    ],
)
def test_a_bad_config_is_refused(train, word, says):
    train(f'--config.{word}').refused(*says)


def test_a_batch_is_shared_evenly(train):
    flags = '--xla_force_host_platform_device_count=3'
    train(XLA_FLAGS=flags).refused('data.batch_size is 4', 'a multiple of the 3 devices')


def test_parts_that_make_no_sense_together_are_refused(train):
    train('--config.model.filter.reads=prediction').refused("heart 'tokens' is a tokenizer", "must be 'frame'")
    train('--config.model.context_to=()').refused("leaves nothing to train the memory 'window'")


# -- data --------------------------------------------------------------------------------------------------------------


def some(count=8, length=9, change=lambda rows: None):
    """Episodes of noise; `change` has its way with the fourth."""
    r = np.random.default_rng(0)
    for i in range(count):
        rows = real.episode(r, length)
        if i == 3:
            change(rows)
        yield rows


def put(name, index, value):
    def change(rows):
        rows[name][index] = value

    return change


def write(path, change=lambda rows: None, spec=real.SPEC, **options):
    episodes.write(str(path), spec, {'train': some(change=change, **options), 'validation': some(2)}, {})
    return path


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        (put('action', 4, 3), ['Episode 3', 'has action 3 at frame 4', 'a number from 0 to 2']),
        (put('action', 0, -1), ['Episode 3', 'has action -1 at frame 0', 'a number from 0 to 2']),
        (put('reward', 2, np.nan), ['Episode 3', 'has reward nan at frame 2', 'a finite number']),
        (put('reward', 7, np.inf), ['Episode 3', 'has reward inf at frame 7', 'a finite number']),
        (put('discount', 1, 1.5), ['Episode 3', 'has discount 1.5 at frame 1', 'from 0 to 1']),
        (put('is_first', 5, True), ['Episode 3', 'is_first at its first frame and there alone']),
        (put('is_first', 0, False), ['Episode 3', 'is_first at its first frame and there alone']),
        (put('is_terminal', 2, True), ['Episode 3', 'goes on after the frame 2, which has is_terminal']),
    ],
)
def test_a_bad_record_is_never_learned_from(tmp_path, change, says):
    path = write(tmp_path / 'data', change)
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        drawn(path)
    for words in (str(path), *says, 'mend it'):
        assert words in str(raised.value)


def drawn(path):
    """All there is in a dataset, as batches."""
    from worldmodels.data import pipeline

    batches = pipeline.segments(str(path), 'train', None, 4, 5, seed=0, consecutive=True)
    return [next(batches) for _ in range(20)]


def test_lengths_that_differ_within_a_record_are_refused(tmp_path):
    path = write(tmp_path / 'data', lambda rows: rows.update(action=rows['action'][:5]))
    with pytest.raises(ValueError, match=r'Episode 3 .* has int32 \(5,\) for action, .* say int32 \(9,\)'):
        drawn(path)


def test_a_bad_record_ends_the_command_with_its_sentence(train, tmp_path):
    path = write(tmp_path / 'data', put('action', 4, 3), count=4)
    train(data=path).refused('Episode 3', 'has action 3 at frame 4', 'mend it')


def test_what_stands_in_the_last_row_does_not_matter(tmp_path):
    """RLDS: the last row's action was never taken."""
    path = write(tmp_path / 'data', put('reward', 8, np.nan))
    assert all(np.isfinite(batch.outcomes['reward']).all() for batch in drawn(path))


@pytest.mark.parametrize(
    ('damage', 'says'),
    [
        ('gone', ['There is no dataset at', '--path of launch/collect.py']),
        ('a folder of something', ['There is no dataset at']),
        ('shard gone', ['cannot be read', 'No such file', 'copy it again']),
        ('shard cut', ['cannot be read', 'damaged', 'copy it again']),
        ('byte flipped', ['cannot be read', 'hash mismatch', 'copy it again']),
        ('no spec', ["its metadata needs 'spec'", 'launch/convert.py']),
        ('spec cut', ["'spec' in its metadata that is none"]),
        ('metadata cut', ['cannot be opened', 'damaged']),
        ('features cut', ['cannot be opened', 'damaged']),
        ('info empty', ['cannot be opened', 'damaged']),
        ('lengths wrong', ['has 9 frames, where the metadata say 8']),
        ('renamed key', ["has no 'observation/picture', only", 'observation/image']),
        ('another dtype', ["'action' in the dataset", 'int32', 'its spec says float32']),
        ('another shape', ["'observation/image' in the dataset", '(None, 16, 16, 3)', 'says uint8 (None, 8, 8, 3)']),
        ('no validation', ["has no split 'validation', only train"]),
        ('too short', ['frames', '4']),
    ],
)
def test_a_damaged_dataset_is_refused(train, tmp_path, data, damage, says):
    path = shutil.copytree(data, tmp_path / 'data')
    shard = path / 'episodes-train.array_record-00000-of-00001'
    metadata = json.loads((path / 'metadata.json').read_text())
    spec = metadata['spec']
    if damage == 'gone':
        shutil.rmtree(path)
    elif damage == 'a folder of something':
        (path / 'dataset_info.json').unlink()
    elif damage == 'shard gone':
        shard.unlink()
    elif damage == 'shard cut':
        shard.write_bytes(shard.read_bytes()[:-50_000])
    elif damage == 'byte flipped':
        content = bytearray(shard.read_bytes())
        content[-65536] ^= 4  # where the index of the records begins
        shard.write_bytes(content)
    elif damage == 'features cut':
        (path / 'features.json').write_text('{"pythonClassName": ')
    elif damage == 'info empty':
        (path / 'dataset_info.json').write_text('')
    elif damage == 'no validation':
        shutil.rmtree(path)
        episodes.write(str(path), real.SPEC, {'train': some()}, {})
    elif damage == 'too short':
        shutil.rmtree(path)
        episodes.write(str(path), real.SPEC, {'train': some(1, 3), 'validation': some(1, 3)}, {})
    else:
        if damage == 'no spec':
            del metadata['spec']
        elif damage == 'spec cut':
            del spec['action']
        elif damage == 'lengths wrong':
            shutil.rmtree(path)
            write(path)
            metadata['lengths']['train'] = [8] * 8
        elif damage == 'renamed key':
            spec['observation']['picture'] = spec['observation'].pop('image')
        elif damage == 'another dtype':
            spec['action']['kind'] = 'continuous'
        elif damage == 'another shape':
            spec['observation']['image']['shape'] = [8, 8, 3]
        text = json.dumps(metadata)
        (path / 'metadata.json').write_text(text[: len(text) // 2] if damage == 'metadata cut' else text)
    train(data=path).refused(*says)


def test_an_episode_of_one_frame_is_one_like_others(tmp_path):
    def cut(rows):
        rows['is_last'][0] = True
        rows.update({k: v[:1] for k, v in rows.items() if k != 'observation'})
        rows['observation'] = {'image': rows['observation']['image'][:1]}

    batches = drawn(write(tmp_path / 'data', cut))
    firsts = np.concatenate([np.argwhere(b.is_first & b.is_last) for b in batches])
    assert len(firsts) > 0
    assert all((b.action[b.is_first] == -1).all() for b in batches)

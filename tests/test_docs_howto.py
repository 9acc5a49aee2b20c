"""The how-tos, run: the files and commands of each document, as they stand in it, in an empty folder."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from models import SPEC, config

from worldmodels import imports, worlds
from worldmodels.build import build_model, complete
from worldmodels.data.episodes import read_spec
from worldmodels.data.pipeline import Episodes
from worldmodels.evaluation.examine import Trained

ROOT = pathlib.Path(__file__).parent.parent
DOCUMENTS = sorted((ROOT / 'docs' / 'howto').glob('*.md'))
LINKED = ('launch', 'experiments', 'tests')
SLOW = 600


def files_of(document: str) -> dict[str, str]:
    """What a document tells to write, by name: a block of Python or JSON that follows the name and what leads over to it."""
    text = (ROOT / 'docs' / 'howto' / document).read_text()
    blocks = list(re.finditer(r'```(python|json)\n(.*?)```', text, re.DOTALL))
    ends = {'python': 'py', 'json': 'json'}
    return {re.findall(rf'`(\w+\.{ends[b[1]]})`', text[: b.start()])[-1]: b[2] for b in blocks}


def commands_of(document: str) -> list[str]:
    """The commands of a document, each one line of the shell."""
    text = (ROOT / 'docs' / 'howto' / document).read_text()
    script = ''.join(re.findall(r'```sh\n(.*?)```', text, re.DOTALL))
    return [line for line in re.sub(r'\\\n\s*', '', script).splitlines() if line.strip()]


def folder(path: pathlib.Path) -> pathlib.Path:
    """A folder in which commands run as they do in the repository, and in which nothing else lies."""
    for name in LINKED:
        (path / name).symlink_to(ROOT / name)
    return path


def shell(command: str, here: pathlib.Path) -> str:
    """What a command prints. It must succeed."""
    path = f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}'
    env = {**os.environ, 'PATH': path, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(
        command, shell=True, cwd=here, env=env, capture_output=True, text=True, timeout=SLOW, check=False
    )
    assert done.returncode == 0, f'{command}\n{done.stdout}\n{done.stderr}'
    return done.stdout


def follow(document: str, here: pathlib.Path) -> list[str]:
    """Does what a document says; gives what its commands print."""
    for name, text in files_of(document).items():
        (here / name).write_text(text)
    return [shell(command, here) for command in commands_of(document)]


@pytest.fixture(scope='module')
def readme(tmp_path_factory):
    """A folder after the README's first two commands, at a tiny size."""
    here = folder(tmp_path_factory.mktemp('readme'))
    shell(
        'python launch/collect.py --world=navix/DoorKey-Random-8x8 --path=runs/doorkey/data --steps=1000 '
        '--validation=20 --lanes=16',
        here,
    )
    shell(
        'python launch/train.py --config=experiments/doorkey.py:tokenizer,tiny --workdir=runs/doorkey/tokenizer', here
    )
    return here


@pytest.fixture
def written(request, tmp_path, monkeypatch):
    """The files of a document, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    files = files_of(request.param)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    yield files
    for name in files:
        sys.modules.pop(name.removesuffix('.py'), None)


def assert_trained_and_judged(workdir: pathlib.Path) -> None:
    """A run of 20 steps whose losses are numbers and whose dreams were judged."""
    rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    assert all(np.isfinite(row['loss']) for row in rows)
    assert rows[-1]['step'] == 20
    report = json.loads((workdir / 'evaluation' / 'report.json').read_text())
    assert report['worlds'][0]['role'] == 'model'


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda p: p.stem)
def test_a_howto_is_under_a_page_and_its_code_under_forty_lines(document):
    files = files_of(document.name)
    assert files, 'a how-to has code'
    code = sum(len(text.splitlines()) for text in files.values())
    assert len(document.read_text().splitlines()) - code <= 40, 'what is said and done around it is short'
    assert commands_of(document.name), 'and commands'
    for name, text in files.items():
        lines = [line for line in text.splitlines() if line.strip()]
        assert len(lines) < 40, f'{name} has {len(lines)} lines'
    assert document.read_text().count('```') == 2 * len(files) + 2, 'all of it is run'


@pytest.mark.parametrize(
    ('written', 'part', 'kind', 'fields'),
    [
        ('memory.md', 'memory', 'my_memory:Fading', {'width': 64, 'rates': (0.5, 0.9, 0.98)}),
        ('transition.md', 'transition', 'my_transition:Copying', {'width': 64, 'layers': 2}),
    ],
    indirect=['written'],
)
def test_the_part_of_a_howto_is_built_and_its_fields_can_be_set(written, part, kind, fields):
    choice = config('tokens', 'masked', 'recurrent', 'frame', ('transition', 'outcome'), 'departure')
    whole = complete({**choice, part: {'kind': kind}})
    assert whole[part] == {'kind': kind, **fields}
    locked = ml_collections.ConfigDict({'model': whole})
    locked.update_from_flattened_dict({f'model.{part}.width': 8})
    m = build_model(locked.model.to_dict(), SPEC, 'float32')
    assert getattr(m, part).width == 8
    assert isinstance(getattr(m, part), imports.load(kind, 'kind'))


@pytest.mark.slow
@pytest.mark.xdist_group('howto-parts')
@pytest.mark.parametrize(
    ('document', 'part', 'kind', 'run', 'changed'),
    [
        ('memory.md', 'memory', 'my_memory:Fading', 'fading', {'width': 32}),
        ('transition.md', 'transition', 'my_transition:Copying', 'copying', {'layers': 1}),
    ],
)
def test_a_part_is_held_to_the_contract_trained_and_judged(readme, monkeypatch, document, part, kind, run, changed):
    printed = follow(document, readme)
    assert re.search(r'[1-9]\d* passed', printed[0]), printed[0]
    assert 'failed' not in printed[0]
    workdir = readme / 'runs' / run
    kept = json.loads((workdir / 'config.json').read_text())['model'][part]
    assert kept == {**kept, 'kind': kind, **changed}
    assert_trained_and_judged(workdir)
    # Elsewhere, where its code is not, the run is refused: a checkpoint brings none along.
    (readme / 'elsewhere').mkdir(exist_ok=True)
    monkeypatch.chdir(readme / 'elsewhere')
    monkeypatch.setattr(sys, 'path', list(sys.path))
    with pytest.raises(ValueError, match=f"no module '{kind.partition(':')[0]}' is installed"):
        Trained.load(str(workdir))


@pytest.mark.slow
def test_a_dataset_is_converted_trained_on_and_judged(tmp_path):
    described, converted = follow('dataset.md', folder(tmp_path))[1:3]
    mapping = json.loads(described)
    written = json.loads(files_of('dataset.md')['my_mapping.json'])
    assert list(mapping['observation']) == ['image']
    assert mapping['reward'] == written['reward'] == 'score'
    assert 'train: 36 episodes, 1,440 frames' in converted
    page = (tmp_path / 'runs/ball/data.html').read_text()
    assert '1,440' in page
    assert 'stay' in page, 'actions by their names'
    spec = read_spec(str(tmp_path / 'runs/ball/data'))
    assert spec.modalities['image'].shape == (32, 32, 3)
    assert spec.action.names == ('left', 'stay', 'right')
    # The score came with the frame it was won at: as a tick has it, and one row earlier on disk.
    episode = Episodes(str(tmp_path / 'runs/ball/data'), 'train', spec)[0]
    at_wall = (episode['observation']['image'][:, 12, 31, 0] == 255).astype(np.float32)
    np.testing.assert_array_equal(episode['reward'][:-1], at_wall[1:])
    assert_trained_and_judged(tmp_path / 'runs/ball/model')


@pytest.mark.parametrize('written', ['world.md'], indirect=True)
def test_the_worlds_of_a_howto_pay_what_they_say(written):
    field = worlds.make('my_world:Field', 2, size=5)
    state = {
        'player': jnp.array([[1, 1], [4, 4]]),
        'food': jnp.array([[1, 2], [0, 0]]),
        'steps': jnp.zeros(2, jnp.int32),
    }
    state, observation, outcomes, is_terminal_B, is_last_B = field.step(state, jnp.array([1, 1]), jax.random.key(0))
    np.testing.assert_array_equal(outcomes['reward'], [1, 0])
    np.testing.assert_array_equal(outcomes['discount'], [0, 1])
    np.testing.assert_array_equal(is_terminal_B, [True, False])
    np.testing.assert_array_equal(is_last_B, [True, False])
    assert observation['image'].shape == (2, 40, 40, 3)
    assert (observation['image'][0, 8:16, 16:24] == 255).all(), 'player and food in one cell'
    assert (observation['image'][1, 32:, 32:] == np.array([255, 0, 0])).all(), 'the wall stops the player'
    lift = worlds.make('my_env:Lift', 2, floors=8)
    picture = lift.reset(jax.random.key(0))['image']
    assert picture.shape == (2, 32, 32, 3)
    _, outcomes, is_terminal_B, _ = lift.step(np.array([0, 2]))
    np.testing.assert_array_equal(outcomes['reward'], is_terminal_B)
    lift.close()


@pytest.mark.slow
def test_worlds_are_collected_trained_on_and_dreamed(tmp_path):
    collected, _, _, lifted = follow('world.md', folder(tmp_path))
    assert 'some are held out' in collected
    assert 'whole episodes are held out' in lifted
    spec = read_spec(str(tmp_path / 'runs/field/data'))
    assert spec.modalities['image'].shape == (40, 40, 3)
    assert spec.action.names == ('up', 'right', 'down', 'left')
    assert len(Episodes(str(tmp_path / 'runs/field/data'), 'validation', spec)) == 20
    assert_trained_and_judged(tmp_path / 'runs/field/model')
    spec = read_spec(str(tmp_path / 'runs/lift/data'))
    episodes = Episodes(str(tmp_path / 'runs/lift/data'), 'train', spec)
    assert max(len(episodes[i]['is_last']) for i in range(len(episodes))) <= 31, 'thirty actions, and the frame after'

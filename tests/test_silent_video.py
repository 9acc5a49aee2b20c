"""From a folder of videos in which nobody says what was done to a world that is played by real actions."""

import json

import commands
import foreign
import numpy as np
import pytest

SIDE, STEP = 32, 8
PUSHES = ('left', 'stay', 'right')


@pytest.fixture
def run():
    process = commands.Commands()

    def run(script, *arguments):
        done = process(script, *arguments)
        assert done.status == 0, done.stdout + done.stderr
        return done.stdout

    yield run
    process.close()


def ball(random, frames):
    """Pictures (T, 32, 32, 3) of a ball that is pushed, and the pushes (T,)."""
    place, pictures, pushes = random.integers(4), [], random.integers(3, size=frames)
    for push in pushes:
        picture = np.zeros((SIDE, SIDE, 3), np.uint8)
        picture[8:16, STEP * place : STEP * (place + 1)] = 255
        pictures.append(picture)
        place = np.clip(place + push - 1, 0, SIDE // STEP - 1)
    return np.stack(pictures), pushes


def test_a_world_learned_from_silent_video_is_played_by_real_actions(run, tmp_path):
    random = np.random.default_rng(0)
    for i in range(8):
        foreign.video(tmp_path / 'films' / f'{i}.mp4', pictures=ball(random, 24)[0])
    labelled = tmp_path / 'labelled'
    labelled.mkdir()
    for i in range(8):
        pictures, pushes = ball(random, 24)
        np.savez(labelled / f'{i}.npz', image=pictures, action=pushes)
    films = ('--set=validation=0.25', f'--set=source.size=[{SIDE},{SIDE}]')
    run('convert', f'--source=video:{tmp_path / "films"}', f'--path={tmp_path / "data"}', *films)
    mapping = {'action': {'field': 'action', 'kind': 'discrete', 'size': 3, 'names': PUSHES}}
    (tmp_path / 'mapping.json').write_text(json.dumps(mapping))
    told = tmp_path / 'told'
    run('convert', f'--source=npz:{labelled}', f'--mapping={tmp_path / "mapping.json"}', f'--path={told}')

    came_from = None
    for variant in ('tokenizer', 'actions', 'dynamics'):
        words = [f'--config=experiments/genie.py:{variant},size=tiny,codes=3', f'--workdir={tmp_path / variant}']
        words += [f'--config.data.path={tmp_path / "data"}', '--config.world.name=ball']
        words += [f'--config.train.init_from.path={came_from}'] if came_from else []
        run('train', *words)
        came_from = tmp_path / variant
    printed = run('actions', f'--workdir={came_from}', f'--data={told}', '--steps=100')
    assert all(push in printed for push in PUSHES)
    found = json.loads((came_from / 'action_map.json').read_text())
    assert np.sum(found['counts']) == 100
    run('evaluate', f'--workdir={came_from}', f'--data={told}', '--starts=4', '--horizon=4', '--context=4', '--seeds=1')
    report = json.loads((came_from / 'evaluation' / 'report.json').read_text())
    roles = {world['role'] for world in report['worlds']}
    assert {'model', 'copy', 'redrawn'} <= roles

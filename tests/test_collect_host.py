"""Collecting from worlds outside JAX: the same bytes after a kill, and nothing finished is lost when a world raises."""

import dataclasses
import json
import os
import sys

import commands
from test_collect import contents, read

from worldmodels.data import collect, episodes

ATARI = collect.Settings(
    world='atari/Breakout',
    options=(('max_steps', 60),),
    policy=(('random', 0.5), ('sticky', 0.5)),
    noise=0.0,
    steps=1100,
    validation=3,
    lanes=2,
    seed=5,
)


def test_atari_killed_and_started_again(tmp_path):
    assert (ATARI.chunks, ATARI.ticks) == (2, 275)
    killed = tmp_path / 'killed'
    settings = dataclasses.asdict(ATARI)
    program = (
        'import json, sys; from worldmodels.data import collect; given = json.loads(sys.argv[1]);'
        "given |= {k: tuple(map(tuple, given[k])) for k in ('options', 'policy')};"
        'collect.collect(sys.argv[2], collect.Settings(**given), {})'
    )
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    words = [sys.executable, '-c', program, json.dumps(settings), str(killed)]
    commands.kill_once_begun(words, killed, environment, seconds=240)

    said = []
    collect.collect(str(killed), ATARI, {}, say=said.append)
    assert said == [
        'atari/Breakout: 1 different openings among 144, too few to hold some out; instead whole episodes are held out, '
        'played with other random numbers.'
    ]
    metadata = collect.collect(str(tmp_path / 'whole'), ATARI, {})
    assert contents(killed) == contents(tmp_path / 'whole')
    assert metadata['split']['by'] == 'episodes'
    assert metadata['spec']['outcomes'] == ['reward', 'discount', 'life_lost']
    train, validation = ([e['action'].tobytes() for e in read(str(killed), s)] for s in episodes.SPLITS)
    assert len(validation) == 3
    assert not set(train) & set(validation)

"""What a trained model remembers, and how long: judged on episodes that its world plays anew at every delay.

    python launch/recall.py --workdir=runs/memory/cue/recurrent [--delays=4,8,16 --episodes=200]
    python launch/recall.py --workdir=runs/memory/cue/recurrent --anchoring [--delays=16]

The first asks for the answer at each delay; the second compares predictions with the memory intact, reset, and another
episode's. They write WORKDIR/recall/report.json and WORKDIR/anchoring/report.json.
"""

from __future__ import annotations

import pathlib

from absl import flags, logging

from launch import command
from worldmodels.training import allocator

_WORKDIR = flags.DEFINE_string('workdir', None, 'Workdir of the run to examine.', required=True)
_DELAYS = flags.DEFINE_list(
    'delays', None, 'Delays in frames. Default: 4 to 1024 (corridors: 8 to 128), doubling; of --anchoring 16.'
)
_EPISODES = flags.DEFINE_integer('episodes', 200, 'Episodes played at each delay.')
_SEED = flags.DEFINE_integer('seed', 0, 'What is played depends on it.')
_ANCHORING = flags.DEFINE_bool('anchoring', False, 'Compare memory intact, reset and swapped, at one delay.')


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)
    allocator.keep_freed_memory()
    from worldmodels.evaluation import anchoring, questions, recall
    from worldmodels.evaluation.examine import Trained

    delays = _whole(_DELAYS.value)
    if _ANCHORING.value and delays and len(delays) > 1:
        raise ValueError(f'--delays={",".join(_DELAYS.value)} with --anchoring: give one delay.')
    trained = Trained.load(_WORKDIR.value)
    if _ANCHORING.value:
        report = anchoring.run(trained, *(delays or (16,)), episodes=_EPISODES.value, seed=_SEED.value)
    else:
        say = lambda delay: print(f'delay {delay:,} judged', flush=True)
        report = recall.run(
            trained, delays or questions.delays(trained.config.world), _EPISODES.value, _SEED.value, say
        )
        report['columns']['ms_per_trained_step'] = recall.step_ms(_WORKDIR.value)
    path = pathlib.Path(_WORKDIR.value) / ('anchoring' if _ANCHORING.value else 'recall') / 'report.json'
    recall.write(report, path)
    for name, value in report['columns'].items():
        print(f'{name:32} {value:.4g}' if isinstance(value, float) else f'{name:32} {value}')
    print(path)


def _whole(words: list[str] | None) -> tuple[int, ...] | None:
    try:
        return None if words is None else tuple(int(word) for word in words)
    except ValueError:
        raise ValueError(f'--delays={",".join(words)}: give whole numbers of frames, as in --delays=4,64.') from None


if __name__ == '__main__':
    command.run(main, 'judging recall')

"""How far a trained model's dreams drift from the true world, to hundreds of ticks.

    python launch/drift.py --workdir=runs/drift/masked [--horizon=200 --starts=64 --threshold=1 --dial=temperature=0]

Writes WORKDIR/drift/report.json: wrong cells a frame at every horizon, mean and deviation over held-out trajectories.
"""

from __future__ import annotations

import pathlib

from absl import flags, logging

from launch import command
from worldmodels.training import allocator

_WORKDIR = flags.DEFINE_string('workdir', None, 'Workdir of the run to examine.', required=True)
_DATA = flags.DEFINE_string('data', '', 'Dataset; default: the one the run was trained on.')
_STARTS = flags.DEFINE_integer('starts', 64, 'Held-out trajectories.', lower_bound=1)
_CONTEXT = flags.DEFINE_integer('context', 8, 'Ticks watched before dreaming.', lower_bound=1)
_HORIZON = flags.DEFINE_integer('horizon', 200, 'Ticks dreamed.', lower_bound=1)
_THRESHOLD = flags.DEFINE_float('threshold', 1.0, 'Wrong cells a frame, on average, at which a dream has drifted.')
_DIAL = flags.DEFINE_multi_string('dial', [], 'NAME=VALUE: how the transition samples, as steps=4; repeatable.')
_SEED = flags.DEFINE_integer('seed', 0, 'Which windows and which dreams.')


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)
    allocator.keep_freed_memory()
    from worldmodels.evaluation import drift, recall, settings
    from worldmodels.evaluation.examine import Trained

    report = drift.run(
        Trained.load(_WORKDIR.value),
        data=_DATA.value,
        count=_STARTS.value,
        context=_CONTEXT.value,
        horizon=_HORIZON.value,
        threshold=_THRESHOLD.value,
        dials=settings.parse_dials(_DIAL.value),
        seed=_SEED.value,
    )
    path = pathlib.Path(_WORKDIR.value) / 'drift' / 'report.json'
    recall.write(report, path)
    for name, value in report['columns'].items():
        print(f'{name:24} {value:.4g}' if isinstance(value, float) else f'{name:24} {value}')
    print(path)


if __name__ == '__main__':
    command.run(main, 'judging drift')

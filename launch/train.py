"""Train an experiment.

    python launch/train.py --config=experiments/NAME.py:ARGS --workdir=DIR [--config.train.steps=2000 ...]

The same command on the same workdir goes on from the last checkpoint. Ctrl-C or SIGTERM saves first. Every field of the
experiment can be given on the command line as --config.SECTION.FIELD=VALUE.

Several processes, on one machine or many, with a workdir that all of them see: the same command in each, with

    --coordinator=HOST:PORT --processes=N --process=0    (to N - 1; process 0 serves HOST:PORT)

or without these where SLURM, Open MPI, a TPU pod or an indexed Kubernetes job starts them.
"""

from __future__ import annotations

import sys

from absl import flags, logging

from launch import command
from worldmodels.training import allocator, experiment, processes, supervisor

_CONFIG = flags.DEFINE_string(
    'config',
    None,
    'The experiment, a file with get_config(arg), and after ":" its argument. Its fields: --config.SECTION.FIELD=VALUE.',
    required=True,
)
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Folder of the run: config, checkpoints, metrics.jsonl, tensorboard.', required=True
)
_COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0, where there is more than one process.')
_PROCESSES = flags.DEFINE_integer('processes', None, 'How many processes train together; 1 to look for no others.')
_PROCESS = flags.DEFINE_integer('process', None, 'Which of them this is, from 0.')


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax tells every save in a dozen lines
    config, _ = experiment.load(_CONFIG.value)
    config = experiment.override(config, experiment.take(sys.argv)[1])
    place = processes.place(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)

    def train() -> None:
        from worldmodels.evaluation.settings import Settings  # after the flags are read: --help answers at once
        from worldmodels.training import loop

        Settings.of(config.get('evaluate', {}))  # not when the model is trained and to be examined
        loop.train(config, _WORKDIR.value)

    allocator.keep_freed_memory()
    if place is None:
        train()
    else:
        supervisor.run(place, _WORKDIR.value, train, lambda error: command.tell(error, 'training'))


if __name__ == '__main__':
    command.run(main, 'training', before_flags=lambda argv: experiment.take(argv)[0])

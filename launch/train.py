"""Train an experiment.

    python launch/train.py --config=experiments/NAME.py:ARGS --workdir=DIR [--config.train.steps=2000 ...]

The same command on the same workdir goes on from the last checkpoint. Ctrl-C or SIGTERM saves first. Every field of the
experiment can be given on the command line as --config.SECTION.FIELD=VALUE.
"""

from __future__ import annotations

import re
import sys
import traceback

from absl import app, flags, logging
from ml_collections import config_flags

from worldmodels.training import allocator

_CONFIG = config_flags.DEFINE_config_file(
    'config', help_string='The experiment, a file with get_config(arg), and after ":" its argument.'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run: config, checkpoints, metrics.jsonl, tensorboard.')


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f'Unexpected arguments {argv[1:]}: fields are given as --config.FIELD=VALUE.')
    logging.set_verbosity(logging.WARNING)  # Orbax tells every save in a dozen lines
    allocator.keep_freed_memory()
    from worldmodels.training import loop

    try:
        loop.train(_CONFIG.value, _WORKDIR.value)
    except (ValueError, FloatingPointError) as error:
        logging.debug('Raised here:', exc_info=True)
        sys.exit(f'error: {error}')


def parse(argv: list[str]) -> list[str]:
    """Flags; an override of a field that does not exist is one sentence and not a traceback."""
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError) as error:
        if not traceback.extract_tb(error.__traceback__)[-1].filename.endswith('config_dict.py'):
            raise  # a mistake in the experiment itself
        name = re.search(r'\w+', str(error))
        near = re.search(r'Did you mean "(\w+)"', str(error))
        hint = f'did you mean "{near[1]}"?' if near else 'its fields are in worldmodels/training/config.py.'
        sys.exit(f'error: the config has no field "{name[0] if name else ""}": {hint}')


if __name__ == '__main__':
    flags.mark_flags_as_required(['config', 'workdir'])
    app.run(main, flags_parser=parse)

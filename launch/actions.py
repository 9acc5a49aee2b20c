"""From real actions to those a model found in frames: fits the map, from a few hundred steps whose actions are known.

    python launch/actions.py --workdir=runs/genie/dynamics --data=runs/genie/data --steps=300

Writes WORKDIR/action_map.json, prints how often each real action stood with each latent one, and how far the two agree where
something changed. From then on launch/evaluate.py also plays the model under the real actions, and
`worldmodels.control.translated` does so for any policy.
"""

from __future__ import annotations

from absl import flags, logging

from launch import command

WORKDIR = flags.DEFINE_string('workdir', None, 'Workdir of the run, a model with latent actions.', required=True)
DATA = flags.DEFINE_string('data', '', 'Dataset with actions; default: the one the run was trained on.')
SPLIT = flags.DEFINE_string('split', 'train', 'Split of it.')
STEPS = flags.DEFINE_integer('steps', 300, 'Labelled steps to look at, from the first episode on.')


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)
    from rich.console import Console
    from rich.table import Table

    from worldmodels.data.pipeline import Episodes
    from worldmodels.evaluation import actions
    from worldmodels.evaluation.examine import Trained

    trained = Trained.load(WORKDIR.value)
    labelled = Episodes(DATA.value or trained.config.data.path, SPLIT.value)
    found = actions.fit_map(trained.model, trained.variables, labelled, STEPS.value)
    table = Table(
        '', *map(str, range(trained.model.actions.size)), title=f'{STEPS.value:,} steps: real and latent actions'
    )
    for i, row in enumerate(found.counts):
        table.add_row(found.space.names[i] if found.space.names else str(i), *map(str, row))
    Console().print(table)
    print(found.save(WORKDIR.value))


if __name__ == '__main__':
    command.run(main, 'fitting the map')

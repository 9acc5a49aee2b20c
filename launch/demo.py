"""From nothing to a report: collect, train a tokenizer, train two world models, examine their dreams.

    python launch/demo.py --workdir=runs/demo

Runs the commands it prints, one after the other. Each goes on where it was, so a demo that was killed is simply run again.
"""

from __future__ import annotations

import time

from absl import flags

from launch import command, stages

EXPERIMENT = 'experiments/doorkey.py'

_WORKDIR = flags.DEFINE_string('workdir', 'runs/demo', 'Where everything goes.')
_TINY = flags.DEFINE_bool('tiny', False, 'The same road in a minute with models that learn nothing, to try it out.')


def road(workdir: str, tiny: bool) -> list[tuple[str, list[str]]]:
    """What the demo does, in order: (title, command after the interpreter)."""
    data = f'{workdir}/data'
    small = ',tiny' if tiny else ''

    def train(variant: str, name: str) -> list[str]:
        command = ['launch/train.py', f'--config={EXPERIMENT}:{variant}{small}', f'--workdir={workdir}/{name}']
        command.append(f'--config.data.path={data}')
        if name != 'tokenizer':
            command.append(f'--config.train.init_from.path={workdir}/tokenizer')
        return command

    collect = ['launch/collect.py', '--world=navix/DoorKey-Random-8x8', f'--path={data}']
    if tiny:
        collect += ['--steps=2000', '--validation=40', '--lanes=16']
    evaluate = ['launch/evaluate.py', f'--workdir={workdir}/window', f'--baseline={workdir}/none', f'--out={workdir}']
    if tiny:
        evaluate += ['--starts=8', '--horizon=15', '--seeds=1']
    return [
        ('Play the world: random and scripted episodes, held-out layouts aside', collect),
        ('Stage I: a tokenizer learns what frames are made of', train('tokenizer', 'tokenizer')),
        ('A world model with a memory learns what happens', train('masked', 'window')),
        ('The same model without a memory, to compare', train('masked,memory=none', 'none')),
        ('Dream from held-out starts and judge the dreams', evaluate),
    ]


def main(argv: list[str]) -> None:
    del argv
    workdir = _WORKDIR.value.rstrip('/')
    began, laps = time.time(), []
    todo = road(workdir, _TINY.value)
    for i, (title, stage) in enumerate(todo, 1):
        try:
            laps.append((title, stages.run(stage, f'[{i}/{len(todo)}] {title}')))
        except ValueError as error:
            raise ValueError(f'{error}; `python launch/demo.py --workdir={workdir}` goes on from here.') from None
    print()
    for title, seconds in laps:
        print(f'{seconds:6.0f} s  {title}')
    print(f'{time.time() - began:6.0f} s  in all')
    print(f'\nThe report: {(stages.ROOT / workdir / "report.html")}')


if __name__ == '__main__':
    command.run(main, 'running the demo')

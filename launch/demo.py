"""From nothing to a report: collect, train a tokenizer, train two world models, examine their dreams.

    python launch/demo.py --workdir=runs/demo

Runs the commands it prints, one after the other. Each goes on where it was, so a demo that was killed is simply run again.
"""

from __future__ import annotations

import os
import pathlib
import shlex
import subprocess
import sys
import time

from absl import flags

from launch import command

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXPERIMENT = 'experiments/doorkey.py'

_WORKDIR = flags.DEFINE_string('workdir', 'runs/demo', 'Where everything goes.')
_TINY = flags.DEFINE_bool('tiny', False, 'The same road in a minute with models that learn nothing, to try it out.')


def stages(workdir: str, tiny: bool) -> list[tuple[str, list[str]]]:
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
    todo = stages(workdir, _TINY.value)
    for i, (title, stage) in enumerate(todo, 1):
        start = time.time()
        print(f'\n[{i}/{len(todo)}] {title}\n$ python {shlex.join(stage)}', flush=True)
        status = _status_of([sys.executable, *stage])
        if status:
            again = f'python launch/demo.py --workdir={workdir}'
            raise ValueError(f'stage {i} ended with status {status}; `{again}` goes on from here.')
        laps.append((title, time.time() - start))
    print()
    for title, seconds in laps:
        print(f'{seconds:6.0f} s  {title}')
    print(f'{time.time() - began:6.0f} s  in all')
    print(f'\nThe report: {(ROOT / workdir / "report.html")}')


def _status_of(stage: list[str]) -> int:
    """Run one stage. Ctrl-C reaches it too, and it may have something to save before it ends."""
    process = subprocess.Popen(stage, cwd=ROOT, env=os.environ)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise


if __name__ == '__main__':
    command.run(main, 'running the demo')

"""Curves of one run, or of several to compare, as a picture.

    python launch/curves.py --workdir=runs/demo/window [--workdir=runs/demo/none] [--only=loss,rss_mb] [--out=curves.png]

TensorBoard shows the same: tensorboard --logdir=runs.
"""

from __future__ import annotations

import os
import pathlib

from absl import flags

from launch import command

_WORKDIR = flags.DEFINE_multi_string('workdir', None, 'Workdir of a run; repeatable.', required=True)
_ONLY = flags.DEFINE_list('only', [], 'Metrics to show, by the names in metrics.jsonl and times.jsonl; default: all.')
_OUT = flags.DEFINE_string('out', '', 'The picture: .png, .svg or .pdf. Default: curves.png in the first workdir.')


def main(argv: list[str]) -> None:
    del argv
    from worldmodels.evaluation import curves

    path = pathlib.Path(_OUT.value or pathlib.Path(_WORKDIR.value[0]) / 'curves.png')
    if path.suffix not in ('.png', '.svg', '.pdf'):
        raise ValueError(f'--out={path} is no picture known here: give a name that ends in .png, .svg or .pdf.')
    above = os.path.commonpath(_WORKDIR.value) if len(_WORKDIR.value) > 1 else pathlib.Path(_WORKDIR.value[0]).parent
    runs = {os.path.relpath(workdir, above): curves.read(workdir) for workdir in _WORKDIR.value}
    shown = curves.draw(runs, path, _ONLY.value)
    print(f'{len(shown)} curves of {", ".join(runs)}: {path}')


if __name__ == '__main__':
    command.run(main, 'drawing curves')

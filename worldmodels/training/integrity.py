"""Digests of a checkpoint's files, written with it and compared before it is read.

Neither zarr's chunks nor the store they lie in have checksums of their own: of two flipped bytes in an array, one is
noticed by the decompressor and the other becomes a parameter.
"""

from __future__ import annotations

import json
import pathlib
import zlib

import orbax.checkpoint as ocp

ITEM = 'digests'
_FILE = 'files.json'
_AT_ONCE = 1 << 24


class Digests(ocp.JsonCheckpointHandler):
    """An item of the checkpoint that is written when the others are complete, before the checkpoint appears."""

    def finalize(self, directory) -> None:
        super().finalize(directory)
        folder = pathlib.Path(directory)
        step = folder.parent
        files = sorted(p for p in step.rglob('*') if p.is_file() and folder not in p.parents and p.parent != step)
        listing = {str(p.relative_to(step)): [p.stat().st_size, _digest(p)] for p in files}
        (folder / _FILE).write_text(json.dumps(listing))


@ocp.args.register_with_handler(Digests, for_save=True, for_restore=True)
class Save(ocp.args.JsonSave):
    """Nothing to give: the digests are taken of what the other items write."""

    def __init__(self):
        super().__init__({})


def verify(step: pathlib.Path) -> None:
    """Compare the files of a checkpoint with their digests; one without digests passes.

    Raises ValueError naming the first file that is missing or not as it was written.
    """
    if not (step / ITEM).is_dir():
        return
    for name, (size, digest) in json.loads((step / ITEM / _FILE).read_text()).items():
        path = step / name
        if not path.is_file():
            raise ValueError(f'{name} is missing')
        if path.stat().st_size != size or _digest(path) != digest:
            raise ValueError(f'{name} is not as it was written')


def _digest(path: pathlib.Path) -> str:
    crc = 0
    with path.open('rb') as file:
        while piece := file.read(_AT_ONCE):
            crc = zlib.crc32(piece, crc)
    return f'{crc:08x}'

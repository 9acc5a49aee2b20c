"""A folder of .npz files, one episode each, such as DreamerV3's replay writes. Arrays of objects are refused, not unpickled.

Names inside a file are the fields' names. By habit of these files an action stands with the frame it was taken at, reward
and terminal with the frame the action led to; a file may hold several episodes, told apart by is_first.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator

import numpy as np

from worldmodels.data.sources import Declared, Unreadable, folder


class Files(folder.Folder):
    """The .npz files below a folder."""

    kind = 'npz'
    stands = {'action_at': 'departure', 'outcomes_at': 'arrival', 'terminal_at': 'arrival'}  # noqa: RUF012

    def __init__(self, path: str):
        super().__init__(path, ('.npz',))
        self.declared: dict[str, Declared] = {}
        self.frames = None

    def read(self, split: str, number: int, most: int | None = None) -> Iterator[dict[str, np.ndarray]]:
        yield load(self.file(split, number), self.label(split, number))


def load(path: str, label: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file. Raises Unreadable where it is damaged or holds objects."""
    try:
        with np.load(path, allow_pickle=False) as opened:
            if not isinstance(opened, np.lib.npyio.NpzFile):
                raise ValueError('it holds one array, not named ones')
            names = opened.files
            found = {}
            for name in names:
                try:
                    found[name] = opened[name]
                except ValueError as error:
                    if 'allow_pickle' in str(error):
                        raise Unreadable(
                            f'{label}: {name!r} holds Python objects, which could run code when read, expected numbers: '
                            'write it again with a dtype of numbers.'
                        ) from None
                    raise
            return found
    except Unreadable:
        raise
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        said = ' '.join(str(error).split()) or type(error).__name__
        raise Unreadable(f'{label} is no whole .npz file ({said}): copy or write it again, or remove it.') from None

"""Folders with a file for each episode, and the splits their subfolders stand for."""

from __future__ import annotations

import hashlib
import os

SPLITS = ('train', 'training', 'validation', 'valid', 'val', 'eval', 'test')


class Folder:
    """The files of some endings below a folder, by split, in the order of their names.

    Where every file lies in a subfolder that is named as a split is, those are the splits; else there is one, 'all'.
    Raises ValueError where there is none.
    """

    def __init__(self, path: str, endings: tuple[str, ...]):
        if not os.path.isdir(path):
            raise ValueError(f'{path!r} is a file: give the folder that holds the {", ".join(endings)} files.')
        self.path = path
        names = sorted(
            os.path.relpath(os.path.join(folder, name), path)
            for folder, _, files in os.walk(path)
            for name in files
            if name.lower().endswith(endings) and not name.startswith('.')
        )
        if not names:
            raise ValueError(f'There is no {" or ".join(endings)} file in {path!r} or below it: give another folder.')
        tops = {name.partition(os.sep)[0] if os.sep in name else '' for name in names}
        self._files: dict[str, list[str]] = {}
        for name in names:
            split = name.partition(os.sep)[0] if tops <= set(SPLITS) else 'all'
            self._files.setdefault(split, []).append(name)
        self.splits = {split: len(files) for split, files in self._files.items()}
        self.nbytes = sum(os.path.getsize(os.path.join(path, name)) for name in names)

    def label(self, split: str, number: int) -> str:
        return self._files[split][number]

    def file(self, split: str, number: int) -> str:
        return os.path.join(self.path, self.label(split, number))

    def identity(self) -> str:
        hashed = hashlib.blake2b(digest_size=8)
        for files in self._files.values():
            for name in files:
                hashed.update(f'{name} {os.path.getsize(os.path.join(self.path, name))}\n'.encode())
        return hashed.hexdigest()

"""A folder of videos, decoded by FFmpeg (PyAV), with what was done beside each or without.

Frames are the field 'image', resized while they are decoded. A file of the same name and another ending, .npz, .csv or .jsonl,
holds rows for the frames (as many, or one less): actions, rewards and the like. A video longer than `frames` is several
episodes, so that it never has to lie in memory whole.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from worldmodels.data.sources import Declared, Unreadable, folder, npz

ENDINGS = ('.mp4', '.webm', '.gif', '.avi', '.mkv', '.mov', '.m4v', '.mpg', '.mpeg')
SIDECARS = ('.npz', '.csv', '.jsonl')


class Files(folder.Folder):
    """The videos below a folder.

    size    (height, width) of a frame
    fps     frames a second that are kept, 0 for all
    frames  of an episode at most
    """

    kind = 'video'
    stands = {'action_at': 'departure', 'outcomes_at': 'departure', 'terminal_at': 'departure'}  # noqa: RUF012

    def __init__(self, path: str, size: tuple[int, int] = (64, 64), fps: float = 0.0, frames: int = 1024):
        super().__init__(path, ENDINGS)
        numbers = isinstance(size, (list, tuple)) and all(isinstance(n, int) and n > 0 for n in size)
        if not numbers or len(size) != 2:
            raise ValueError(f'source.size is {size!r}, expected two positive numbers, height and width.')
        if isinstance(fps, bool) or not isinstance(fps, (int, float)) or fps < 0:
            raise ValueError(f'source.fps is {fps!r}, expected frames per second, or 0 for all that there are.')
        if isinstance(frames, bool) or not isinstance(frames, int) or frames < 2:
            raise ValueError(f'source.frames is {frames!r}, expected the frames of an episode at most, 2 or more.')
        self._size, self._fps, self._most = tuple(size), float(fps), frames
        self.declared: dict[str, Declared] = {}
        self._with_rows = self._all_or_none()
        if self._with_rows and fps:
            raise ValueError(
                f'source.fps is {fps}, and {self._with_rows} holds rows for every frame: actions between the frames kept '
                'would be lost; give source.fps=0.'
            )
        self.frames = self._count()

    def read(self, split: str, number: int, most: int | None = None) -> Iterator[dict[str, np.ndarray]]:
        label = self.label(split, number)
        rows = _rows(self.file(split, number), label) if self._with_rows else {}
        start, piece = 0, []
        for frame in self._frames(self.file(split, number), label):
            if len(piece) == self._most:
                yield {'image': np.stack(piece), **_cut(rows, start, start + len(piece))}
                start, piece = start + len(piece), []
            piece.append(frame)
            if most and len(piece) >= most:
                break
        if not piece and not start:
            raise Unreadable(f'{label} holds no frame: remove it, or make it again.')
        # What is left of the rows goes along, so that a file with too many of them is noticed.
        yield {'image': np.stack(piece), **_cut(rows, start, start + len(piece) if most else None)}

    def _frames(self, file: str, label: str) -> Iterator[np.ndarray]:
        """(H, W, 3) uint8 of each frame that is kept: the first one at or after each tick of the asked rate."""
        av = _av()
        height, width = self._size
        try:
            with av.open(file) as opened:
                if not opened.streams.video:
                    raise Unreadable(f'{label} has no video stream: remove it.')
                stream = opened.streams.video[0]
                stream.thread_type = 'AUTO'
                due, began = 0, None
                for frame in opened.decode(stream):
                    if self._fps and frame.time is not None:
                        began = frame.time if began is None else began
                        if (frame.time - began) * self._fps < due - 1e-3:
                            continue
                        due += 1
                    yield frame.to_ndarray(format='rgb24', width=width, height=height, interpolation='AREA')
        except av.error.FFmpegError as error:
            raise Unreadable(f'{label} cannot be decoded ({error}): convert it with ffmpeg, or remove it.') from None

    def _all_or_none(self) -> str:
        """A file of rows, '' where no video has one. Raises ValueError where some have."""
        found: dict[bool, str] = {}
        for split, files in self._files.items():
            for number, name in enumerate(files):
                found[bool(_beside(self.file(split, number)))] = name
        if len(found) == 2:
            raise ValueError(
                f'{found[True]!r} has a file of rows beside it and {found[False]!r} has none, expected all or none: '
                f'add the missing {", ".join(SIDECARS)}, or move them into folders of their own.'
            )
        return found.get(True, '')

    def _count(self) -> int | None:
        """Frames as the files' heads tell them, without decoding; None where one does not tell."""
        av = _av()
        total = 0
        for split, files in self._files.items():
            for number in range(len(files)):
                try:
                    with av.open(self.file(split, number)) as opened:
                        stream = opened.streams.video[0]
                        seconds = float(stream.duration * stream.time_base) if stream.duration else 0.0
                        total += round(seconds * self._fps) if self._fps else stream.frames
                        if not (seconds if self._fps else stream.frames):
                            return None
                except (av.error.FFmpegError, IndexError):
                    return None
        return total


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ValueError(f"Videos need PyAV, which is not here ({error}): pip install -e '.[data]'") from None
    return av


def _beside(file: str) -> str | None:
    stem = os.path.splitext(file)[0]
    return next((stem + ending for ending in SIDECARS if os.path.exists(stem + ending)), None)


def _cut(rows: dict[str, np.ndarray], start: int, stop: int | None) -> dict[str, np.ndarray]:
    return {name: values[start:stop] for name, values in rows.items()}


def _rows(file: str, label: str) -> dict[str, np.ndarray]:
    path = _beside(file)
    name = os.path.join(os.path.dirname(label), os.path.basename(path))
    if path.endswith('.npz'):
        return {key: values for key, values in npz.load(path, name).items() if values.ndim}
    try:
        with open(path, newline='', encoding='utf-8') as opened:
            if path.endswith('.csv'):
                lines = list(csv.DictReader(opened, strict=True))
            else:
                lines = [json.loads(line) for line in opened if line.strip()]
        return {key: np.array([_number(line[key]) for line in lines]) for key in (lines[0] if lines else ())}
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise Unreadable(
            f'{name} does not hold a row of numbers for every frame ({type(error).__name__}: {error}): mend it.'
        ) from None


def _number(value: Any) -> Any:
    if isinstance(value, str):
        return {'true': 1.0, 'false': 0.0}[value.lower()] if value.lower() in ('true', 'false') else float(value)
    if not isinstance(value, (int, float, list)):
        raise ValueError(f'{value!r} is no number')
    return value

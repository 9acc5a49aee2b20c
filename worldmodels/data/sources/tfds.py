"""A TFDS dataset directory, RLDS with its nested steps or flat, in ArrayRecord or TFRecord files, read without TensorFlow.

Records hold one episode each: under 'steps' as RLDS nests them (https://github.com/google-research/rlds), or flat, with a row
per frame in every field. Names of fields are without 'steps/'.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from worldmodels.data.sources import Declared, Unreadable, numbers

OURS = 'tensorflow_datasets.core.features.'


class Files:
    """The episodes of a TFDS dataset."""

    kind = 'tfds'
    stands = {'action_at': 'departure', 'outcomes_at': 'departure', 'terminal_at': 'arrival'}  # noqa: RUF012

    def __init__(self, path: str):
        self.path = path
        self._info = os.path.join(path, 'dataset_info.json')
        described = os.path.join(path, 'features.json')
        for file in (self._info, described):
            if not os.path.exists(file):
                below = sorted(f for f, _, names in os.walk(path) if 'dataset_info.json' in names)
                hint = f'did you mean {below[0]!r}?' if below else 'give the folder of one config and version.'
                raise ValueError(f'{path!r} has no {os.path.basename(file)}, so it is no TFDS dataset: {hint}')
        with open(described) as file:
            foreign = [name for name in _classes(json.load(file)) if not str(name).startswith(OURS)]
        if foreign:  # TFDS would import its module
            raise ValueError(f"{path!r} needs the feature class {foreign[0]!r}, expected TFDS's own: {OURS}...")
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(path)
        self._features = builder.info.features
        form = builder.info.file_format.value
        if form not in ('array_record', 'tfrecord'):
            raise ValueError(
                f'{path!r} is stored as {form}, expected array_record or tfrecord: convert it with TFDS '
                '(scripts.cli convert_format).'
            )
        self._records: dict[str, Any] = {}
        for split, info in builder.info.splits.items():
            if form == 'array_record':
                self._records[split] = builder.as_data_source(split=split)
            else:
                self._records[split] = _TFRecords([str(file) for file in info.filepaths], self._features)
        self.splits = {split: len(records) for split, records in self._records.items() if len(records)}
        self.nbytes = sum(os.path.getsize(os.path.join(path, name)) for name in os.listdir(path))
        self.frames = None
        self.declared = dict(_declared('', self._features))

    def label(self, split: str, number: int) -> str:
        return f'{split} record {number}'

    def identity(self) -> str:
        with open(self._info, 'rb') as file:
            return hashlib.blake2b(file.read(), digest_size=8).hexdigest()

    def read(self, split: str, number: int, most: int | None = None) -> Iterator[dict[str, np.ndarray]]:
        try:
            record = self._records[split][number]
            steps = record.get('steps')
            rows = numbers({k: v for k, v in record.items() if k != 'steps'})
            if steps is None or isinstance(steps, dict):
                yield rows | numbers(steps or {})
                return
            # A row of the record, such as its file's name, is no row of the episode: only the steps count.
            count = min(len(steps), most or len(steps))
            flat = [numbers(steps[i]) for i in range(count)]
            yield {name: np.stack([row[name] for row in flat]) for name in (flat[0] if flat else ())}
        except (OSError, ValueError, IndexError, KeyError, TypeError, RuntimeError, NotImplementedError) as error:
            said = ' '.join(str(error).split())[:300] or type(error).__name__
            raise Unreadable(
                f'{self.label(split, number)} cannot be read ({said}): copy the dataset again, or leave the record out.'
            ) from None


def _classes(described: Any) -> Iterator[Any]:
    """The names of all feature classes in a features.json."""
    if isinstance(described, dict):
        for key, value in described.items():
            if key in ('pythonClassName', 'python_class_name'):  # JSON of a protobuf message may have either
                yield value
            else:
                yield from _classes(value)
    elif isinstance(described, list):
        for value in described:
            yield from _classes(value)


class _TFRecords:
    """Random access to the records of TFRecord files: a length (8 bytes), its checksum (4), the record, its checksum (4)."""

    def __init__(self, files: list[str], features: Any):
        self._features, self._places = features, []
        for file in files:
            place, end = 0, os.path.getsize(file)
            with open(file, 'rb') as opened:
                while place < end:
                    opened.seek(place)
                    head = opened.read(8)
                    length = struct.unpack('<Q', head)[0] if len(head) == 8 else end
                    if place + 16 + length > end:
                        raise ValueError(
                            f'{file!r} breaks off in the midst of a record at byte {place}: copy it again.'
                        )
                    self._places.append((file, place + 12, length))
                    place += 16 + length

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Any:
        file, place, length = self._places[index]
        with open(file, 'rb') as opened:
            opened.seek(place)
            return self._features.deserialize_example_np(opened.read(length))


def _declared(name: str, feature: Any) -> Iterator[tuple[str, Declared]]:
    inner = getattr(feature, 'feature', feature)  # of a Dataset or Sequence
    if hasattr(inner, 'items'):
        for key, part in inner.items():
            below = f'{name}/{key}' if name else key
            yield from _declared('' if below == 'steps' else below, part)
    elif getattr(inner, 'num_classes', None):
        names = tuple(inner.names or ())
        yield name, Declared(inner.num_classes, names=() if names == tuple(map(str, range(len(names)))) else names)

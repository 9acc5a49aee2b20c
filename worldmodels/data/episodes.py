r"""Episodes on disk: one flat TFDS record each, in RLDS form, and the conversion to a model's ticks.

$$(o_t, a_t, r_t) \text{ on disk} \quad\to\quad (o_t, a_{t-1}, r_{t-1}) \text{ in a tick}$$

RLDS is Ramos et al.'s (2021, arXiv 2111.02767).

An episode of L frames is a dict of arrays with L rows: observation/<modality>, action, the spec's outcomes (reward,
discount, costs), is_first, is_last, is_terminal. Row t holds o_t, the action taken there, and what it paid. The last
row's action and outcomes stand for nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from typing import Any

import numpy as np

from worldmodels.types import Spec, Ticks

FLAGS = ('is_first', 'is_last', 'is_terminal')
SPLITS = ('train', 'validation')
SHARD_BYTES = 512 << 20  # of records, before compression, in a file; a longer record has a file of its own


def to_ticks(episode: dict[str, Any], spec: Spec, start: int = 0, stop: int | None = None) -> dict[str, Any]:
    """Rows start..stop of an episode in tick form: the fields of `Ticks` that have a row per frame.

    A tick holds the action that LED to its frame and what that paid: row t takes them from row t-1, an opening has the
    null action, no cost, discount 1. This is the only place where the two forms meet.
    """
    stop = len(episode['is_first']) if stop is None else stop
    # The frame before the first one asked for belongs to it: its action led there.
    before = slice(start - 1, stop - 1) if start else slice(0, stop - 1)

    def shifted(values: np.ndarray, first) -> np.ndarray:
        return np.asarray(values[before]) if start else np.concatenate([np.asarray(first)[None], values[before]])

    action = shifted(episode['action'], spec.action.null())
    outcomes = {name: shifted(episode[name], np.float32(name == 'discount')) for name in spec.outcomes}
    return {
        'observation': {name: episode['observation'][name][start:stop] for name in spec.modalities},
        'action': action.astype(spec.action.dtype),
        'outcomes': {name: values.astype(np.float32) for name, values in outcomes.items()},
        **{flag: episode[flag][start:stop] for flag in FLAGS},
    }


def as_ticks(rows: list[dict[str, Any]], continues_B: np.ndarray, example_B: np.ndarray) -> Ticks:
    """A batch from one dict of `to_ticks` (or several joined) per row."""
    import jax

    return Ticks(**jax.tree.map(lambda *x: np.stack(x), *rows), continues_B=continues_B, example_B=example_B)


def flat(tree: Any, prefix: str = '') -> dict[str, Any]:
    """The leaves of nested dicts and tuples by path, 'observation/image'."""
    if isinstance(tree, tuple):
        tree = {str(i): part for i, part in enumerate(tree)}
    if not hasattr(tree, 'items'):
        return {prefix: tree}
    return {k: v for name, sub in tree.items() for k, v in flat(sub, f'{prefix}/{name}' if prefix else name).items()}


def features(spec: Spec) -> Any:
    """The TFDS features of a spec's episodes."""
    import tensorflow_datasets as tfds

    def rows(shape: tuple[int, ...], dtype: str, encoding: str = 'none'):
        return tfds.features.Tensor(shape=(None, *shape), dtype=np.dtype(dtype), encoding=encoding)

    return tfds.features.FeaturesDict(
        {
            # Bytes: the default encoding writes images as lists of integers, twenty times slower.
            'observation': {name: rows(m.shape, m.dtype, 'bytes') for name, m in spec.observation},
            'action': rows(spec.action.shape, spec.action.dtype),
            **{name: rows((), 'float32') for name in spec.outcomes},
            **{name: rows((), 'bool') for name in FLAGS},
        }
    )


def frame_bytes(spec: Spec) -> int:
    """Bytes of one frame before compression."""
    observation = sum(int(np.prod(m.shape)) * np.dtype(m.dtype).itemsize for m in spec.modalities.values())
    return observation + 4 * max(1, int(np.prod(spec.action.shape))) + 4 * len(spec.outcomes) + len(FLAGS)


def write(directory: str, spec: Spec, splits: dict[str, Iterable[dict]], metadata: dict[str, Any]) -> None:
    """Writes episodes, in the order given, as the TFDS dataset `directory`, which appears at once and whole.

    One episode is held in memory at a time. `metadata` (JSON) is kept beside them together with the spec and the
    episodes' lengths. What a run killed half-way left in `directory + '.building'` is thrown away by the next.

    Raises ValueError for a split without episodes.
    """
    import tensorflow_datasets as tfds

    building = directory + '.building'
    shutil.rmtree(building, ignore_errors=True)
    os.makedirs(building)
    lengths: dict[str, list[int]] = {}
    # TFDS's own builders keep all records in memory up to 1 GB, to shuffle them, and need TensorFlow from there on.
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity('episodes', tfds.core.Version('1.0.0'), building, __name__),
        description='Episodes played in a world, one record each, in RLDS form.',
        features=features(spec),
        metadata=tfds.core.MetadataDict({**metadata, 'spec': spec.to_json(), 'lengths': lengths}),
        disable_shuffling=True,  # readers shuffle by index
    )
    info.set_file_format('array_record')
    kept = [_write_split(info, split, episodes, lengths.setdefault(split, [])) for split, episodes in splits.items()]
    info.set_splits(tfds.core.SplitDict(kept))
    info.write_to_directory(building)
    os.makedirs(os.path.dirname(os.path.abspath(directory)), exist_ok=True)
    os.rename(building, directory)


def _write_split(info: Any, split: str, episodes: Iterable[dict], lengths: list[int]) -> Any:
    """Write a split's files, each closed at SHARD_BYTES, note the episodes' lengths, and return its `SplitInfo`."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    serializer = ExampleSerializer(info.features.get_serialized_info())
    template = tfds.core.ShardedFileTemplate(
        data_dir=info.data_dir, dataset_name=info.name, split=split, filetype_suffix='array_record'
    )
    shards: list[int] = []
    total = room = 0
    writer = None
    for episode in episodes:
        # Sorted: left to itself protobuf gives the fields in the order that its map has in this process.
        record = serializer.get_tf_example(info.features.encode_example(episode)).SerializeToString(deterministic=True)
        if writer is None or len(record) > room:
            if writer is not None:
                writer.close()
            writer = ArrayRecordWriter(os.path.join(info.data_dir, f'{split}-{len(shards)}'), 'group_size:1')
            room = SHARD_BYTES
            shards.append(0)
        writer.write(record)
        lengths.append(len(episode['is_first']))
        shards[-1] += 1
        room -= len(record)
        total += len(record)
    if writer is None:
        raise ValueError(f"No episodes were given for the split '{split}': leave it out, or give at least one.")
    writer.close()
    for number in range(len(shards)):  # their names tell how many there are
        whole = template.sharded_filepath(shard_index=number, num_shards=len(shards))
        os.rename(os.path.join(info.data_dir, f'{split}-{number}'), whole)
    return tfds.core.SplitInfo(name=split, shard_lengths=shards, num_bytes=total, filename_template=template)


def read_metadata(path: str) -> dict[str, Any]:
    """What was kept beside the data: spec, lengths, settings, versions, git commit.

    Raises ValueError where there is no dataset, or one that cannot be opened or has no spec.
    """
    return dict(open_dataset(path).info.metadata)


def open_dataset(path: str) -> Any:
    """The TFDS builder of a dataset whose metadata hold a spec. Raises ValueError as `read_metadata`."""
    import tensorflow_datasets as tfds

    path = os.path.expanduser(path)
    if not os.path.exists(os.path.join(path, 'dataset_info.json')):
        raise ValueError(f'There is no dataset at {path!r}: give the --path of launch/collect.py or launch/convert.py.')
    try:
        builder = tfds.builder_from_directory(path)
        metadata = dict(builder.info.metadata or {})
        for split in builder.info.splits.values():
            split.filepaths  # noqa: B018  (the names of its files are said by a template, which may be damaged too)
    except Exception as error:  # each of its files breaks in its own way
        raise ValueError(
            f'The dataset at {path!r} cannot be opened ({reason(error)}): one of its json files is damaged; copy it '
            'again or make it anew.'
        ) from error
    if 'spec' not in metadata:
        raise ValueError(
            f"The dataset at {path!r} does not say what it holds: its metadata needs 'spec'; launch/convert.py makes "
            'a dataset of it that has one.'
        )
    try:
        Spec.from_json(metadata['spec'])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"The dataset at {path!r} has a 'spec' in its metadata that is none ({reason(error)}): write it by "
            'Spec.to_json.'
        ) from error
    return builder


def splits(path: str) -> list[str]:
    """The names of a dataset's splits."""
    return list(open_dataset(path).info.splits)


def reason(error: BaseException) -> str:
    """An error of somebody else's in a few words of one line."""
    return f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'


def read_spec(path: str) -> Spec:
    """The spec of the world a dataset was played in."""
    return Spec.from_json(read_metadata(path)['spec'])

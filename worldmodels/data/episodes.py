r"""Episodes on disk: one flat TFDS record each, in RLDS form, and the conversion to a model's ticks.

$$(o_t, a_t, r_t) \text{ on disk} \quad\to\quad (o_t, a_{t-1}, r_{t-1}) \text{ in a tick}$$

RLDS is Ramos et al.'s (2021, arXiv 2111.02767).

An episode of L frames is a dict of arrays with L rows: observation/<modality>, action, the spec's outcomes (reward,
discount, costs), is_first, is_last, is_terminal. Row t holds o_t, the action taken there, and what it paid. The last
row's action and outcomes stand for nothing.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np

from worldmodels.types import Spec, Ticks

FLAGS = ('is_first', 'is_last', 'is_terminal')
SPLITS = ('train', 'validation')


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

    `metadata` (JSON) is kept beside it together with the spec and the episodes' lengths. What a run killed half-way
    left in `directory + '.building'` is thrown away by the next.
    """
    import tensorflow_datasets as tfds

    lengths: dict[str, list[int]] = {}
    kept = tfds.core.MetadataDict()

    def noted(split: str, episodes: Iterable[dict]) -> Iterator[tuple[int, dict]]:
        lengths[split] = []
        for i, episode in enumerate(episodes):
            lengths[split].append(len(episode['is_first']))
            yield i, episode

    class Episodes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Episodes played in a world."""

        VERSION = tfds.core.Version('1.0.0')
        name = 'episodes'
        url_infos: ClassVar[
            dict
        ] = {}  # nothing is downloaded; left to itself TFDS 4.9.10 looks for a file of checksums

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                description='Episodes played in a world, one record each, in RLDS form.',
                features=features(spec),
                metadata=kept,
                disable_shuffling=True,  # readers shuffle by index
            )

        def _split_generators(self, dl_manager):
            return {split: noted(split, episodes) for split, episodes in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError('splits are given as generators')

    building = directory + '.building'
    shutil.rmtree(building, ignore_errors=True)
    builder = Episodes(data_dir=building, file_format='array_record')
    kept.update({**metadata, 'spec': spec.to_json(), 'lengths': lengths})
    tfds.disable_progress_bar()  # it knows no total, and would write into the caller's own
    with contextlib.redirect_stdout(io.StringIO()), _same_bytes_every_time():
        builder.download_and_prepare()
    os.makedirs(os.path.dirname(os.path.abspath(directory)), exist_ok=True)
    os.rename(builder.data_path, directory)
    shutil.rmtree(building, ignore_errors=True)


@contextlib.contextmanager
def _same_bytes_every_time():
    """TFDS 4.9.10 writes a record's fields in the order protobuf's map has in this process; here they are sorted."""
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    usual = ExampleSerializer.serialize_example
    ExampleSerializer.serialize_example = lambda self, example: self.get_tf_example(example).SerializeToString(
        deterministic=True
    )
    try:
        yield
    finally:
        ExampleSerializer.serialize_example = usual


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

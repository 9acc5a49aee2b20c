"""What an experiment is made of, once its config has been understood, and the checks that cost no compute."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import traceback
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from worldmodels import types
from worldmodels.training import step


@dataclasses.dataclass(frozen=True)
class Pieces:
    """What an experiment is made of, once its config has been understood.

    init      () -> variables
    shapes    () -> their shapes
    losses    see `step.LossFunction`
    batches   (split, consecutive, process, processes) -> iterator of Ticks, the rows of one process of so many, with
              get_state and set_state; the state is the same in all of them
    dataset   identifies the data: a run does not go on with others
    """

    spec: types.Spec
    model: Any
    init: Callable[[], dict]
    shapes: Callable[[], dict]
    losses: step.LossFunction
    batches: Callable[[str, bool, int, int], Iterator[types.Ticks]]
    dataset: str


def assemble(config: ml_collections.ConfigDict) -> Pieces:
    """The pieces a config names. Raises ValueError when it names what does not exist or does not fit together."""
    from worldmodels import build
    from worldmodels.data import episodes, pipeline
    from worldmodels.training.losses import losses

    path = config.data.path
    metadata = episodes.read_metadata(path)
    spec = types.Spec.from_json(metadata['spec'])
    model = build.build_model(
        config.model.to_dict(),
        spec,
        None if config.train.dtype == 'auto' else config.train.dtype,
    )

    longer = {'long_length': config.data.long_length, 'long_every': config.data.long_every}

    def batches(split: str, consecutive: bool, process: int, processes: int) -> Iterator[types.Ticks]:
        return pipeline.segments(
            path,
            split,
            spec,
            config.data.batch_size,
            config.data.segment_length,
            seed=config.seed,
            consecutive=consecutive,
            forget=config.data.forget if split == 'train' else 0.0,
            cache_bytes=config.data.cache_mb << 20,
            process_index=process,
            process_count=processes,
            **(longer if split == 'train' else {}),
        )

    digest = f'{zlib.crc32(json.dumps(metadata, sort_keys=True).encode()):08x}'
    init, shapes = lambda: build.init_variables(model, config.seed), lambda: build.abstract_variables(model)
    return Pieces(spec, model, init, shapes, losses, batches, digest)


def traced(trace: Callable[[], Any]) -> Any:
    """What a trace returns. Raises ValueError where the parts of a model do not go together, whatever they raise."""
    try:
        return trace()
    except Exception as error:
        raised = traceback.extract_tb(error.__traceback__)[-1].filename
        if (
            isinstance(error, (ValueError, MemoryError))
            and pathlib.Path(__file__).parents[1] in pathlib.Path(raised).parents
        ):
            raise
        said = ' '.join(str(error).split())[:300]
        raise ValueError(
            f'The model of this config cannot be traced ({type(error).__name__}: {said}): its sizes do not fit together, '
            'or a part of it is at fault; --debug shows where.'
        ) from error


def check_room(like: Any) -> None:
    """Raises ValueError when the state alone, of these shapes, is more than the memory of a device."""
    stats = jax.local_devices()[0].memory_stats() or {}
    room = stats.get('bytes_limit') or os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    needed = types.nbytes(like)
    if needed > room:
        raise ValueError(
            f'Parameters and optimizer take {needed / 1e9:,.0f} GB, and there are {room / 1e9:,.0f} GB on a device: '
            'make config.model smaller.'
        )


def abstract_ticks(spec: types.Spec, batch: int, length: int) -> types.Ticks:
    """The shapes of a batch (B, T, ...) of a world."""

    def array(dtype, *shape):
        return jax.ShapeDtypeStruct((batch, *shape), dtype)

    flag = array(np.bool_, length)
    return types.Ticks(
        observation={k: array(m.dtype, length, *m.shape) for k, m in spec.observation},
        action=array(spec.action.dtype, length, *spec.action.shape),
        outcomes={k: array(np.float32, length) for k in spec.outcomes},
        is_first=flag,
        is_last=flag,
        is_terminal=flag,
        continues_B=array(np.bool_),
        example_B=array(np.int32),
    )

"""Checkpoints: atomic, asynchronous, complete, readable on any number of devices and without running anybody's code.

    WORKDIR/config.json        the experiment's fields, written before step 0
    WORKDIR/spec.json          the world's observation, actions and outcomes
    WORKDIR/fingerprint.json   what a run must share with the one in the workdir to go on with it
    WORKDIR/checkpoints/STEP   Orbax: variables, training, data, metadata, and the digest of each of their files

Arrays are stored by path with no device axis; the carried belief is (B, ...). Orbax refuses arrays without elements, so
these are left out and made anew when restoring. The files' digests are compared before anything is read: Orbax itself
does not notice a byte that changed inside an array.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from worldmodels import build
from worldmodels.data import making
from worldmodels.training import config as config_lib
from worldmodels.training import integrity, processes
from worldmodels.training.parallel import Devices
from worldmodels.training.state import TrainState
from worldmodels.types import PyTree, Spec

FOLDER = 'checkpoints'
_VARIABLES = ('params', 'constants', 'slow_params')


def _tells_of_the_disk(method: Callable) -> Callable:
    """What the system said of a write that failed is an OSError again: tensorstore's own kind of error hides it."""

    @functools.wraps(method)
    def wrapped(self, *args: Any) -> None:
        try:
            method(self, *args)
        except Exception as error:
            found = re.search(r"os_error_code='?(\d+)", str(error))
            if isinstance(error, OSError) or not found:
                raise
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(self.folder)) from error

    return wrapped


class Checkpoints:
    """The checkpoints of one workdir, saved in the background while training goes on."""

    def __init__(self, workdir: str | os.PathLike, keep: int = 2):
        self.folder = pathlib.Path(workdir).absolute() / FOLDER
        self._manager = ocp.CheckpointManager(
            self.folder,
            item_handlers={
                'variables': ocp.StandardCheckpointHandler(),
                'training': ocp.StandardCheckpointHandler(),
                'data': ocp.JsonCheckpointHandler(),
                'metadata': ocp.JsonCheckpointHandler(),
                integrity.ITEM: integrity.Digests(),  # last: it digests what the others have written
            },
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True),
        )

    def latest(self) -> int | None:
        """The last step saved completely; None when there is none."""
        return self._manager.latest_step()

    @_tells_of_the_disk
    def save(self, state: TrainState, position: Any, metadata: dict) -> None:
        """Start saving a placed state and the data iterator's position. Returns once the arrays are copied.

        Raises whatever the previous save failed with.
        """
        step = int(state.step)
        variables, training = _parts(state)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                variables=ocp.args.StandardSave(_nested(variables)),
                training=ocp.args.StandardSave(_nested(training)),
                data=ocp.args.JsonSave({'position': _encode(position)}),
                metadata=ocp.args.JsonSave(metadata),
                **{integrity.ITEM: integrity.Save()},
            ),
        )

    def restore(self, step: int, like: TrainState, devices: Devices) -> tuple[TrainState, Any, dict]:
        """A placed state, the data position and the metadata of a step.

        Args:
          like: a state, or its shapes, as this run would have made it, belief leaves (B, ...). Constants have the
            shapes they were fitted with, whatever those of `like` are.

        Raises:
          ValueError: the checkpoint cannot be read, or does not hold what `like` needs.
        """
        self._guarded(step, lambda: integrity.verify(self.folder / str(step)))
        variables, training = _parts(like.replace(constants={}))
        stored = _flat_shapes(self._metadata(step, 'variables'))
        variables.update({k: v for k, v in stored.items() if k.startswith('constants.')})
        arrays = {}
        for item, wanted in (('variables', variables), ('training', training)):
            _check_same(self.folder / str(step), wanted, _flat_shapes(self._metadata(step, item)))
            arrays.update(self._read(step, item, wanted, {k: _lies(k, devices) for k in wanted}))
        data, metadata = self._json(step, 'data'), self._json(step, 'metadata')
        constants = _nested({k.removeprefix('constants.'): v for k, v in arrays.items() if k.startswith('constants.')})
        state = _refill(like.replace(constants={}), arrays, devices).replace(constants=constants)
        return state, _decode(data['position']), metadata

    def read_variables(self, step: int) -> dict[str, dict]:
        """{'params', 'constants', 'slow_params'} of a step as nested dicts, empty where there is nothing."""
        self._guarded(step, lambda: integrity.verify(self.folder / str(step)))
        shapes = _flat_shapes(self._metadata(step, 'variables'))
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        arrays = self._read(step, 'variables', shapes, dict.fromkeys(shapes, here))
        return {**{name: {} for name in _VARIABLES}, **_nested(arrays)}

    @_tells_of_the_disk
    def wait(self) -> None:
        """Until everything saved is on disk. Raises what a save failed with."""
        self._manager.wait_until_finished()

    @_tells_of_the_disk
    def close(self) -> None:
        self._manager.close()

    def _metadata(self, step: int, item: str) -> PyTree:
        return self._guarded(step, lambda: self._manager.item_metadata(step)[item].tree)

    def _json(self, step: int, item: str) -> Any:
        args = ocp.args.Composite(**{item: ocp.args.JsonRestore()})
        return self._guarded(step, lambda: self._manager.restore(step, args=args)[item])

    def _read(self, step: int, item: str, shapes: dict, shardings: dict) -> dict[str, jax.Array]:
        target = {k: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=shardings[k]) for k, s in shapes.items()}
        args = ocp.args.Composite(**{item: ocp.args.StandardRestore(_nested(target))})
        return _flat(self._guarded(step, lambda: self._manager.restore(step, args=args)[item]))

    def _guarded(self, step: int, read: Callable) -> Any:
        try:
            return read()
        except Exception as error:  # Orbax, tensorstore and json each raise kinds of their own
            if processes.is_lost(error):
                raise  # it is not the files
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            others = [s for s in self._manager.all_steps() if s != step]
            hint = f'go on from step {max(others)}' if others else 'start anew'
            raise ValueError(
                f'The checkpoint {self.folder / str(step)} is damaged: delete that folder to {hint} ({reason}).'
            ) from error


# -- the workdir -------------------------------------------------------------------------------------------------------


def write_config(
    workdir: str | os.PathLike, config: ml_collections.ConfigDict, spec: Spec, fingerprint: dict[str, Any]
) -> None:
    """Write config.json, spec.json and fingerprint.json, after checking that they may go on from what is there.

    Raises:
      ValueError: the workdir holds a run whose model, data, optimizer or seed differ; the message names the fields.
    """
    workdir = pathlib.Path(workdir)
    if (workdir / 'fingerprint.json').exists():
        now, before = fingerprint, _read_json(workdir / 'fingerprint.json')
        before = {**_since(before, config.model.to_dict()), **before}
        differ = sorted(k for k in {*now, *before} if now.get(k) != before.get(k))
        if differ:
            fields = ', '.join(
                f'{k} ({before.get(k, "absent")} there, {now.get(k, "absent")} here)' for k in differ[:6]
            )
            more = f' and {len(differ) - 6} more' if len(differ) > 6 else ''
            raise ValueError(
                f'{workdir} holds a run of another experiment, differing in {fields}{more}: '
                'give a new --workdir, or the config of that run to go on with it.'
            )
    workdir.mkdir(parents=True, exist_ok=True)
    _write(workdir / 'config.json', config_lib.to_json(config))
    _write(workdir / 'spec.json', _text(spec.to_json()))
    _write(workdir / 'fingerprint.json', _text(fingerprint))


def _since(before: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Fields that parts of a model have gained since a fingerprint was written, as they are unless told otherwise.

    What a new field says unless told otherwise is what was so without it.
    """
    new = [k for k in config_lib.dotted({'model': model}) if k not in before and not k.endswith('.kind')]
    if not new or 'model.transition.kind' not in before:
        return {}
    for name in new:
        *sections, field = name.split('.')[1:]
        section = functools.reduce(dict.__getitem__, sections, model)
        section.pop(field)
    told = config_lib.dotted({'model': build.complete(model)})
    return {name: told[name] for name in new if name in told}


def await_config(workdir: str | os.PathLike, fingerprint: dict[str, Any]) -> None:
    """Wait until this process sees what the first one wrote. Raises ValueError when it does not."""
    processes.see(pathlib.Path(workdir) / 'fingerprint.json', _text(fingerprint) + '\n')


def load(workdir: str | os.PathLike) -> tuple[ml_collections.ConfigDict, Spec, dict, int]:
    """(config, spec, variables, step) of the last checkpoint in a workdir, the slow parameters where they were kept.

    Nothing in the workdir is executed: the model is built from the config by `worldmodels.build`.

    Raises:
      ValueError: there is no checkpoint, or it cannot be read.
    """
    config, spec = read_config(workdir)
    checkpoints = Checkpoints(workdir)
    try:
        step = checkpoints.latest()
        if step is None:
            raise ValueError(f'{workdir} holds no checkpoint: train it first, with --workdir={workdir}.')
        stored = checkpoints.read_variables(step)
    finally:
        checkpoints.close()
    variables = {'params': {**stored['params'], **stored['slow_params']}, 'constants': stored['constants']}
    return config, Spec.from_json(spec), variables, step


def init_from(variables: dict, path: str, parts: tuple[str, ...]) -> dict:
    """`variables` with the named parts, parameters and constants, taken from the run in the workdir `path`.

    Args:
      parts: names of parts; empty for all that run has.

    Raises:
      ValueError: that run lacks a part, or its shapes differ.
    """
    _, _, other, _ = load(path)
    parts = parts or tuple(other['params'])
    params, constants = dict(variables['params']), dict(variables.get('constants', {}))
    for part in parts:
        if part not in other['params'] and part not in other['constants']:
            raise ValueError(
                f'config.train.init_from.parts names "{part}", but {path} has {", ".join(other["params"])}.'
            )
        if part in other['params']:
            wanted = {k: v for k, v in _flat({part: params.get(part, {})}).items() if v.size}
            _check_same(path, wanted, _flat({part: other['params'][part]}))
            # Arrays without elements are not stored, so the tree keeps its own.
            params[part] = _merge(params[part], other['params'][part])
        if part in other['constants']:
            constants[part] = other['constants'][part]
    return {'params': params, 'constants': constants}


def versions() -> dict[str, str]:
    """What a checkpoint says of the software that wrote it."""
    return {
        'git_commit': making.git('rev-parse', 'HEAD') or 'unknown',
        'python': sys.version.split()[0],
        **{m: __import__(m).__version__ for m in ('jax', 'flax', 'optax', 'numpy')},
    }


def read_config(workdir: str | os.PathLike) -> tuple[ml_collections.ConfigDict, dict]:
    """The config and the spec (JSON) in a workdir. Raises ValueError where there are none, or they are damaged."""
    workdir = pathlib.Path(workdir)
    config = config_lib.from_json(json.dumps(_read_json(workdir / 'config.json')))
    return config, _read_json(workdir / 'spec.json')


def _read_json(path: pathlib.Path) -> dict:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ValueError(f'{path.parent} is not the workdir of a run: it has no {path.name}.') from error
    except ValueError as error:
        raise ValueError(f'{path} is damaged: {error}.') from error


def _text(x: Any) -> str:
    return json.dumps(x, indent=2, sort_keys=True)


def _write(path: pathlib.Path, text: str) -> None:
    part = path.with_name(path.name + '.part')
    part.write_text(text + '\n')
    part.replace(path)


# -- trees <-> dotted names --------------------------------------------------------------------------------------------


def _flat(tree: PyTree) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path, simple=True, separator='.'): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def _nested(flat: dict[str, Any]) -> dict:
    return flax.traverse_util.unflatten_dict(flat, sep='.')


def _merge(old: dict, new: dict) -> dict:
    return _nested({**_flat(old), **_flat(new)})


def _flat_shapes(tree: PyTree) -> dict[str, jax.ShapeDtypeStruct]:
    return {k: jax.ShapeDtypeStruct(tuple(m.shape), m.dtype) for k, m in _flat(tree).items()}


def _parts(state: TrainState) -> tuple[dict[str, Any], dict[str, Any]]:
    """All arrays with elements by name: those of the model, and the rest."""
    flat = {k: v for k, v in _flat(state).items() if v.size}
    ours = {k: v for k, v in flat.items() if k.split('.')[0] in _VARIABLES}
    return ours, {k: v for k, v in flat.items() if k not in ours}


def _refill(like: PyTree, arrays: dict[str, jax.Array], devices: Devices) -> PyTree:
    def leaf(name, x):
        return arrays[name] if x.size else jax.device_put(jnp.zeros(x.shape, x.dtype), _lies(name, devices))

    leaves = [leaf(name, x) for name, x in _flat(like).items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _lies(name: str, devices: Devices) -> jax.sharding.Sharding:
    return devices.by_row if name.startswith('belief.') else devices.everywhere


def _check_same(where: Any, wanted: dict, stored: dict) -> None:
    def shape(x):
        return 'absent' if x is None else f'{jnp.dtype(x.dtype).name}{tuple(x.shape)}'

    differ = sorted(k for k in {*wanted, *stored} if shape(wanted.get(k)) != shape(stored.get(k)))
    if differ:
        k = differ[0]
        raise ValueError(
            f'{where} does not fit this model in {len(differ)} arrays: {k} is {shape(stored.get(k))} there, '
            f'{shape(wanted.get(k))} here. Use the config and the code version of that run.'
        )


def _encode(x: Any) -> Any:
    if isinstance(x, bytes):
        return {'__bytes__': base64.b64encode(x).decode()}
    if isinstance(x, dict):
        return {str(k): _encode(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [_encode(v) for v in x]
    return x.item() if isinstance(x, np.generic) else x


def _decode(x: Any) -> Any:
    if isinstance(x, dict):
        return base64.b64decode(x['__bytes__']) if '__bytes__' in x else {k: _decode(v) for k, v in x.items()}
    return [_decode(v) for v in x] if isinstance(x, list) else x

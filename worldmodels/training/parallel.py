"""Devices: the only file that knows how many there are.

Data parallelism by `jax.pmap` over the per-device step. Parameters and optimizer have no device axis (in_axes None:
every device holds all of them); the rows of the batch and of the carried belief are dealt out in contiguous blocks. One
device takes the same path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from worldmodels.training.allocator import return_freed_memory
from worldmodels.training.state import TrainState
from worldmodels.types import PyTree

AXIS = 'devices'


class Devices:
    """The local devices, and how arrays lie on them."""

    def __init__(self, devices: list[jax.Device] | None = None):
        self.devices = devices or jax.local_devices()
        mesh = Mesh(np.array(self.devices), (AXIS,))
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        self.by_row = NamedSharding(mesh, PartitionSpec(AXIS))

    @property
    def count(self) -> int:
        return len(self.devices)

    def __str__(self) -> str:
        return f'{self.count} × {self.devices[0].device_kind}'

    def check_batch(self, batch_size: int) -> None:
        """Raise ValueError when a batch cannot be dealt out evenly."""
        if batch_size % self.count:
            raise ValueError(
                f'config.data.batch_size is {batch_size}, expected a multiple of the {self.count} devices here.'
            )

    def shard(self, tree: PyTree) -> PyTree:
        """Host arrays (B, ...) -> device arrays (devices, B / devices, ...)."""

        def put(x):
            x = np.asarray(x)
            self.check_batch(x.shape[0])
            return jax.device_put(x.reshape(self.count, x.shape[0] // self.count, *x.shape[1:]), self.by_row)

        return jax.tree.map(put, tree)

    def abstract(self, tree: PyTree) -> PyTree:
        """The shapes `shard` would give arrays of these shapes (B, ...)."""

        def shape(x):
            return jax.ShapeDtypeStruct(
                (self.count, x.shape[0] // self.count, *x.shape[1:]), x.dtype, sharding=self.by_row
            )

        return jax.tree.map(shape, tree)

    def replicate(self, tree: PyTree) -> PyTree:
        """The same arrays on every device, in memory of their own."""
        # Through the host: a device_put may share memory with its source, which a donated step would then destroy.
        return jax.tree.map(lambda x: jax.device_put(np.array(x), self.everywhere), tree)

    def place(self, state: TrainState) -> TrainState:
        """A state with belief leaves (B, ...) -> the state as the compiled step takes it."""
        belief = state.belief
        return self.replicate(state.replace(belief=None)).replace(belief=None if belief is None else self.shard(belief))

    def split(self, tree: PyTree) -> PyTree:
        """Arrays (B, ...) that lie by rows -> (devices, B / devices, ...), nothing moving between devices."""
        return jax.tree.map(lambda x: self._relabel(x, lambda s: (1, *s), (self.count, -1)), tree)

    def join(self, tree: PyTree) -> PyTree:
        """Arrays (devices, B / devices, ...) -> (B, ...) lying by rows, nothing moving between devices."""
        return jax.tree.map(lambda x: self._relabel(x, lambda s: s[1:], None), tree)

    def _relabel(self, x: jax.Array, shape_of: Callable, lead: tuple | None) -> jax.Array:
        pieces = [s.data.reshape(shape_of(s.data.shape)) for s in x.addressable_shards]
        rows = x.shape[0] * x.shape[1] if lead is None else x.shape[0] // self.count
        shape = (rows, *x.shape[2:]) if lead is None else (self.count, rows, *x.shape[1:])
        return jax.make_array_from_single_device_arrays(shape, self.by_row, pieces)


class Compiled:
    """A step compiled once for given shapes. Calling it with others raises ValueError: nothing recompiles unseen.

    jaxpr            of one device's step
    traces           how often the step's Python has run: 1
    memory_bytes     expected on one device while it runs; 0 where the backend does not tell
    text             the compiled program, as XLA writes it
    """

    def __init__(
        self, name: str, step: Callable, devices: Devices, in_axes: tuple, out_axes: Any, donate: tuple[int, ...]
    ):
        self.name, self.devices = name, devices
        self.traces, self.jaxpr, self.memory_bytes = 0, None, 0
        self._step, self._in_axes, self._out_axes = step, in_axes, out_axes
        self._pmap = jax.pmap(
            self._traced,
            axis_name=AXIS,
            in_axes=in_axes,
            out_axes=out_axes,
            donate_argnums=donate,
            devices=devices.devices,
        )
        self._call = None

    # Arrays without elements do not cross into the program: they crash the compiler of jax 0.11 (a segmentation fault in
    # Shardy's ManualComputationUnusedInputsPattern). They are made anew on the other side, by their place among the leaves.

    def _traced(self, *args):
        self.traces += 1
        # Made by the program: a constant array would be turned into one of its inputs.
        empty = {i: jnp.zeros(x.shape, x.dtype) for i, x in self._empty_in.items()}
        args = _with_empty(args, self._arguments, empty)
        self.jaxpr, out = jax.make_jaxpr(self._step, return_shape=True)(*args)
        leaves = jaxpr_as_fun(self.jaxpr)(*jax.tree.leaves(args))
        self._results = jax.tree.structure(out)
        axes = _leaf_axes(self._out_axes, out)
        lead = lambda axis: () if axis is None else (self.devices.count,)
        lies = lambda axis: self.devices.everywhere if axis is None else self.devices.by_row
        self._empty_out = {
            i: (np.zeros((*lead(axis), *x.shape), x.dtype), lies(axis))
            for i, (x, axis) in enumerate(zip(leaves, axes))
            if not x.size
        }
        return _without_empty(jax.tree.unflatten(self._results, leaves))

    def compile(self, *args: PyTree) -> Compiled:
        """Compile for the shapes of `args`; nothing is run."""
        self._arguments = jax.tree.structure(args)
        axes = _leaf_axes(self._in_axes, args)
        self._empty_in = {
            i: jax.ShapeDtypeStruct(x.shape if axis is None else x.shape[1:], x.dtype)
            for i, (x, axis) in enumerate(zip(jax.tree.leaves(args), axes))
            if not x.size
        }
        compiled = self._pmap.lower(*_without_empty(args)).compile()
        self._empty_out = {i: jax.device_put(*x) for i, x in self._empty_out.items()}
        self._call = compiled
        return_freed_memory()
        memory = compiled.memory_analysis()
        if memory is not None:
            new = memory.output_size_in_bytes - memory.alias_size_in_bytes
            self.memory_bytes = memory.argument_size_in_bytes + new + memory.temp_size_in_bytes
        return self

    @property
    def text(self) -> str:
        return self._call.as_text()

    def __call__(self, *args: PyTree) -> PyTree:
        try:
            out = self._call(*_without_empty(args))
        except TypeError as error:
            raise ValueError(
                f'The {self.name} step was compiled for other shapes, and does not compile twice: {error}'
            ) from error
        if self.devices.count > 1 and self.devices.devices[0].platform == 'cpu':
            # Collective programs queued on fake CPU devices deadlock, their threads waiting for each other (jax 0.10).
            jax.block_until_ready(out)
        return _with_empty(out, self._results, self._empty_out)


def _without_empty(tree: PyTree) -> PyTree:
    """None in place of arrays without elements."""
    return jax.tree.map(lambda x: x if x.size else None, tree)


def _with_empty(tree: PyTree, structure: Any, empty: dict[int, Any]) -> PyTree:
    """A tree as it was before `_without_empty`: `empty` holds what was taken out, by its place among the leaves."""
    rest = iter(jax.tree.leaves(tree))
    leaves = [empty[i] if i in empty else next(rest) for i in range(structure.num_leaves)]
    return jax.tree.unflatten(structure, leaves)


def _leaf_axes(axes: PyTree, tree: PyTree) -> list[int | None]:
    """The axis of every leaf of a tree, from a prefix of it."""
    out: list[int | None] = []
    note = lambda axis, part: out.extend([axis] * len(jax.tree.leaves(part)))
    jax.tree.map(note, axes, tree, is_leaf=lambda x: x is None)
    return out


def train(step: Callable, devices: Devices) -> Compiled:
    """step(state, ticks) -> (state, metrics) of one device, made for all of them. The state's buffers are donated."""
    state = TrainState(
        step=None,
        params=None,
        constants=None,
        opt_state=None,
        slow_params=None,
        belief=0,
        skipped=None,
        skipped_in_a_row=None,
    )
    return Compiled('training', step, devices, (state, 0), (state, None), donate=(0,))


def validate(step: Callable, devices: Devices) -> Compiled:
    """step(variables, ticks) -> metrics of one device, made for all of them."""
    return Compiled('validation', step, devices, (None, 0), None, donate=())

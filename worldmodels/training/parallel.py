"""Devices: the only file that knows how many there are, and in how many processes.

Data parallelism over all devices of all processes: every device runs the per-device step on its own rows of the batch
and of the carried belief, which are dealt out in contiguous blocks; parameters and optimizer are everywhere. Arrays are
global, (B, ...), wherever their rows lie. One device takes the same path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.extend.core import jaxpr_as_fun
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from worldmodels.training.allocator import return_freed_memory
from worldmodels.training.state import TrainState
from worldmodels.types import PyTree

AXIS = 'devices'
EVERYWHERE, BY_ROW = PartitionSpec(), PartitionSpec(AXIS)
VOTE = 'vote'


class Devices:
    """The devices of all processes, and how arrays lie on them."""

    def __init__(self, devices: list[jax.Device] | None = None):
        # By process, so that the rows a process reads are the rows its devices take.
        self.devices = sorted(devices or jax.devices(), key=lambda d: (d.process_index, d.id))
        self.process = jax.process_index()
        here = [d.process_index == self.process for d in self.devices]
        self.processes, self.here = len({d.process_index for d in self.devices}), sum(here)
        self.mesh = Mesh(np.array(self.devices), (AXIS,))
        self.everywhere = NamedSharding(self.mesh, EVERYWHERE)
        self.by_row = NamedSharding(self.mesh, BY_ROW)
        self._votes: dict[int, jax.Array] = {}

    @property
    def count(self) -> int:
        return len(self.devices)

    def __str__(self) -> str:
        where = f' in {self.processes} processes' if self.processes > 1 else ''
        return f'{self.count} × {self.devices[0].device_kind}{where}'

    def check_batch(self, batch_size: int) -> None:
        """Raise ValueError when a batch cannot be dealt out evenly."""
        if batch_size % self.count:
            raise ValueError(
                f'config.data.batch_size is {batch_size}, expected a multiple of the {self.count} devices here.'
            )
        if self.here * self.processes != self.count:
            raise ValueError(
                f'Process {self.process} has {self.here} of {self.count} devices in {self.processes} processes: start '
                'each with as many devices as the others.'
            )

    def shard(self, tree: PyTree) -> PyTree:
        """The rows this process has read (B / processes, ...) -> arrays (B, ...) lying by rows."""

        def put(x):
            x = np.asarray(x)
            self.check_batch(x.shape[0] * self.processes)
            if self.processes == 1:
                return jax.device_put(x, self.by_row)
            return jax.make_array_from_process_local_data(self.by_row, x)

        return jax.tree.map(put, tree)

    def abstract(self, tree: PyTree) -> PyTree:
        """Shapes (B, ...) of arrays lying by rows."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.by_row), tree)

    def place(self, state: TrainState) -> TrainState:
        """A state as every process has made it -> as the compiled step takes it, in memory of its own."""
        if self.processes > 1:
            # Processes on unlike machines may differ in the last bit, and nothing would ever even that out.
            state = multihost_utils.broadcast_one_to_all(state)
        lies = jax.tree.map(lambda _: self.everywhere, state)
        lies = lies.replace(belief=jax.tree.map(lambda _: self.by_row, state.belief))
        return jax.tree.map(self.put, state, lies)

    def put(self, x: Any, lies: NamedSharding) -> jax.Array:
        """An array known as a whole in every process, laid out over their devices."""
        # Through the host: a device_put may share memory with its source, which a donated step would then destroy.
        x = np.array(x)
        if self.processes == 1:
            return jax.device_put(x, lies)
        return jax.make_array_from_callback(x.shape, lies, lambda index: x[index])

    def vote(self, number: int) -> tuple[jax.Array, ...]:
        """What a process adds to a training step for all to hear of the step after it: nothing where it is alone."""
        if self.processes == 1:
            return ()
        if number not in self._votes:  # kept on the device: no transfer in any step
            self._votes[number] = self.shard(np.full(self.here, number, np.int32))
        return (self._votes[number],)


class Compiled:
    """A step compiled once for given shapes. Calling it with others raises ValueError: nothing recompiles unseen.

    jaxpr            of one device's step
    traces           how often the step's Python has run: 1
    memory_bytes     expected on one device while it runs; 0 where the backend does not tell
    text             the compiled program, as XLA writes it
    """

    def __init__(self, name: str, step: Callable, devices: Devices, takes: tuple, gives: Any, donate: tuple[int, ...]):
        self.name, self.devices = name, devices
        self.traces, self.jaxpr, self.memory_bytes = 0, None, 0
        self._step, self._takes, self._gives = step, takes, gives
        # Unchecked: that what lies everywhere is the same everywhere follows from the sums the step makes itself.
        mapped = jax.shard_map(self._traced, mesh=devices.mesh, in_specs=takes, out_specs=gives, check_vma=False)
        self._jit = jax.jit(mapped, donate_argnums=donate)
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
        self._empty_out = {
            i: (np.zeros(self._whole(x.shape, spec), x.dtype), NamedSharding(self.devices.mesh, spec))
            for i, (x, spec) in enumerate(zip(leaves, _leaf_specs(self._gives, out)))
            if not x.size
        }
        return _without_empty(jax.tree.unflatten(self._results, leaves))

    def compile(self, *args: PyTree) -> Compiled:
        """Compile for the shapes of `args`; nothing is run."""
        self._arguments = jax.tree.structure(args)
        self._empty_in = {
            i: jax.ShapeDtypeStruct(self._part(x.shape, spec), x.dtype)
            for i, (x, spec) in enumerate(zip(jax.tree.leaves(args), _leaf_specs(self._takes, args)))
            if not x.size
        }
        compiled = self._jit.lower(*_without_empty(args)).compile()
        self._empty_out = {i: self.devices.put(*x) for i, x in self._empty_out.items()}
        self._call = compiled
        return_freed_memory()
        memory = compiled.memory_analysis()
        if memory is not None:
            new = memory.output_size_in_bytes - memory.alias_size_in_bytes
            self.memory_bytes = memory.argument_size_in_bytes + new + memory.temp_size_in_bytes
        return self

    def _part(self, shape: tuple[int, ...], spec: PartitionSpec) -> tuple[int, ...]:
        """The shape one device sees of an array."""
        return (shape[0] // self.devices.count, *shape[1:]) if spec == BY_ROW else shape

    def _whole(self, shape: tuple[int, ...], spec: PartitionSpec) -> tuple[int, ...]:
        return (shape[0] * self.devices.count, *shape[1:]) if spec == BY_ROW else shape

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
            # Collective programs queued on CPU devices deadlock, their threads waiting for each other (jax 0.10).
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


def _leaf_specs(specs: PyTree, tree: PyTree) -> list[PartitionSpec]:
    """How every leaf of a tree lies, from a prefix of it."""
    out: list[PartitionSpec] = []
    note = lambda spec, part: out.extend([spec] * len(jax.tree.leaves(part)))
    jax.tree.map(note, specs, tree, is_leaf=lambda x: isinstance(x, PartitionSpec))
    return out


def train(step: Callable, devices: Devices) -> Compiled:
    """step(state, ticks) -> (state, metrics) of one device, made for all of them. The state's buffers are donated.

    Where processes share the work it also takes the vote of each (`Devices.vote`); the greatest is `metrics[VOTE]`.
    """
    state = TrainState(
        step=EVERYWHERE,
        params=EVERYWHERE,
        constants=EVERYWHERE,
        opt_state=EVERYWHERE,
        slow_params=EVERYWHERE,
        belief=BY_ROW,
        skipped=EVERYWHERE,
        skipped_in_a_row=EVERYWHERE,
    )
    gives = (state, EVERYWHERE)
    if devices.processes == 1:
        return Compiled('training', step, devices, (state, BY_ROW), gives, donate=(0,))

    def voted(state, ticks, vote_D):
        state, metrics = step(state, ticks)
        return state, {**metrics, VOTE: jax.lax.pmax(vote_D.max(), AXIS)}

    return Compiled('training', voted, devices, (state, BY_ROW, BY_ROW), gives, donate=(0,))


def validate(step: Callable, devices: Devices) -> Compiled:
    """step(variables, ticks) -> metrics of one device, made for all of them."""
    return Compiled('validation', step, devices, (EVERYWHERE, BY_ROW), EVERYWHERE, donate=())

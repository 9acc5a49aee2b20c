"""Several memories together: what each shows, where it stands among the slots, and nested configs."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from flax.core import FrozenDict
from models import SPEC, config

from worldmodels import rng
from worldmodels.build import build_model, complete
from worldmodels.memory.base import Memory
from worldmodels.memory.stack import Stack
from worldmodels.nn import initializers
from worldmodels.training import config as config_lib
from worldmodels.training import experiment
from worldmodels.transition.masked import Masked
from worldmodels.types import Latent, Layout

B, T, N, D = 2, 5, 4, 6
NEAR = {'kind': 'window', 'length': 2, 'width': 8, 'depth': 1, 'heads': 2, 'hidden': 8}
FAR = {'kind': 'recurrent', 'deter': 8, 'hidden': 4, 'blocks': 2}
CHOICE = ('palette', 'masked', 'stack', 'frame', ('transition',), 'departure')
WIRING = {'classes': 3, 'layout': Layout(((2, 2),)), 'table': True, 'dtype': 'float32'}
RESET_BT = np.zeros((B, T), bool)
RESET_BT[1, 3] = True


def chosen(parts, **fields) -> dict:
    return {**config(*CHOICE), 'memory': {'kind': 'stack', 'parts': parts, **fields}}


def stack_of(parts, tokens: int = N) -> Stack:
    """The memory that a config builds, for frames of N tokens."""
    memory = build_model(chosen(parts, width=D), SPEC, 'float32').memory
    assert memory.layout.tokens == tokens
    return memory


def experience():
    keys = jax.random.split(jax.random.key(0), 3)
    index = jax.random.randint(keys[0], (B, T, N), 0, 3)
    return Latent(index, jax.random.normal(keys[1], (B, T, N, 6))), jax.random.normal(keys[2], (B, T, 5))


@pytest.fixture(scope='module')
def setting():
    memory = stack_of({'near': NEAR, 'far': FAR})
    z, action = experience()
    variables = jax.jit(lambda: memory.init(jax.random.key(1), None, z, action, RESET_BT, method='sequence'))()
    return memory, variables, *jax.jit(lambda: memory.apply(variables, None, z, action, RESET_BT, method='sequence'))()


def test_each_part_remembers_as_it_does_alone_and_tokens_keep_their_slots(setting):
    memory, variables, h, context = setting
    z, action = experience()
    assert memory.slots == N + 1
    assert context.shape == (B, T, N + 1, D)
    for name, slots in (('near', slice(0, N)), ('far', slice(N, None))):
        own = {'params': variables['params'][f'parts_{name}']}
        run = jax.jit(lambda p, v: p.apply(v, None, z, action, RESET_BT, method='sequence'), static_argnums=0)
        alone_h, alone = run(memory.parts[name], own)
        shown = alone @ variables['params'][f'show_{name}']['kernel']
        np.testing.assert_allclose(context[:, :, slots], shown, atol=1e-5)
        chex.assert_trees_all_close(h[name], alone_h, atol=1e-5)


def test_its_bytes_are_those_of_its_parts(setting):
    memory, *_ = setting
    assert memory.nbytes(3) == sum(part.nbytes(3) for part in memory.parts.values()) > 0


def test_two_memories_of_tokens_share_the_slots_and_the_order_of_names_says_nothing():
    parts = {'near': NEAR, 'far': FAR, 'wide': {**NEAR, 'length': 4}, 'nothing': {'kind': 'none'}}
    memory = stack_of(parts)
    assert memory.slots == N + 1
    assert memory == stack_of(dict(reversed(parts.items())))
    assert hash(memory) == hash(stack_of(dict(reversed(parts.items()))))


def test_a_stack_within_a_stack_keeps_its_tokens_first():
    inner = {'kind': 'stack', 'width': 5, 'parts': {'near': NEAR, 'far': FAR}}
    memory = stack_of({'all': inner, 'more': FAR})
    z, action = experience()
    at = jax.tree.map(lambda x: x[:, 0], z)

    def begin(m, z, action):
        return m.step(m.initial(B)[0], z, action)[1]

    context, _ = jax.eval_shape(lambda: memory.init_with_output(jax.random.key(0), at, action[:, 0], method=begin))
    assert memory.aligned
    assert context.shape == (B, memory.slots, D) == (B, N + 2, D)


class Counted(Memory):
    """Shows what it was told to and has a loss of its own: its context, which it must get back as it was."""

    shows: tuple[float, ...] = (1.0, 2.0)
    term: str = 'counted'
    width: int = D

    @property
    def slots(self):
        return len(self.shows)

    def initial(self, batch):
        return (), jnp.broadcast_to(jnp.asarray(self.shows)[:, None], (batch, self.slots, self.width))

    def sequence(self, h, z, action_BTA, reset_BT):
        B, T = reset_BT.shape
        return (), jnp.broadcast_to(self.initial(B)[1][:, None], (B, T, self.slots, self.width))

    def losses(self, context_BTMD, z, action_BTA, reset_BT, keys_BT):
        self.sow('metrics', 'first', (context_BTMD[0, 0, 0, 0], 1.0))
        return {self.term: (jnp.sum(context_BTMD[..., 0], -1), jnp.ones_like(reset_BT, jnp.float32))}


def test_losses_of_the_parts_are_on_their_own_slots():
    parts = {'a': Counted(), 'b': Counted(shows=(5.0,), term='other'), 'near': stack_of({'near': NEAR}).parts['near']}
    memory = Stack(WIRING['layout'], 'float32', FrozenDict(parts), D)
    z, action = experience()
    keys = rng.per_tick(rng.per_example(rng.stream(0, 'test'), 0, jnp.arange(B)), T)
    run = lambda m: m.losses(m.sequence(None, z, action, RESET_BT)[1], z, action, RESET_BT, keys)
    terms, sown = jax.jit(lambda: memory.init_with_output(jax.random.key(0), method=run))()
    assert {name: float(loss.mean()) for name, (loss, _) in terms.items()} == {'counted': 3.0, 'other': 5.0}
    assert float(sown['metrics']['parts_b']['first'][0][0]) == 5.0
    twice = Stack(WIRING['layout'], 'float32', FrozenDict(a=Counted(), b=Counted()), D)
    with pytest.raises(ValueError, match=r"memory.parts.b has the loss 'counted', as another part has"):
        jax.eval_shape(lambda: twice.init(jax.random.key(0), method=run))
    with pytest.raises(ValueError, match=f"memory.parts.a is trained by .* its width, {D}, must be the stack's, 9"):
        Stack(WIRING['layout'], 'float32', FrozenDict(a=Counted()), 9)


def test_a_bank_beside_a_window_takes_further_slots_and_is_changed_without_the_window_noticing():
    bank = {'kind': 'retrieval', 'capacity': 4, 'entry': 8, 'keys': 4, 'slots': 2, 'width': 8, 'embedding': 4}
    memory = stack_of({'near': NEAR, 'bank': bank})
    z, action = experience()
    begin = lambda key: memory.init(key, None, z, action, RESET_BT, method='sequence')
    variables = initializers.draw(begin, 1, jax.random.key(1))
    h, context = jax.jit(lambda: memory.apply(variables, None, z, action, RESET_BT, method='sequence'))()
    assert (memory.slots, memory.aligned, context.shape) == (N + 2, True, (B, T, N + 2, D))

    @jax.jit
    def step(h, z, action, reset):
        return memory.apply(variables, memory.reset(h, reset), z, action, method='step')

    stepped = memory.apply(variables, B, method='initial')[0]
    for t in range(T):
        stepped, shown = step(stepped, jax.tree.map(lambda x, t=t: x[:, t], z), action[:, t], RESET_BT[:, t])
        np.testing.assert_allclose(shown, context[:, t], atol=1e-5)
    first = (jax.tree.map(lambda x: x[:, 0], z), action[:, 0], RESET_BT[:, 0] & False)
    _, before = step(h, *first)
    _, after = step({**h, 'bank': memory.parts['bank'].delete(h['bank'], np.ones((B, 4), bool))}, *first)
    np.testing.assert_array_equal(after[:, :N], before[:, :N])
    assert (after[:, N:] != before[:, N:]).any((1, 2)).all()


def test_nothing_remembered_shows_nothing():
    memory = stack_of({'a': {'kind': 'none'}, 'b': {'kind': 'none'}})
    assert (memory.slots, memory.aligned, memory.nbytes()) == (0, False, 0)
    assert memory.apply({}, B, method='initial')[1].shape == (B, 0, D)


def test_the_masked_transition_adds_the_tokens_slots_and_takes_the_others_as_further_ones():
    transition = Masked(aligned=True, width=8, depth=1, heads=2, hidden=8, **WIRING)
    z, action = experience()
    z, action = jax.tree.map(lambda x: x[:, 0], (z, action))
    context = jax.random.normal(jax.random.key(3), (B, N + 1, D))
    variables = jax.jit(lambda: transition.init(jax.random.key(0), z, action, context, method='predict'))()
    predict = jax.jit(lambda context: transition.apply(variables, z, action, context, method='predict'))
    known = predict(context)
    assert known.context_BMD.shape == (B, 1, 8)
    other = predict(context.at[:, 2].add(1.0))
    moved = np.abs(other.given_BND - known.given_BND).max((0, 2)) > 0
    assert moved.tolist() == [False, False, True, False]
    np.testing.assert_array_equal(other.context_BMD, known.context_BMD)
    last = predict(context.at[:, N].add(1.0))
    np.testing.assert_array_equal(last.given_BND, known.given_BND)
    assert (last.context_BMD != known.context_BMD).all()


# -- nested configs ----------------------------------------------------------------------------------------------------


def experiment_config(parts) -> ml_collections.ConfigDict:
    out = config_lib.default_config()
    out.model = complete(chosen(parts))
    out.train.weights = {'transition': 1.0}
    return out


def test_nested_fields_are_filled_in_set_by_the_command_line_and_part_of_the_fingerprint():
    whole = experiment_config({'near': {'kind': 'window'}, 'deep': {'kind': 'stack', 'parts': {'far': FAR}}})
    assert whole.model.memory.width == 128
    assert whole.model.memory.parts.near.depth == 2
    assert whole.model.memory.parts.deep.parts.far.deter == 8
    assert complete(whole.model.to_dict()) == whole.model.to_dict()
    changed = experiment.override(
        whole, [('model.memory.parts.near.length', '4'), ('model.memory.parts.deep.parts.far.deter', '16')]
    )
    memory = build_model(changed.model, SPEC, 'float32').memory
    assert memory.parts['near'].length == 4
    assert memory.parts['deep'].parts['far'].deter == 16
    assert memory == build_model(config_lib.from_json(config_lib.to_json(changed)).model, SPEC, 'float32').memory
    before, after = (config_lib.fingerprint(c, SPEC.to_json(), '') for c in (whole, changed))
    differing = {name for name in after if after[name] != before[name]}
    assert differing == {'model.memory.parts.near.length', 'model.memory.parts.deep.parts.far.deter'}
    with pytest.raises(ValueError, match=r'did you mean "model.memory.parts.near.length"'):
        experiment.override(whole, [('model.memory.parts.near.lenght', '4')])


@pytest.mark.parametrize(
    ('parts', 'says'),
    [
        ({}, r'model.memory.parts is \{\}; it takes sections by name, at least one, each a memory with its kind'),
        ({'near': {'lenght': 3, **NEAR}}, "model.memory.parts.near.lenght is no field of memory 'Window'; .* 'length'"),
        ({'near': {**NEAR, 'length': '3'}}, "model.memory.parts.near.length is '3', a str; it takes a int"),
        ({'near': {**NEAR, 'length': 0}}, 'model.memory.parts.near.length is 0; it takes a whole number from 1'),
        ({'near': {**NEAR, 'heads': 3}}, 'model.memory.parts.near.heads is 3; it takes a divisor of its width, 8'),
        ({'near': {'kind': 'windo'}}, "model.memory.parts.near.kind is 'windo'; did you mean 'window'"),
        ({'near': {'kind': ['window']}}, r"model.memory.parts.near.kind is '\['window'\]'; .*Valid: none"),
        ({'near': {}}, "model.memory.parts.near.kind is 'None'; .*Valid: none"),
        ({'near': 3}, 'model.memory.parts.near is 3; it takes a section of fields with a kind'),
        ({'near': {'kind': 'no_such:Part'}}, "model.memory.parts.near.kind is 'no_such:Part', and no module 'no_such'"),
        ({'a b': NEAR}, "model.memory.parts names a memory 'a b'; a name is letters"),
        (3, 'model.memory.parts is 3; it takes sections by name'),
        (
            {'in': {'kind': 'stack', 'parts': {'far': {**FAR, 'depth': 3}}}},
            'model.memory.parts.in.parts.far.depth is no',
        ),
        ({'in': {'kind': 'stack'}}, r'model.memory.parts.in.parts is \{\}; it takes sections'),
    ],
)
def test_refused_in_one_sentence(parts, says):
    with pytest.raises(ValueError, match=says) as error:
        build_model(chosen(parts), SPEC, 'float32')
    assert '\n' not in str(error.value)

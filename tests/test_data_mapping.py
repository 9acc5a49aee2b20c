"""Their names and habits to ours: by hand, there and back, and what is refused in one sentence."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodels.data import conversion, mapping
from worldmodels.data.mapping import Action, Mapping, Part

PLAIN = Mapping(
    observation=(('x', Part(('x',), 'vector', (1,))),),
    action=Action(('a',), 'discrete', 3),
    reward='r',
    terminal='end',
    costs=(('lava', 'burn'),),
)
ROWS = {
    'x': np.array([0, 1, 2, 3], np.float64),
    'a': np.array([2, 1, 0, 2]),
    'r': np.array([10, 11, 12, 13]),
    'burn': np.array([0, 1, 0, 1]),
    'end': np.array([0, 0, 0, 1]),
}


def one(mapping, rows):
    (episode,) = conversion.apply(mapping, rows)
    return episode


def test_departure_and_arrival_by_hand():
    episode = one(PLAIN, ROWS)
    assert episode['observation']['x'].tolist() == [[0], [1], [2], [3]]
    assert episode['action'].tolist() == [2, 1, 0, 0]
    assert episode['reward'].tolist() == [10, 11, 12, 0]
    assert episode['lava'].tolist() == [0, 1, 0, 0]
    assert episode['discount'].tolist() == [1, 1, 0, 0]
    assert episode['is_first'].tolist() == [True, False, False, False]
    assert episode['is_last'].tolist() == episode['is_terminal'].tolist() == [False, False, False, True]
    arrival = dataclasses.replace(PLAIN, action_at='arrival', outcomes_at='arrival', terminal_at='departure')
    episode = one(arrival, ROWS)  # and now the last row's 'end' belongs to a frame that is not there
    assert episode['action'].tolist() == [1, 0, 2, 0]
    assert episode['reward'].tolist() == [11, 12, 13, 0]
    assert not episode['is_terminal'].any()
    assert episode['discount'].tolist() == [1, 1, 1, 0]


def test_rows_between_frames_need_no_place():
    between = {**{k: v[:-1] for k, v in ROWS.items()}, 'x': ROWS['x']}
    for place in mapping.PLACES:
        moved = dataclasses.replace(PLAIN, action_at=place, outcomes_at=place, terminal_at=place)
        assert one(moved, between)['action'].tolist() == [2, 1, 0, 0]
        assert one(moved, between)['reward'].tolist() == [10, 11, 12, 0]


def test_discount_tells_of_the_end_where_nothing_else_does():
    rows = {**ROWS, 'd': np.array([1, 0.5, 0, 7], np.float32)}
    episode = one(dataclasses.replace(PLAIN, terminal='', discount='d'), rows)
    assert episode['discount'].tolist() == [1, 0.5, 0, 0]
    assert episode['is_terminal'].tolist() == [False, False, False, True]
    # Some write discount 1 on the way to a terminal frame.
    rows['d'] = np.ones(4)
    assert one(dataclasses.replace(PLAIN, discount='d'), rows)['discount'].tolist() == [1, 1, 0, 0]


def test_openings_and_cuts():
    rows = {**ROWS, 'end': np.array([0, 1, 0, 1]), 'first': np.array([1, 0, 1, 0])}
    two = list(conversion.apply(dataclasses.replace(PLAIN, first='first'), rows))
    assert [e['observation']['x'][:, 0].tolist() for e in two] == [[0, 1], [2, 3]]
    assert [e['is_terminal'].tolist() for e in two] == [[False, True]] * 2
    rows['first'] = np.array([1, 1, 0, 0])
    rows['end'] = ROWS['end']
    alone, rest = conversion.apply(dataclasses.replace(PLAIN, first='first'), rows)
    assert alone is None
    assert len(rest['is_first']) == 3
    cut = list(conversion.apply(dataclasses.replace(PLAIN, cut=3), ROWS))
    assert [len(e['is_first']) for e in cut] == [2, 2]
    assert [e['is_terminal'][-1] for e in cut] == [False, True]
    assert [e['action'].tolist() for e in cut] == [[2, 0], [0, 0]]


def test_pictures():
    bytes_ = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3)).astype(np.uint8)

    def drawn(rows, **fields):
        part = dataclasses.replace(Part(('p',), 'image', (4, 6, 3)), **fields)
        return one(Mapping((('image', part),)), {'p': rows})['observation']['image']

    np.testing.assert_array_equal(drawn(bytes_), bytes_)
    np.testing.assert_array_equal(drawn(bytes_.transpose(0, 3, 1, 2), channels='first'), bytes_)
    np.testing.assert_array_equal(drawn(bytes_ / 255, scale=255.0), bytes_)
    np.testing.assert_array_equal(drawn(bytes_[..., 0], shape=(4, 6, 1)), bytes_[..., :1])
    flat = np.full((2, 8, 12, 3), 77, np.uint8)
    assert (drawn(flat, resize=(4, 6)) == 77).all()
    half = np.concatenate([flat[:, :, :6], 0 * flat[:, :, 6:]], 2)
    small = drawn(half, resize=(4, 6))
    assert small.shape == (2, 4, 6, 3)
    assert small[0, 0, 0, 0] == 77
    assert small[0, 0, -1, 0] == 0


def test_actions_of_other_kinds():
    def taken(action, **rows):
        return one(dataclasses.replace(PLAIN, action=action), {**ROWS, **rows})['action']

    hot = np.eye(3)[[2, 0, 1, 1]]
    assert taken(Action(('h',), 'discrete', 3, one_hot=True), h=hot).tolist() == [2, 0, 1, 0]
    assert taken(Action(('a',), 'discrete', 3, start=5), a=np.array([7, 5, 6, 0])).tolist() == [2, 0, 1, 0]
    two = Action(('u', 'v'), 'continuous', 3, low=-2.0, high=2.0)
    u, v = np.array([[0.5, -2], [1, 1], [2, 0], [9, 9]]), np.array([1.0, 0, -1, np.nan])
    assert taken(two, u=u, v=v).tolist() == [[0.5, -2, 1], [1, 1, 0], [2, 0, -1], [0, 0, 0]]
    assert taken(Action(), a=None).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ('field', 'values', 'sentence'),
    [
        ('x', np.array([0, np.nan, 2, 3]), "'x' is nan in row 1, expected finite numbers"),
        ('x', np.zeros((4, 2)), r"'x' has frames of the shape \(2,\), expected \(1,\)"),
        ('a', np.array([0, 3, 0, 0]), "'a' is 3 in row 1, expected 0 to 2"),
        ('a', np.array([0.5, 1, 0, 0]), "'a' is 0.5 in row 0, expected whole numbers"),
        ('a', np.zeros((4, 2)), "'a' has 2 numbers a row, expected one"),
        ('a', np.zeros(7), r"'a' has 7 rows, expected 4 \(the frames\) or 3"),
        ('a', np.array(['up'] * 4), "'a' is <U2 .*, expected an array of numbers"),
        ('r', np.array([0, np.inf, 0, 0]), "'r' is inf in row 1, expected finite"),
        ('end', np.array([0, 1, 0, 1]), "'end' ends the episode at frame 1 of 4, expected at its last frame"),
        ('burn', np.float32(3), "'burn' is float32"),
    ],
)
def test_values_that_may_not_be(field, values, sentence):
    with pytest.raises(conversion.Bad, match=sentence):
        list(conversion.apply(PLAIN, {**ROWS, field: values}))


def test_what_stands_for_nothing_may_be_anything():
    rows = {**ROWS, 'a': np.array([2, 1, 0, 99]), 'r': np.array([10, 11, 12, np.nan])}
    np.testing.assert_array_equal(one(PLAIN, rows)['reward'], one(PLAIN, ROWS)['reward'])


def test_a_field_that_is_not_there():
    rows = {**ROWS, 'reward_': ROWS['r']}
    del rows['r']
    with pytest.raises(conversion.Bad, match="no field 'r', only x, a, burn, end, reward_"):
        list(conversion.apply(PLAIN, rows))
    with pytest.raises(conversion.Bad, match="did you mean 'reward_'"):
        list(conversion.apply(dataclasses.replace(PLAIN, reward='reward'), rows))


def test_pictures_and_grids_out_of_range():
    picture = Mapping((('image', Part(('p',), 'image', (1, 1, 3), scale=255.0)),))
    with pytest.raises(conversion.Bad, match=r"'p' is 510.0 in row 0, expected 0 to 255"):
        list(conversion.apply(picture, {'p': np.full((2, 1, 1, 3), 2.0)}))
    grid = Mapping((('cells', Part(('p',), 'grid', (1, 1, 1), (4,))),))
    with pytest.raises(conversion.Bad, match=r"'p\[..., 0\]' is 4 in row 1, expected 0 to 3"):
        list(conversion.apply(grid, {'p': np.array([3, 4])}))


NAMES = st.text(st.characters(codec='ascii', categories=('Ll', 'Nd')), min_size=1, max_size=6)
COUNTS = st.integers(1, 9)


@st.composite
def mappings(draw):
    def part():
        kind = draw(st.sampled_from(mapping.KINDS))
        field = tuple(draw(st.lists(NAMES, min_size=1, max_size=3 if kind == 'vector' else 1)))
        if kind == 'vector':
            return Part(field, kind, (draw(COUNTS),))
        shape = tuple(draw(st.tuples(COUNTS, COUNTS, COUNTS)))
        channels = draw(st.sampled_from(('last', 'first')))
        if kind == 'grid':
            classes = draw(st.lists(st.integers(1, 256), min_size=shape[2], max_size=shape[2]))
            return Part(field, kind, shape, tuple(classes), channels=channels)
        return Part(
            field, kind, shape, (), draw(st.sampled_from((None, shape[:2]))), channels, draw(st.floats(0.1, 300))
        )

    size = draw(COUNTS)
    low = draw(st.floats(-5, 5))
    action = draw(
        st.sampled_from(
            (
                Action(),
                Action((draw(NAMES),), 'discrete', size, tuple(draw(st.lists(NAMES, min_size=size, max_size=size)))),
                Action(tuple(draw(st.lists(NAMES, min_size=1, max_size=2))), 'continuous', size, (), low, low + 1),
            )
        )
    )
    place = st.sampled_from(mapping.PLACES)
    return Mapping(
        observation=tuple((name, part()) for name in draw(st.sets(NAMES, min_size=1, max_size=3))),
        action=action,
        reward=draw(NAMES),
        costs=tuple(draw(st.dictionaries(NAMES.filter(lambda x: x not in mapping.TAKEN), NAMES, max_size=2)).items()),
        action_at=draw(place),
        outcomes_at=draw(place),
        terminal_at=draw(place),
        splits=(('train', draw(NAMES)),),
        validation=draw(st.floats(0, 0.9)),
        cut=draw(st.integers(2, 50)),
        source=(('size', (3, 4)), ('fps', 2.0)),
    )


@settings(max_examples=100)
@given(mappings())
def test_there_and_back_as_json(table):
    assert Mapping.from_json(json.loads(json.dumps(table.to_json()))) == table


@settings(max_examples=100)
@given(st.integers(2, 12), st.integers(0, 2**31), st.sampled_from(mapping.PLACES), st.sampled_from(mapping.PLACES))
def test_our_own_episodes_come_back_as_they_were(length, seed, action_at, outcomes_at):
    """An episode of ours, written the way others do, is itself again."""
    random = np.random.default_rng(seed)
    t = np.arange(length)
    ours = {
        'observation': {
            'image': random.integers(0, 256, (length, 2, 3, 3)).astype(np.uint8),
            'cells': random.integers(0, 5, (length, 2, 2, 1)).astype(np.uint8),
            'state': random.normal(size=(length, 3)).astype(np.float32),
        },
        'action': np.where(t < length - 1, random.integers(0, 4, length), 0).astype(np.int32),
        'reward': np.where(t < length - 1, random.normal(size=length), 0).astype(np.float32),
        'is_first': t == 0,
        'is_last': t == length - 1,
        'is_terminal': (t == length - 1) & bool(seed % 2),
    }
    ours['discount'] = ((t < length - 1) & ~np.roll(ours['is_terminal'], -1)).astype(np.float32)
    shift = lambda values, place: np.roll(values, 1, 0) if place == 'arrival' else values
    theirs = {
        'pixels': ours['observation']['image'].transpose(0, 3, 1, 2) / 255.0,
        'symbols': ours['observation']['cells'][..., 0],
        'joints': ours['observation']['state'][:, :2],
        'speed': ours['observation']['state'][:, 2],
        'move': shift(np.eye(4)[ours['action']], action_at),
        'gain': shift(ours['reward'], outcomes_at),
        'over': ours['is_terminal'],
    }
    table = Mapping(
        observation=(
            ('image', Part(('pixels',), 'image', (2, 3, 3), channels='first', scale=255.0)),
            ('cells', Part(('symbols',), 'grid', (2, 2, 1), (5,))),
            ('state', Part(('joints', 'speed'), 'vector', (3,))),
        ),
        action=Action(('move',), 'discrete', 4, one_hot=True),
        reward='gain',
        terminal='over',
        action_at=action_at,
        outcomes_at=outcomes_at,
    )
    found = one(table, theirs)
    assert found.keys() == ours.keys()
    for name, values in found['observation'].items():
        np.testing.assert_array_equal(values, ours['observation'][name])
        assert values.dtype == ours['observation'][name].dtype
    for name in ours.keys() - {'observation'}:
        np.testing.assert_array_equal(found[name], ours[name], err_msg=name)
        assert found[name].dtype == ours[name].dtype, name


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'rewards': 'r'}, 'mapping has no field "rewards": did you mean "reward"'),
        ({'reward': 3}, 'mapping.reward is 3, expected a name'),
        ({'observation': {}}, 'observation is empty'),
        ({'observation': {'x': {'feild': 'x'}}}, 'mapping.observation.x has no field "feild": did you mean "field"'),
        ({'observation': {'x': {'kind': 'picture'}}}, "observation.x.kind is 'picture'"),
        ({'observation': {'x': {'kind': 'vectr'}}}, 'did you mean "vector"'),
        ({'observation': {'x/y': {}}}, 'letters, digits'),
        ({'observation': {'x': {'shape': [0]}}}, 'expected positive whole numbers'),
        ({'observation': {'x': {'shape': ['a']}}}, 'expected a list of whole numbers'),
        ({'observation': {'x': {'kind': 'vector', 'resize': [8, 8]}}}, 'expected height and width of an image'),
        ({'observation': {'x': {'scale': 0}}}, 'expected a positive number'),
        ({'observation': {'x': {'classes': [300]}}}, '256 at most'),
        ({'observation': 'x'}, "observation is 'x', expected a table"),
        ({'action': {'kind': 'both'}}, 'expected one of discrete, continuous'),
        ({'action': {'size': 0}}, 'size is 0, expected 1 or more'),
        ({'action': {'size': True}}, 'size is True, expected a whole number'),
        ({'action': {'size': 2, 'names': ['a']}}, 'has 1 names, expected 2'),
        ({'action': {'low': 1, 'high': 1}}, 'low is 1, expected less than high'),
        ({'action': {'high': float('nan')}}, 'high is nan, expected a number'),
        ({'action_at': 'start'}, 'departure, arrival'),
        ({'splits': {'test': 'a'}}, "mapping.splits has 'test'"),
        ({'splits': {'validation': 'a'}}, 'no "train"'),
        ({'validation': 1}, 'at least 0 and below 1'),
        ({'cut': 1}, '2 frames or more'),
        ({'costs': {'reward': 'r'}}, "mapping.costs has 'reward'"),
    ],
)
def test_mappings_that_say_nothing(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Mapping.from_json({**PLAIN.to_json(), **change})

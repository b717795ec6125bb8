"""What is kept beside the joint sums: bounded, stored and taken up, and of the models that are left alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lib_toolkit.analysis.matrix.gains import FOR_A_GROUP, Gain, Gains
from lib_toolkit.analysis.matrix.sums import PAIR_BYTES, RowSums, Sums


def gain(models: int, value: float) -> Gain:
    return Gain(np.full((models, models), value), np.full(models, value), np.full(models, 2, dtype="<i8"))


def some() -> Gains:
    gains = Gains(4, 10)
    gains.add(0, frozenset({1}), [0, 2, 3], gain(3, 1.0))
    gains.add(0, frozenset({1, 2}), [0, 3], gain(2, 10.0))
    gains.add(1, frozenset({1}), range(4), gain(4, 100.0))
    return gains


def test_only_what_every_suspect_is_left_out_of_is_gained():
    gains = some()
    assert not gains.without(0, []).joint.any() and not gains.without(0, [2]).joint.any()
    one, two = gains.without(0, [1]), gains.without(0, [1, 2])
    assert one.joint[0, 3] == 1 and one.single.tolist() == [1, 0, 1, 1] and one.elements.tolist() == [2, 0, 2, 2]
    assert two.joint[0, 3] == 11 and two.joint[0, 2] == 1 and two.elements.tolist() == [4, 0, 2, 4]
    assert gains.without(1, [1, 3]).joint[0, 2] == 100


def test_a_model_that_is_gone_is_a_suspect_no_more():
    left = some().only([0, 2, 3])
    assert set(left.kept) == {(0, frozenset()), (0, frozenset({1})), (1, frozenset())}
    assert left.without(0, []).joint[0, 2] == 1 and left.without(0, [1]).joint[0, 2] == 11


def test_more_kinds_of_suspects_than_there_is_room_for_are_let_go():
    models, groups = 6, 2
    sums = Sums.zeros(groups, models)
    everyone = range(models)
    row = RowSums(models)
    kinds = [frozenset(kind) for kind in itertools.combinations(everyone, 2)]
    for kind in kinds:
        row.gain(kind, everyone, gain(models, 1.0))
        for group in range(groups):
            sums.gains.add(group, kind, everyone, gain(models, 1.0))
            sums.gains.add(group, kinds[0], everyone, gain(models, 1.0))
    assert len(sums.gains.kept) == groups * FOR_A_GROUP and len(row.gains) == FOR_A_GROUP
    assert sums.gains.without(0, kinds[0]).joint[0, 1] == len(kinds) + 1, "what is kept already goes on"
    pairs = [array for array in sums.arrays().values() if array.ndim == 3]
    held = sum(array.nbytes for array in pairs) + sum(one.joint.nbytes for one in sums.gains.kept.values())
    assert held == PAIR_BYTES * models**2 * groups


def test_what_is_stored_is_taken_up_again_and_nothing_else():
    gains = some()
    again = Gains(4, 10)
    again.take_up(gains.keys(), gains.arrays())
    assert again.keys() == gains.keys()
    for name, array in gains.arrays().items():
        assert again.arrays()[name].tobytes() == array.tobytes()
    empty = Gains(4, 10)
    again.take_up(empty.keys(), empty.arrays())
    assert again.kept == {}
    for keys, models in ((gains.keys()[:2], 4), (gains.keys(), 5)):
        with pytest.raises(ValueError, match="another set"):
            Gains(models, 10).take_up(keys, gains.arrays())

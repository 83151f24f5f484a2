"""A table of ids against the dict that it stands for."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from influcoder_lib.id_table import IdTable, keys_of

# Few distinct ids, so that blocks repeat them; zero bytes at the end, which S16 pads with.
IDS = st.sampled_from([f"{n:02x}" + "00" * 15 for n in range(4)] + [f"{n:032x}" for n in range(9)])
BLOCKS = st.lists(st.lists(IDS, max_size=6), max_size=12)


@given(BLOCKS, st.lists(IDS))
@settings(max_examples=200)
def test_it_answers_as_a_dict_that_is_filled_by_setdefault(blocks, asked):
    table, twin, number = IdTable(), {}, 0
    for block in blocks:
        numbers = np.arange(number, number + len(block))
        number += len(block)
        found = table.setdefault(keys_of(block), numbers)
        expected = [twin.setdefault(*pair) for pair in zip(block, numbers.tolist(), strict=True)]
        assert found.tolist() == expected
        assert len(table) == len(twin)
    assert table.get(keys_of(asked)).tolist() == [twin.get(each, -1) for each in asked]


def test_its_runs_stay_few_and_every_key_is_kept():
    table, dice = IdTable(), np.random.default_rng(0)
    blocks = [np.frombuffer(dice.bytes(16 * 50), "S16") for _ in range(300)]
    for position, block in enumerate(blocks):
        table.setdefault(block, np.full(50, position))
    assert len(table) == 300 * 50
    assert len(table._runs) <= 14
    for position, block in enumerate(blocks):
        assert (table.get(block) == position).all()


def test_a_key_is_the_sixteen_bytes_of_its_id():
    assert keys_of(["00ff" * 8]).tobytes() == b"\x00\xff" * 8
    assert len(keys_of([])) == 0

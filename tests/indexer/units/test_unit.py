"""Units: every file is in one of them, and a change moves few."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.indexer.units.folder import FileFacts
from lookalike.indexer.units.unit import Shard, units_of_files


def files(count: int) -> list[FileFacts]:
    return [FileFacts(f"{number // 50:04d}/{number:07d}.jpg", number, number) for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 255, 5000, 20_000])
def test_each_file_is_in_one_unit_in_its_order(count: int) -> None:
    units = list(units_of_files("root", files(count)))
    assert [file for unit in units for file in unit.files] == files(count)
    assert all(unit.images == len(unit.files) for unit in units)
    assert len({unit.digest for unit in units}) == len(units)


def test_units_grow_with_the_folder() -> None:
    sizes = [len(unit.files) for unit in units_of_files("root", files(70_000))]
    assert max(sizes[:20]) <= 256
    assert 512 < max(sizes) <= 2048
    assert len(sizes) < 250


def test_a_file_more_or_less_changes_few_units() -> None:
    before = files(15_000)
    old = {unit.digest for unit in units_of_files("root", before)}
    draw = random.Random(0)
    for _ in range(4):
        changed = list(before)
        if draw.random() < 0.5:
            del changed[draw.randrange(len(changed))]
        else:
            place = draw.randrange(len(changed))
            changed.insert(place, FileFacts(changed[place].name + "a", 1, 1))
        new = {unit.digest for unit in units_of_files("root", changed)}
        assert len(new - old) <= 8


def test_another_size_or_time_is_another_unit() -> None:
    one, two = FileFacts("a.jpg", 1, 1), FileFacts("b.jpg", 1, 1)
    digests = {
        unit.digest
        for each in ([one, two], [one._replace(size=2), two], [one, two._replace(mtime_ns=2)], [two, one])
        for unit in units_of_files("root", each)
    }
    assert len(digests) == 4


@given(st.integers(0, 1000), st.integers(1, 40))
def test_shares_are_all_units_each_once(total: int, count: int) -> None:
    shares = [Shard(number, count).slice(total) for number in range(1, count + 1)]
    assert [unit for share in shares for unit in share] == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/0", "a/b", "1/4/2", "-1/4", "1.0/4", "²/4"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="--shard is of the form 2/8"):
        Shard.parse(text)
    assert Shard.parse("2/8") == Shard(2, 8)

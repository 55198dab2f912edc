"""A chain gives back what it kept, cut exactly where it was asked, and the budget is what is really held.

    CHAIN_SEED=17 CHAIN_ROUNDS=1000 python -m pytest tests/test_state_chain.py
"""
import os
import random

import pytest

from modwsgi_tel.state.chain import BLOCK_BYTES, Budget, Chain
from modwsgi_tel.wire.blocks import RECORD, records

SEED = int(os.environ.get("CHAIN_SEED") or random.randrange(2**32))
ROUNDS = int(os.environ.get("CHAIN_ROUNDS") or 60)


def a_chain(keep=5, plain_limit=1 << 20, age_s=None, block_bytes=200, budget=None):
    return Chain(budget or Budget(plain_limit), keep, age_s, block_bytes)


def fill(chain, numbers, size=30, counts=True, now=None):
    """Append datagrams that begin with their number, one a second."""
    for number in numbers:
        at = number if now is None else now
        chain.append(1000.0 + at, float(at), 7, b"%06d" % number + b"x" * (size - 6), counts)
    return chain


def numbers(chain, until=None, *wanted):
    """What a chain gives to read: the numbers of `fill`."""
    return [int(datagram[:6]) for stretch in chain.read(until or chain.position(), *wanted)
            for _, _, datagram in records(stretch.raw, stretch.records)]


def really_held(*chains):
    """(bytes, bytes in blocks that are not packed) by looking at every one."""
    held = sum(len(block.data) for chain in chains for block in chain._blocks)
    held += sum(len(part) for chain in chains for part in chain._tail)
    return held, sum(len(block.data) for chain in chains for block in chain._blocks if not block.packed)


def agrees(budget, *chains):
    return (budget.held, budget.plain) == really_held(*chains) and sum(map(Chain.size_held, chains)) == budget.held


# --- what is kept ----------------------------------------------------------------------

@pytest.mark.parametrize("plain_limit", [0, 1 << 20])
def test_what_was_appended_is_read_back_in_order(plain_limit):
    chain = fill(a_chain(keep=100, plain_limit=plain_limit), range(40))
    read = [record for stretch in chain.read(chain.position()) for record in records(stretch.raw, stretch.records)]
    assert read == [(1000.0 + n, 7, b"%06d" % n + b"x" * 24) for n in range(40)]


@pytest.mark.parametrize("plain_limit", [0, 500, 1 << 20])
@pytest.mark.parametrize("keep", [1, 4, 5, 17])
def test_the_newest_are_always_there_and_not_many_more(keep, plain_limit):
    chain = a_chain(keep, plain_limit)
    for number in range(200):
        fill(chain, [number])
        found = numbers(chain)
        assert found == list(range(found[0], number + 1))
        assert min(number + 1, keep) <= len(found) <= keep + 8           # a block has five: four too many, four in the open one


def test_records_that_do_not_count_are_kept_with_those_that_do():
    chain = a_chain(keep=3, block_bytes=100)
    for number in range(30):
        fill(chain, [number], counts=number % 3 == 0)
    found = numbers(chain)
    assert found == list(range(found[0], 30)) and found[0] <= 21      # 21, 24 and 27 are the newest that count


def test_without_any_that_count_all_are_kept_until_they_are_old():
    chain = fill(a_chain(keep=2, age_s=10), range(100), counts=False)
    assert numbers(chain) == list(range(100))
    chain.expire(now=104.0, last_now=99.0)
    assert numbers(chain)[0] in range(90, 95)                   # whole blocks only: those that ended before 94


# --- reading ---------------------------------------------------------------------------

@pytest.mark.parametrize("plain_limit", [0, 1 << 20])
def test_a_position_cuts_exactly_whatever_comes_later(plain_limit):
    for cut in range(0, 23):
        chain = fill(a_chain(keep=1000, plain_limit=plain_limit), range(cut))
        position = chain.position()
        fill(chain, range(cut, cut + 13))
        assert numbers(chain, position) == list(range(cut))


def test_what_arrives_while_it_is_read_is_left_out():
    chain = fill(a_chain(keep=1000), range(12))
    found, reader = [], chain.read(chain.position())
    for turn, stretch in enumerate(reader):
        found += [int(datagram[:6]) for _, _, datagram in records(stretch.raw, stretch.records)]
        fill(chain, range(100 + 20 * turn, 120 + 20 * turn))
    assert found == list(range(12))


def test_what_is_dropped_while_it_is_read_is_skipped():
    chain = fill(a_chain(keep=20), range(22))
    reader, found = chain.read(chain.position()), []
    for stretch in reader:
        found.append([int(datagram[:6]) for _, _, datagram in records(stretch.raw, stretch.records)])
        if len(found) == 1:
            chain.drop_oldest(1022.0, 22.0)
            chain.drop_oldest(1022.0, 22.0)
    assert found == [[0, 1, 2, 3, 4], [10, 11, 12, 13, 14], [15, 16, 17, 18, 19], [20, 21]]


def test_a_reader_of_a_chain_that_was_discarded_ends():
    chain = fill(a_chain(keep=20), range(22))
    reader = chain.read(chain.position())
    next(reader)
    chain.discard()
    fill(chain, range(100, 130))
    assert list(reader) == []


def test_blocks_before_a_time_are_left_out():
    chain = fill(a_chain(keep=100), range(22))
    assert numbers(chain, None, 0, 1009.0) == list(range(10, 22))         # the block of 5 to 9 ends at 1009
    assert numbers(chain, None, 0, 1008.5) == list(range(5, 22))


def test_blocks_before_a_counted_record_are_left_out():
    chain = fill(a_chain(keep=100), range(22))
    assert numbers(chain, None, 10) == list(range(10, 22))
    assert numbers(chain, None, 9) == list(range(5, 22))
    assert numbers(chain, None, 21)[-1] == 21


def test_a_stretch_says_which_counted_record_it_begins_with():
    chain = fill(a_chain(keep=100), range(22))
    assert [(stretch.counted_first, stretch.records) for stretch in chain.read(chain.position())] == [
        (0, 5), (5, 5), (10, 5), (15, 5), (20, 2)]


# --- bounds ----------------------------------------------------------------------------

def test_blocks_are_packed_only_beyond_the_plain_limit():
    budget = Budget(plain_limit=500)
    chain = fill(a_chain(keep=1000, budget=budget), range(50))
    packed = [block.packed for block in chain._blocks]
    size = chain._blocks[0].size
    assert packed == [False] * (500 // size) + [True] * (10 - 500 // size)
    assert budget.plain == size * (500 // size) <= 500 and agrees(budget, chain)


def test_a_packed_block_is_smaller():
    budget = Budget(0)
    chain = fill(Chain(budget, 10_000), range(2000), size=500)
    assert budget.held < 2000 * 516 / 5 and chain._blocks[0].size >= BLOCK_BYTES


def test_dropping_the_oldest_frees_what_it_says_and_counts_records():
    budget = Budget(1 << 20)
    chain = fill(a_chain(keep=100, budget=budget), range(12))
    before = budget.held
    freed = chain.drop_oldest(1012.0, 12.0)
    assert (before - budget.held, budget.dropped_records, numbers(chain)) == (freed, 5, list(range(5, 12)))
    assert chain.drop_oldest(1012.0, 12.0) == freed
    assert chain.drop_oldest(1012.0, 12.0) == 2 * (RECORD.size + 30)      # the open block too
    assert (chain.drop_oldest(1012.0, 12.0), budget.held, budget.dropped_records) == (0, 0, 12)


def test_expiring_drops_what_is_old_with_the_open_block():
    budget = Budget(1 << 20)
    chain = fill(a_chain(keep=100, age_s=10, budget=budget), range(12))
    chain.expire(now=15.0, last_now=11.0)
    assert numbers(chain) == list(range(5, 12))                # the first block ended at 4, more than 10 s ago
    chain.expire(now=21.5, last_now=11.0)
    assert (numbers(chain), budget.held) == ([], 0)


def test_without_an_age_nothing_expires():
    chain = fill(a_chain(keep=100), range(12))
    chain.expire(now=1e9, last_now=11.0)
    assert numbers(chain) == list(range(12))


def test_the_budget_is_what_is_held_after_any_operations():
    print(f"CHAIN_SEED={SEED}")
    for round_ in range(ROUNDS):
        rng = random.Random(f"{SEED}/{round_}")
        budget = Budget(rng.choice((0, 300, 2000, 1 << 20)))
        chains = [Chain(budget, rng.randint(1, 20), rng.choice((None, 5)), rng.choice((60, 200, 1000))) for _ in range(3)]
        models = [[] for _ in chains]               # (number, counts) of what was appended since the last discard
        now = 0
        for number in range(250):
            place = rng.randrange(3)
            chain, model = chains[place], models[place]
            what = rng.random()
            now += rng.random() < .2
            if what < .85:
                counts = rng.random() < .8
                fill(chain, [number], rng.choice((6, 30, 300)), counts, now)
                model.append((number, counts))
            elif what < .9:
                chain.drop_oldest(1000.0 + now, float(now))
                model.clear()
                model += [(n, True) for n in numbers(chain)]        # only that it is a suffix is told below
            elif what < .93:
                chain.discard()
                model.clear()
                assert numbers(chain) == []
            elif what < .96:
                chain.expire(now + rng.choice((0, 3, 100)), float(now))
                model.clear()
                model += [(n, True) for n in numbers(chain)]
            else:
                chain.seal(1000.0 + now, float(now))
            found = numbers(chain)
            assert found == [n for n, _ in model][len(model) - len(found):]
            counted = [n for n, counts in model if counts]
            assert set(counted[-chain.keep:]) <= set(found) or len(counted) < chain.keep
            assert agrees(budget, *chains), f"round {round_}"
        for chain in chains:
            chain.discard()
        assert (budget.held, budget.plain) == (0, 0)

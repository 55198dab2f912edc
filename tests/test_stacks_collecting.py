"""Whether an interpreter collects garbage at the moment of a look: read from processes that do nothing else, and from some that never do."""

import pytest

import interpreters
import running
import targets
from modwsgi_tel.stacks.model import stacks_json, stacks_of
from modwsgi_tel.stacks.offsets import LAYOUTS
from modwsgi_tel.stacks.reader import Reader

COLLECTS = """
import gc, threading
HEAP = [[each] for each in range(300000)]
def collects():
    while True:
        gc.collect()
threading.Thread(target=collects, daemon=True).start()
TOLD = {}
"""
NEVER = """
import gc, threading
gc.disable()
def makes():
    while True:
        [[each] for each in range(1000)]
threading.Thread(target=makes, daemon=True).start()
TOLD = {}
"""
LOOKS = 20


def collecting(pid):
    """[what each of LOOKS looks tells], of the last one also by way of JSON."""
    reader = Reader(pid)
    try:
        looks = [reader.look(detail=False) for _ in range(LOOKS)]
    finally:
        reader.close()
    assert stacks_of(stacks_json(looks[-1])).collecting == looks[-1].collecting
    return [each.collecting for each in looks]


@pytest.mark.parametrize("version", interpreters.READ)
def test_a_process_that_does_nothing_but_collect_is_seen_to_and_one_that_never_does_is_not(version):
    with targets.of(version, COLLECTS) as target:
        seen = running.wait_until(lambda: [each for each in [collecting(target.pid)] if (0,) in each], 20, "it is never seen to collect")
        assert set(seen[0]) <= {(), (0,)}
    with targets.of(version, NEVER) as target:
        assert collecting(target.pid) == [()] * LOOKS


@pytest.mark.parametrize("version", [version for version in interpreters.READ if tuple(map(int, version.split("."))) in LAYOUTS])
def test_where_a_number_that_it_cannot_be_is_read_or_none_it_is_not_known(version, monkeypatch):
    layout = LAYOUTS[tuple(map(int, version.split(".")))]
    name, pointer = (("interp_collecting", layout.interp_threads) if layout.interp_collecting is not None else
                     ("collecting_of_runtime", layout.interpreters_head))
    with targets.of(version, NEVER) as target:
        for wrong in (pointer, 1 << 40):
            monkeypatch.setitem(LAYOUTS, layout.version, layout._replace(**{name: wrong}))
            assert collecting(target.pid) == [None] * LOOKS

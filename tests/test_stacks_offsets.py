"""Offsets are taken from a process only when each lies in its struct and where all known versions have it."""

import struct

import pytest

import interpreters
import targets
from modwsgi_tel.errors import TelError
from modwsgi_tel.stacks import offsets
from modwsgi_tel.stacks.memory import ProcessMemory
from modwsgi_tel.stacks.runtime import locate

TELLING = [version for version in interpreters.READ if tuple(map(int, version.split("."))) >= (3, 13)]
EARLIER = [version for version in interpreters.READ if version not in TELLING]


def number(version):
    return tuple(map(int, version.split(".")))


@pytest.fixture(scope="module", params=TELLING)
def told(request):
    """(version, the bytes of a real process's _Py_DebugOffsets)."""
    with targets.of(request.param, "TOLD = {}") as target:
        memory = ProcessMemory(target.pid)
        found = locate(memory, memory.maps(), memory.executable())
        yield number(request.param), memory.read(found.address, offsets.DEBUG_SIZE)
        memory.close()


def test_the_table_of_a_real_process_is_taken(told):
    version, data = told
    layout = offsets.from_debug(data, version)
    assert layout.version == version
    assert [getattr(layout, name) for name in ("thread_next", "thread_interp", "code_file", "code_name", "code_lines", "ascii_size",
                                               "compact_size", "type_name", "type_flags", "gil_holder", "gil_locked")] == [
        8, 16, 112, 120, 136, 40, 56, 24, 168, 8, 16]


def test_no_table_that_lies_is_taken_with_an_offset_outside_of_its_struct(told):
    """Any one of its words being anything: either all that is read lies where it can be read, or it is refused in one line."""
    version, data = told
    names = offsets._names(version)
    refused = set()
    for place, name in enumerate(names):
        for value in (0, 1, 7, 4095, 1 << 20, 1 << 40, (1 << 64) - 1):
            changed = data[:24 + 8 * place] + struct.pack("<Q", value) + data[32 + 8 * place:]
            try:
                layout = offsets.from_debug(changed, version)
            except TelError as error:
                assert "\n" not in str(error) and "make no sense" in str(error)
                refused.add(name)
                continue
            for each in ("frame_back", "frame_code", "frame_instruction", "frame_stack"):
                assert 0 <= getattr(layout, each) <= layout.frame_size - 8 <= 504
            assert 0 <= layout.frame_owner < layout.frame_size
            for each in ("code_file", "code_name", "code_qualname", "code_lines", "code_varnames", "code_first_line"):
                assert 0 <= getattr(layout, each) <= layout.code_size - 8 <= 1016
            for each in ("thread_next", "thread_interp", "thread_ident", "thread_native", "thread_frame", "thread_chunk"):
                assert 0 <= getattr(layout, each) <= 4096
    assert {"thread.next", "frame.previous", "frame.owner", "code.filename", "dict.ma_keys", "unicode.length"} <= refused


@pytest.mark.parametrize("version", EARLIER)
def test_each_earlier_version_has_every_offset_that_it_needs(version):
    layout = offsets.LAYOUTS[number(version)]
    struct_frames = layout.version >= (3, 11)
    needs = ("thread_native", "thread_chunk", "frame_owner", "frame_stack", "code_start", "code_room", "code_qualname")
    assert [getattr(layout, name) is not None for name in needs] == [struct_frames] * len(needs)
    assert (layout.gil_of_runtime is None) is (layout.interp_gil is not None) is (layout.version >= (3, 12))


def test_the_versions_are_those_that_tests_read():
    assert [number(version) for version in interpreters.READ] == [
        (3, minor) for minor in range(offsets.FIRST[1], offsets.LAST[1] + 1)]

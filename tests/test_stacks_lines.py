"""The line of an instruction: what CPython itself says of the same table, for code of the standard library and of odd lines."""

import json
import subprocess

import pytest

import interpreters
from modwsgi_tel.stacks import lines

# For each code object: its table, its first line, and [offset of an instruction, its line] as this Python has them
TELLS = r"""
import argparse, dis, json, sys, textwrap, types
import difflib, inspect, typing
WIDE = "def f(a,\n" + "\n" * 300 + "  b=(1,\n" + "\n" * 200 + "2)):\n  x = [\n" + "\n" * 150 + "a,\n" * 90 + "]\n  return (x,\n\n\n\na)\n"
found, codes = [], [compile(WIDE, "wide", "exec"), compile("\n" * 70000 + "def g():\n  return 1\n", "far", "exec")]
for module in (argparse, difflib, inspect, textwrap, typing):
    with open(module.__file__, encoding="utf-8") as handle:
        codes.append(compile(handle.read(), module.__name__, "exec"))
while codes:
    code = codes.pop()
    codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
    if sys.version_info >= (3, 10):
        told = [[at, line] for start, end, line in code.co_lines() for at in range(start, end, 2)]
    else:
        starts = list(dis.findlinestarts(code))
        told, line = [], code.co_firstlineno
        starts = dict(starts)
        for at in range(0, len(code.co_code), 2):
            line = starts.get(at, line)
            told.append([at, line])
    table = code.co_lnotab if sys.version_info < (3, 10) else code.co_linetable
    found.append([table.hex(), code.co_firstlineno, told])
json.dump(found, sys.stdout)
"""


@pytest.mark.parametrize("version", interpreters.READ)
def test_each_instruction_has_the_line_that_its_python_says(version):
    command, _ = interpreters.to_read(version)
    done = subprocess.run([*command, "-c", TELLS], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, timeout=60)
    decode = lines.decoder(tuple(map(int, version.split("."))))
    wrong, right = [], 0
    for table, first, told in json.loads(done.stdout):
        decoded, shown = decode(bytes.fromhex(table), first), first
        for at, line in told:
            shown = shown if line is None else line         # where there is none, that of the instruction before
            if lines.line_at(decoded, at, first) == shown:
                right += 1
            else:
                wrong.append((first, at, shown, lines.line_at(decoded, at, first)))
    assert wrong[:10] == [] and right > 10000


def test_before_the_first_instruction_is_the_first_line_and_behind_the_last_is_none():
    assert [lines.line_at(([4, 8], [10, 12]), at, 9) for at in (-2, -1, 0, 3, 4, 7, 8, 1000)] == [9, 9, 10, 10, 12, 12, None, None]


@pytest.mark.parametrize("decode", [lines.lnotab, lines.linetable, lines.locations])
def test_a_table_of_anything_is_decoded_to_as_many_ends_as_lines_in_order(decode):
    tables = [bytes([each]) * size for each in range(256) for size in (0, 1, 2, 3, 7, 64)]
    tables += [bytes((7 * each + step * place) % 256 for place in range(50)) for each in range(256) for step in (1, 3, 129)]
    for table in tables:
        ends, found = decode(table, 1)
        assert len(ends) == len(found) and ends == sorted(ends), table
        lines.line_at((ends, found), 5, 1)

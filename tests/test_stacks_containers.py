"""Containers of a running process that grow are named, with what they hold and the line that adds to them; all others are not."""

import os
import random
import struct

import pytest

import images
import interpreters
import targets
from modwsgi_tel.errors import TelError
from modwsgi_tel.stacks import containers, runtime
from modwsgi_tel.stacks.containers import Container, Contents, Path, grown, look_in
from modwsgi_tel.stacks.growers import ARGUMENT, ATTRIBUTE, CACHE, CLOSURE, NAME, Growers
from modwsgi_tel.stacks.measure import Measure, Pages
from modwsgi_tel.stacks.memory import ProcessMemory, Unreadable
from modwsgi_tel.stacks.objects import Objects
from modwsgi_tel.stacks.offsets import LAYOUTS
from modwsgi_tel.stacks.reader import Reader
from test_stacks_fuzz import Image, mutate

ROUNDS = int(os.environ.get("MODWSGI_TEL_TEST_FUZZ", "120"))
CPU_S = 10.0                    # how much is found in how little time is not what is tested


def look(reader, cpu_s=CPU_S, **more):
    return containers.look(reader, cpu_s=cpu_s, **more)


# A program that does as it is told, line by line: its first line is TOLD, then each line of its stdin is evaluated, and what comes of it said
OBEYS = """
import json, os, sys
def said(what):
    os.write(1, (json.dumps(what) + "\\n").encode())
said(TOLD)
for line in sys.stdin:
    said(eval(line))
os._exit(0)
"""
GROWING = '''
import array, collections, functools, io, queue, sys
ROWS = []
CACHE = {"x": [], ("a", 1): {}}
SEEN = set()
RECENT = collections.deque()
ORDER = collections.OrderedDict()
BY = collections.defaultdict(list)
COUNTS = collections.Counter()
DATA = bytearray()
NUMBERS = array.array("d")
TEXT = "t" * 5000
FILES = []
PAIR = ([], ())
class Deep:
    def __init__(self):
        self.bottom = []
class Store:
    items = []
    def __init__(self):
        self.mine, self.deep, self.me = {}, Deep(), self
    def put(self, what, kept=[]):
        kept.append(what)                                       # Store.put(kept=)
    @classmethod
    def make(cls, what, made={}):
        made[what] = cls                                        # Store.make(made=)
    @staticmethod
    def note(what, noted={}):
        noted[what] = what                                      # Store.note(noted=)
class Slotted:
    __slots__ = ("items",)
    def __init__(self):
        self.items = []
class Rows(list):
    pass
class Table(dict):
    def __init__(self):
        self.extra = []
STORE, SLOTTED, OWN, TABLE, QUEUE = Store(), Slotted(), Rows(), Table(), queue.Queue()
def remember(what, where=None, seen=[], *, by={}):
    seen.append(what)                                           # remember(seen=)
    by[what] = where                                            # remember(by=)
def memo():
    cache, other = {}, 5
    def inner(what):
        cache[what] = [other]                                   # LOOKUP().cache
    return inner
LOOKUP = memo()
@functools.lru_cache(maxsize=None)
def fetch(what):                                                # fetch()
    return "r%d" % what
def handler():
    handler.calls.append(1)                                     # handler.calls
handler.calls = []
def grow(count):
    global TEXT
    for i in range(count):
        n = len(SEEN)
        ROWS.append("x" * 1000 + str(n))                        # ROWS
        CACHE["x"].append(n)                                    # CACHE['x']
        CACHE["a", 1].setdefault(n, []).append(n)               # CACHE[('a', 1)]
        SEEN.add(n)                                             # SEEN
        RECENT.appendleft(n)                                    # RECENT
        ORDER[n] = n                                            # ORDER
        BY["k"] += [n]                                          # BY['k']
        COUNTS[n] += 1                                          # COUNTS
        DATA.extend(b"x" * 10)                                  # DATA
        NUMBERS.append(1.0)                                     # NUMBERS
        FILES.append(open(os.devnull))                          # FILES
        PAIR[0].append(n)                                       # PAIR[0]
        Store.items.append(object())                            # Store.items
        mine = STORE.mine
        mine[n] = n                                             # STORE.mine
        STORE.deep.bottom.append({})                            # STORE.deep.bottom
        STORE.put(n), Store.make(n), Store.note(n), remember(n), LOOKUP(n), fetch(n), handler()
        SLOTTED.items.append(n)                                 # SLOTTED.items
        OWN.append(n)                                           # OWN
        TABLE[n] = n                                            # TABLE
        TABLE.extra.append(n)                                   # TABLE.extra
        QUEUE.put(n)                                            # QUEUE.queue
    TEXT += "t" * 1000 * count                                  # TEXT
import os
grow(50)
TOLD = {}
'''
# name: (kind, holds), of what 100 calls make longer
GROWS = {"ROWS": ("list", "str"), "CACHE['x']": ("list", "int"), "CACHE[('a', 1)]": ("dict", "list"), "SEEN": ("set", "int"),
         "RECENT": ("collections.deque", "int"), "ORDER": ("collections.OrderedDict", "int"), "BY['k']": ("list", "int"),
         "COUNTS": ("Counter", "int"), "DATA": ("bytearray", ""), "NUMBERS": ("array.array", ""), "FILES": ("list", "_io.TextIOWrapper"),
         "PAIR[0]": ("list", "int"), "Store.items": ("list", "object"), "STORE.mine": ("dict", "int"), "STORE.deep.bottom": ("list", "dict"),
         "Store.put(kept=)": ("list", "int"), "Store.make(made=)": ("dict", "type"), "Store.note(noted=)": ("dict", "int"),
         "remember(seen=)": ("list", "int"), "remember(by=)": ("dict", "NoneType"), "LOOKUP().cache": ("dict", "list"),
         "fetch()": ("functools._lru_cache_wrapper", "str"), "handler.calls": ("list", "int"), "SLOTTED.items": ("list", "int"),
         "OWN": ("Rows", "int"), "TABLE": ("Table", "int"), "TABLE.extra": ("list", "int"), "QUEUE.queue": ("collections.deque", "int"),
         "TEXT": ("str", "")}
LETTERS = {"DATA": 10, "TEXT": 1000}    # by which 1 call makes these longer
every = pytest.mark.parametrize("version", interpreters.READ)


class Obeys:
    """A program that obeys, with its Reader."""

    def __init__(self, version, program):
        self.target = targets.of(version, program + OBEYS)
        self.reader = Reader(self.target.pid)

    def do(self, what):
        self.target.process.stdin.write(what.encode() + b"\n")
        self.target.process.stdin.flush()
        return self.target.line()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.reader.close()
        self.target.__exit__(*exception)


def own(contents):
    return {row.name: row for row in contents.rows if not row.library}


@every
def test_what_grows_is_named_with_what_it_holds_and_where_it_is_added_to(version):
    with Obeys(version, GROWING) as program:
        before = look(program.reader)
        program.do("grow(100)")
        after = look(program.reader)
        sources = program.reader.sources()
        try:
            found = grown(before, after, sources=sources)
        finally:
            sources.close()
        assert (before.problem, before.left_out, before.changing, before.files) == (None, 0, 0, (program.target.file,))
        assert {row.name: (row.kind, row.holds) for _, row in found} == GROWS
        assert {row.name: row.length - first.length for first, row in found} == {name: 100 * LETTERS.get(name, 1) for name in GROWS}
        places = {}
        for number, line in enumerate(GROWING.splitlines(), 1):
            if "  # " in line:
                places[line.rpartition("  # ")[2]] = ("%s:%d" % (program.target.file, number),)
        assert sorted(places) == sorted(GROWS)
        both = places["CACHE['x']"] + places["CACHE[('a', 1)]"]          # which of CACHE's is not told
        assert {row.name: row.grows_at for _, row in found} == {**places, "CACHE['x']": both, "CACHE[('a', 1)]": both}
        assert {(row.module, row.file, row.interpreter, row.library) for _, row in found} == {("__main__", program.target.file, 0, False)}
        # the largest growth first: ten thousand letters each in a hundred rows
        assert [row.name for _, row in found[:2]] == ["ROWS", "TEXT"]
        amounts = [row.bytes - first.bytes for first, row in found]
        assert amounts == sorted(amounts, reverse=True) and 100_000 < amounts[0] < 130_000


SIZES = r"""
import array, collections, functools, sys, io
LISTS = [[], [1], list(range(1000)), [None] * 77]
SHRUNK = list(range(50)); SHRUNK.clear()
DICTS = [{}, {"a": 1}, {i: i for i in range(1000)}, {str(i): i for i in range(1000)}, dict.fromkeys(range(77))]
SPARSE = {i: i for i in range(1000)}
for i in range(990):
    del SPARSE[i]
SETS = [set(), {1}, set(range(1000)), frozenset(range(77))]
TEXTS = ["x" * 3000, "\xe9" * 3000, "\u20ac" * 3000, "\U0001f600" * 3000]
RAW = b"x" * 3000
GROWN = bytearray()
for i in range(5000):
    GROWN.append(1)
NUMBERS = array.array("i", range(1000))
def shown(each):
    return [sys.getsizeof(each), len(each)]
TOLD = {"SHRUNK": shown(SHRUNK), "SPARSE": shown(SPARSE), "RAW": shown(RAW), "GROWN": shown(GROWN), "NUMBERS": shown(NUMBERS)}
for name in ("LISTS", "DICTS", "SETS", "TEXTS"):
    TOLD[name] = shown(globals()[name])
    for i, each in enumerate(globals()[name]):
        TOLD["%s[%d]" % (name, i)] = shown(each)
"""


@every
def test_what_a_container_takes_is_what_the_process_itself_says(version):
    with Obeys(version, SIZES) as program:
        found = own(look(program.reader))
        told = {name: tuple(sizes) for name, sizes in program.target.told.items()}
        near = {name: sizes for name, sizes in told.items() if name not in ("NUMBERS", "GROWN") and not name.startswith("TEXTS[")}
        assert {name: (found[name].own_bytes, found[name].length) for name in near} == near
        for name, length in (("NUMBERS", 1000), ("GROWN", 5000)):       # whose heads differ a little
            assert abs(found[name].own_bytes - told[name][0]) <= 64 and found[name].length == length
        assert found["TEXTS"].bytes - found["TEXTS"].own_bytes == sum(told["TEXTS[%d]" % place][0] for place in range(4))


HEALTHY = """
import collections, functools
RECENT = collections.deque(range(50), maxlen=100)
TABLE = {i: "x" * 100 for i in range(300)}
WAITING = collections.deque(range(20))
LRU = collections.OrderedDict((i, i) for i in range(100))
STATE = {"requests": 0, "last": []}
@functools.lru_cache(maxsize=500)
def fetch(what):
    return "r%d" % what
def serve(count):
    for i in range(count):
        STATE["requests"] += 1
        STATE["last"] = list(range(STATE["requests"] % 50))
        RECENT.append(i), fetch(STATE["requests"]), WAITING.append(i), WAITING.popleft()
        LRU[STATE["requests"]] = i
        LRU.popitem(last=False)
        TABLE[i % 300] = "y" * 100
serve(70)
TOLD = {}
"""


@every
def test_caches_that_are_stable_or_keep_to_a_limit_do_not_grow(version):
    with Obeys(version, HEALTHY) as program:
        before = look(program.reader)
        program.do("serve(1000)")
        after = look(program.reader)
        rows = own(after)
        assert grown(before, after) == []
        assert {name: (rows[name].length, rows[name].limit) for name in ("RECENT", "fetch()", "TABLE", "WAITING")} == {
            "RECENT": (100, 100), "fetch()": (500, 500), "TABLE": (300, None), "WAITING": (20, None)}


CHANGING = """
import collections, threading
MADE = {}
ROWS, TABLE, SEEN, RECENT = [], {}, set(), collections.deque()
KEPT = {i: [i] for i in range(1000)}
def changes():
    while True:
        for i in range(2000):
            ROWS.append(i), SEEN.add(i), RECENT.append(i), TABLE.setdefault(i, i), MADE.setdefault("x", []).append(i)
        ROWS.clear(), SEEN.clear(), RECENT.clear(), TABLE.clear(), MADE.clear()
threading.Thread(target=changes, daemon=True).start()
TOLD = {}
"""


@every
def test_a_container_that_is_changed_while_it_is_read_is_of_a_length_that_it_had(version):
    with Obeys(version, CHANGING) as program:
        for _ in range(10):
            found = look(program.reader)
            rows = own(found)
            assert found.problem is None
            assert (rows["KEPT"].length, rows["KEPT"].holds) == (1000, "list")
            for name in {"ROWS", "TABLE", "SEEN", "RECENT"} & rows.keys():
                assert 0 <= rows[name].length <= 2000 and rows[name].own_bytes < 1 << 18, rows[name]


MANY = """
import sys, types
for number in range(80):
    module = types.ModuleType("many%d" % number)
    module.__file__ = "/srv/many%d.py" % number
    for place in range(100):
        setattr(module, "table%d" % place, {place: [number]})
    sys.modules[module.__name__] = module
TOLD = {}
"""


def test_a_look_ends_with_its_cpu_time_or_its_bytes_and_says_so():
    with Obeys("3.11", MANY) as program:
        whole, hurried, small = look(program.reader, cpu_s=30.0), look(program.reader, cpu_s=0.02), look(program.reader, most_bytes=1 << 20)
        assert (whole.problem, whole.left_out) == (None, 0)
        assert len([row for row in whole.rows if row.file == "/srv/many7.py"]) == 200
        assert hurried.problem == "stopped after 0.02 s of CPU time" and hurried.left_out > 0 and hurried.seen < whole.seen
        assert small.problem == "there is more to be read than one look may read" and small.left_out > 0 and small.seen < whole.seen


SHARED = """
import os, sys, types
folder = os.path.dirname(os.path.abspath(__file__))
for name, text in (("aa_store.py", "ROWS = []\\nSESSIONS = {}\\n"),
                   ("bb_user.py", "from aa_store import ROWS, SESSIONS\\nimport aa_store\\ndef use(n):\\n    aa_store.ROWS.append(n)\\n"),
                   ("site-packages/installed.py", "class Kept:\\n    rows = []\\nTABLE = {'x': []}\\n")):
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as handle:
        handle.write(text)
sys.path[:0] = [folder, os.path.join(folder, "site-packages")]
from aa_store import ROWS, SESSIONS
import bb_user, installed
def grow(count):
    for i in range(count):
        bb_user.use(i)
        SESSIONS.setdefault("0123456789abcdef", []).append(i)
        installed.TABLE["y%d" % len(installed.TABLE)] = i
        installed.Kept.rows.append(i)
grow(50)
TOLD = folder
"""


def test_what_several_modules_name_is_told_of_the_one_that_makes_it():
    with Obeys("3.11", SHARED) as program:
        before = look(program.reader)
        program.do("grow(100)")
        sources = program.reader.sources()
        try:
            found = {row.name: row for _, row in grown(before, look(program.reader), sources=sources)}
        finally:
            sources.close()
        folder = program.target.told
        assert {row.name: (row.module, row.file, row.grows_at, row.library) for row in found.values()} == {
            "ROWS": ("aa_store", folder + "/aa_store.py", (folder + "/bb_user.py:4",), False),
            # a key of what is named as a secret is not told
            "SESSIONS[<masked>]": ("aa_store", folder + "/aa_store.py", (folder + "/program.py:%d" % (
                1 + SHARED.splitlines().index('        SESSIONS.setdefault("0123456789abcdef", []).append(i)')),), False),
            # of a library its first level alone
            "TABLE": ("installed", folder + "/site-packages/installed.py", (folder + "/program.py:%d" % (
                1 + SHARED.splitlines().index('        installed.TABLE["y%d" % len(installed.TABLE)] = i')),), True)}


def test_a_source_that_was_written_later_tells_no_line():
    with Obeys("3.11", GROWING) as program:
        before = look(program.reader)
        program.do("grow(100)")
        os.utime(program.target.file, (4e9, 4e9))
        sources = program.reader.sources()
        try:
            assert {row.grows_at for _, row in grown(before, look(program.reader), sources=sources)} == {()}
        finally:
            sources.close()


def test_a_process_that_has_ended_is_one_line():
    with Obeys("3.11", HEALTHY) as program:
        program.target.process.kill()
        program.target.process.wait(20)
        with pytest.raises(TelError) as raised:
            look(program.reader)
        assert str(raised.value).startswith("process %d: its modules cannot be read: " % program.target.pid)


DEEP = """
SHARED = {"settings": "x" * 10_000_000}
class Session:
    def __init__(self, number):
        self.data, self.shared, self.next = {"body": ["x" * 10_000 + str(number)]}, SHARED, None
class Page:
    known = {}
    def __init__(self, number):
        self.rows = ["%060d" % (number * 1000 + row) for row in range(100)]
SESSIONS, CHAIN, PAGES = [], [], []
def grow(count):
    for number in range(count):
        PAGES.append(Page(number))
        Page.known[number, len(PAGES)] = Page(number)
        SESSIONS.append(Session(number))
        CHAIN.append(Session(number))
        if len(CHAIN) > 1:
            CHAIN[-2].next = CHAIN[-1]
grow(20)
TOLD = {}
"""


@every
def test_what_members_lead_to_is_counted_but_for_what_they_have_in_common(version):
    with Obeys(version, DEEP) as program:
        before = look(program.reader)
        program.do("grow(100)")
        found = {row.name: (row.holds, row.bytes - first.bytes) for first, row in grown(before, look(program.reader))}
        assert {name: holds for name, (holds, _) in found.items()} == {"SESSIONS": "Session", "CHAIN": "Session", "PAGES": "Page", "Page.known": "Page"}
        assert all(1_000_000 < more < 1_300_000 for _, more in found.values()), found      # a hundred times ten thousand letters and more


# --- two looks compared ----------------------------------------------------------------------------

def a_container(name="ROWS", length=100, bytes=10_000, own_bytes=1_000, kind="list", address=0x1000, **more):
    return Container("app", "/srv/app.py", name, kind, length, bytes, address, own_bytes, **more)


def contents(*rows):
    return Contents("3.11.7", rows, 1, 0, None)


def test_growth_is_of_the_same_container_alone():
    before = contents(a_container(), a_container("A", address=0x2000), a_container("B", address=0x3000), a_container("C", address=0x4000))
    after = contents(a_container(length=200), a_container("A", length=200, address=0x2008), a_container("B", length=200, kind="dict", address=0x3000),
                     a_container("D", length=200, address=0x4000))
    assert [(first.name, first.length, row.length) for first, row in grown(before, after)] == [("ROWS", 100, 200)]


def test_growth_counts_what_has_come_and_not_how_samples_differ():
    before, after = contents(a_container(length=1000, bytes=9_000_000)), contents(a_container(length=1010, bytes=10_101_000, own_bytes=1_000))
    [(first, row)] = grown(before, after)
    assert row.bytes - first.bytes == 100_000
    # none came: another sample, no growth
    assert grown(contents(a_container(bytes=1_000_000)), contents(a_container(bytes=9_000_000))) == []


def test_growth_is_told_from_a_least_of_members_or_bytes():
    few = contents(a_container()), contents(a_container(length=103, bytes=10_300))
    assert grown(*few) == [] and len(grown(*few, least=3)) == 1 and len(grown(*few, least_bytes=200)) == 1


def test_a_text_is_known_by_its_name_and_counts_by_its_bytes():
    before, after = a_container("TEXT", 100_000, 100_000, 100_000, "str", 0x1000), a_container("TEXT", 300_000, 300_000, 300_000, "str", 0x9000)
    assert grown(contents(before), contents(after)) == [(before, after)]
    small = after._replace(length=100_050, bytes=100_050, own_bytes=100_050)
    assert grown(contents(before), contents(small)) == []


def test_a_limit_that_lets_it_grow_large_is_no_excuse():
    before, after = a_container(limit=1_000_000), a_container(length=200, bytes=20_000, limit=1_000_000)
    assert [row.length for _, row in grown(contents(before), contents(after))] == [200]
    assert grown(contents(before._replace(limit=1000)), contents(after._replace(limit=1000))) == []


# --- where the source adds to it -----------------------------------------------------------------------

class Files:
    """Sources of texts.  {name: text}"""

    def __init__(self, files):
        self.files = {name: text.encode() for name, text in files.items()}

    def changed(self, name):
        return False

    def content(self, name):
        return self.files.get(name, b"")


@pytest.mark.parametrize("path, text, wanted", [
    (Path("X", "X", NAME), "X = []\ndef f():\n    X.append(1)\n    Y.append(2)\n", [3]),
    (Path("X", "X", NAME), "X = []\nX += [1]\nX -= 1\nX = X + [2]\nX |= {3}\n", [2, 4, 5]),
    (Path("X", "X", NAME), "X = {}\nX[1] = 2\nX[1][2] = 3\ndel X[1]\nX.get(1)\nX.setdefault(1, []).append(2)\n", [2, 3, 6]),
    (Path("X", "X", NAME), "import heapq\nX = []\nheapq.heappush(X, 1)\n", [3]),
    (Path("X", "X", NAME), "X = []\ndef f(X):\n    X.append(1)\n", []),
    (Path("X", "X", NAME), "X = []\ndef f():\n    mine = X\n    mine.append(1)\ndef g():\n    mine.append(1)\n", [4]),
    (Path("S", "items", ATTRIBUTE), "class S:\n    items = []\n    def f(self):\n        self.items.append(1)\n        items.append(1)\n", [4]),
    (Path("S", "items", ATTRIBUTE), "def f(s):\n    kept = s.items\n    kept[1] = 2\n", [3]),
    (Path("f", "seen", ARGUMENT), "def f(a, seen=[]):\n    seen.append(a)\ndef g():\n    seen.append(1)\n", [2]),
    (Path("f", "cache", CLOSURE), "def memo():\n    cache = {}\n    def f(a):\n        cache[a] = 1\ncache[1] = 2\n", [4]),
    (Path("f", "f", CACHE), "import functools\n@functools.lru_cache(None)\ndef f(a):\n    return a\n", [3]),
    (Path("Q", "queue", ATTRIBUTE), "import queue\nQ = queue.Queue()\ndef f():\n    Q.put(1)\n", [4]),
    (Path("X", "X", NAME), "X = [\n", []),
    (Path("X", "X", NAME), "X = []\n" + "(" * 500 + ")" * 500, []),
])
def test_the_lines_that_add_to_a_name(path, text, wanted):
    row = a_container(path=path)._replace(file="/a.py")
    assert Growers(Files({"/a.py": text}), ("/a.py",)).placed(row).grows_at == tuple("/a.py:%d" % line for line in wanted)


def test_another_file_adds_to_a_name_that_it_imports_and_to_its_modules_attribute():
    files = {"/a.py": "X = []\n", "/b.py": "X = 1\nX.append(1)\n", "/c.py": "from a import X\nX.append(1)\n", "/d.py": "import a\na.X.append(1)\n"}
    row = a_container(path=Path("X", "X", NAME))._replace(file="/a.py")
    for name, wanted in (("/b.py", ()), ("/c.py", ("/c.py:2",)), ("/d.py", ("/d.py:2",))):
        assert Growers(Files(files), ("/a.py", name)).placed(row).grows_at == wanted


def test_files_beyond_what_is_parsed_are_left_out():
    row = a_container(path=Path("X", "X", NAME))._replace(file="/a.py")
    text = "X = []\nX.append(1)\n" + "y = 1\n" * 200_000
    assert Growers(Files({"/a.py": text}), ("/a.py",)).placed(row) == row


# --- memory that makes no sense -------------------------------------------------------------------------

KEYS = struct.pack("<QBBBBIqq", 1, 3, 3, 1, 0, 0, 2, 3)                 # of eight places: five that can be used, two of them free
AT, TYPE, NAME_AT, BLOCK = 0x100000, 0x200000, 0x300000, 0x400000


def a_measure(data, name=b"list"):
    """A Measure of memory that holds an object of such a type, zeros where it leads, and a dict's keys behind these."""
    kind = bytearray(4096)
    struct.pack_into("<Q", kind, 8, TYPE)
    struct.pack_into("<Q", kind, 24, NAME_AT)
    struct.pack_into("<q", kind, 32, 40)
    struct.pack_into("<Q", kind, 168, 1 << 31)
    memory = images.Memory({AT: (images.words(1, TYPE) + data).ljust(4096, b"\0"), TYPE: bytes(kind), NAME_AT: name.ljust(4096, b"\0"),
                            BLOCK: bytes(1024) + KEYS + bytes(3072)})
    pages = Pages(memory, 1 << 20)
    return Measure(pages, Objects(pages, LAYOUTS[3, 11]), LAYOUTS[3, 11])



@pytest.mark.parametrize("role, data, wanted", [
    ("list", images.words(3, BLOCK, 4), 3),
    ("list", images.words(5, BLOCK, 4), None), ("list", images.words(-1, BLOCK, 4), None), ("list", images.words(0, 0, -1), None),
    ("list", images.words(3, 0, 4), None), ("list", images.words(3, 0x999000, 4), None), ("list", images.words(3, BLOCK, 1 << 50), None),
    ("set", images.words(3, 2, 7, BLOCK), 2),
    ("set", images.words(2, 3, 7, BLOCK), None), ("set", images.words(9, 2, 7, BLOCK), None), ("set", images.words(3, 2, 6, BLOCK), None),
    ("set", images.words(3, 2, 7, 0), None), ("set", images.words(3, 2, 7, 0x999000), None), ("set", images.words(-3, -3, -1, BLOCK), None),
    ("dict", images.words(3, 0, BLOCK + 1024, 0), 3),
    ("dict", images.words(4, 0, BLOCK + 1024, 0), None), ("dict", images.words(-1, 0, BLOCK + 1024, 0), None),
    ("dict", images.words(3, 0, 0x999000, 0), None), ("dict", images.words(3, 0, BLOCK, 0), None),
    ("deque", images.words(3, BLOCK, BLOCK, 5, 7, 0, -1), 3),
    ("deque", images.words(3, BLOCK, BLOCK, 5, 8, 0, -1), None), ("deque", images.words(3, 0, BLOCK, 5, 7, 0, -1), None),
    ("deque", images.words(3, BLOCK, BLOCK, 5, 99, 0, -1), None), ("deque", images.words(-3, BLOCK, BLOCK + 8, 5, 7, 0, -1), None),
    ("bytearray", images.words(3, 4), 3), ("bytearray", images.words(5, 4), None), ("bytearray", images.words(-5, -4), None),
    ("bytes", images.words(3), 3), ("bytes", images.words(-3), None), ("bytes", images.words(1 << 50), None),
    ("str", images.words(3, 0, 0x64), 3), ("str", images.words(3, 0, 0x60), None), ("str", images.words(-3, 0, 0x64), None),
])
def test_lengths_that_cannot_be_are_not_told(role, data, wanted):
    measure = a_measure(data)
    if wanted is not None:
        assert (measure.extent(AT, role).length, measure.changing) == (wanted, 0)
    else:
        with pytest.raises(Unreadable):
            measure.extent(AT, role)
        assert measure.changing == 1


def test_what_has_no_type_is_nothing():
    assert a_measure(b"").kind(AT).role == "list"
    with pytest.raises(Unreadable):
        a_measure(b"").kind(AT + 8)


# --- memory that lies ---------------------------------------------------------------------------------

def check_sensible(found):
    assert found.problem is None or type(found.problem) is str
    for row in found.rows:
        assert 0 <= row.length < 1 << 40 and 0 <= row.own_bytes < 1 << 46 and row.bytes >= row.own_bytes, row
        assert type(row.name) is str and len(row.name) < 2000 and type(row.kind) is str


@pytest.mark.parametrize("version", ("3.8", "3.11", "3.13"))
def test_memory_that_lies_gives_sensible_rows_or_one_line(version):
    """Invariant: whatever a look reads, it gives rows within sense or a TelError, within its bounds."""
    with Obeys(version, GROWING) as program:
        memory = ProcessMemory(program.target.pid)
        try:
            located = runtime.locate(memory, memory.maps(), memory.executable())
            image = Image(memory)
            check_sensible(look_in(image, located, 30.0))
            reads = image.reads
            start = random.SystemRandom().randrange(1 << 40)
            for seed in range(start, start + max(ROUNDS // 8, 1)):
                rng = random.Random(seed)
                image = Image(memory)
                for _ in range(rng.choice((1, 4, 16, 64))):
                    mutate(image, reads, rng)
                try:
                    check_sensible(look_in(image, located))
                except TelError as error:
                    assert "\n" not in str(error), error
                except Exception as error:
                    raise AssertionError("Python %s, seed %d: %r" % (version, seed, error)) from error
        finally:
            memory.close()

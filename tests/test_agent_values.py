"""Values from inside: the same texts as from outside, and nothing of the application's is ever called."""
import random
import subprocess
import sys
import threading
from types import CellType

import pytest

from modwsgi_tel.agent.values import frame_values, shown
from modwsgi_tel.masking import MASKED, SECRET, pattern


class Called(BaseException):
    """Raised by whatever must not be called: no `except Exception` hides it."""


def refuse(*_, **__):
    raise Called


HOOKS = {name: refuse for name in (
    "__repr__", "__str__", "__format__", "__eq__", "__ne__", "__hash__", "__len__", "__bool__", "__iter__", "__getitem__", "__contains__",
    "__getattribute__", "__getattr__", "__dir__", "__index__", "__int__", "__bytes__", "__reduce_ex__", "__class__")}


def hostile():
    """(an object of a class, the class, an object of a class made of str) that tell when anything of theirs is called."""
    names = ("__hash__", "__eq__", "__repr__", "__getattribute__", "__instancecheck__", "__subclasscheck__", "__call__")
    meta = type("Meta", (type,), {**dict.fromkeys(names, refuse), "__name__": property(refuse)})
    made = type.__new__(meta, "Hostile", (), {**HOOKS, "__class__": property(refuse)})
    text = type.__new__(meta, "Text", (str,), {name: refuse for name in HOOKS if name != "__class__"})
    return object.__new__(made), made, str.__new__(text, "text")


Text = type("Text", (str,), dict.fromkeys(("__getitem__", "__len__", "__str__", "__iter__"), refuse))
Key = type("Key", (str,), {})


def at(value):
    return f"at {id(value):#x}>"


# --- one value -----------------------------------------------------------------------------------

PLAIN = [None, True, False, 0, -1, 2 ** 64, -10 ** 90, 1.5, float("inf"), -0.0, 2j, complex("nan"), "", "it's", "tab\t\x00", "gr\xf6\xdfe",
         "lone \ud800", b"", b"a\xff'", bytearray(b"x\x00"), (), (1,), (1, 2.5, "x"), [], [1, [2, [3]]], {}, {"a": 1, 2: None, (1, 2): b"x"},
         {"nested": {"x": [1]}}, set(), {1}, frozenset(), frozenset({"a"}), [None] * 6, [[], {}, ()]]


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_a_plain_value_is_as_repr_has_it(value):
    assert shown("value", value) == repr(value)


def test_what_is_long_deep_or_goes_in_a_circle_is_cut():
    nested = loop = []
    for _ in range(50):
        nested = [nested]
    loop.append(loop)
    circle = {}
    circle["self"] = circle
    assert shown("many", list(range(10 ** 5))) == "[0, 1, 2, 3, 4, 5, and 99,994 more]"
    assert shown("many", set(range(100))) == "{0, 1, 2, 3, 4, 5, and 94 more}"
    assert shown("long", "x" * 10 ** 6, longest=100) == "'" + "x" * 96 + "..."
    assert shown("nested", nested) == "[[[[...]]]]" and shown("circle", circle) == "{'self': {'self': {'self': {...}}}}"
    assert shown("huge", 1 << 10 ** 5) == "<int of some 100020 bits>" and shown("most", (1 << 1920) - 1, longest=999) == str((1 << 1920) - 1)
    for value in ({"%050d" % each: "v" * 1000 for each in range(100)}, "\u2028" * 1000, b"\xff" * 1000, bytearray(10 ** 6), [["x" * 99] * 9] * 9):
        assert len(shown("value", value)) == 200


def test_nothing_of_the_application_s_is_called():
    value, kind, text = hostile()
    told = f"<Hostile {at(value)}"
    assert shown("value", value) == told
    assert shown("value", [value, (value,)], longest=400) == f"[{told}, ({told},)]"
    assert shown("value", text) == f"<Text {at(text)}"
    assert shown("value", kind) == f"<Meta {at(kind)}"
    plain_key = Key("key")
    assert shown("value", {plain_key: 5}, longest=400) == f"{{<Key {at(plain_key)}: {MASKED}}}"


def test_a_subclass_of_a_builtin_type_is_not_looked_into():
    for base in (int, float, str, bytes, tuple, list, dict, set):
        value = type("Mine", (base,), {})()
        assert shown("value", value) == f"<Mine {at(value)}"


def test_the_name_of_a_class_is_shown_as_plain_text():
    odd = type(Text("an\x1b[31m odd " + "name" * 50), (), {})()
    assert shown("value", odd) == f"<an\\x1b[31m odd {('name' * 50)[:60 - len('an.[31m odd ')]} {at(odd)}"


def test_a_cell_is_what_is_in_it():
    assert shown("value", CellType(5)) == "5" and shown("value", [CellType(CellType("x"))]) == "['x']"
    assert shown("value", CellType()) == "<empty cell>"
    loop = CellType()
    loop.cell_contents = loop
    assert shown("value", loop) == "<cell>"


def test_repr_is_called_where_that_is_allowed_and_may_fail():
    class Good:
        def __repr__(self):
            return "Good(password=hunter2)\x1b"

    class Long:
        def __repr__(self):
            return "x" * 10 ** 6

    class Bad:
        def __repr__(self):
            raise SystemExit(3)

    bad = Bad()
    assert shown("value", [Good()], reprs=True) == "[Good(password=***]"
    assert shown("value", Good(), reprs=True) == "Good(password=***"
    assert shown("value", Long(), reprs=True, longest=20) == "x" * 17 + "..."
    assert shown("value", bad, reprs=True) == f"<Bad at {id(bad):#x}, its repr() failed>"


# --- secrets ---------------------------------------------------------------------------------------

def test_what_is_called_a_secret_is_masked_wherever_its_name_stands():
    assert shown("db_password", "hunter2") == MASKED == shown("API_KEY", 5) == shown("token", None)
    assert shown("environ", {"HTTP_COOKIE": "hunter2", b"password": "hunter2", Key("X_KEY"): "hunter2", 5: 6}, longest=400).count(MASKED) == 3
    assert shown("headers", [("Set-Cookie", "hunter2"), ("Content-Type", "text/html"), [b"authorization", b"hunter2"]]) == (
        "[('Set-Cookie', <masked>), ('Content-Type', 'text/html'), [b'authorization', <masked>]]")
    assert shown("deeper", {"config": {"db": {"passphrase": "hunter2"}}}) == "{'config': {'db': {'passphrase': <masked>}}}"
    assert shown("url", "postgres://user:hunter2@db:5432/x") == "'postgres://user:***@db:5432/x'"
    assert shown("far", "http://user:" + "hunter2" * 400 + "@host/") == "'http://user:***'..."
    assert shown("raw", bytearray(b"amqp://u:hunter2@h")) == "bytearray(b'amqp://u:***@h')"
    assert shown("dsn", "host=db password=hunter2 port=5432") == "'host=db password=*** port=5432'"


def test_words_can_be_added_to_what_tells_of_a_secret():
    secrets = pattern(["", "iban", "a.b"])
    assert shown("IBAN_of", "hunter2", secrets) == MASKED == shown("a.b", 1, secrets) and shown("axb", 1, secrets) == "1"
    assert shown("body", "iban=hunter2&n=1", secrets) == "'iban=***&n=1'" and shown("body", "iban=5", SECRET) == "'iban=5'"
    assert shown("rows", {"my_iban": "hunter2", "n": 1}, secrets) == "{'my_iban': <masked>, 'n': 1}"
    assert shown("password", 1, secrets) == MASKED and pattern(()) is SECRET is pattern([""])


# --- frames -----------------------------------------------------------------------------------------

def test_arguments_come_before_variables():
    def function(first, /, second, *rest, third=3, **more):
        local, held = 1, 2

        def closes():
            return held
        return frame_values(sys._getframe()), closes, local
    values, _, _ = function(1, 2, 5, third=4, extra=6)
    assert [value for value in values if value[0] != "closes"] == [
        ("first", "1"), ("second", "2"), ("third", "4"), ("rest", "(5,)"), ("more", "{'extra': 6}"), ("local", "1"),
                      ("held", "2")]


def test_many_variables_are_counted():
    space = {}
    exec("def function():\n" + "".join(f"  v{each} = {each}\n" for each in range(70)) + "  return frame_values(sys._getframe(), most=3)", {
        "sys": sys, "frame_values": frame_values}, space)
    assert space["function"]() == [("v0", "0"), ("v1", "1"), ("v2", "2"), ("...", "and 67 more")]


def test_of_a_module_its_data_are_shown():
    space = {"sys": sys, "frame_values": frame_values, "password": "hunter2", "n": 1, "a\x1bb": 2, 5: 6}
    space["value"], space["Hostile"], _ = hostile()
    exec("import os\nclass Mine: pass\ndef function(): pass\nfound = [1]\nshown = frame_values(sys._getframe())", space)
    assert space["shown"] == [("password", MASKED), ("n", "1"), ("a\\x1bb", "2"),
                              ("value", f"<Hostile {at(space['value'])}"), ("found", "[1]")]


def test_the_namespace_of_a_class_may_be_any_object_and_is_left_alone():
    class Space(dict):
        items = keys = __iter__ = refuse

    class Made(type):
        @classmethod
        def __prepare__(cls, *_):
            return Space()

        def __new__(cls, *_):
            return None

    found = []

    class Plain:
        n = 1
        found.append(frame_values(sys._getframe()))

    class Strange(metaclass=Made):
        n = 1
        found.append(frame_values(sys._getframe()))
    assert found == [[("n", "1")], []]


def test_a_look_changes_nothing_in_the_function():
    def function():
        space, gone = locals(), "gone"
        space["mine"] = "kept"
        names = [name for name, _ in frame_values(sys._getframe())]
        del gone
        return space["mine"], "gone" in names, "gone" in [name for name, _ in frame_values(sys._getframe())]
    assert function() == ("kept", True, False)


def test_what_changes_in_another_thread_meanwhile_does_not_raise():
    stop, shared, frames, looks = threading.Event(), {0: 0}, [], []
    seed = random.randrange(1 << 30)
    print("seed", seed)

    def changes():
        rng, several = random.Random(seed), set()
        frames.append(sys._getframe())
        while not stop.is_set():
            key = rng.randrange(50)
            shared[key] = several.add(key)
            shared.pop(rng.randrange(50), None)
            several.discard(rng.randrange(50))
            many = [key] * rng.randrange(20)
            del many
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=changes)
    thread.start()
    try:
        while not frames:
            pass
        for _ in range(2000):
            assert shown("shared", shared)[0] in "{<"
            looks.append(len(frame_values(frames[0])))
    finally:
        stop.set()
        thread.join(10)
        sys.setswitchinterval(interval)
    assert {"rng", "several"} <= {name for name, _ in frame_values(frames[0])} and len(looks) == 2000 and max(looks) > 4


def test_it_drags_in_little():
    code = ("import sys; before = set(sys.modules); sys.modules['modwsgi_tel.agent'] = type(sys)('modwsgi_tel.agent'); "
            "import os, modwsgi_tel; sys.modules['modwsgi_tel.agent'].__path__ = [os.path.join(modwsgi_tel.__path__[0], 'agent')]; "
            "import modwsgi_tel.agent.values; "
            "print(sorted(name for name in set(sys.modules) - before if name.startswith('modwsgi_tel') or name in "
            "('argparse', 'inspect', 'traceback', 'typing', 'logging', 'dataclasses', 'threading', 'asyncio')))")
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=30, check=True, universal_newlines=True)
    assert done.stdout.strip() == str(sorted(["modwsgi_tel", "modwsgi_tel.agent", "modwsgi_tel.agent.values", "modwsgi_tel.errors",
                                              "modwsgi_tel.masking", "modwsgi_tel.printable"]))

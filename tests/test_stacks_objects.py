"""Values of another process: as its own repr() has them, short, and without what is called a secret."""

import struct

import pytest

import images
import interpreters
import running
import targets
from modwsgi_tel.stacks.memory import Unreadable
from modwsgi_tel.stacks.objects import LONGEST_VALUE, MASKED, SECRET, Objects
from modwsgi_tel.stacks.offsets import LAYOUTS
from modwsgi_tel.stacks.reader import Reader

# Each thread parks in a function whose only other local is `value`; the truth is repr() of it
VALUES = r"""
import os, threading
VALUES = [None, True, False, 0, 1, -1, 255, -5, 256, 2 ** 30 - 1, 2 ** 30, -2 ** 30, 2 ** 60, 2 ** 62, 2 ** 63 - 1, -2 ** 63, 2 ** 64,
          12345678901234567890, -10 ** 40, 10 ** 90, 0.0, -0.0, 1.5, -2.25e300, float("inf"), float("nan"), "", "ascii", "it's", "tab\t\n\x00",
          "gr\xf6\xdfe", "\u6e2c\u5b9a", "\U0001f600 x", "lone \ud800 one", "a\udcffb", b"", b"bytes\x00\xff", b"it's", (), (1,), (1, 2.5, "x"), [],
          [1, [2, [3]]], {}, {"a": 1, 2: None, (1, 2): b"x"}, {"nested": {"x": [1]}, "y": ((),)}, [None] * 6, {1: "k"}, ("a", "b"),
          {"\u00e9": "\u00e9"}, [[], {}, ()], [True, False]]
GATE = threading.Lock()
GATE.acquire()
HEARD, SAY = os.pipe()
def parks(value):
    os.write(SAY, b"x"), GATE.acquire()
threading.stack_size(1 << 18)
TOLD = {}
for each in VALUES:
    thread = threading.Thread(target=parks, args=(each,), daemon=True)
    thread.start()
    os.read(HEARD, 1)
    TOLD[str(thread.native_id)] = repr(each)
"""
SECRETS = r"""
import os, threading
GATE = threading.Lock()
GATE.acquire()
HEARD, SAY = os.pipe()
class password:
    pass
def parks():
    db_password = PASSWD = token = api_key = key = Authorization = session_id = apikey = X_KEY = key_id = "hunter2"
    port = 5432
    plain = "http://host:80/a@b https://example.org/x:y@z"
    monkey = keyword = author = spinner = 1
    url = "postgres://user:hunter2@db:5432/x"
    odd = "redis://:hun/ter@2@db and http://host:80/ and http://u:hunter2@h"
    far = "http://user:" + "hunter2" * 40 + "@host/"
    beyond = "http://user:" + "hunter2" * 400 + "@host/"
    raw = b"amqp://u:hunter2@h"
    dsn = "host=db password=hunter2 port=5432"
    query = "a=1&token=hunter2&b=2"
    body = '{"secret": "hunter2 and more", "n": 1}'
    header = "Authorization: Bearer hunter2"
    cookies = "Cookie: a=hunter2; b=hunter2"
    environ = {"HTTP_COOKIE": "a=hunter2", b"password": "hunter2", "X_KEY": b"hunter2", 5: 6}
    pw = user_pw = passcode = hmac_key = salt = nonce = SSN = credit_card = card_number = cvv = pw2 = "hunter2"
    swap = salty = announce = pwned = "5"
    stripe = "charged with " + "sk_live_" + "hunter2" * 3
    slack = ["xoxb-hunter2-hunter2", "ghp_" + "hunter2" * 5, b"github_pat_hunter2hunter2"]
    aws, claims = "AKIAHUNTER2HUNTER2", "eyJhunter2hunter2.eyJhunter2.hunter2"
    pem = "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----\nshown"
    pem_cut = "-----BEGIN PRIVATE KEY-----\n" + "hunter2\n" * 200
    task_name = "task_live_hunted AKIA eyJ"
    headers = [("Set-Cookie", "hunter2"), ("Content-Type", "text/html"), [b"authorization", b"hunter2"]]
    deeper = {"config": {"db": {"passphrase": "hunter2"}}}
    cell = "hunter2 is shown: its name tells of nothing"
    name_of_a_class = password()
    def closes():
        return cell
    os.write(SAY, b"x"), GATE.acquire()
threading.Thread(target=parks, name="parks", daemon=True).start()
os.read(HEARD, 1)
TOLD = {}
"""
every = pytest.mark.parametrize("version", interpreters.READ)


def locals_of(version, program, function="parks"):
    """([{name: text}] of the innermost frames of that function, the target's TOLD)."""
    with targets.of(version, program) as target:
        reader = Reader(target.pid)
        try:
            def parked():
                found = reader.look(values=True)
                assert [each.problem for each in found.threads if each.problem] == []
                return found if all(each.state == "waiting" and each.values for each in found.threads if each.frames) else None
            found = running.wait_until(parked, 20, "the target does not park")
        finally:
            reader.close()
    return {each.tid: dict(each.values[0]) for each in found.threads if each.frames[0].function == function}, target.told


@every
def test_values_are_as_the_target_s_own_repr_has_them(version):
    found, told = locals_of(version, VALUES)
    assert {str(tid): values for tid, values in found.items()} == {tid: {"value": text} for tid, text in told.items()}


@every
def test_what_is_called_a_secret_is_masked_wherever_its_name_stands(version):
    found, _ = locals_of(version, SECRETS)
    shown, = found.values()
    assert "hunter2" not in " ".join(text for name, text in shown.items() if name != "cell").lower()
    where = shown.pop("name_of_a_class")
    assert where.startswith("<password at 0x"), where
    assert shown.pop("closes").startswith("<function at 0x")
    secret = ("db_password", "PASSWD", "token", "api_key", "key", "Authorization", "session_id", "apikey", "X_KEY", "key_id", "cookies", "pw",
              "user_pw", "passcode", "hmac_key", "salt", "nonce", "SSN", "credit_card", "card_number", "cvv", "pw2")
    assert shown == {
        **dict.fromkeys(secret, MASKED), "port": "5432", "plain": "'http://host:80/a@b https://example.org/x:y@z'", "monkey": "1", "keyword": "1", "author": "1", "spinner": "1",
        "url": "'postgres://user:***@db:5432/x'", "odd": "'redis://:***@db and http://host:80/ and http://u:***@h'", "far": "'http://user:***@host/'",
        "beyond": "'http://user:***'...", "raw": "b'amqp://u:***@h'", "dsn": "'host=db password=*** port=5432'",
        "query": "'a=1&token=***&b=2'", "body": "'{\"secret\": ***, \"n\": 1}'", "header": "'Authorization: Bearer ***'",
        "environ": "{'HTTP_COOKIE': <masked>, b'password': <masked>, 'X_KEY': <masked>, 5: 6}",
        "headers": "[('Set-Cookie', <masked>), ('Content-Type', 'text/html'), [b'authorization', <masked>]]",
        **dict.fromkeys(("swap", "salty", "announce", "pwned"), "'5'"), "stripe": "'charged with sk_live_***'",
        "slack": "['xoxb-***', 'ghp_***', b'github_pat_***']", "aws": "'AKIA***'", "claims": "'eyJ***'",
        "pem": "'-----BEGIN RSA PRIVATE KEY-----***\\nshown'", "pem_cut": "'-----BEGIN PRIVATE KEY-----***'...",
        "task_name": "'task_live_hunted AKIA eyJ'",
        "deeper": "{'config': {'db': {'passphrase': <masked>}}}", "cell": "'hunter2 is shown: its name tells of nothing'"}


@every
def test_a_value_is_never_longer_than_it_may_be(version):
    program = SECRETS.replace('    port = 5432\n', r'''    many = list(range(10 ** 5))
    wide = {"%050d" % each: "v" * 1000 for each in range(100)}
    long = "x" * 10 ** 6 + "y"
    escaped = "\u2028" * 1000
    raw_long = b"\xff" * 1000
    number = 10 ** 90
    huge = 1 << 10 ** 5
    nested = loop = []
    for each in range(50):
        nested = [nested]
    loop.append(loop)
''')
    shown, = locals_of(version, program)[0].values()
    assert {name: text for name, text in shown.items() if len(text) > LONGEST_VALUE} == {}
    assert shown["many"] == "[0, 1, 2, 3, 4, 5, and 99,994 more]"
    assert shown["long"] == "'" + "x" * 96 + "..."
    assert shown["huge"].startswith("<int of some 1000")
    assert shown["nested"] == "[[[[...]]]]" and shown["loop"] == "[[[[...]]]]"


@pytest.mark.parametrize("name, secret", [
    ("password", True), ("DB_PASSWORD", True), ("passwd", True), ("key", True), ("api_key", True), ("X-Api-Key", True), ("KEY", True),
    ("private", True), ("csrftoken", True), ("auth", True), ("PHPSESSID", True), ("signature", True), ("pin", True),
    ("pw", True), ("db_pw", True), ("passcode", True), ("hmac", True), ("salt", True), ("nonce", True), ("creditcard", True),
    ("card_number", True), ("cvv", True), ("key1", True), ("salty", False), ("announce", False), ("pwned", False),
    ("keys", False), ("keyword", False), ("monkey", False), ("author", False), ("spinner", False), ("passenger", False), ("path", False),
    ("sidebar", False), ("compass", False)])
def test_names_that_tell_of_a_secret(name, secret):
    assert bool(SECRET.search(name)) is secret


# --- made of bytes ------------------------------------------------------------------------------------------

TYPE, AT = 0x10000, 0x20000
LAYOUT = LAYOUTS[3, 11]


def objects_of(*members, kind=b"str"):
    """Objects of one object at AT, made of its bytes behind its references and its type, whose name is `kind`."""
    memory = images.Memory({TYPE: bytes(1024), TYPE + 0x1000: kind + bytes(128), AT: images.words(1, TYPE) + b"".join(members) + bytes(256)})
    memory.put(TYPE + LAYOUT.type_name, images.words(TYPE + 0x1000))
    return Objects(memory, LAYOUT)


def text(letters, kind, state=32, length=None):
    return images.words(len(letters) // kind if length is None else length, 0) + struct.pack("<I", state | kind << 2) + bytes(36) + letters


def test_a_text_of_what_is_no_text_is_unreadable():
    letters = "é測".encode("utf-16-le")
    assert objects_of(text(letters, 2)).string(AT) == "é測"
    for found in (objects_of(text(b"\xff\xff\xff\xff", 4)), objects_of(text(letters, 3)), objects_of(text(letters, 2, length=1 << 50)),
                  objects_of(text(letters, 2), kind=b"bytes"), objects_of(text(letters, 2, state=0))):
        with pytest.raises(Unreadable):
            found.string(AT)


def test_numbers_and_containers_of_impossible_sizes_are_unreadable_or_say_their_size():
    assert objects_of(images.words(1 << 40), kind=b"int").value(AT) == "<unreadable>"
    assert objects_of(images.words(1 << 20), kind=b"int").value(AT) == "<int of some 31457280 bits>"
    assert objects_of(images.words(1 << 60, 0), kind=b"tuple").value(AT) == "<unreadable>"
    assert objects_of(images.words(1 << 60, 0), kind=b"list").value(AT) == "<unreadable>"
    assert objects_of(images.words(5, 0, AT + 64, 0), kind=b"dict").value(AT) == "{and 5 more}"
    assert objects_of(images.words(5, 0, 8, 0), kind=b"dict").value(AT) == "<unreadable>"


def test_a_cell_that_holds_itself_ends():
    assert objects_of(images.words(AT), kind=b"cell").value(AT) == "<empty cell>"

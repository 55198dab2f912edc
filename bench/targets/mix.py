"""Threads that are parked in every kind of frame that the language knows.  Runs on Python 3.8 and later.

    python mix.py

The first line on stdout is the truth: {"frames": {native thread id: [[function, file, line], ...]}, "names": {id: name}},
innermost first.  It ends with its stdin, and after ten minutes.
"""
import contextlib
import functools
import os
import signal
import sys
import threading

from truth import parked, settle, tell

GATE = threading.Lock()
KINDS = []


def kind(function):
    KINDS.append(function)
    return function


def park(*_, **__):
    GATE.acquire()


@kind
def deep_recursion(depth=200):
    if depth:
        return deep_recursion(depth - 1)
    park()


@kind
def mutual_recursion():
    def even(left):
        return odd(left - 1) if left else park()

    def odd(left):
        return even(left - 1)
    even(20)


@kind
def generator():
    def counts():
        yield 1
        park()
        yield 2
    for _ in counts():
        pass


@kind
def yield_from():
    def inner(depth):
        if depth:
            yield from inner(depth - 1)
        else:
            park()
        yield depth
    list(inner(15))


@kind
def generator_sent_to():
    def takes():
        while True:
            got = yield
            if got == 3:
                park()
    taking = takes()
    next(taking)
    for each in range(5):
        taking.send(each)


@kind
def generator_thrown_into():
    def catches():
        try:
            yield
        except KeyError:
            park()
            yield
    caught = catches()
    next(caught)
    caught.throw(KeyError("thrown"))


@kind
def generator_closed():
    def closes():
        try:
            yield
        finally:
            park()
    closing = closes()
    next(closing)
    closing.close()


@kind
def list_comprehension():
    return [park() for each in range(3) if each]


@kind
def dict_comprehension():
    return {each: park() for each in range(3)}


@kind
def set_comprehension():
    return {
        park()
        for each in range(3)
        for other in range(each, 3)
    }


@kind
def generator_expression():
    return sum(1 for each in range(3) if park() or each)


@kind
def function_without_name():
    return (lambda then: then())(lambda: (lambda: park())())


def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper


@kind
@logged
@functools.lru_cache(maxsize=None)
def decorated():
    park()


@contextlib.contextmanager
def entered():
    try:
        yield
    finally:
        park()


@kind
def context_manager_left():
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: None)
        stack.enter_context(entered())


@kind
def exit_method():
    class Left:
        def __enter__(self):
            return self

        def __exit__(self, *what):
            park()
    with Left():
        int()
    str()


@kind
def sort_key():
    sorted([3, 1, 2], key=lambda each: park() or each)


@kind
def called_from_c():
    functools.reduce(lambda one, other: max([other], key=lambda each: list(map(park, [each]))), [1, 2, 3])


@kind
def partial_of_a_method():
    class Holder:
        @classmethod
        def made(cls):
            return cls.still()

        @staticmethod
        def still():
            return functools.partial(Holder().bound, 1)()

        def bound(self, one):
            park(one)
    Holder.made()


@kind
def property_read():
    class Read:
        @property
        def value(self):
            return park()
    return Read().value


@kind
def attribute_missing():
    class Missing:
        def __getattr__(self, name):
            return park()
    return Missing().anything


@kind
def operators():
    class Number:
        def __add__(self, other):
            return self < other

        def __lt__(self, other):
            return self[other]

        def __getitem__(self, key):
            return park()
    return Number() + Number()


@kind
def metaclass():
    class Meta(type):
        def __new__(mcs, name, bases, space):
            made = super().__new__(mcs, name, bases, space)
            park()
            return made

    class Made(metaclass=Meta):
        pass
    return Made


@kind
def class_body():
    class Body:
        before = 1
        parked = park()
    return Body


@kind
def initialiser():
    class Base:
        def __init__(self):
            park()

    class Derived(Base):
        def __init__(self):
            super().__init__()
    Derived()


@kind
def finaliser():
    class Gone:
        def __del__(self):
            park()
    Gone()


@kind
def handler():
    try:
        try:
            raise ValueError("first")
        except ValueError:
            raise KeyError("second")
    except KeyError:
        park()
    finally:
        str()


@kind
def finally_part():
    def returns():
        try:
            return 1
        finally:
            park()
    returns()


@kind
def executed():
    exec(compile("\n\n\ndef there():\n    park()\n\nthere()\n", "<executed>", "exec"), {"park": park})


@kind
def evaluated():
    eval("(lambda: park())()", {"park": park})


@kind
def far_lines():
    # more lines between two instructions than a byte can tell, forwards and backwards
    filler = "\n" * 400
    exec(compile("def far(call):\n    x = (%s\n        [1, 2,\n         call(\n    3,%s\n    4)])\n    return x\nfar(park)\n" % (filler, filler),
                 "<far lines>", "exec"), {"park": park})


@kind
def many_lines_of_a_call():
    str(
        park(
            1,
            str(2),
        )
    )


@kind
def many_locals():
    space = {"park": park}
    exec("def wide(%s):\n    park()\nwide(%s)\n" % (", ".join("a%d=None" % each for each in range(300)),
                                                    ", ".join(str(each) for each in range(200))), space)


@kind
def names_beyond_ascii():
    exec(compile("def größe(call):\n    def 測定():\n        call()\n    測定()\ngröße(park)\n", "<ñ/測.py>", "exec"), {"park": park})


@kind
def asynchronous():
    async def inner():
        park()

    async def outer(depth):
        await (outer(depth - 1) if depth else inner())
    with contextlib.suppress(StopIteration):
        outer(5).send(None)


@kind
def asynchronous_generator():
    async def yields():
        yield 1
        park()

    async def uses():
        async for _ in yields():
            pass
    with contextlib.suppress(StopIteration):
        uses().send(None)


@kind
def matched():
    if sys.version_info < (3, 10):
        return park()
    exec(compile("match [1, 2]:\n    case [x, y] if x:\n        park()\n", "<matched>", "exec"), {"park": park})


def main():
    GATE.acquire()
    threads = [threading.Thread(target=each, name=each.__name__, daemon=True) for each in KINDS]
    for each in threads:
        each.start()
    settle(len(threads))
    names = {each.native_id: each.name for each in threading.enumerate()}
    tell(frames=parked(sys._getframe()), names=names), os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    signal.alarm(600)
    main()

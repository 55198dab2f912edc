"""The worst case for a reader of stacks: threads that are all busy in functions of a microsecond, each of which has few
legal callers on known lines.  Runs on Python 3.8 and later.

    python busy.py [THREADS]

The first line on stdout is the table that `truth.check` takes.  Each newline on stdin is answered with the work done so
far.  It ends with its stdin, and after ten minutes.
"""
import _thread
import os
import signal
import sys
import time

from truth import lines_of, tell

FILE = "<busy>"
LAYERS, WIDTH = 9, 14
LEAF_S = 1e-6                           # what a call of the innermost functions takes
# What the functions of a layer are, from left to right.
KINDS = ("plain", "plain", "generator", "plain", "recursive", "plain", "delegating") * 2


def name_of(layer, place):
    return "%s_%d_%d" % (KINDS[place], layer, place)


def is_generator(name):
    return name.startswith(("generator", "delegating"))


def calls(name, callees, value="value"):
    """Lines of a body: each callee is called on a line of its own, the first one on two."""
    for callee in (callees[0], callees[1], callees[0]):
        if not is_generator(callee):
            yield "    %s = %s(%s & 4095)" % (value, callee, value), callee
        elif name.startswith("delegating"):
            yield "    yield from %s(%s & 4095)" % (callee, value), callee
        else:
            yield "    for each in %s(%s & 4095): %s += each" % (callee, value, value), callee


def body(name, callees):
    """(line, whom it calls or None) of a function."""
    if name.startswith("recursive"):
        yield "def %s(value, depth=3):" % name, None
        yield "    if depth:", None
        yield "        return %s(value + 1, depth - 1)" % name, name
    else:
        yield "def %s(value):" % name, None
    if callees:
        for line, callee in calls(name, callees):
            yield line, callee
            if name.startswith("generator"):
                yield "    yield value", None
    else:
        yield "    for _ in PAUSE: value ^= 5", None
    yield "    %s value + 1" % ("yield" if is_generator(name) else "return"), None


def worker(number):
    """(line, whom it calls or None) of a thread's outermost function."""
    yield "def worker_%d(value):" % number, None
    yield "    begin(%d)" % number, None
    yield "    while True:", None
    for line, callee in calls("worker", [name_of(0, number % WIDTH), name_of(0, (number + 3) % WIDTH)]):
        yield "    " + line, callee
    yield "        done[%d] += 1" % number, None


def program(threads):
    """(source, {callee: {caller: [line]}})."""
    lines, callers = [], {}

    def add(name, of):
        for line, callee in of:
            lines.append(line)
            if callee:
                callers.setdefault(callee, {}).setdefault(name, []).append(len(lines))
    for layer in range(LAYERS):
        for place in range(WIDTH):
            last = layer == LAYERS - 1
            # the one to the right and one further on: each has few callers, and they are of all kinds
            add(name_of(layer, place), body(name_of(layer, place), () if last else (
                name_of(layer + 1, (place + 1) % WIDTH), name_of(layer + 1, (place + 4) % WIDTH))))
    for number in range(threads):
        add("worker_%d" % number, worker(number))
    return "\n".join(lines) + "\n", callers


def pause():
    """The range that a loop goes through in about LEAF_S."""
    began = time.perf_counter()
    for value in range(20000):
        value ^= 5
    return range(max(1, round(LEAF_S / (time.perf_counter() - began) * 20000)))


def main(threads):
    source, callers = program(threads)
    done = [0] * threads
    space = {"done": done, "PAUSE": pause()}
    exec(compile(source, FILE, "exec"), space)
    functions = {name: {"file": FILE, "lines": lines_of(each.__code__), "callers": callers.get(name, {})}
                 for name, each in space.items() if hasattr(each, "__code__")}
    here = sys._getframe()
    functions["main"] = {"file": here.f_code.co_filename, "lines": lines_of(here.f_code), "callers": {"<module>": [here.f_back.f_lineno]}}
    # the one who reads the answer may look before `tell` has returned
    functions["tell"] = {"file": tell.__code__.co_filename, "lines": lines_of(tell.__code__),
                         "callers": {"main": lines_of(here.f_code)}}
    functions["<module>"] = {"file": here.f_code.co_filename, "lines": lines_of(here.f_back.f_code), "callers": {}}
    outermost = {_thread.get_native_id(): ["<module>"]}

    def begin(number):
        outermost[_thread.get_native_id()] = ["worker_%d" % number]
    space["begin"] = begin
    for number in range(threads):
        _thread.start_new_thread(space["worker_%d" % number], (number,))
    while len(outermost) <= threads:
        time.sleep(0.001)
    tell(functions=functions, outermost=outermost)
    while os.read(0, 1):
        tell(done=sum(done))
    os._exit(0)


if __name__ == "__main__":
    signal.alarm(600)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)

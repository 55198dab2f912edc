"""What a thread waits for, told from its innermost frame, and who has it where that can be known.

Only what is certain is told: an RLock knows the thread that owns it, and a join the thread that it waits for; a plain lock, a
queue or a semaphore knows nobody. "The GIL" cannot be told from inside: a thread that wants it looks as if it ran, and so does
one in C code that is not known here.

A thread blocked in C leaves a Python frame that stands at the call. What is called is found by reading the instructions that
come before, as far as they are plain names, attributes and items, and by looking these up again without running code of the
application: no property, no __getattr__, no repr but that of an exact RLock.
"""
import _thread
import opcode
import sys
import threading
from _opcode import stack_effect
from collections import namedtuple
from types import BuiltinFunctionType, FunctionType, MemberDescriptorType, ModuleType, SimpleNamespace

Wait = namedtuple("Wait", "kind owner_ident how")
Wait.__doc__ = """What a thread waits for.

kind: rlock, lock, condition, event, queue, future, join, semaphore, barrier, pool, socket, subprocess or sleep.
owner_ident: threading's number of the thread that it waits for, None where that cannot be known.  how: in words, one line."""

_INSTRUCTIONS_MOST = 48                 # before a call that are looked at
_CODE_MOST = 1 << 16                    # bytes of a function's instructions: longer ones are left alone
_KEYS_MOST = 256                        # of a dict that an item is taken from
_POOL_CALLERS = 3                       # frames beyond the standard library's whose file may be a pool's
_STEPS_MOST = 4000                      # frames looked at for who runs a future
_TEXT_MOST = 80

# None where gevent has put its own in their place: of these nothing is known here
_LOCK, _RLOCK = (kind if kind.__module__ == "_thread" else None for kind in (type(_thread.allocate_lock()), _thread.RLock))
_PY_RLOCK = threading._RLock
_TAKE = ("acquire", "acquire_lock", "__enter__", "_acquire_restore")

# Python functions that wait: (module, class or None, names, kind). The outermost of several counts.
_WAITERS = (
    ("threading", "Condition", ("wait", "wait_for"), "condition"),
    ("threading", "Event", ("wait",), "event"),
    ("threading", "Semaphore", ("acquire",), "semaphore"),
    ("threading", "Barrier", ("wait", "_wait", "_enter"), "barrier"),
    ("threading", "Thread", ("join", "_wait_for_tstate_lock"), "join"),
    ("queue", "Queue", ("get", "put", "join"), "queue"),
    ("concurrent.futures._base", "Future", ("result", "exception"), "future"),
    ("concurrent.futures._base", None, ("wait", "as_completed"), "future"),
    ("multiprocessing.pool", "ApplyResult", ("wait", "get"), "future"),
    ("selectors", "SelectSelector", ("select", "_select"), "socket"),
    ("selectors", "_PollLikeSelector", ("select",), "socket"),
    ("selectors", "EpollSelector", ("select",), "socket"),
    ("subprocess", "Popen", ("wait", "_wait", "_try_wait", "communicate", "_communicate"), "subprocess"),
)
# What waits in C: (module, type or None, names, kind).
_IN_C = (
    ("time", None, ("sleep",), "sleep"),
    ("posix", None, ("wait", "wait3", "wait4", "waitid", "waitpid"), "subprocess"),
    ("select", None, ("select",), "socket"),
    ("select", "epoll", ("poll",), "socket"),
    ("_queue", "SimpleQueue", ("get",), "queue"),
    ("_thread", "_ThreadHandle", ("join",), "join"),
    ("_ssl", "_SSLSocket", ("read", "write", "do_handshake", "shutdown"), "socket"),
    ("_socket", "socket", ("accept", "_accept", "connect", "connect_ex", "recv", "recv_into", "recvfrom", "recvfrom_into",
                           "recvmsg", "recvmsg_into", "send", "sendall", "sendmsg", "sendto"), "socket"),
)

_mro_of = type.__dict__["__mro__"].__get__
_space_of = type.__dict__["__dict__"].__get__
_space_of_module = ModuleType.__dict__["__dict__"].__get__


def waits(frame, frames_of=None):
    """The Wait of the thread whose innermost frame this is; None where it does not wait, or that cannot be told.  Never raises.

    frames_of: {ident: frame} of all threads, else asked of sys._current_frames() where it is needed.
    The thread runs on meanwhile: one that has just got a plain lock may still be told to wait for it; one that has got an RLock
    is not. A name that was bound to another lock since is taken for that. Where a variable is looked at, up to Python 3.12, its
    frame keeps what its variables are now until it ends.
    """
    try:
        _learn()
        at = frame.f_lasti
        called = _Call(frame).called()
        found = _judge(frame, frames_of, *called) if called is not None else None
        return found if frame.f_lasti == at else None
    except Exception:                   # it changed while it was looked at, or is written in a way that is not known
        return None


# --- what the standard library has, as far as the application has imported it ---------------------------------------------

_waiters = {}                           # id(code) -> (code, kind, name)
_functions = {}                         # id(builtin) -> (builtin, kind)
_methods = {}                           # id(type) -> (type, names, kind)
_plain_lookups = {id(kind.__dict__.get("__getattribute__")) for kind in (object, dict, list, BaseException, SimpleNamespace)}
_unlearned = {row[0] for row in _WAITERS + _IN_C}


def said(wait, tids, serving, request):
    """For what a thread waits, in words: "rlock that request 0.17 has"; "" where it waits for nobody in this process, or that is not known.

    tids: {ident: (native tid or None, name)}.  serving: {ident: Request}.  request: the one that the waiting thread serves, or None.
    """
    if wait is None or wait.kind in ("sleep", "socket", "subprocess"):
        return ""
    owner, tid = serving.get(wait.owner_ident), tids.get(wait.owner_ident, (None, ""))[0]
    if owner is not None and owner is not request:
        return f"{wait.kind} that request {owner.log_id} has"
    return f"{wait.kind} that thread {tid} has" if tid is not None else wait.kind


def _learn():
    """Take up what has been imported since: nothing is imported for this."""
    for name in [name for name in _unlearned if name in sys.modules]:
        module = sys.modules[name]
        if type(module) is not ModuleType:          # one that is imported when it is first used
            continue
        space = _space_of_module(module)
        if getattr(space.get("__spec__"), "_initializing", False):
            continue
        _unlearned.discard(name)
        for _, of, names, kind in (row for row in _WAITERS if row[0] == name):
            holder = space if of is None else _space_of_class(space.get(of))
            for each in names:
                function = holder.get(each)
                if type(function) is FunctionType:
                    _waiters[id(function.__code__)] = function.__code__, kind, f"{of}.{each}" if of else each
        for _, of, names, kind in (row for row in _IN_C if row[0] == name):
            if of is None:
                found = [space[each] for each in names if type(space.get(each)) is BuiltinFunctionType]
                _functions.update((id(each), (each, kind)) for each in found)
            elif of in space:
                _methods[id(space[of])] = space[of], names, kind
            if of == "socket":
                _plain_lookups.add(id(_space_of_class(space.get(of)).get("__getattribute__")))


def _space_of_class(thing):
    return _space_of(thing) if type in _mro_of(type(thing)) else {}


_PY_ACQUIRE = getattr(_PY_RLOCK.acquire, "__code__", None)
_CONDITION_WAIT = getattr(threading.Condition.wait, "__code__", None)


# --- what is waited for, once it is known what is called -------------------------------------------------------------------

def _judge(frame, frames_of, thing, name, text):
    """The Wait for a call of a thing's method `name`; where that is None the thing itself is called."""
    kind = type(thing)
    if kind is _RLOCK:
        return _rlock(frame, frames_of, thing, text) if name in _TAKE else None
    if kind is _LOCK:
        if name not in _TAKE or not thing.locked():
            return None
        return _py_rlock(frame, frames_of) if frame.f_code is _PY_ACQUIRE else _around(frame, frames_of, "lock", text)
    if name is None:
        held = _functions.get(id(thing))
        return _around(frame, frames_of, held[1], text) if held else None
    for each in _mro_of(kind):
        held = _methods.get(id(each))
        if held and name in held[1]:
            return None if held[2] == "queue" and not each.empty(thing) else _around(frame, frames_of, held[2], f"{text}.{name}")
    return None


def _rlock(frame, frames_of, lock, text):
    """An RLock in C tells its owner in its repr only: "owner=IDENT count=N"."""
    owner = int(repr(lock).partition(" owner=")[2].partition(" ")[0])
    if not owner or owner == _own(frame, frames_of):
        return None
    if frame.f_code is _CONDITION_WAIT:
        return Wait("condition", owner, "notified, wants the RLock of its Condition again")
    return Wait("rlock", owner, f"RLock {text}")


def _py_rlock(frame, frames_of):
    lock = frame.f_locals["self"]
    owner = _attribute(lock, "_owner") if type(lock) is _PY_RLOCK else None
    if type(owner) is not int or owner == _own(frame, frames_of):
        return None
    return Wait("rlock", owner, "RLock in Python")


def _own(frame, frames_of):
    """The thread whose innermost frame this is, or None."""
    for ident, each in (sys._current_frames() if frames_of is None else frames_of).items():
        if each is frame:
            return ident
    return None


def _around(frame, frames_of, kind, how):
    """The Wait for a call in C, of a kind: where functions of _WAITERS make it, theirs."""
    waiter, held = None, _waiters.get(id(frame.f_code))
    while held:
        waiter, (_, kind, how) = frame, held
        frame = frame.f_back
        held = frame and _waiters.get(id(frame.f_code))
    if kind == "lock":
        return Wait("lock", None, f"{how}: a plain lock does not know its owner")
    if kind in ("condition", "queue", "semaphore"):
        pool = _pool(frame)
        if pool:
            return Wait("pool", None, f"{how} in {pool}")
    if kind == "join":
        owner = _attribute(waiter.f_locals["self"], "_ident") if waiter else None
        return Wait("join", owner if type(owner) is int else None, how)
    if kind == "future" and how.startswith("Future."):
        return Wait("future", _runner(waiter.f_locals["self"], frames_of), how)
    return Wait(kind, None, how)


def _pool(frame):
    """The end of the name of a pool's file, of database or HTTP connections, where one waits; else ""."""
    for _ in range(_POOL_CALLERS):
        if frame is None:
            return ""
        folder, _, file = frame.f_code.co_filename.rpartition("/")
        folder = folder.rpartition("/")[2]
        if ("pool" in file or folder == "pool") and folder != "multiprocessing":
            return f"{folder}/{file}"[-_TEXT_MOST:]
        frame = frame.f_back
    return ""


def _runner(future, frames_of):
    """The thread of a ThreadPoolExecutor that runs a future now, or None."""
    module = sys.modules.get("concurrent.futures.thread")
    run = _space_of_class(_space_of_module(module).get("_WorkItem"))["run"].__code__ if type(module) is ModuleType else None
    steps = _STEPS_MOST if run else 0
    for ident, frame in (sys._current_frames() if frames_of is None else frames_of).items():
        while frame is not None and frame.f_code is not run and steps > 0:
            frame, steps = frame.f_back, steps - 1
        if steps <= 0:
            return None
        if frame is not None and _attribute(frame.f_locals["self"], "future") is future:
            return ident
    return None


# --- values, looked up as the interpreter would, without running code of the application -----------------------------------

_WRAPPED = (FunctionType, BuiltinFunctionType, MemberDescriptorType)      # of a class: their __get__ is Python's own


class _Unknown(Exception):
    """What cannot be told without running code of the application, or is written in a way that is not known."""


def _in(mro, name):
    for each in mro:
        space = _space_of(each)
        if name in space:
            return space[name]
    raise _Unknown


def _has(mro, name):
    return any(name in _space_of(each) for each in mro)


def _attribute(thing, name):
    """An attribute of a module, a class, or an object without own ways to look attributes up.  Raises _Unknown, AttributeError."""
    kind = type(thing)
    if kind is ModuleType:
        space = _space_of_module(thing)
        if name not in space:
            raise _Unknown
        return space[name]
    mro = _mro_of(kind)
    lookup = _in(mro, "__getattribute__")
    if lookup is type.__dict__["__getattribute__"]:
        if _has(mro, name):
            raise _Unknown
        found = _in(_mro_of(thing), name)
        if _has(_mro_of(type(found)), "__get__"):
            raise _Unknown
        return found
    if id(lookup) not in _plain_lookups:
        raise _Unknown
    if _has(mro, name):
        found = type(_in(mro, name))
        if found not in _WRAPPED and _has(_mro_of(found), "__get__"):
            raise _Unknown
    return object.__getattribute__(thing, name)


def _item(holder, key):
    """holder[key] of a list, a tuple, or a dict in which no key is an object of the application's."""
    if type(holder) in (list, tuple) and type(key) is int:
        return holder[key]
    if type(holder) is dict and len(holder) <= _KEYS_MOST and all(type(each) in (str, int) for each in (key, *holder)):
        return holder[key]
    raise _Unknown


# --- which call a frame stands at ------------------------------------------------------------------------------------------

def _numbers(*names):
    return frozenset(opcode.opmap[name] for name in names if name in opcode.opmap)


_VERSION = sys.version_info[:2]
_EXTENDED = opcode.opmap["EXTENDED_ARG"]
_CACHE = opcode.opmap.get("CACHE")
_FAST = _numbers("LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_FAST_CHECK")
_TWO_FAST = _numbers("LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW")
_STORE_FAST_LOAD = _numbers("STORE_FAST_LOAD_FAST")
_LOAD_FAST, _STORE_FAST = opcode.opmap["LOAD_FAST"], opcode.opmap["STORE_FAST"]
_DEREF = _numbers("LOAD_DEREF")
_GLOBAL, _NAME = _numbers("LOAD_GLOBAL"), _numbers("LOAD_NAME")
_ATTRIBUTE, _METHOD = _numbers("LOAD_ATTR"), _numbers("LOAD_METHOD")
_CONSTANT, _SMALL = _numbers("LOAD_CONST"), _numbers("LOAD_SMALL_INT")
_SUBSCRIPT, _BINARY = _numbers("BINARY_SUBSCR"), _numbers("BINARY_OP")
_BINARY_ITEM = 26                       # BINARY_OP's number for an item, from 3.14
_PUSH_NULL = _numbers("PUSH_NULL")
_BEFORE_CALL = _numbers("PRECALL", "KW_NAMES")
_CALLS = _numbers("CALL", "PRECALL", "CALL_METHOD", "CALL_FUNCTION")
_CALLS_NAMED = _numbers("CALL_KW", "CALL_FUNCTION_KW")      # names of arguments in a tuple on the stack
_WITH = _numbers("SETUP_WITH", "BEFORE_WITH")
# with, from 3.14: what stands between what is entered and the call of its __enter__, the last first
_WITH_CALLED = [_numbers(name) for name in ("LOAD_SPECIAL", "SWAP", "SWAP", "LOAD_SPECIAL", "COPY")]
_SHUFFLES = _numbers("SWAP", "COPY", "ROT_TWO", "ROT_THREE", "ROT_FOUR", "ROT_N", "DUP_TOP", "DUP_TOP_TWO")
_RELATIVE = frozenset(number for number in opcode.hasjrel if number < 256)
_JUMPS = _RELATIVE | frozenset(number for number in opcode.hasjabs if number < 256)
_BACKWARD = frozenset(number for number in _JUMPS if "BACKWARD" in opcode.opname[number])
_JUMP_UNIT = 1 if _VERSION < (3, 10) else 2
_NULL_BIT = 1 if _VERSION >= (3, 11) else 0         # LOAD_GLOBAL's lowest bit, and from 3.12 LOAD_ATTR's, is no part of the name
_METHOD_BIT = 1 if _VERSION >= (3, 12) else 0


class _Call:
    """The call, or the `with`, that a frame stands at."""

    def __init__(self, frame):
        self._frame, self._code = frame, frame.f_code
        self._bytes = self._code.co_code
        self._locals = None
        self._steps = self._read(frame.f_lasti) if 0 <= frame.f_lasti < len(self._bytes) <= _CODE_MOST else []

    def called(self):
        """(thing, name of its method or None, its text), or None where it stands at no call.  Raises _Unknown."""
        if not self._steps:
            return None
        number, count, _ = self._steps[0]
        if number in _WITH:
            thing, text, before = self._value(1)
            return self._whole(before, thing, "__enter__", text)
        place = 1
        while self._number(place) in _BEFORE_CALL:
            place += 1
        if number in _CALLS_NAMED:
            count += 1
        elif number not in _CALLS:
            return None
        if not count and _WITH_CALLED[0] and self._number(place) in _WITH_CALLED[0]:
            if not all(self._number(place + i) in numbers for i, numbers in enumerate(_WITH_CALLED)):
                raise _Unknown
            thing, text, before = self._value(place + len(_WITH_CALLED))
            return self._whole(before, thing, "__enter__", text)
        place = self._before(place, count)
        while self._number(place) in _PUSH_NULL:
            place += 1
        number, arg, _ = self._step(place)
        if number in _METHOD or number in _ATTRIBUTE:
            name = self._code.co_names[arg >> _METHOD_BIT if number in _ATTRIBUTE else arg]
            thing, text, before = self._value(place + 1)
            return self._whole(before, *self._unbound(thing, name, text))
        thing, text, before = self._value(place)
        if type(thing) is not BuiltinFunctionType:
            return None
        return self._whole(before, *self._bound(thing, text))

    def _unbound(self, thing, name, text):
        """What a method is of: a Condition's acquire is its lock's."""
        if type(thing) in (_LOCK, _RLOCK) or any(id(each) in _methods for each in _mro_of(type(thing))):
            return thing, name, text
        found = _attribute(thing, name)
        if type(found) is not BuiltinFunctionType:
            raise _Unknown
        return self._bound(found, f"{text}.{name}")

    @staticmethod
    def _bound(function, text):
        thing = function.__self__
        return (function, None, text) if thing is None or type(thing) is ModuleType else (thing, function.__name__, text)

    def _whole(self, before, thing, name, text):
        """What was found, unless the code can jump into the middle of it: `(A if x else B).acquire()`."""
        codes, arguments = self._bytes[::2], self._bytes[1::2]
        start, end = self._steps[before - 1][2], self._steps[0][2]
        for number in _JUMPS:
            place = codes.find(number)
            while place >= 0:
                arg, shift, wider = arguments[place], 8, place - 1
                while wider >= 0 and codes[wider] == _EXTENDED:
                    arg, shift, wider = arg | arguments[wider] << shift, shift + 8, wider - 1
                target = arg * _JUMP_UNIT
                if number in _RELATIVE:
                    after = place + 1
                    while _CACHE is not None and after < len(codes) and codes[after] == _CACHE:
                        after += 1
                    target = 2 * after + (-target if number in _BACKWARD else target)
                if start < target <= end:
                    raise _Unknown
                place = codes.find(number, place + 1)
        return thing, name, text[:_TEXT_MOST]

    def _read(self, at):
        """[(number, argument, place)] of the instructions from the one at a place backwards."""
        steps, held = [], self._bytes
        while at >= 0 and len(steps) < _INSTRUCTIONS_MOST:
            number, arg, shift, place = held[at], held[at + 1], 8, at
            at -= 2
            if number == _CACHE:
                continue
            while at >= 0 and held[at] == _EXTENDED:
                arg, shift, at = arg | held[at + 1] << shift, shift + 8, at - 2
            if number in _TWO_FAST:
                steps += [(_LOAD_FAST, arg & 15, place), (_LOAD_FAST, arg >> 4, place)]
            elif number in _STORE_FAST_LOAD:
                steps += [(_LOAD_FAST, arg & 15, place), (_STORE_FAST, arg >> 4, place)]
            else:
                steps.append((number, arg, place))
        return steps

    def _step(self, place):
        if place >= len(self._steps):
            raise _Unknown
        return self._steps[place]

    def _number(self, place):
        return self._step(place)[0]

    def _before(self, place, count):
        """The place before the instructions that put `count` values on the stack."""
        while count > 0:
            number, arg, _ = self._step(place)
            if number in _JUMPS or number in _SHUFFLES:
                raise _Unknown
            count -= stack_effect(number, arg if number >= opcode.HAVE_ARGUMENT else None)
            place += 1
        if count:
            raise _Unknown
        return place

    def _value(self, place):
        """(value, its text, the place before its instructions) of what the instructions up to a place put on the stack."""
        number, arg, _ = self._step(place)
        before, names = place + 1, self._code.co_names
        if number in _FAST or number in _DEREF:
            name = self._variable(number, arg)
            return self._local(name), name, before
        if number in _GLOBAL:
            name = names[arg >> _NULL_BIT]
            return self._global(name), name, before
        if number in _NAME:
            space, name = self._frame.f_locals, names[arg]
            return space[name] if type(space) is dict and name in space else self._global(name), name, before
        if number in _ATTRIBUTE:
            thing, text, before = self._value(before)
            name = names[arg >> _METHOD_BIT]
            return _attribute(thing, name), f"{text}.{name}", before
        if number in _SUBSCRIPT or number in _BINARY and arg == _BINARY_ITEM and _VERSION >= (3, 14):
            key, _, before = self._value(before)
            holder, text, before = self._value(before)
            return _item(holder, key), f"{text}[...]", before
        if number in _CONSTANT:
            return self._code.co_consts[arg], "", before
        if number in _SMALL:
            return arg, "", before
        raise _Unknown

    def _variable(self, number, arg):
        code = self._code
        if _VERSION >= (3, 11):
            return code._varname_from_oparg(arg)
        return code.co_varnames[arg] if number in _FAST else (code.co_cellvars + code.co_freevars)[arg]

    def _local(self, name):
        if self._locals is None:
            self._locals = self._frame.f_locals
        return self._locals[name]

    def _global(self, name):
        for space in (self._frame.f_globals, self._frame.f_builtins):
            if type(space) is dict and name in space:
                return space[name]
        raise _Unknown

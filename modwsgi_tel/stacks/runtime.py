"""Which Python is in a process, and where: the address of its _PyRuntime, its version and its Layout."""
import struct
from collections import namedtuple

from modwsgi_tel.errors import TelError
from modwsgi_tel.stacks import elf
from modwsgi_tel.stacks.memory import LONGEST_READ, Unreadable
from modwsgi_tel.stacks.offsets import COOKIE, DEBUG_SIZE, FIRST, LAST, LAYOUTS, from_debug

Runtime = namedtuple("Runtime", "address python layout module")
Runtime.__doc__ = """address: of _PyRuntime.  python: its version as text, "3.11.7" or "3.10".  layout: its offsets.Layout.
module: the path of the file that it came from."""


class NotRunning(TelError):
    """Python is in it, but not in use: as in Apache's own processes, where daemons do the work."""


# up to 3.10 nothing tells the version but what is exported since; the newest first
_BY_SYMBOL = (("PyModule_AddObjectRef", (3, 10)), ("PyFrame_GetCode", (3, 9)), ("PyCode_NewWithPosOnlyArgs", (3, 8)))
_SYMBOLS = ("_PyRuntime", "Py_Version", "_Py_NegativeRefcount", *(name for name, _ in _BY_SYMBOL))
_OTHERS = ("PyInterpreterState_Head", "PyEval_EvalFrameEx")         # a Python that is older than _PyRuntime
_MOST_SCANNED = 64 << 20


def locate(memory, maps, executable, open_executable=None):
    """The Runtime of a process.  Raises TelError that says what was found instead.

    memory: with `read(address, size)`.  maps: its Mappings.  executable: the path of its program as maps names it.
    open_executable: opens the program's file, where its own tables may be needed; or None.
    """
    problem, old, resting = None, None, False
    for module in elf.modules(memory, maps, executable):
        if "pypy" in module.path.rpartition("/")[2]:
            raise TelError(f"this is PyPy ({module.path}), not CPython; its stacks cannot be read")
        address = module.symbol("_PyRuntime")
        if address is None:
            old = old or (module.path if any(module.symbol(name) for name in _OTHERS) else None)
            continue
        if module.machine is None:
            raise TelError(f"{module.path} is for a machine that is not known; x86-64 and aarch64 are")
        try:
            found = _runtime(memory, address, module.symbol, module.path)
        except Unreadable as error:
            problem = f"{module.path} holds a Python that cannot be read: {error}"
            continue
        if found is not None:
            return found
        problem, resting = f"no Python code runs in it ({module.path} is there, but has not started, or has ended)", True
    found = _without_symbols(memory, maps, executable, open_executable)
    if found is not None:
        return found
    if problem is None and old is not None:
        problem = f"{old} is a Python older than 3.7, whose stacks cannot be read; 3.8 to 3.15 can"
    raise (NotRunning if resting else TelError)(problem or f"no Python is in it (its program is {executable or 'unknown'})")


def _runtime(memory, address, symbol, path):
    """The Runtime at an address, or None when no interpreter is there.  Raises Unreadable, or TelError for a version unknown."""
    head = memory.read(address, 24)
    if head[:8] == COOKIE:
        told, free_threaded = struct.unpack_from("<QQ", head, 8)
        version, python = _told(told)
        if free_threaded:
            raise TelError(f"this is a free-threaded Python {python} ({path}), whose stacks cannot be read")
        if not (3, 13) <= version <= LAST:
            raise TelError(f"this is Python {python} ({path}), which is not known; {_known()} are")
        _refuse_debug(symbol, python, path)
        layout = from_debug(memory.read(address, DEBUG_SIZE), version)
    else:
        told = symbol("Py_Version")
        if told is not None:
            version, python = _told(struct.unpack("<Q", memory.read(told, 8))[0])
        else:
            version = next((version for name, version in _BY_SYMBOL if symbol(name) is not None), None)
            python = "%d.%d" % version if version else "3.7 or older"
        if version not in LAYOUTS:
            raise TelError(f"this is Python {python} ({path}), which is not known; {_known()} are")
        _refuse_debug(symbol, python, path)
        layout = LAYOUTS[version]
    first, = struct.unpack("<Q", memory.read(address + layout.interpreters_head, 8))
    return Runtime(address, python, layout, path) if first else None


def _refuse_debug(symbol, python, path):
    if symbol("_Py_NegativeRefcount") is not None or symbol("_Py_INCREF_IncRefTotal") is not None:
        raise TelError(f"this is a debug build of Python {python} ({path}), whose stacks cannot be read")


def _told(value):
    """((3, 11), "3.11.7") of a PY_VERSION_HEX."""
    major, minor, micro, level = value >> 24 & 255, value >> 16 & 255, value >> 8 & 255, value & 255
    kind = {0xA: "a", 0xB: "b", 0xC: "rc"}.get(level >> 4)
    return (major, minor), f"{major}.{minor}.{micro}" + (f"{kind}{level & 15}" if kind else "")


def _known():
    return "%d.%d to %d.%d" % (FIRST + LAST)


def _without_symbols(memory, maps, executable, open_executable):
    """For a program that exports nothing: by its file's own table, or from 3.13 by the cookie in its data."""
    if open_executable is not None:
        try:
            with open_executable() as handle:
                told = elf.symbols_in_file(handle, _SYMBOLS)
            base = next(each for each in maps if each.offset == 0 and each.path == executable)
            module = elf.Module(memory, base.start, executable)
            if "_PyRuntime" in told:
                return _runtime(memory, module.bias + told["_PyRuntime"],
                                lambda name: module.bias + told[name] if name in told else None, executable)
        except (OSError, Unreadable, StopIteration, struct.error, OverflowError, ValueError):
            pass                        # no such table, or one that leads out of the file
    scanned, before = 0, None
    for each in maps:
        # the data of a file, or what lies right behind it: its .bss
        mine = "w" in each.perms and (each.path.startswith("/") or (not each.path and before is not None
                                                                    and before.end == each.start))
        before = each if each.path.startswith("/") else None
        if not mine or "r" not in each.perms:
            continue
        at = each.start
        while at < each.end and scanned < _MOST_SCANNED:
            size = min(LONGEST_READ, each.end - at)
            scanned += size
            try:
                data = memory.read(at, size)
            except Unreadable:
                break
            place = data.find(COOKIE)
            while place >= 0:
                try:
                    found = _runtime(memory, at + place, lambda name: None, each.path or executable) if place % 8 == 0 else None
                except Unreadable:
                    found = None
                if found is not None:
                    return found
                place = data.find(COOKIE, place + 1)
            at += size
    return None

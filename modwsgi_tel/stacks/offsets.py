"""Where CPython keeps what is read here: one row per minor version, in bytes, the same on x86-64 and aarch64.

Up to 3.12 measured by offsetof against each version's own headers (Include/internal/pycore_runtime.h, pycore_interp.h,
pycore_frame.h, Include/cpython/pystate.h, code.h, frameobject.h, unicodeobject.h, Objects/dict-common.h).  Patch releases
of a minor version agree.  From 3.13 a process carries most of them itself (_Py_DebugOffsets): only the order of that table
is a row here.
"""
import struct
from collections import namedtuple

from modwsgi_tel.errors import TelError

FIRST, LAST = (3, 8), (3, 15)

# A frame is one of two kinds: a heap object in a chain (up to 3.10), or a struct, mostly in the thread's data stack
Layout = namedtuple("Layout", (
    "version",                          # (3, 11)
    "interpreters_head", "gil_of_runtime",                      # in _PyRuntime; the second up to 3.11
    "interp_next", "interp_id", "interp_threads", "interp_modules", "interp_gil",       # the last from 3.12: a pointer
    "collecting_of_runtime", "interp_collecting",               # an int, 1 while garbage is collected; the first in 3.8 alone
    "gil_holder", "gil_locked",         # in a gil
    "thread_next", "thread_interp", "thread_ident", "thread_native",    # native from 3.11
    "thread_frame", "cframe_frame",     # where the innermost frame is; in 3.11 and 3.12 by way of a cframe
    "thread_depth",                     # in 3.10: a pointer into its C stack; later that comes with the frames
    "thread_chunk",                     # its data stack, from 3.11; the top of it is in the word behind
    "frame_size", "frame_back", "frame_code", "frame_instruction", "frame_live", "frame_owner", "frame_stack",
    "frame_entry", "frame_globals", "frame_locals",
    "code_size", "code_file", "code_name", "code_qualname", "code_first_line", "code_lines", "code_flags",
    "code_varnames", "code_cells", "code_start", "code_room", "code_nlocals", "code_stack",
    "lock_locked",
    "type_name", "type_flags", "type_keys",
    "ascii_size", "compact_size", "tuple_items"))
Layout.__doc__ = """Offsets in bytes; None where a version has none of it.

frame_live: a byte, 1 while it runs (3.10: 0, or 2 while it raises).  frame_stack: the depth of the frame's own stack (an int,
-1 while it runs or is in C; from 3.14 a pointer, NULL while it runs).  frame_entry: a byte, 1 when C called it (3.11; later
a shim lies between).  code_lines: co_lnotab or co_linetable.  code_varnames: co_varnames or co_localsplusnames; code_cells:
up to 3.10 co_cellvars and co_freevars, whose values lie behind.  type_keys: the names of the attributes that instances
share.  code_room: co_framesize, in words; in 3.11 co_stacksize, to which code_nlocals, co_nlocalsplus, and the frame come.  code_stack:
co_stacksize, an int.  lock_locked: a byte of a lock, its lowest bit set while it is taken."""

_ROWS = {
    #         3.8    3.9    3.10   3.11   3.12
    "interpreters_head": (32, 32, 32, 40, 40),
    "gil_of_runtime": (1160, 360, 360, 368, None),
    "interp_next": (0, 0, 0, 0, 0),
    "interp_id": (16, 24, 24, 48, 8),
    "interp_threads": (8, 8, 8, 16, 72),
    "interp_modules": (56, 856, 856, 888, 944),
    "interp_gil": (None, None, None, None, 384),
    "collecting_of_runtime": (544, None, None, None, None),
    "interp_collecting": (None, 816, 816, 848, 312),
    "gil_holder": (0, 0, 0, 0, 8),
    "gil_locked": (8, 8, 8, 8, 16),
    "thread_next": (8, 8, 8, 8, 8),
    "thread_interp": (16, 16, 16, 16, 16),
    "thread_ident": (176, 176, 176, 152, 136),
    "thread_native": (None, None, None, 160, 144),
    "thread_frame": (24, 24, 24, 56, 56),
    "cframe_frame": (None, None, None, 8, 0),
    "thread_depth": (None, None, 48, None, None),
    "thread_chunk": (None, None, None, 296, 232),
    "frame_size": (120, 120, 112, 72, 72),
    "frame_back": (24, 24, 24, 48, 8),
    "frame_code": (32, 32, 32, 32, 0),
    "frame_instruction": (104, 104, 96, 56, 56),
    "frame_live": (116, 116, 108, None, None),
    "frame_owner": (None, None, None, 69, 70),
    "frame_stack": (None, None, None, 64, 64),
    "frame_entry": (None, None, None, 68, None),
    "frame_globals": (48, 48, 48, 8, 24),
    "frame_locals": (360, 360, 352, 72, 72),
    "code_size": (176, 176, 176, 192, 200),
    "code_file": (104, 104, 104, 112, 112),
    "code_name": (112, 112, 112, 120, 120),
    "code_qualname": (None, None, None, 128, 128),
    "code_first_line": (40, 40, 40, 72, 68),
    "code_lines": (120, 120, 120, 136, 136),
    "code_flags": (36, 36, 36, 48, 48),
    "code_varnames": (72, 72, 72, 96, 96),
    "code_cells": ((88, 80), (88, 80), (88, 80), (), ()),
    "code_start": (None, None, None, 184, 192),
    "code_room": (None, None, None, 68, 76),
    "code_nlocals": (None, None, None, 76, None),
    "code_stack": (32, 32, 32, 68, 64),
    "lock_locked": (32, 32, 32, 32, 32),
    "type_name": (24, 24, 24, 24, 24),
    "type_flags": (168, 168, 168, 168, 168),
    "type_keys": (None, None, None, 872, 880),
    "ascii_size": (48, 48, 48, 48, 40),
    "compact_size": (72, 72, 72, 72, 56),
    "tuple_items": (24, 24, 24, 24, 24),
}
LAYOUTS = {(3, minor): Layout(version=(3, minor), **{name: row[minor - 8] for name, row in _ROWS.items()})
           for minor in range(8, 13)}

# _Py_DebugOffsets from 3.13 on: 8 bytes of cookie, the version, whether free-threaded; then these, 8 bytes each.
# Source: Include/internal/pycore_runtime.h (3.13), pycore_debug_offsets.h (3.14 and later) of each version.
COOKIE = b"xdebugpy"
_DEBUG = {
    (3, 13): """runtime: size finalizing interpreters_head
        interp: size id next threads_head gc imports_modules sysdict builtins ceval_gil gil_runtime_state
            gil_runtime_state_enabled gil_runtime_state_locked gil_runtime_state_holder
        thread: size prev next interp current_frame thread_id native_thread_id datastack_chunk status
        frame: size previous executable instr_ptr localsplus owner
        code: size filename name qualname linetable firstlineno argcount localsplusnames localspluskinds co_code_adaptive
        object: size ob_type
        type: size tp_name tp_repr tp_flags
        tuple: size ob_item ob_size
        list: size ob_item ob_size
        dict: size ma_keys ma_values
        float: size ob_fval
        long: size lv_tag ob_digit
        bytes: size ob_size ob_sval
        unicode: size state length asciiobject_size
        gc: size collecting""",
    (3, 14): """runtime: size finalizing interpreters_head
        interp: size id next threads_head threads_main gc imports_modules sysdict builtins ceval_gil gil_runtime_state
            gil_runtime_state_enabled gil_runtime_state_locked gil_runtime_state_holder code_object_generation
            tlbc_generation
        thread: size prev next interp current_frame thread_id native_thread_id datastack_chunk status
        frame: size previous executable instr_ptr localsplus owner stackpointer tlbc_index
        code: size filename name qualname linetable firstlineno argcount localsplusnames localspluskinds co_code_adaptive
            co_tlbc
        object: size ob_type
        type: size tp_name tp_repr tp_flags
        tuple: size ob_item ob_size
        list: size ob_item ob_size
        set: size used table mask
        dict: size ma_keys ma_values
        float: size ob_fval
        long: size lv_tag ob_digit
        bytes: size ob_size ob_sval
        unicode: size state length asciiobject_size
        gc: size collecting""",
    (3, 15): """runtime: size finalizing interpreters_head
        interp: size id next threads_head threads_main gc imports_modules sysdict builtins ceval_gil gil_runtime_state
            gil_runtime_state_enabled gil_runtime_state_locked gil_runtime_state_holder code_object_generation
            tlbc_generation
        thread: size prev next interp current_frame base_frame last_profiled_frame last_profiled_frame_seq thread_id
            native_thread_id datastack_chunk status holds_gil gil_requested current_exception exc_state
        exception: exc_value
        frame: size previous executable instr_ptr localsplus owner stackpointer tlbc_index
        code: size filename name qualname linetable firstlineno argcount localsplusnames localspluskinds co_code_adaptive
            co_tlbc
        object: size ob_type
        type: size tp_name tp_repr tp_flags tp_basicsize tp_dictoffset
        heaptype: size ht_cached_keys
        tuple: size ob_item ob_size
        list: size ob_item ob_size
        set: size used table mask
        dict: size ma_keys ma_values
        float: size ob_fval
        long: size lv_tag ob_digit
        bytes: size ob_size ob_sval
        unicode: size state length asciiobject_size compactunicodeobject_size
        gc: size collecting""",
}
# what objects.py takes for granted, since no version has had it otherwise
_GIVEN = {"object.ob_type": 8, "tuple.ob_size": 16, "list.ob_size": 16, "list.ob_item": 24, "dict.ma_keys": 32,
          "dict.ma_values": 40, "float.ob_fval": 16, "long.lv_tag": 16, "long.ob_digit": 24, "bytes.ob_size": 16,
          "bytes.ob_sval": 32, "unicode.length": 16, "unicode.state": 32}
_LARGEST_STRUCT = {"interp": 1 << 20}   # an interpreter's state is a few hundred kilobytes, all others are small
_LARGEST = 8192
_IN_FRAME = ("frame_back", "frame_code", "frame_instruction", "frame_stack")
_IN_CODE = ("code_file", "code_name", "code_qualname", "code_lines", "code_varnames", "code_first_line", "code_flags",
            "code_room")
DEBUG_SIZE = 1024                       # what is read of it: more than the longest table


def _names(version):
    """The members of a version's table, as ("runtime.size", ...), in order."""
    found, part = [], ""
    for word in _DEBUG[version].split():
        if word.endswith(":"):
            part = word[:-1]
        else:
            found.append(f"{part}.{word}")
    return found


def read_debug(data, version):
    """{"thread.next": offset} out of the bytes of a _Py_DebugOffsets of that version, every one checked.

    Raises TelError when one of them lies outside of its struct: this is no Python as it is known.
    """
    names = _names(version)
    values = dict(zip(names, struct.unpack_from(f"<{len(names)}Q", data, 24)))
    for name, given in _GIVEN.items():
        if values[name] != given:
            raise TelError(_senseless(version, f"{name} = {values[name]}"))
    for name, value in values.items():
        part, _, member = name.partition(".")
        if part in ("exception", "runtime") and member != "interpreters_head":
            continue
        most = _LARGEST_STRUCT.get(part, _LARGEST if part != "runtime" else 1 << 20)
        within = min(values.get(f"{part}.size", most), most)
        if value > most or (member != "size" and value >= max(within, 1) and part not in ("bytes", "tuple", "frame")):
            raise TelError(_senseless(version, f"{name} = {value}"))
    return values


def _senseless(version, what):
    return f"the offsets that this Python {version[0]}.{version[1]} tells make no sense ({what})"


def from_debug(data, version):
    """The Layout of a Python from 3.13, out of the bytes of its own _Py_DebugOffsets.  Raises TelError."""
    told = read_debug(data, version)
    gil = told["interp.gil_runtime_state"]
    largest = max(told[f"thread.{name}"] for name in ("next", "interp", "current_frame", "thread_id", "native_thread_id",
                                                      "datastack_chunk"))
    if largest > 4096:
        raise TelError(_senseless(version, f"a thread of {largest} bytes"))
    layout = Layout(
        version=version, interpreters_head=told["runtime.interpreters_head"], gil_of_runtime=None,
        interp_next=told["interp.next"], interp_id=told["interp.id"], interp_threads=told["interp.threads_head"],
        interp_modules=told["interp.imports_modules"], interp_gil=told["interp.ceval_gil"],
        collecting_of_runtime=None, interp_collecting=told["interp.gc"] + told["gc.collecting"],
        gil_holder=told["interp.gil_runtime_state_holder"] - gil, gil_locked=told["interp.gil_runtime_state_locked"] - gil,
        thread_next=told["thread.next"], thread_interp=told["thread.interp"], thread_ident=told["thread.thread_id"],
        thread_native=told["thread.native_thread_id"], thread_frame=told["thread.current_frame"], cframe_frame=None,
        thread_depth=None, thread_chunk=told["thread.datastack_chunk"],
        frame_size=told["frame.localsplus"], frame_back=told["frame.previous"], frame_code=told["frame.executable"],
        frame_instruction=told["frame.instr_ptr"], frame_live=None, frame_owner=told["frame.owner"], frame_entry=None,
        frame_stack=told.get("frame.stackpointer", 64), frame_globals=24, frame_locals=told["frame.localsplus"],
        code_size=told["code.co_code_adaptive"], code_file=told["code.filename"], code_name=told["code.name"],
        code_qualname=told["code.qualname"], code_first_line=told["code.firstlineno"], code_lines=told["code.linetable"],
        code_flags=48, code_varnames=told["code.localsplusnames"],
        code_cells=(), code_start=told["code.co_code_adaptive"],
        code_room=76, code_nlocals=None, code_stack=64, lock_locked=32 if version < (3, 14) else 16,
        type_name=told["type.tp_name"], type_flags=told["type.tp_flags"], type_keys=told.get("heaptype.ht_cached_keys", 880),
        ascii_size=told["unicode.asciiobject_size"], compact_size=told["unicode.asciiobject_size"] + 16,
        tuple_items=told["tuple.ob_item"])
    _check(layout)
    return layout


def _check(layout):
    """Raises TelError when a member does not lie in what is read of its struct."""
    if not layout.frame_size <= 512 or not layout.code_size <= 1024:
        raise TelError(_senseless(layout.version, f"a frame of {layout.frame_size} bytes, a code object of {layout.code_size}"))
    for name, size in (*((name, layout.frame_size - 8) for name in _IN_FRAME), ("frame_owner", layout.frame_size - 1),
                       *((name, layout.code_size - 8) for name in _IN_CODE)):
        if not 0 <= getattr(layout, name) <= size:
            raise TelError(_senseless(layout.version, f"{name} = {getattr(layout, name)}"))
    if not 40 <= layout.ascii_size <= 64 or not 0 <= layout.gil_holder <= 4096 or not 0 <= layout.gil_locked <= 4096:
        raise TelError(_senseless(layout.version, "a text's head, or a GIL"))


# Of a function object, and co_argcount of its code; by offsetof as above, 3.13 to 3.15 as 3.12.
# Source: Include/funcobject.h up to 3.9, cpython/funcobject.h later
Function = namedtuple("Function", "globals code defaults kwdefaults closure dict arguments")
_FUNCTIONS = {
    (3, 8): Function(24, 16, 32, 40, 48, 72, 16),
    (3, 10): Function(16, 48, 56, 64, 72, 88, 16),
    (3, 11): Function(16, 48, 56, 64, 72, 88, 56),
    (3, 12): Function(16, 48, 56, 64, 72, 88, 52),
}


def function(version):
    """The Function of a version."""
    return _FUNCTIONS[max(each for each in _FUNCTIONS if each <= version)]

"""Short safe texts of Python values, of the process that this runs in; the same look and rules as from outside (stacks.objects).

Nothing of the application's is called: no repr, str, hash, comparison, property or metaclass.  Only values whose type is
exactly a builtin one are looked into; sizes, depths and counts are bounded.
"""
from itertools import islice
from types import CellType, ModuleType

from modwsgi_tel.masking import BEYOND, MASKED, SECRET, quoted
from modwsgi_tel.printable import printable

LONGEST_VALUE = 200                     # letters
MOST_VALUES = 64                        # of a frame
_LONGEST_KEY = 4096                     # letters of a key that are searched for what tells of a secret
_LONGEST_NAME = 60
_MOST_SHOWN = 6                         # members of a container
_MOST_LOOKED_AT = 2000                  # names of a module
_DEEPEST = 2
_MOST_BITS = 1920                       # numbers beyond are told by their size, as from outside
_TRIES = 3                              # of a container that changes meanwhile

_OPTIMIZED = 1                          # CO_OPTIMIZED: a function's code; its variables are not in a dict
_VARARGS = 4 | 8                        # CO_VARARGS, CO_VARKEYWORDS
_A_CLASS = 1 << 31                      # Py_TPFLAGS_TYPE_SUBCLASS

_type_name, _type_flags = type.__dict__["__name__"].__get__, type.__dict__["__flags__"].__get__
# By id: a metaclass may have a __hash__ and an __eq__ of its own
_BRACKETS = {id(tuple): ("(", ")"), id(list): ("[", "]"), id(dict): ("{", "}"), id(set): ("{", "}"),
             id(frozenset): ("frozenset({", "})")}
_CODE = frozenset(map(id, (ModuleType, type(len), type(lambda: None))))         # of a module's variables these tell nothing


def shown(name, value, secrets=SECRET, reprs=False, longest=LONGEST_VALUE):
    """A text of a value, of at most `longest` letters; MASKED when its name tells of a secret.  Never raises.

    name: "" for none.  secrets: a pattern of masking.pattern.  reprs: whether repr() of objects that are no builtins may be
    called, which is code of the application.
    """
    try:
        if secrets.search(name):
            return MASKED
        return _cut(_value(value, secrets, reprs, longest, 0), longest)
    except Exception:
        return "<unreadable>"           # what changes faster than it can be read; memory that has run out


def frame_values(frame, secrets=SECRET, reprs=False, most=MOST_VALUES, longest=LONGEST_VALUE):
    """[(name, text)] of a frame's arguments and variables, the arguments first; of a module without modules, functions, classes.

    What is beyond `most` is counted in a last ("...", "and 3 more").  The frame may be another thread's, that runs on: values
    are as of now.  Up to 3.12 the frame then keeps these until it ends or is looked at again.  Never raises.
    """
    try:
        names, values = _variables(frame)
        found = [(_cut(name, _LONGEST_NAME) if name.isidentifier() else printable(name[:_LONGEST_NAME]),
                  shown(name[:_LONGEST_KEY], value, secrets, reprs, longest)) for name, value in zip(names[:most], values)]
    except Exception:
        return []
    return found + ([("...", f"and {len(names) - most:,} more")] if len(names) > most else [])


def _variables(frame):
    """(names, values) of a frame's variables, arguments first."""
    code, space = frame.f_code, frame.f_locals
    if not code.co_flags & _OPTIMIZED:
        if type(space) is not dict:     # of a class whose metaclass has made it: any object
            return [], []
        pairs = [(name, value) for name, value in _items(space, _MOST_LOOKED_AT) if type(name) is str
                 and not name.startswith("__") and id(type(value)) not in _CODE and not _type_flags(type(value)) & _A_CLASS]
        return [name for name, _ in pairs], [value for _, value in pairs]
    held = {name: value for name, value in _items(space, _MOST_LOOKED_AT) if type(name) is str}
    count = code.co_argcount + code.co_kwonlyargcount + bin(code.co_flags & _VARARGS).count("1")
    names = [name for name in code.co_varnames[:count] if name in held]
    names += [name for name in held if name not in names]
    return names, [held[name] for name in names]


def _items(space, most):
    """[(key, value)] of a dict, or of a frame's variables from 3.13 on; no key is hashed or compared."""
    for _ in range(_TRIES - 1):
        try:
            return list(islice(space.items(), most))
        except RuntimeError:            # another thread has changed it
            pass
    return list(islice(space.items(), most))


def _cut(text, longest):
    return text if len(text) <= longest else text[:longest - 3] + "..."


def _value(value, secrets, reprs, longest, depth):
    kind = type(value)
    if kind is str:
        told = value[:longest + BEYOND]
        return quoted(told, len(value) > len(told), longest, repr, secrets)
    if value is None or kind is bool or kind is float or kind is complex:
        return repr(value)
    if kind is int:
        bits = value.bit_length()
        return repr(value) if bits <= _MOST_BITS else f"<int of some {-(-bits // 30) * 30} bits>"
    if kind is bytes or kind is bytearray:
        told = bytes(value[:longest + BEYOND])
        text = quoted(told.decode("latin-1"), len(value) > len(told), longest, lambda text: repr(text.encode("latin-1")), secrets)
        return text if kind is bytes else f"bytearray({text})"
    if id(kind) in _BRACKETS:
        return _container(value, kind, secrets, reprs, longest, depth)
    if kind is CellType:
        return _cell(value, secrets, reprs, longest, depth)
    if reprs:
        return _repr(value, kind, secrets, longest)
    return _object(value, kind)


def _object(value, kind):
    return f"<{printable(_text(_type_name(kind), _LONGEST_NAME)) or '?'} at {id(value):#x}>"


def _text(text, longest):
    """The beginning of a str or of an object of a class made of it, as a plain str.  Raises TypeError for anything else."""
    return str.__getitem__(text, slice(longest))


def _repr(value, kind, secrets, longest):
    """What its class says; who asks for it has the application's code run."""
    try:
        told = _text(repr(value), longest + BEYOND + 1)
    except (Exception, SystemExit):
        return f"{_object(value, kind)[:-1]}, its repr() failed>"
    return quoted(told[:longest + BEYOND], len(told) > longest + BEYOND, longest, printable, secrets)


def _cell(value, secrets, reprs, longest, depth):
    try:
        held = value.cell_contents
    except ValueError:
        return "<empty cell>"
    return _value(held, secrets, reprs, longest, depth + 1) if depth <= _DEEPEST else "<cell>"


def _is_secret(key, secrets):
    """Whether a key is a text that tells of a secret; also one of a class made of str or bytes, as an enumeration's."""
    try:
        return secrets.search(_text(key, _LONGEST_KEY)) is not None
    except TypeError:
        pass
    try:
        return secrets.search(bytes.__getitem__(key, slice(_LONGEST_KEY)).decode("latin-1")) is not None
    except TypeError:
        return False


def _container(value, kind, secrets, reprs, longest, depth):
    left, right = _BRACKETS[id(kind)]
    size = len(value)
    if not size and kind in (set, frozenset):
        return f"{_type_name(kind)}()"
    if depth > _DEEPEST:
        return f"{left}...{right}"
    members, used, room = [], 0, longest // 2
    if kind is dict:
        found = _items(value, _MOST_SHOWN)
    elif kind is tuple or kind is list:
        found = value[:_MOST_SHOWN]
    else:
        found = _members(value)
    for place, each in enumerate(found):
        if used > longest:
            break                       # it will be cut before
        if kind is dict:
            told = MASKED if _is_secret(each[0], secrets) else _cut(_value(each[1], secrets, reprs, room, depth + 1), room)
            told = f"{_cut(_value(each[0], secrets, reprs, room, depth + 1), room)}: {told}"
        elif place and len(found) == 2 and kind in (tuple, list) and _is_secret(found[0], secrets):     # a header, an item of a dict
            told = MASKED
        else:
            told = _cut(_value(each, secrets, reprs, room, depth + 1), room)
        members.append(told)
        used += len(told)
    if size > len(members):
        members.append(f"and {size - len(members):,} more")
    tail = "," if kind is tuple and size == 1 else ""
    return f"{left}{', '.join(members)}{tail}{right}"


def _members(value):
    for _ in range(_TRIES - 1):
        try:
            return list(islice(value, _MOST_SHOWN))
        except RuntimeError:
            pass
    return list(islice(value, _MOST_SHOWN))

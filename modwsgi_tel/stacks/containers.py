"""The containers of a running process that its modules lead to, with their lengths: of two looks, which of them grow.

A list that every request appends to, a cache that forgets nothing, a default argument that collects: each is held by a
module, a class, a function or an object that a module names.  So the modules are looked through, the application's three
steps deep and the others' first level alone; nothing in the process is called, stopped or told.
"""
import os
import struct
import time
from collections import deque, namedtuple

from modwsgi_tel.errors import TelError
from modwsgi_tel.masking import MASKED, SECRET
from modwsgi_tel.stacks.growers import ARGUMENT, ATTRIBUTE, CACHE, CLOSURE, NAME, Growers
from modwsgi_tel.stacks.measure import CACHED, CLASS_DICT, CONTAINERS, METHOD_OF, TEXTS, WRAPPED, Extent, Measure, Pages
from modwsgi_tel.stacks.memory import Exhausted, Unreadable
from modwsgi_tel.stacks.modules import MOST_NAMES, SCRIPT, Modules, is_program
from modwsgi_tel.stacks.objects import Objects
from modwsgi_tel.stacks.offsets import function
from modwsgi_tel.stacks.weights import HOLDING, KEYED, NEAR, Weights, places

CPU_S = 0.2                             # of the reader's own CPU, which one look takes at most
MOST_OBJECTS = 200_000
MOST_BYTES = 64 << 20
MOST_ROWS = 20_000
_DEEPEST = 3                            # steps from a module's own names
_MEMBERED = HOLDING | KEYED             # roles of what is weighed with its members
_FOLLOWED = frozenset(("instance", "tuple", "function", "method"))      # members that may lead to containers
_DEEP_ROWS, _DEEP_LEAST = 24, 8         # the longest of the application's containers are weighed deeply
_LONG_TEXT = 1024                       # bytes: shorter ones are no containers
_LONGEST_KEY = 40
PLACED = 32                             # of what grew, how many are looked for in the source
_MANY = 50                              # modules of an application
_LOOKED = 32                            # objects between two looks at the clock
_BEYOND_ALARM = 64 << 20                # bytes: what keeps to a limit below that is a cache, however fast it fills

_UNTOLD = frozenset(("__builtins__", "__loader__", "__spec__", "__cached__", "__all__", "__path__", "__annotations__",
                     "__annotate__", "__annotate_func__", "__annotations_cache__", "__doc__", "__dict__", "__weakref__", "__slots__",
                     "__static_attributes__", "__classdictcell__", "__wrapped__", "__mro_entries__", "__type_params__"))

Container = namedtuple("Container", "module file name kind length bytes address own_bytes limit holds interpreter library also "
                       "path grows_at",
                       defaults=(0, None, "", 0, False, (), None, ()))
Container.__doc__ = """A container as it is at one look.

module: as sys.modules has it; of a script of mod_wsgi the file's name.  file: the module's, or None.
name: "CACHE", "Store.items", "CACHE['x']", "remember(seen=)" (a default), "fetch()" (lru_cache), "memo().cache" (closed over).
kind: its type's name, "collections.deque".
length: members, letters or bytes.  bytes: about what it takes with its members, by a sample of them.  address: where it is.
own_bytes: what it takes without them, by what it has allocated.  limit: of its length, its own (maxlen, maxsize), or None.
holds: what most of the sampled members are, "_io.TextIOWrapper", or "".  interpreter: its id.  library: whether the module
comes with Python or out of site-packages.  also: ((module, file), ...) of other modules that name it at their first level.
path: its Path.  grows_at: ("/srv/app.py:31", ...), where the source adds to it, where `grown` was given the sources."""

Contents = namedtuple("Contents", "python rows seen left_out problem at changing files", defaults=(0.0, 0, ()))
Contents.__doc__ = """One look.  python: its version.  rows: Containers, the application's first.  seen: objects that were looked at.
left_out: modules and objects that were not.  problem: None, or why.  at: monotonic seconds.  changing: containers that were
being changed at each try.  files: those of the application's modules."""

Path = namedtuple("Path", "base word how")
Path.__doc__ = """base: the module's name for what leads to a container.  word: what it is held by last of all, without subscripts.
how: growers.NAME, ATTRIBUTE, ARGUMENT (a default), CLOSURE or CACHE (the function of an lru_cache)."""

_Node = namedtuple("_Node", "address name depth module path base")
_Node.__doc__ = """base: the address of what the module names."""


class _Over(Exception):
    """The look has taken what it may; the text says of what."""


def look(reader, cpu_s=CPU_S, most_bytes=MOST_BYTES):
    """The Contents of now, of a reader.Reader's process.  Raises TelError when there is no Python to be read any more.

    cpu_s: CPU seconds of this process that it takes at most.  most_bytes: that are read at most.
    """
    try:
        return look_in(*reader.inside(), cpu_s, most_bytes)
    except TelError as error:
        raise TelError(f"process {reader.pid}: {error}") from None


def look_in(memory, runtime, cpu_s=CPU_S, most_bytes=MOST_BYTES):
    """As `look`, in a memory with `read` alone and its runtime.Runtime."""
    try:
        return _Looking(memory, runtime, cpu_s, most_bytes).contents()
    except (Unreadable, struct.error) as error:
        raise TelError(f"its modules cannot be read: {error}; it may have ended") from None


class _Looking:
    """One look."""

    def __init__(self, memory, runtime, cpu_s, most_bytes):
        self._until = time.process_time() + cpu_s
        self._cpu_s = cpu_s
        self._runtime, self._layout = runtime, runtime.layout
        self._pages = pages = Pages(memory, most_bytes)
        self._objects = Objects(pages, runtime.layout)
        self._measure = Measure(pages, self._objects, runtime.layout)
        self._function = function(runtime.layout.version)
        self._modules = Modules(pages, self._objects, self._measure, runtime, self._spend)
        self._weights = Weights(pages, self._objects, self._measure, self._spend)
        self._seen, self._count = set(), 0
        self._own_globals = set()       # dicts of the application's modules
        self._also = {}                 # {address: the application's modules that name it}
        self.rows, self._later = [], deque()
        self._bases = []                # for each of rows: (the address of what its module names, that Module)
        self._roles = {}                # {place in rows: (role, depth)} of the application's containers
        self._left_out = 0

    def contents(self):
        at, problem, modules = time.monotonic(), None, []
        try:
            for interpreter in self._modules.interpreters():
                modules.extend(self._modules.of(interpreter))
        except (_Over, Exhausted) as over:
            problem = str(over)
        modules.reverse()               # the last imported first: a module names what it imports, and that is not its own
        own = [module for module in modules if not module.library]
        first = len(own) > _MANY        # there may be no time for all: what the server calls comes before what that has imported
        modules.sort(key=lambda module: (module.library, first and not is_program(module.name)))
        self._own_globals.update(module.globals for module in own)
        waiting = deque(modules)
        try:
            if problem is None:
                for library in (False, True):
                    while waiting and waiting[0].library == library:
                        self._first_level(waiting[0])
                        waiting.popleft()
                    if not library:
                        self._go_on()
                        self._weigh_deep()
        except (_Over, Exhausted) as over:
            problem = str(over)
        left = self._left_out + self._modules.left_out + len(waiting) + len(self._later)
        rows = tuple(map(self._named_also, self.rows, self._bases))
        return Contents(self._runtime.python, rows, self._count, left, problem, at, self._measure.changing,
                        tuple(dict.fromkeys(module.file for module in own if module.file)))

    def _named_also(self, row, base):
        """The row with the other modules that name what it belongs to."""
        others = self._also.get(base[0], ())
        if len(others) < 2:
            return row
        return row._replace(also=tuple((_shown(each), each.file) for each in others if each is not base[1]))

    def _spend(self):
        self._count += 1
        if self._count % _LOOKED == 0 and time.process_time() > self._until:
            raise _Over(f"stopped after {self._cpu_s:g} s of CPU time")
        if self._count > MOST_OBJECTS:
            raise _Over(f"stopped after {MOST_OBJECTS:,} objects")

    def _first_level(self, module):
        """A module's own containers; of the application's what else it names is kept for later."""
        for name, value in self._modules.named(module.globals):
            if name not in _UNTOLD:
                if not module.library:
                    self._also.setdefault(value, []).append(module)
                self._object(_Node(value, name, 0, module, Path(name, name, NAME), value), True)

    def _go_on(self):
        while self._later:
            self._object(self._later[0])
            self._later.popleft()

    # --- objects ------------------------------------------------------------------------------------------

    def _object(self, node, later=False):
        """Looks at an object; later: at a container alone, and keeps what may lead to others."""
        if node.address in self._seen:
            return
        self._spend()
        self._seen.add(node.address)
        try:
            kind = self._measure.kind(node.address)
            if kind.role in CONTAINERS:
                self._container(node, kind)
                if kind.made and kind.role != "lru_cache" and not node.module.library and node.depth < _DEEPEST:
                    self._attributes(node, kind)
            elif kind.role in TEXTS:
                found = self._measure.extent(node.address, kind.role)
                if found.bytes >= _LONG_TEXT:
                    self._row(node, kind, found, found.bytes, "")
            elif kind.role and not node.module.library and node.depth < _DEEPEST:
                if later:
                    self._seen.discard(node.address)
                    self._later.append(node)
                else:
                    self._inside(node, kind)
        except Exhausted:
            raise
        except (Unreadable, struct.error):
            self._left_out += 1

    def _next(self, node, address, name, deeper=1, word=None, how=None):
        """Keeps what a node leads to for later.  word, how: of its Path, where that is another than the node's."""
        if address and address not in self._seen and len(self._later) < MOST_OBJECTS:
            path = node.path if word is None else Path(node.path.base, word, how)
            self._later.append(_Node(address, name, node.depth + deeper, node.module, path, node.base))

    def _inside(self, node, kind):
        """What lies behind an object that is no container itself."""
        objects, role = self._objects, kind.role
        if role == "wrapper":
            self._next(node, objects.word(node.address + WRAPPED), node.name, 0)
        elif role == "method":
            self._next(node, objects.word(node.address + METHOD_OF), node.name, 0)
        elif role == "tuple":
            wanted = places(self._measure.room(node.address, role))
            for place, member in self._measure.members(node.address, role, wanted):
                self._next(node, member, f"{node.name}[{place}]")
        elif role == "function":
            self._of_function(node)
        elif role == "type":
            self._of_class(node)
        elif role == "instance":
            self._attributes(node, kind)

    def _of_class(self, node):
        """A class's own attributes, where it is the module's: others are found where they were made."""
        named = self._modules.named(self._objects.word(node.address + CLASS_DICT))
        where = next((value for name, value in named if name == "__module__"), None)
        if where is not None and self._objects.string(where) == node.module.name:
            for name, value in named:
                if name not in _UNTOLD:
                    self._next(node, value, f"{node.name}.{name}", word=name, how=ATTRIBUTE)

    def _attributes(self, node, kind):
        for name, value in self._measure.attributes(node.address, kind)[:MOST_NAMES]:
            if name not in _UNTOLD:
                self._next(node, value, f"{node.name}.{name}", word=name, how=ATTRIBUTE)

    def _of_function(self, node):
        """A function's defaults, its own attributes and what it closes over."""
        objects, at = self._objects, self._function
        made_in, code, defaults, keywords, closure, own = (
            objects.word(node.address + place) for place in (at.globals, at.code, at.defaults, at.kwdefaults, at.closure, at.dict))
        if made_in != node.module.globals and made_in in self._own_globals:
            return                      # it is found in its own module
        if closure:
            for name, cell in zip(self._free_names(code), objects.items(closure, NEAR)[0]):
                self._next(node, objects.word(cell + WRAPPED), f"{node.name}().{name}", word=name, how=CLOSURE)
        if made_in != node.module.globals:
            return
        if defaults:
            held, size = objects.items(defaults, NEAR)
            count, = struct.unpack("<i", self._pages.read(code + at.arguments, 4))
            names = self._argument_names(code, count)[max(count - size, 0):]
            for name, value in zip(names, held):
                self._next(node, value, f"{node.name}({name}=)", word=name, how=ARGUMENT)
        for place, form, how in ((keywords, "%s(%s=)", ARGUMENT), (own, "%s.%s", ATTRIBUTE)):
            for name, value in self._modules.named(place) if place else ():
                if name not in _UNTOLD:
                    self._next(node, value, form % (node.name, name), word=name, how=how)

    def _argument_names(self, code, count):
        if not 0 <= count <= 255:
            raise Unreadable(f"a function with {count} arguments")
        names, _ = self._objects.items(self._objects.word(code + self._layout.code_varnames), count)
        return [self._objects.string(each, 200) for each in names]

    def _free_names(self, code):
        """The names that a closure's cells have: from 3.11 the last of all names of local variables."""
        layout, objects = self._layout, self._objects
        if layout.code_cells:
            names, _ = objects.items(objects.word(code + layout.code_cells[1]), NEAR)
        else:
            names, size = objects.items(objects.word(code + layout.code_varnames), 256)
            place = objects.word(code + layout.code_varnames + 8)
            kinds = objects.raw_bytes(place, 256)
            names = [name for name, kind in zip(names, kinds) if kind & 0x80]       # CO_FAST_FREE
        return [objects.string(each, 200) for each in names]

    # --- containers -----------------------------------------------------------------------------------------

    def _container(self, node, kind):
        extent = self._measure.extent(node.address, kind.role)
        held, holds, near = extent.bytes, "", ()
        if not node.module.library:
            if kind.role == "lru_cache":
                self._next(node, self._objects.word(node.address + CACHED), node.name, 0)
            if extent.length and kind.role in _MEMBERED:
                try:
                    held, holds, near = self._weights.sampled(node.address, kind.role, extent)
                except Exhausted:
                    raise
                except (Unreadable, struct.error):
                    self._left_out += 1
        self._row(node, kind, extent, held, holds)
        for key, member, what in near if node.depth < _DEEPEST else ():
            if what.role in CONTAINERS or what.role in _FOLLOWED:
                self._next(node, member, self._subscript(node, kind.role, key))

    def _subscript(self, node, role, key):
        """`CACHE['x']`, `ROWS[3]`, `SEEN{}`; a key of what is named as a secret is one itself."""
        if role == "set":
            return f"{node.name}{{}}"
        if role in KEYED:
            key = MASKED if SECRET.search(node.name) else self._objects.value(key, _LONGEST_KEY)
        return f"{node.name}[{key}]"

    def _weigh_deep(self):
        """Weighs the longest of the application's containers again, with all that their members lead to: outer ones first."""
        longest = sorted((place for place in self._roles if self.rows[place].length >= _DEEP_LEAST),
                         key=lambda place: (self._roles[place][1] > 1, -self.rows[place].length))
        for place in longest[:_DEEP_ROWS]:
            row = self.rows[place]
            try:
                held = self._weights.deep(row.address, self._roles[place][0], Extent(row.length, row.own_bytes))
            except Exhausted:
                raise
            except (Unreadable, struct.error):
                continue
            self.rows[place] = row._replace(bytes=max(row.bytes, held))

    def _row(self, node, kind, extent, held, holds):
        if len(self.rows) >= MOST_ROWS:
            self._left_out += 1
            return
        module, name, path = node.module, node.name, node.path
        if kind.role == "lru_cache":
            name, path = f"{name}()", path._replace(how=CACHE)
        if not module.library and kind.role in _MEMBERED:
            self._roles[len(self.rows)] = kind.role, node.depth
        self._bases.append((node.base, module))
        self.rows.append(Container(_shown(module), module.file, name, kind.name, extent.length, held, node.address, extent.bytes,
                                   extent.limit, holds, module.interpreter, module.library, (), path))


def _shown(module):
    """A module's name for people: mod_wsgi's own is a checksum."""
    return os.path.basename(module.file) if module.file and module.name.startswith(SCRIPT) else module.name


# --- what grows ---------------------------------------------------------------------------------------------

def grown(before, after, least=8, least_bytes=1 << 16, sources=None):
    """[(Container before, Container after)] of two Contents, those that grew most first: by bytes, then by length.

    least, least_bytes: the members or the bytes that make a growth worth telling.  The same address, kind and name; a
    text, which is made anew each time, by its name alone.  What keeps to a limit of its own that is small is left out.
    The bytes of the one before are those of the one after less what has come to it, since two samples differ.
    sources: a sources.Sources; with it, grows_at says where the source adds to what grew.
    """
    known, found = {_same(row): row for row in before.rows}, []
    for row in after.rows:
        first = known.get(_same(row))
        if first is None or row.length <= first.length:
            continue
        each = max(row.bytes - row.own_bytes, 0) / row.length
        more, more_bytes = row.length - first.length, int(row.own_bytes - first.own_bytes + (row.length - first.length) * each)
        if row.limit is not None and row.limit * row.bytes / row.length < _BEYOND_ALARM:
            continue
        if more >= least and row.kind not in TEXTS or more_bytes >= least_bytes:
            found.append((more_bytes, more, first._replace(bytes=max(row.bytes - more_bytes, 0)), row))
    found.sort(key=lambda each: each[:2], reverse=True)
    pairs = [(first, row) for _, _, first, row in found]
    if sources is not None:
        growers = Growers(sources, after.files)
        pairs[:PLACED] = [(first, growers.placed(row)) for first, row in pairs[:PLACED]]
    return pairs


def _same(row):
    return row.interpreter, row.module, row.file, row.name, row.kind, 0 if row.kind in TEXTS else row.address

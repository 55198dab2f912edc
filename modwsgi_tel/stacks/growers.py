"""Where the source of an application adds to what a name stands for: `CACHE.append(x)` at app.py:31.

By the names alone, as the source has them: a hint for whoever looks at it, not a proof.  A file that was written after the
process started tells nothing, and only what the process's user may read is read.
"""
import ast
from collections import namedtuple

_MOST_FILES = 64
_LONGEST_FILE = 512 << 10               # bytes: a megabyte takes about a second
_MOST_BYTES = 1 << 20
_MOST_PLACES = 5
# methods that make what they belong to longer, and functions that do so with their first argument
_METHODS = frozenset(("append", "appendleft", "add", "extend", "extendleft", "insert", "update", "setdefault", "push", "put",
                      "put_nowait", "write", "__setitem__", "frombytes", "fromlist"))
_FUNCTIONS = frozenset(("heappush", "insort", "insort_left", "insort_right"))
_ADDING = (ast.Add, ast.BitOr)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)

# how a container is held, last of all; subscripts do not count
NAME, ATTRIBUTE, ARGUMENT, CLOSURE, CACHE = "name", "attribute", "argument", "closure", "cache"

_Receiver = namedtuple("_Receiver", "how word of")
_Receiver.__doc__ = """how: NAME or ATTRIBUTE.  word: that.  of: the name that an attribute's chain begins with, or None."""


class Growers:
    """Looks names up in the files of an application.  sources: sources.Sources.  files: their names, as the code says."""

    def __init__(self, sources, files):
        self._sources = sources
        self._files = files[:_MOST_FILES]
        self._trees = {}
        self._left = _MOST_BYTES

    def placed(self, row):
        """The containers.Container with the module that defines it, where that is another one, and with grows_at."""
        for module, file in ((row.module, row.file), *row.also):
            tree = self._tree(file, row.path.base)
            if tree is not None and row.path.base in tree.defined:
                row = row._replace(module=module, file=file)
                break
        # what a library's object holds grows by what the application does with that object: QUEUE.put(x) for QUEUE.queue
        for path in dict.fromkeys((row.path, row.path._replace(word=row.path.base, how=NAME))):
            for file in dict.fromkeys((row.file, *self._files)):
                own = file == row.file
                if not own and path.how not in (NAME, ATTRIBUTE):
                    break
                tree = self._tree(file, path.word)
                lines = tree.grown(path, own) if tree is not None else []
                if lines:
                    return row._replace(grows_at=tuple(f"{file}:{line}" for line in lines[:_MOST_PLACES]))
        return row

    def _tree(self, file, word):
        """The _Tree of a file that has a word in it, or None."""
        if file not in self._trees:
            self._trees[file] = None
            data = b"" if not file or self._sources.changed(file) else self._sources.content(file)
            if word.encode() not in data:
                del self._trees[file]   # not parsed yet: another word may be there
                return None
            if len(data) <= min(_LONGEST_FILE, self._left):
                self._left -= len(data)
                try:
                    self._trees[file] = _Tree(ast.parse(data))
                except (SyntaxError, ValueError, RecursionError, MemoryError):
                    pass                # another Python's syntax, or no source at all
        return self._trees[file]


class _Tree:
    """What one file does to which names.  defined: names that its first level makes."""

    def __init__(self, tree):
        self.defined, self._imported = set(), set()
        self._functions = {}            # name: line
        self._additions = []            # (line, receiver, functions around it, innermost first)
        self._aliases = {}              # (function, name): receiver
        left = [(node, (), True) for node in reversed(tree.body)]
        while left:
            node, around, top = left.pop()
            if isinstance(node, _DEFINITIONS):
                around = (node, *around)
            self._take(node, around, top)
            top = top and isinstance(node, (ast.If, ast.Try, ast.With))
            left.extend((child, around, top) for child in reversed([*ast.iter_child_nodes(node)]))

    def _take(self, node, around, top):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if top:
                self.defined.add(node.name)
            if not isinstance(node, ast.ClassDef):
                self._functions.setdefault(node.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            self._imported.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                self._assigned(node, target, around, top)
        elif isinstance(node, ast.AugAssign):
            if isinstance(node.op, _ADDING) or isinstance(node.target, ast.Subscript):
                self._adds(node, node.target, around)
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
                self._adds(node, node.func.value, around)
            called = getattr(node.func, "attr", getattr(node.func, "id", None))
            if called in _FUNCTIONS and node.args:
                self._adds(node, node.args[0], around)

    def _assigned(self, node, target, around, top):
        if isinstance(target, ast.Subscript):
            self._adds(node, target, around)
            return
        if top:
            self.defined.update(each.id for each in (getattr(target, "elts", None) or [target]) if isinstance(each, ast.Name))
        if isinstance(target, ast.Name):
            if around and isinstance(node.value, (ast.Name, ast.Attribute)):
                self._aliases[around[0], target.id] = _receiver(node.value)
        value = node.value
        if isinstance(value, ast.BinOp) and isinstance(value.op, _ADDING) and _receiver(target) == _receiver(value.left):
            self._adds(node, target, around)

    def _adds(self, node, target, around):
        receiver = _receiver(target)
        if receiver is not None:
            self._additions.append((node.lineno, receiver, around))

    def grown(self, path, own):
        """[line] that adds to what a containers.Path names.  own: in the file that defines it."""
        if path.how == CACHE:
            return [self._functions[path.word]] if path.word in self._functions else []
        found = []
        for line, receiver, around in self._additions:
            for each in (receiver, self._aliases.get((around[0], receiver.word)) if around else None):
                if self._means(each, around, path, own):
                    found.append((line, each.of))
                    break
        if any(of == path.base for _, of in found):             # of the others, those of another of the file's names are another's
            found = [(line, of) for line, of in found if of == path.base or of not in self.defined]
        return list(dict.fromkeys(line for line, _ in found))

    def _means(self, receiver, around, path, own):
        if receiver is None or receiver.word != path.word:
            return False
        if path.how == ATTRIBUTE:
            return receiver.how == ATTRIBUTE
        if path.how == NAME:
            # in another file: by the name that it imports, or as its module's attribute
            return (not any(path.word in _arguments(each) for each in around) and (own or path.word in self._imported)
                    if receiver.how == NAME else not own)
        if receiver.how != NAME:
            return False
        return any(path.word in _arguments(each) for each in around) if path.how == ARGUMENT else bool(around)


def _receiver(node):
    """The _Receiver that an expression changes, without its subscripts; None for anything else."""
    while True:
        if isinstance(node, (ast.Subscript, ast.Starred)):
            node = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("setdefault", "get"):
            node = node.func.value
        else:
            break
    if isinstance(node, ast.Name):
        return _Receiver(NAME, node.id, None)
    if not isinstance(node, ast.Attribute):
        return None
    owner = node.value
    while isinstance(owner, (ast.Attribute, ast.Subscript)):
        owner = owner.value
    return _Receiver(ATTRIBUTE, node.attr, owner.id if isinstance(owner, ast.Name) else None)


def _arguments(function):
    found = function.args
    return {each.arg for each in (*getattr(found, "posonlyargs", ()), *found.args, *found.kwonlyargs)}

"""What the source of a file says of its locks: which lines lie inside of a `with`, or between acquire() and release().

The file may be another by now, written in a newer Python, or hostile: then there is nothing, never an error.
"""
import ast
import sys
import warnings
from collections import namedtuple

FILE_MOST = 1 << 19                     # bytes of one file: its tree takes a hundred times as much
# up to 3.10 a chain (a.b.c...) of some 100,000 links ends the process that parses it; each takes two bytes
_FILE_MOST = FILE_MOST if sys.version_info >= (3, 11) else 100_000
TEXT_MOST = 100
_SPANS_MOST = 20_000                    # of one file, of each kind

Scope = namedtuple("Scope", "name first last")
Scope.__doc__ = "A function, or a class or the module.  first, last: its lines."
Item = namedtuple("Item", "text node first last body_first body_last scope")
Item.__doc__ = """One `with X`.  text: X, as it is written.  node: X, as ast has it.  first, last: lines of X.  body_first, body_last:
lines of what is inside.  scope: the Scope that it is in."""
Span = namedtuple("Span", "text node line first last scope")
Span.__doc__ = "X.acquire() on a line, and the lines after it up to X.release().  text, node, scope: as in Item."
Call = namedtuple("Call", "text node method whole timed first last scope")
Call.__doc__ = """X.method(...).  whole: what is called, `X.method`; X and method are None where it is a plain name.  timed: whether it has
arguments that may limit how long it waits."""

_BLOCKS = ("body", "orelse", "finalbody")
_MODULE = "<module>"


class Spans:
    """A file's Items, Spans and Calls.  data: its bytes."""

    def __init__(self, data):
        self._scopes, self._items, self._spans, self._calls = [], [], [], []
        self._bound = []                # (first line, last line, names that it binds) of each function
        tree = _parsed(data)
        if tree is None:
            return
        self._lines = data.decode("utf-8", "replace").split("\n")
        try:
            self._walk(tree)
        except (RecursionError, ValueError, AttributeError):
            self._scopes = []
        del self._lines

    def scope(self, function, line):
        """The Scope that a frame of that name is in at a line; None where the source has another one there."""
        found = None
        for each in self._scopes:       # outer ones come first
            if line is not None and each.first <= line <= each.last:
                found = each
        name = function.rpartition(".")[2]
        return found if found is not None and found.name == name else None

    def inside(self, function, line):
        """The Items whose inside a frame is in, the outermost first."""
        scope = self.scope(function, line)
        return [each for each in self._items if each.scope == scope and
                (each.body_first <= line <= each.body_last or each.last < line < each.body_first)] if scope else []

    def between(self, function, line):
        """The Spans that a frame is in."""
        scope = self.scope(function, line)
        return [each for each in self._spans if each.scope == scope and each.first <= line <= each.last] if scope else []

    def entered(self, function, line):
        """The Items that a frame may be about to enter, or just leaves."""
        scope = self.scope(function, line)
        return [each for each in self._items if each.scope == scope and each.first <= line <= each.last] if scope else []

    def calls(self, function, line):
        """The Calls that a frame may be in, the innermost first."""
        scope = self.scope(function, line)
        found = [each for each in self._calls if each.scope == scope and each.first <= line <= each.last] if scope else []
        return sorted(found, key=lambda each: (each.last - each.first, len(each.whole)))

    def is_global(self, text, line):
        """Whether a name is the module's at a line: no function around it binds it."""
        return text.isidentifier() and bool(self._scopes) and line is not None and not any(
            text in bound for first, last, bound in self._bound if first <= line <= last)

    # --- reading ------------------------------------------------------------------------------------

    def _walk(self, tree):
        module = Scope(_MODULE, 1, len(self._lines) + 1)
        self._scopes.append(module)
        left = [(tree, module)]
        while left:
            node, scope = left.pop()
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                for each in node.decorator_list:
                    left.append((each, scope))
                scope = Scope(node.name, node.lineno, node.end_lineno)
                if not isinstance(node, ast.ClassDef):
                    self._bound.append((node.lineno, node.end_lineno, _bound(node)))
                self._scopes.append(scope)
            elif isinstance(node, ast.Lambda):
                continue                # its frame has a name that is none
            elif isinstance(node, (ast.With, ast.AsyncWith)):
                self._with(node, scope)
            elif isinstance(node, ast.Call):
                self._call(node, scope)
            for name in _BLOCKS:
                block = getattr(node, name, None)
                if isinstance(block, list):
                    self._block(block, scope)
            left.extend((each, scope) for each in ast.iter_child_nodes(node))
        self._scopes.sort(key=lambda each: (each.first, -each.last))
        self._items.sort(key=lambda each: (each.first, each.node.col_offset))

    def _with(self, node, scope):
        for each in node.items:
            place = each.context_expr
            if len(self._items) < _SPANS_MOST:
                self._items.append(Item(self._written(place), place, place.lineno, place.end_lineno, node.body[0].lineno,
                                        node.body[-1].end_lineno, scope))

    def _call(self, node, scope):
        called = node.func
        if not isinstance(called, (ast.Attribute, ast.Name)) or len(self._calls) >= _SPANS_MOST:
            return
        of = called.value if isinstance(called, ast.Attribute) else None
        self._calls.append(Call(None if of is None else self._written(of), of, called.attr if of is not None else None,
                                self._written(called), bool(node.args or node.keywords), node.lineno, node.end_lineno, scope))

    def _block(self, block, scope):
        for place, statement in enumerate(block):
            if not isinstance(statement, ast.stmt):
                return                  # of an expression (a lambda's body)
            for taken, in_body in _acquired(statement):
                text = self._written(taken)
                rest = statement.body if in_body else block[place + 1:]
                if not rest or len(self._spans) >= _SPANS_MOST:
                    continue
                first, last = rest[0].lineno, rest[-1].end_lineno
                for each in rest:
                    released = min((node.lineno for node in ast.walk(each) if _is_call(node, "release") and
                                    self._written(node.func.value) == text), default=None)
                    if released is not None:
                        last = released - 1
                        break
                self._spans.append(Span(text, taken, statement.lineno, first, last, scope))

    def _written(self, node):
        """An expression as the source has it, on one line."""
        first, last = node.lineno - 1, node.end_lineno - 1
        if first == last:
            return self._lines[first].encode()[node.col_offset:node.end_col_offset].decode("utf-8", "replace")[:TEXT_MOST]
        return " ".join(line.strip() for line in self._lines[first:last + 1][:4])[:TEXT_MOST]


def _parsed(data):
    if not 0 < len(data) <= _FILE_MOST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _bound(function):
    """The names that a function or one in it binds, but for those that it says are global."""
    found, globals_ = set(), set()
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.Global):
            globals_.update(node.names)
    return found - globals_


def _is_call(node, method):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method


def _acquired(statement):
    """[(X, whether it is X's alone in the statement's body)] of the X.acquire() that a statement begins with."""
    tested = isinstance(statement, (ast.If, ast.While))
    simple = isinstance(statement, (ast.Expr, ast.Assign, ast.AnnAssign, ast.Return))
    value = statement.test if tested else getattr(statement, "value", None) if simple else None
    if value is None:
        return []
    negated = isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not)
    if negated:
        value = value.operand
    return [(node.func.value, tested and not negated) for node in ast.walk(value) if _is_call(node, "acquire")]

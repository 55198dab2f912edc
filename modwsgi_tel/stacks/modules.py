"""The modules of a running process, interpreter by interpreter, out of its memory: names and what they stand for, nothing more."""
import os
import struct
from collections import namedtuple

from modwsgi_tel.stacks.memory import Exhausted, Unreadable
from modwsgi_tel.stacks.objects import LONGEST_TEXT
from modwsgi_tel.stacks.walker import Walker

MOST_MODULES = 20_000
MOST_NAMES = 4096                       # of one module, class or object
SCRIPT = "_mod_wsgi_"                   # what the names of mod_wsgi's script modules begin with; a checksum follows
FOLDERS = ("/site-packages/", "/dist-packages/")
_LONGEST_NAME = 200
_FIRST = "encodings"                    # a package that no Python starts without: its folder is that of Python's own modules

Module = namedtuple("Module", "name file interpreter library globals")
Module.__doc__ = """name: as sys.modules has it.  file: its __file__, or None.  interpreter: its id.  library: whether it comes with
Python or was installed.  globals: the address of its dict."""


class Modules:
    """Reads modules by a measure.Pages, an objects.Objects and a measure.Measure of the same.

    spend: called for each module and each name that is new.  left_out: modules that could not be read.
    """

    def __init__(self, pages, objects, measure, runtime, spend=lambda: None):
        self._objects, self._measure, self._layout, self._spend = objects, measure, runtime.layout, spend
        self._walker = Walker(_Plain(pages), runtime, objects)
        self._texts = {}                # keys are mostly the same objects again and again
        self._file_keys = set()         # those that are "__file__"
        self.left_out = 0

    def interpreters(self):
        """[walker.Interpreter], the oldest first.  Raises Unreadable."""
        return self._walker.interpreters()

    def of(self, interpreter):
        """Yields the Modules of an Interpreter, in the order of their import.  Raises Unreadable."""
        objects = self._objects
        place = objects.word(interpreter.address + self._layout.interp_modules)
        entries, standard, known = objects.entries(place, MOST_MODULES) if place else [], None, set()
        self.left_out += len(entries)
        for key, value in entries:
            self._spend()
            try:
                if self._measure.kind(value).role == "module":
                    place = objects.word(value + 16)
                    name, file = objects.string(key, LONGEST_TEXT), self._file(place)
                    if name == _FIRST and file:
                        standard = os.path.dirname(os.path.dirname(file)) + "/"
                    if place not in known:          # one module under two names: __mp_main__
                        known.add(place)
                        yield Module(name, file, interpreter.id, is_library(name, file, standard), place)
            except Exhausted:
                raise
            except (Unreadable, struct.error):
                continue
            self.left_out -= 1

    def _file(self, place):
        """The __file__ of a module, by its dict, or None.  The key is mostly one and the same object in all of them."""
        value = next((value for key, value in self._objects.entries(place, MOST_NAMES) if key in self._file_keys), None)
        if value is None:
            value = dict(self.named(place)).get("__file__")
        return self._objects.string(value) if value and self._objects.is_a(value, "str") else None

    def named(self, place):
        """[(name, value's address)] of a dict whose keys are texts."""
        found = []
        for key, value in self._objects.entries(place, MOST_NAMES):
            name = self._texts.get(key)
            if name is None:
                self._spend()
                try:
                    name = self._texts[key] = self._objects.string(key, _LONGEST_NAME)
                    if name == "__file__":
                        self._file_keys.add(key)
                except Exhausted:
                    raise
                except (Unreadable, struct.error):
                    continue
            found.append((name, value))
        return found


class _Plain:
    """Pages as a walker.Walker wants its memory; what it reads is counted there."""

    def __init__(self, pages):
        self.read = pages.read

    def burst(self, wanted):
        return [self.read(*each) for each in wanted]

    def takes(self, units):
        pass


def is_library(name, file, standard):
    """Whether a module comes with Python or was installed, by its file; without one it is built in, but for the program itself.

    standard: the folder of Python's own modules, with a slash behind it, or None before that is known: then it is one of these.
    """
    if is_program(name):
        return False
    if not file or file.startswith("<frozen") or any(folder in file for folder in FOLDERS):
        return True
    return standard is None or file.startswith(standard)


def is_program(name):
    """Whether a module is what was started: the program, or a script of mod_wsgi, by the name that it has for these."""
    return name == "__main__" or name.startswith(SCRIPT)

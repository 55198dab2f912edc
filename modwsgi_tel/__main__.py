"""The start: `python3 -m modwsgi_tel` from a checkout, and the first code to run in modwsgi-tel.pyz.

build.sh copies this file to the top of the archive, in place of shiv's own start-up, which unpacks into a folder
and runs from there.  Here nothing is unpacked and nothing is written.  The archive is read into memory once and
its modules are imported from there, so that an import or a `__loader__.get_data(path)` made late still gets what
was started, whatever has become of the file: replaced, overwritten, deleted.

It has to parse on every Python back to 2.7, to be able to say that one is too old; and until `main` is imported it
uses only modules that the interpreter itself has loaded to come this far.
"""

import sys

NAME = "modwsgi_tel"
SITE = "site-packages/"         # shiv's layout: the archive holds SITE, _bootstrap/, environment.json, __main__.py


class Archive(object):
    """Finds and loads the modules of one .pyz (a meta path finder and a loader in the sense of importlib).

    path: the file, absolute.  data: its bytes, all of them, as build.sh wrote them: entries stored, not deflated
    (zlib differs between machines, so only stored bytes are the same from every build), no zip64.
    Raises ValueError when that is not what they are.
    """

    def __init__(self, path, data):
        self.archive = path
        self.data = data
        self.spans = {}         # name below SITE -> where its bytes are

        def number(at, size):
            return int.from_bytes(data[at:at + size], "little")

        end = data.rfind(b"PK\5\6")
        at = end - number(end + 12, 4)                  # the directory stands right before its end record
        shift = at - number(end + 16, 4)                # bytes before the zip proper, where offsets do not count them
        for _ in range(number(end + 10, 2)):
            if data[at:at + 4] != b"PK\1\2" or number(at + 10, 2):
                raise ValueError("not an archive that build.sh wrote")
            size, name_size = number(at + 24, 4), number(at + 28, 2)
            name = data[at + 46:at + 46 + name_size].decode("utf-8")
            head = shift + number(at + 42, 4)
            start = head + 30 + number(head + 26, 2) + number(head + 28, 2)
            if name.startswith(SITE):
                self.spans[name[len(SITE):]] = slice(start, start + size)
            at += 46 + name_size + number(at + 30, 2) + number(at + 32, 2)
        if NAME + "/__init__.py" not in self.spans:
            raise ValueError("no package in it")

    def _module(self, fullname):
        """(name below SITE, is it a package), or (None, False)."""
        stem = fullname.replace(".", "/")
        if stem + ".py" in self.spans:
            return stem + ".py", False
        if stem + "/__init__.py" in self.spans:
            return stem + "/__init__.py", True
        return None, False

    def find_spec(self, fullname, path=None, target=None):
        if not fullname.startswith(NAME):
            return None
        name, is_package = self._module(fullname)
        if name is None:
            return None
        from importlib.machinery import ModuleSpec
        where = self.get_filename(fullname)
        spec = ModuleSpec(fullname, self, origin=where, is_package=is_package)
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations.append(where[:-len("/__init__.py")])
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(self.get_code(module.__name__), module.__dict__)

    def get_code(self, fullname):
        where = self.get_filename(fullname)
        return compile(self.get_data(where), where, "exec", dont_inherit=True)

    def get_source(self, fullname):                     # for tracebacks
        return self.get_data(self.get_filename(fullname)).decode("utf-8")

    def get_filename(self, fullname):
        name = self._module(fullname)[0]
        if name is None:
            raise ImportError("no module named %r in %s" % (fullname, self.archive))
        return "%s/%s%s" % (self.archive, SITE, name)

    def is_package(self, fullname):
        return self._module(fullname)[1]

    def get_data(self, path):
        """The bytes of a file of the archive, by the path that a module beside it has in `__file__`."""
        head = "%s/%s" % (self.archive, SITE)
        span = self.spans.get(path[len(head):]) if path.startswith(head) else None
        if span is None:
            raise OSError(2, "no such file in the archive", path)
        return self.data[span]


def without_strange_folders(folders, archive, cwd, homes):
    """The import path `folders` less what anybody may have written into: "", relative ones, the current folder.

    The archive goes too: its modules come from memory.  cwd may be "" (it was deleted).  What lies below the
    interpreter's own `homes` (sys.base_prefix, ...) stays, even when that is where we stand.
    """
    kept = []
    for folder in folders:
        own = any(folder.startswith(home.rstrip("/") + "/lib") for home in homes)
        if folder.startswith("/") and folder != archive and (own or folder.rstrip("/") != cwd.rstrip("/")):
            kept.append(folder)
    return kept


def start():
    """Make modwsgi_tel importable, however this file was started."""
    if __spec__ is not None and __spec__.parent:        # python3 -m modwsgi_tel: it is
        return
    import os
    given = os.path.dirname(__file__)                   # the .pyz as it was called, maybe through a link
    path = os.path.realpath(given)
    if os.path.isdir(path):                             # python3 modwsgi_tel, or its __main__.py
        sys.path[:] = [os.path.dirname(path)] + [folder for folder in sys.path if folder != given]
        return
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = ""
    homes = (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)
    sys.path[:] = [folder for folder in without_strange_folders(sys.path, path, cwd, homes) if folder != given]
    try:
        with open(path, "rb") as file:
            archive = Archive(path, file.read())
    except (OSError, ValueError) as error:
        sys.stderr.write("modwsgi-tel: cannot read %s: %s: copy the file again\n" % (given, error))
        sys.exit(2)
    sys.meta_path.insert(0, archive)


if __name__ == "__main__":
    if sys.version_info < (3, 9):
        sys.stderr.write("modwsgi-tel needs Python 3.9 or newer, this is %d.%d.%d: try python3.11 %s\n" % (
            sys.version_info[0], sys.version_info[1], sys.version_info[2],
            "-m " + NAME if sys.argv[0].endswith(".py") else sys.argv[0]))
        sys.exit(2)
    start()
    from modwsgi_tel.cli import main
    sys.exit(main())

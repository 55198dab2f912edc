"""Which Python a process runs, and where its packages come from: out of its memory, or out of /proc where that may not be read.

What is imported is told by the process's own modules; versions are those that they say (__version__), and those of the
folders that were installed (NAME-1.2.dist-info), whose names alone are read.
"""
import os
import re
import struct

from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import procfs
from modwsgi_tel.proc.access import explain
from modwsgi_tel.stacks.measure import Measure, Pages
from modwsgi_tel.stacks.memory import Exhausted, Unreadable, parse_maps
from modwsgi_tel.stacks.modules import FOLDERS, Modules
from modwsgi_tel.stacks.objects import Objects
from modwsgi_tel.stacks.reader import Reader

_MOST_BYTES = 32 << 20                  # of memory that is read
_MOST_PATHS = 200                       # of sys.path
_MOST_TOP = 200
_MOST_LISTED = 20_000                   # names in one folder
_MOST_INTERPRETERS = 64
_MOST_MAPS = 8 << 20
_MOST_ENVIRONMENT = 256 << 10
_LONGEST = 500                          # letters of a path or a version
# The packages that tell most of a web application come first
_KNOWN = ("mod_wsgi", "django", "rest_framework", "flask", "werkzeug", "jinja2", "pyramid", "bottle", "falcon", "cherrypy", "fastapi",
          "starlette", "tornado", "aiohttp", "gunicorn", "uwsgi", "waitress", "gevent", "eventlet", "greenlet", "celery", "kombu", "redis",
          "pymemcache", "sqlalchemy", "psycopg2", "psycopg", "MySQLdb", "pymysql", "pymongo", "oracledb", "cx_Oracle", "requests",
          "urllib3", "httpx", "boto3", "botocore", "grpc", "lxml", "PIL", "numpy", "pandas", "scipy", "torch", "tensorflow", "sentry_sdk",
          "newrelic", "ddtrace", "opentelemetry")
# Names under which they are installed, where these are others
_INSTALLED_AS = {"rest_framework": ("djangorestframework",), "psycopg2": ("psycopg2", "psycopg2_binary"), "MySQLdb": ("mysqlclient",),
                 "PIL": ("pillow",), "yaml": ("pyyaml",), "bs4": ("beautifulsoup4",), "dateutil": ("python_dateutil",), "jwt": ("pyjwt",),
                 "grpc": ("grpcio",), "cv2": ("opencv_python", "opencv_python_headless"), "sklearn": ("scikit_learn",),
                 "OpenSSL": ("pyopenssl",), "Crypto": ("pycryptodome",), "dotenv": ("python_dotenv",), "magic": ("python_magic",),
                 "zmq": ("pyzmq",), "ldap": ("python_ldap",), "memcache": ("python_memcached",), "markdown": ("markdown",),
                 "pkg_resources": ("setuptools",), "attr": ("attrs",), "opentelemetry": ("opentelemetry_api",)}
_FOLDER = re.compile(r"(.+?)-(\d[^-]*)(?:-py[\d.]+.*)?\.(?:dist|egg)-info\Z")
_PYTHON = re.compile(r"(?:\A|/)(?:lib)?python(\d\.\d+)(?:\Z|[./-])")
_VARIABLES = ("VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH")


def of(reader, root="/proc"):
    """What a reader.Reader's process runs.  Raises TelError where its memory is no longer there.

    {"python": "3.11.7", "executable", "prefix", "base_prefix" (paths, or None), "paths": [sys.path], "site_packages": [those of
     paths that packages are in], "modules": how many are loaded, "top": [{"name", "version", "installed", "file"}], "variables":
     {}, "interpreters": [{"id", "paths"}] of those whose sys.path is another than the first one's, "unknown": {part: reason}}
    version: as the package itself says, or else `installed`, what lies in its folder now; None where neither tells.
    """
    memory, runtime = reader.inside()
    pages = Pages(memory, _MOST_BYTES)
    objects = Objects(pages, runtime.layout)
    modules = Modules(pages, objects, Measure(pages, objects, runtime.layout), runtime)
    found = {"python": runtime.python, **_NOTHING, "top": [], "interpreters": [], "unknown": {}}
    try:
        every = [(each.id, [*modules.of(each)]) for each in modules.interpreters()[:_MOST_INTERPRETERS]]
    except (Unreadable, struct.error) as error:
        raise TelError(f"process {reader.pid}: its modules cannot be read: {error}; it may have ended") from None
    top, count = {}, 0
    for number, loaded in every:
        count += len(loaded)
        for module in loaded:
            if module.library and module.name[:1] != "_" and "." not in module.name and _site([module.file or ""]):
                top.setdefault(module.name, (module, _version(objects, modules, module)))
        try:
            told = _of_sys(objects, modules, loaded)
        except (Unreadable, struct.error) as error:
            found["unknown"].setdefault("paths", f"sys.path of interpreter {number} cannot be read: {error}")
            continue
        if found["paths"] is None:
            found.update(told)
        elif told["paths"] != found["paths"]:
            found["interpreters"].append({"id": number, "paths": told["paths"]})
    if found["paths"] is None:
        found["unknown"].setdefault("paths", "sys is not among its modules")
    found["modules"] = count
    paths = dict.fromkeys(path for each in (found, *found["interpreters"]) for path in each["paths"] or ())
    folders = list(dict.fromkeys((*_site(paths), *(folder for module, _ in top.values() for folder in _site([module.file])))))
    found["site_packages"] = folders
    installed = _installed(f"{root}/{reader.pid}/root", folders, found["unknown"])
    found["top"] = [_row(name, module.file, version, installed) for name, (module, version) in _first(top)]
    return found


_NOTHING = {"executable": None, "prefix": None, "base_prefix": None, "paths": None, "site_packages": [], "modules": None, "variables": {}}


def of_process(pid, root="/proc"):
    """As `of`, by pid; with what /proc tells alone where its memory may not be read, which "unknown" says.

    Raises TelError when there is no such process.
    """
    try:
        reader = Reader(pid)
    except TelError as error:
        return from_proc(pid, str(error), root)
    try:
        return of(reader, root)
    except TelError as error:
        return from_proc(pid, str(error), root)
    finally:
        reader.close()


def from_proc(pid, reason, root="/proc"):
    """As `of`, without the process's memory.  reason: why that is not read.  Raises TelError when there is no such process."""
    found = {"python": None, **_NOTHING, "variables": {}, "top": [], "interpreters": [],
             "unknown": dict.fromkeys(("paths", "modules"), reason)}
    try:
        procfs.stat(pid, root)
    except (OSError, ValueError) as error:
        raise TelError(explain(pid, error, root) if isinstance(error, OSError) else f"process {pid}: {error}") from None
    files = []
    try:
        files = sorted({each.path for each in parse_maps(procfs.read(f"{root}/{pid}/maps", _MOST_MAPS)) if each.path.startswith("/")})
    except OSError as error:
        found["unknown"]["site_packages"] = explain(pid, error, root)
    try:
        found["executable"] = os.readlink(f"{root}/{pid}/exe")
    except OSError as error:
        found["unknown"]["executable"] = explain(pid, error, root)
    try:
        found["variables"] = _variables(procfs.read(f"{root}/{pid}/environ", _MOST_ENVIRONMENT))
    except OSError as error:
        found["unknown"]["variables"] = explain(pid, error, root)
    named = (_PYTHON.search(path.removesuffix(" (deleted)")) for path in (*(path for path in files if "libpython" in path),
                                                                       found["executable"] or "", *files))
    found["python"] = next((match.group(1) for match in named if match), None)
    if found["python"] is None:
        found["unknown"]["python"] = reason
    found["prefix"] = found["variables"].get("VIRTUAL_ENV") or found["variables"].get("PYTHONHOME")
    top = {}
    for path in files:
        for folder in _site([path]):
            # an extension by itself in the folder is a module, one further down belongs to a package
            name = path[len(folder) + 1:].split("/")[0].split(".")[0]
            if name.isidentifier():
                top.setdefault(name, (path, None))
    found["site_packages"] = list(dict.fromkeys(_site(files)))
    installed = _installed(f"{root}/{pid}/root", found["site_packages"], found["unknown"])
    found["top"] = [_row(name, path, None, installed) for name, (path, _) in _first(top)]
    return found


def _of_sys(objects, modules, loaded):
    """What the sys module of an interpreter says.  Raises Unreadable."""
    module = next((each for each in loaded if each.name == "sys"), None)
    if module is None:
        raise Unreadable("sys is not among its modules")
    held, found = dict(modules.named(module.globals)), {}
    for name in ("executable", "prefix", "base_prefix"):
        try:
            found[name] = objects.string(held[name], _LONGEST) or None
        except (KeyError, Unreadable):
            found[name] = None
    place = held.get("path")
    if place is None or not objects.is_a(place, "list"):
        raise Unreadable("sys.path is no list")
    size, start = objects.word(place + 16), objects.word(place + 24)
    paths = []
    for index in range(min(size, _MOST_PATHS)):
        each = objects.word(start + 8 * index)
        if objects.is_a(each, "str"):   # others are let be, as the import does
            paths.append(objects.string(each, _LONGEST))
    return {**found, "paths": paths}


def _version(objects, modules, module):
    """What a package says of its version, or None."""
    place = dict(modules.named(module.globals)).get("__version__")
    try:
        told = objects.string(place, 100) if place else None
    except Exhausted:
        raise
    except (Unreadable, struct.error):
        return None
    return told.split()[0] if told and told[0].isdigit() else None


def _first(top):
    """The items that are told: known ones first, then by their names."""
    order = {name: place for place, name in enumerate(_KNOWN)}
    return sorted(top.items(), key=lambda item: (order.get(item[0], len(order)), item[0].lower()))[:_MOST_TOP]


def _row(name, file, version, installed):
    [folder] = _site([file])
    names = installed.get(folder, {})
    now = next((names[each] for each in (_plain(name), *_INSTALLED_AS.get(name, ())) if each in names), None)
    return {"name": name, "version": version or now, "installed": now, "file": file}


def _site(paths):
    """The site-packages and dist-packages folders that paths are, or lie in."""
    found = []
    for path in paths:
        for part in FOLDERS:
            before, folder, _ = (path + "/").partition(part)
            if folder:
                found.append(before + folder.rstrip("/"))
                break
    return found


def _plain(name):
    return re.sub(r"[-_.]+", "_", name).lower()


def _installed(root, folders, unknown):
    """{folder: {plain name: version}} of what is installed in folders, as the process sees them."""
    found = {folder: {} for folder in folders[:_MOST_PATHS]}
    for folder in found:
        try:
            with os.scandir(root + folder) as names:
                for number, entry in enumerate(names):
                    if number >= _MOST_LISTED:
                        break
                    match = _FOLDER.match(entry.name)
                    if match:
                        found[folder].setdefault(_plain(match.group(1)), match.group(2)[:100])
        except FileNotFoundError:
            continue                    # sys.path may name what is not there
        except (OSError, ValueError) as error:
            unknown.setdefault("versions", f"{folder} cannot be listed: {getattr(error, 'strerror', None) or error}")
    return found


def _variables(data):
    """{name: value} of the environment's variables that say where packages are."""
    found = {}
    for each in data.split(b"\0"):
        name, _, value = os.fsdecode(each).partition("=")
        if name in _VARIABLES:
            found[name] = value[:_LONGEST]
    return found

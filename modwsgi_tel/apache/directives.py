"""Apache's configuration files as directives: what a server that was started with these words would read.

Followed are Include and IncludeOptional, <IfDefine>, <IfModule>, <IfVersion>, <IfFile>, Define, UnDefine, ${NAME},
ServerRoot, LoadModule, lines that go on, quotes.  What is not followed is told: macros, <IfDirective>, <IfSection>.
Source: server/config.c, server/core.c, server/util.c (ap_getword_conf), mod_version.c of Apache 2.4.
"""
import fnmatch
import os
import re
import stat
from collections import namedtuple

Directive = namedtuple("Directive", "name args place")
Directive.__doc__ = """One directive.  name: as it is written in the manual.  args: its words, without quotes.  place: "file:line"."""

MOST_FILES, MOST_BYTES, MOST_DEPTH = 200, 4 << 20, 16
_MOST_DIRECTIVES, _MOST_LINE, _MOST_PROBLEMS, _MOST_VALUE = 20_000, 16384, 50, 4096

# Directives that are kept, besides all that begin with WSGI
_KEPT = {name.lower(): name for name in (
    "MaxRequestWorkers ServerLimit ThreadsPerChild ThreadLimit StartServers MinSpareThreads MaxSpareThreads MaxConnectionsPerChild "
    "Timeout KeepAlive KeepAliveTimeout ListenBackLog Mutex LogLevel ErrorLog ErrorLogFormat Listen User Group ServerName "
    "CoreDumpDirectory PidFile LoadModule DefaultRuntimeDir ScoreBoardFile GracefulShutdownTimeout").split()}
_RENAMED = {"maxclients": "MaxRequestWorkers", "maxrequestsperchild": "MaxConnectionsPerChild"}
_WSGI = {name.lower(): name for name in (
    "WSGIDaemonProcess WSGIProcessGroup WSGIApplicationGroup WSGIScriptAlias WSGIScriptAliasMatch WSGIImportScript WSGIDispatchScript "
    "WSGISocketPrefix WSGISocketRotation WSGIRestrictEmbedded WSGIPythonHome WSGIPythonPath WSGIPythonEggs WSGIPythonOptimize "
    "WSGIPythonHashSeed WSGIDestroyInterpreter WSGIAcceptMutex WSGILazyInitialization WSGITelemetryService WSGITelemetryOptions "
    "WSGISlowRequests WSGIServerMetrics WSGISwitchInterval WSGIFreeThreading WSGIPerInterpreterGIL WSGIEnableSendfile "
    "WSGIChunkedRequest WSGICallableObject WSGIPassAuthorization WSGIMapHEADToGET WSGIScriptReloading WSGIErrorOverride "
    "WSGIRestrictProcess WSGIHandlerScript WSGITrustedProxyHeaders WSGITrustedProxies WSGIRestrictSignal").split()}
# Modules that are in the program itself where they are not loaded: of Debian's, Red Hat's and the plain build
_STATIC = {"core_module", "so_module", "http_module", "log_config_module", "logio_module", "version_module", "unixd_module",
           "watchdog_module", "core.c", "mod_so.c", "http_core.c", "mod_log_config.c", "mod_logio.c", "mod_version.c", "mod_unixd.c",
           "mod_watchdog.c"}
_NAME = re.compile(r"[A-Za-z_][\w-]{0,100}$")
_VARIABLE = re.compile(r"\$\{([^}\s:]{1,200})\}")
_MAGIC = re.compile(r"[*?\[]")
_SECTION = re.compile(r"<(/?)\s*([A-Za-z]\w*)\s*(.*?)\s*>?\s*$")


def words(text):
    """The words of a line, as Apache reads them: in quotes of either kind a blank is part of one; \\" in them is a quote.

    A quote within a word (name='a b') holds its blanks together too, as WSGIDaemonProcess reads its options.
    """
    found, current, quote, position = [], None, "", 0
    while position < len(text):
        char = text[position]
        if quote:
            if char == "\\" and text[position + 1:position + 2] in (quote, "\\"):
                position += 1
                current += text[position]
            elif char == quote:
                quote = ""
            else:
                current += char
        elif char in "\"'" and (not current or current.endswith("=")):
            quote, current = char, current or ""
        elif char.isspace():
            if current is not None:
                found.append(current)
            current = None
        else:
            current = (current or "") + char
        position += 1
    if current is not None:
        found.append(current)
    return found


class Parser:
    """Reads configuration files as a server would.

    open_path: makes of a path what this process may open (the server may live in another root).  defines: names of -D.
    environment: {name: value} for ${NAME}.  server_root: what relative paths begin at.  version: as (2, 4, 71), or None.

    After read(): directives, files, modules {name: path}, libraries (paths of LoadFile), defines, error_logs, problems,
    wanted (names of ${NAME}), whole (whether nothing was left out).
    """

    def __init__(self, open_path, server_root, defines=(), environment=None, version=None):
        self._open_path, self._environment, self._version = open_path, environment or {}, version
        self.server_root = server_root
        self.defines = {}
        for each in defines:
            name, _, value = each.partition("=")
            self.defines[name] = value
        self.directives, self.files, self.modules, self.error_logs, self.problems = [], [], {}, [], []
        self.wanted, self._names = set(), set(_STATIC)
        self.libraries, self.whole = [], True
        self._sections, self._unknown = [], {}

    def unknown(self):
        """Problems: variables that are not known here."""
        if not self._unknown:
            return []
        shown = [f"${{{name}}} ({place})" for name, place in list(self._unknown.items())[:5]]
        return [f"variables of the server's environment that are not known here: {', '.join(shown)}"
                + (f" and {len(self._unknown) - 5} more" if len(self._unknown) > 5 else "")]

    def problem(self, text):
        if text not in self.problems and len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(text)

    def _leave_out(self, text):
        self.whole = False
        self.problem(text)

    def absolute(self, path):
        return os.path.normpath(os.path.join(self.server_root or "/", path))

    # --- files ---------------------------------------------------------------------------------

    def read(self, path, depth=0, place=""):
        """Takes one file and all that it includes."""
        if depth > MOST_DEPTH:
            self._leave_out(f"{place}: files are included more than {MOST_DEPTH} deep; the rest was not read")
            return
        if len(self.files) >= MOST_FILES:
            self._leave_out(f"more than {MOST_FILES} files are included; the rest was not read")
            return
        self.files.append(path)
        try:
            text = self._text(path)
        except OSError as error:
            self._leave_out(f"{path} cannot be read: {error.strerror}")
            return
        sections, self._sections = self._sections, []
        for number, line in _lines(text):
            if len(self.directives) >= _MOST_DIRECTIVES:
                self._leave_out(f"more than {_MOST_DIRECTIVES:,} directives; the rest was not read")
                break
            self.take(line, f"{path}:{number}", depth)
        self._sections = sections

    def _text(self, path):
        handle = os.open(self._open_path(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(0, "it is no file")
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            self._leave_out(f"{path} is larger than {MOST_BYTES >> 20} MiB; only its beginning was read")
            text = text[:MOST_BYTES]
        return text.decode("utf-8", "replace")

    def _include(self, pattern, place, depth, optional):
        for path in [each for path in self._expanded(self.absolute(pattern)) for each in self._within(path, 0)]:
            if not optional or os.path.exists(self._open_path(path)):
                self.read(path, depth + 1, place)

    def _expanded(self, pattern):
        """The paths that a pattern with wildcards names, sorted; itself without."""
        paths, found = [""], False
        for part in pattern.strip("/").split("/"):
            if not _MAGIC.search(part):
                paths = [f"{path}/{part}" for path in paths]
                continue
            found = True
            paths = [f"{path}/{name}" for path in paths for name in self._names_in(path or "/")
                     if fnmatch.fnmatchcase(name, part) and (not name.startswith(".") or part.startswith("."))][:MOST_FILES + 1]
        return [path for path in paths if not found or os.path.exists(self._open_path(path))]

    def _names_in(self, path):
        try:
            return sorted(os.listdir(self._open_path(path)))
        except OSError:
            return []

    def _within(self, path, depth):
        """The files of a folder, where an include names one; else the path."""
        if not os.path.isdir(self._open_path(path)) or depth > MOST_DEPTH:
            return [path]
        names = self._names_in(path)[:MOST_FILES + 1]
        return [each for name in names for each in self._within(os.path.join(path, name), depth + 1)][:MOST_FILES + 1]

    # --- lines ---------------------------------------------------------------------------------

    def take(self, line, place, depth=0):
        """One directive, or the beginning or the end of a section."""
        if line.startswith("<"):
            self._section(line, place)
            return
        if not all(kept for _, kept in self._sections):
            return
        line = self._filled(line, place)
        name, _, rest = line.partition(" ") if " " in line else line.partition("\t")
        lower = name.lower()
        args = words(rest)
        handler = getattr(self, f"_on_{lower}", None) if lower in _HANDLED else None
        if handler and args:
            handler(args, place)
        elif lower in ("include", "includeoptional") and args:
            self._include(args[0], place, depth, lower == "includeoptional")
        elif lower == "use":
            self._leave_out(f"{place}: what the macro {args[0] if args else ''} stands for was not read")
        shown = _KEPT.get(lower) or _RENAMED.get(lower) or _WSGI.get(lower) or (name if lower.startswith("wsgi") else None)
        if shown and _NAME.match(shown):
            self.directives.append(Directive(shown, args, place))

    def _filled(self, line, place):
        """The line with its ${NAME} replaced, by Define before the environment; a name that is not known stays as it is."""
        def value(found):
            name = found.group(1)
            if name in self.defines:
                return self.defines[name]
            self.wanted.add(name)
            if name in self._environment:
                return self._environment[name][:_MOST_VALUE]
            self._unknown.setdefault(name, place)
            return found.group(0)
        return _VARIABLE.sub(value, line)[:_MOST_LINE]

    def _section(self, line, place):
        found = _SECTION.match(line)
        if not found:
            return
        closes, name, rest = found.group(1), found.group(2).lower(), found.group(3)
        if closes:
            for at in range(len(self._sections) - 1, -1, -1):
                if self._sections[at][0] == name:
                    del self._sections[at:]
                    break
            return
        kept = all(kept for _, kept in self._sections)
        self._sections.append((name, kept and self._holds(name, rest, place)))

    def _holds(self, name, rest, place):
        """Whether what a section holds is read."""
        if name == "macro":
            return False
        if name == "ifversion":
            return self._is_version(words(self._filled(rest, place)), place)
        check = {"ifdefine": lambda word: word in self.defines, "ifmodule": lambda word: word in self._names,
                 "iffile": lambda word: os.path.exists(self._open_path(self.absolute(word)))}.get(name)
        if check:
            given = words(self._filled(rest, place))
            word = given[0] if given else ""
            return not check(word[1:]) if word.startswith("!") else check(word)
        if name in ("ifdirective", "ifsection"):
            self.problem(f"{place}: <{name}> is not understood; what it holds was read")
        return True

    def _is_version(self, given, place):
        if self._version is None:
            self.problem(f"{place}: the version of Apache is not known; what <IfVersion> holds was read")
            return True
        operator, wanted = (given[0], given[1]) if len(given) > 1 else ("=", given[0] if given else "")
        wrong, operator = operator.startswith("!"), operator.lstrip("!") or "="
        if wanted.startswith("/") or operator == "~":
            self.problem(f"{place}: a pattern in <IfVersion> is not understood; what it holds was read")
            return True
        try:
            other = tuple(int(part) for part in (wanted.split(".") + ["0", "0"])[:3])
        except ValueError:
            return True
        own = self._version
        holds = {"=": own == other, "==": own == other, ">": own > other, ">=": own >= other, "<": own < other,
                 "<=": own <= other}.get(operator, True)
        return holds != wrong

    # --- directives that steer what is read ------------------------------------------------------

    def _on_define(self, args, place):
        self.defines[args[0]] = args[1] if len(args) > 1 else ""

    def _on_undefine(self, args, place):
        self.defines.pop(args[0], None)

    def _on_serverroot(self, args, place):
        self.server_root = args[0]

    def _on_errorlog(self, args, place):
        if args[0] not in self.error_logs:
            self.error_logs.append(args[0])

    def _on_loadfile(self, args, place):
        self.libraries += [self.absolute(each) for each in args]

    def _on_loadmodule(self, args, place):
        if len(args) > 1:
            self.modules[args[0]] = self.absolute(args[1])
            base = os.path.basename(args[1]).partition(".")[0]
            # <IfModule> knows a module by its source file too: mod_ssl.c, event.c
            self._names |= {args[0], base + ".c"} | ({base[8:] + ".c"} if base.startswith("mod_mpm_") else set())


_HANDLED = frozenset(name[4:] for name in dir(Parser) if name.startswith("_on_"))


def _lines(text):
    """(number, line) of all that is none of a comment or empty; lines that go on are one, with the number of the first."""
    held, first = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")
        if not held:
            first = number
        goes_on = line.endswith("\\")
        held += line[:-1] if goes_on else line
        if goes_on and len(held) < _MOST_LINE:
            continue
        whole, held = held.strip()[:_MOST_LINE], ""
        if whole and not whole.startswith("#"):
            yield first, whole

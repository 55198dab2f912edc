"""Lines of Apache's files that name WSGITelemetryService and have no effect.

They are commented out, in a section that does not hold or may not have them, or in a file that is not read.
"""
import os
import re

from modwsgi_tel.apache.logfiles import reach
from modwsgi_tel.doctor.scene import Mention
from modwsgi_tel.proc import procfs

_MOST_FILES, _MOST_BYTES, _MOST = 500, 256 << 10, 20
_NAMED = re.compile(r"^\s*(#+\s*)?WSGITelemetryService\s+(\S.*)$", re.IGNORECASE)
_SECTION = re.compile(r"^\s*<(/?)(\w+)\s*([^>]*)>")
_NEVER_IN = ("virtualhost", "directory", "location", "files", "directorymatch", "locationmatch", "filesmatch", "proxy", "limit")
# Debian's folders: of no effect without a link in *-enabled, which these commands make
_AVAILABLE = {"conf-available": "a2enconf", "mods-available": "a2enmod", "sites-available": "a2ensite"}


def of(config, pid, root="/proc"):
    """[Mention] of a server's configuration; a directive that the parser took is none, but for one in a section that may not have it."""
    taken = {place for name, _, place in config.directives if name == "WSGITelemetryService"}
    found = []
    for path in config.includes[:_MOST_FILES]:
        found += _in(path, pid, root, taken, "")
    opened = {os.path.realpath(reach(pid, path, root)) for path in config.includes}
    for folder, enables in _AVAILABLE.items():
        place = os.path.join(config.root or "/", folder)
        try:
            names = sorted(os.listdir(reach(pid, place, root)))[:_MOST_FILES]
        except OSError:
            continue
        for name in names:
            path = os.path.join(place, name)
            if name.endswith((".conf", ".load")) and os.path.realpath(reach(pid, path, root)) not in opened:
                found += _in(path, pid, root, taken, f"the file is not enabled: {enables} {name.rpartition('.')[0]}")
    return found[:_MOST]


def _in(path, pid, root, taken, why):
    """[Mention] of one file.  why: of the whole file, or ""."""
    try:
        text = procfs.read(reach(pid, path, root), _MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    found, sections = [], []
    for number, line in enumerate(text.split("\n"), 1):
        section = _SECTION.match(line)
        if section:
            if section.group(1):
                del sections[-1:]
            else:
                sections.append((section.group(2), section.group(3)))
        named = _NAMED.match(line)
        if not named:
            continue
        place = f"{path}:{number}"
        wrong = next((f"<{name} {words}>" for name, words in sections if name.lower() in _NEVER_IN), None)
        reason = ("it is commented out" if named.group(1) else
                  f"it stands in {wrong}, where Apache refuses it: it belongs outside of any section" if wrong else
                  why or (None if place in taken else f"it stands in <{sections[-1][0]} {sections[-1][1]}>, which does not hold here"
                          if sections else "Apache does not come to read it"))
        if reason:
            found.append(Mention(place, line.strip()[:300], reason))
    return found

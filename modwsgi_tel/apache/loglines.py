"""A line of an error log: when, who, how grave, and what it says.

Source: Apache's ErrorLogFormat and its defaults (server/log.c of 2.4 and 2.2); gunicorn/glogging.py; uWSGI's log-date and
its line for a request; RFC 3164 for lines that went through syslog.
"""
import calendar
import re
import time
from collections import namedtuple

Line = namedtuple("Line", "at level module pid tid group script code trouble text")
Line.__doc__ = """One line.  at: wall seconds, None where it tells no date.  level: Apache's word, "" where it has none.
module: as wsgi.  pid, tid: or None.  group: of the process that wrote it, where it says so.  script: a WSGI script it is about.
code: AH00052, WSGI0147 or "".  trouble: what the kernel said, as (11)Resource temporarily unavailable.
text: what is left, without all these."""

_MONTHS = {name: number for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
_MONTH = "(?:" + "|".join(_MONTHS) + ")"
_RANGES = ((1970, 9999), (1, 12), (1, 31), (0, 23), (0, 59), (0, 60))
_CLOCK = r"\d\d:\d\d:\d\d"
_DATE = (rf"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? (?P<ctime>{_MONTH} [ \d]\d {_CLOCK})(?P<ctime_part>\.\d+)? (?P<ctime_year>\d{{4}})"
         rf"|(?P<iso>\d{{4}}[-/]\d\d[-/]\d\d[T ]{_CLOCK})(?P<iso_part>[.,]\d+)?(?P<iso_zone> ?(?:Z\b|[+-]\d\d:?\d\d\b))?"
         rf"|(?P<clf>\d\d/{_MONTH}/\d{{4}}:{_CLOCK}) (?P<clf_zone>[+-]\d{{4}})"
         rf"|(?P<syslog>{_MONTH} [ \d]\d {_CLOCK}))")
_DATED = re.compile(rf"\[?{_DATE}(?:\]| - )?")
# In one of the first brackets; behind the addresses, as in uWSGI's line for a request; where uWSGI starts
_DATED_WITHIN = [re.compile(before + _DATE) for before in (
    r"(?:\[[^\]]{0,80}\] ?){1,3}?\[", r"\[pid: [^\]]{1,80}\].{0,200}?\[", r"\*\*\* Starting uWSGI .{1,60}?\[")]
_SYSLOG_TAG = re.compile(r" [\w.:-]{1,80} [\w./-]{1,40}(?:\[(\d{1,10})\])?: ")

_LEVEL = re.compile(r"(?:([\w-]{1,40}):)?(emerg|alert|crit|error|warn|notice|info|debug|trace[1-8])")
_GUNICORN_LEVELS = {"CRITICAL": "crit", "ERROR": "error", "WARNING": "warn", "INFO": "info", "DEBUG": "debug"}
_PID = re.compile(r"(?:pid )?(\d{1,10})(?::tid (\d{1,20}))?")
_ABOUT = re.compile(r"(?:client|remote|host|vhost|unique_id|req|conn)\b")
_BRACKET = re.compile(r" *\[([^\]]{0,4096})\] ?")
_OS_ERROR = re.compile(r" *(\(\d{1,4}\)[^:\[]{1,80}): ?")
_CODE = re.compile(r"(AH\d{5}|WSGI\d{4}): ")
_MOD_WSGI = re.compile(r"mod_wsgi(?: \(pid=(\d{1,10})(?:, process='([^']*)')?(?:, application='[^']*')?\))?: ")


class Dates:
    """Dates in a log as wall seconds.  year: of the last line, for those that tell none; shift: seconds to add to local times.

    A log tells its dates second by second: what was read last is kept.
    """

    def __init__(self, year, shift=0.0):
        self.year, self.shift = year, shift
        self._last = self._wall = None

    def find(self, text):
        """(wall seconds or None, where the text behind it begins) of a line; 0 where it is not what the line begins with."""
        found = _DATED.match(text)
        if found:
            return self._seconds(found), found.end()
        if text.startswith(("[", "***")):
            for dated in _DATED_WITHIN:
                found = dated.match(text)
                if found:
                    return self._seconds(found), 0
        return None, 0

    def _seconds(self, found):
        told = found.groupdict()
        kind = next(kind for kind in ("ctime", "iso", "clf", "syslog") if told[kind])
        zone, part = told.get(kind + "_zone"), told.get(kind + "_part")
        memo = (told[kind], zone, told["ctime_year"])
        if memo != self._last:
            self._last, self._wall = memo, self._whole(kind, told[kind], zone, told)
        return None if self._wall is None else self._wall + (float("0." + part[1:7]) if part else 0.0)

    def _whole(self, kind, key, zone, told):
        try:
            if kind == "iso":
                words = [int(word) for word in re.split(r"[-/T :]", key)]
            elif kind == "clf":
                day, month, year, hour, minute, second = re.split(r"[/:]", key)
                words = [int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second)]
            else:
                month, day, clock = key.split()
                words = [int(told["ctime_year"]) if kind == "ctime" else self.year, _MONTHS[month], int(day),
                         *(int(word) for word in clock.split(":"))]
            if not all(low <= word <= high for word, (low, high) in zip(words, _RANGES)):       # mktime takes 99 o'clock
                return None
            if zone:
                return calendar.timegm((*words, 0, 0, 0)) - _offset(zone.strip())
            return time.mktime((*words, 0, 0, -1)) + self.shift
        except (ValueError, OverflowError):
            return None


def _offset(zone):
    """Seconds east of Greenwich of +0200, +02:00 or Z."""
    if zone == "Z":
        return 0
    digits = zone[1:].replace(":", "")
    return (-1 if zone[0] == "-" else 1) * (int(digits[:2]) * 3600 + int(digits[2:]) * 60)


def parse(text, dates):
    """The Line of a text without its line end.  Never raises."""
    at, end = dates.find(text)
    seen = end > 0                      # the date; else it is in one of the brackets
    level = module = group = script = code = trouble = ""
    pid = tid = None
    tag = _SYSLOG_TAG.match(text, end) if end else None
    if tag:
        pid, end = int(tag.group(1)) if tag.group(1) else None, tag.end()
    while at is not None or text.startswith("["):
        bracket = _BRACKET.match(text, end)
        if bracket is None:
            # (11)Resource temporarily unavailable: may stand between them
            error = None if trouble else _OS_ERROR.match(text, end)
            if error is None:
                break
            trouble, end = error.group(1), error.end()
            continue
        inside = bracket.group(1)
        graded, numbered = _LEVEL.fullmatch(inside), _PID.fullmatch(inside)
        if graded:
            module, level = graded.group(1) or "", graded.group(2)
        elif inside in _GUNICORN_LEVELS:
            level = _GUNICORN_LEVELS[inside]
        elif numbered:
            pid, tid = int(numbered.group(1)), int(numbered.group(2)) if numbered.group(2) else None
        elif inside.startswith("script "):
            script = inside[7:]
        elif not seen and _DATED.match(inside):
            seen = True
        elif not _ABOUT.match(inside):
            break
        end = bracket.end()
    if 0 < end < len(text) and text[end] == " " and text[end - 1] in "]0123456789":
        end += 1
    coded = _CODE.match(text, end)
    if coded:
        code, end = coded.group(1), coded.end()
        named = _BRACKET.match(text, end)
        if named and named.group(1).startswith("script "):
            script, end = named.group(1)[7:], named.end()
    own = _MOD_WSGI.match(text, end)
    if own:
        pid, group, end = int(own.group(1)) if own.group(1) else pid, own.group(2) or "", own.end()
        module = module or "wsgi"
    return Line(at, level, module, pid, tid, group, script, code, trouble, text[end:])

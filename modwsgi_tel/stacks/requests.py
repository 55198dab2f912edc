"""Which request a thread serves: out of the WSGI environ that its outer frames hold."""
import struct

from modwsgi_tel.stacks.memory import Unreadable
from modwsgi_tel.stacks.model import Request

_OUTER_FRAMES = 16                      # in these the request's environ is looked for
_ENVIRON = ("environ", "env", "wsgi_environ")
_INSIDE = ("environ", "META", "_environ", "wsgi_environ", "env")    # of an object: werkzeug, Django, webob, the iterator of a body
_HOLDERS = 3                            # first variables of a frame: it may be an attribute of these
_ATTRIBUTES = 64                        # of such an object
_SURE = "wsgi.version"                  # what any WSGI environ has, and no other dictionary
_ID = "mod_wsgi.request_id"
_TEXTS = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO")
_STARTS = ("mod_wsgi.request_start", "mod_wsgi.queue_start", "mod_wsgi.daemon_start")
_GROUPS = ("mod_wsgi.process_group", "mod_wsgi.application_group")
_WANTED = (_ID, "mod_wsgi.thread_id", *_TEXTS, *_STARTS, *_GROUPS, _SURE)
_MOST_KEYS, _LONGEST = 1024, 512
_LONGEST_QUEUE_S = 86400


class Requests:
    """Reads the Request of a thread.  walker: a walker.Walker, at the look that it has just had."""

    def __init__(self, walker, objects):
        self._walker, self._objects = walker, objects
        self._known, self._seen = {}, {}        # {address of an environ: (request id, Request)} of the look before; of this one

    def new_look(self):
        self._known, self._seen = self._seen, {}

    def of(self, frames, thorough=True):
        """The Request whose environ one of the outer frames holds, or None.

        frames: raw, innermost first.  thorough: also where only an object that a frame was called with has it.
        """
        outer = []
        for place, frame in enumerate(frames[:-_OUTER_FRAMES - 1:-1]):
            try:
                variables = self._walker.variables(frame)
            except (Unreadable, struct.error):
                continue
            outer.append((place, variables))
            first = variables[:2] if place == 0 else ()             # the application's own arguments, whatever their names
            for name, value in variables:
                if name in _ENVIRON or (name, value) in first:
                    request = self._environ(value)
                    if request is not None:
                        return request._replace(place=place)
        for place, variables in outer if thorough else ():
            for _, value in variables[:_HOLDERS]:
                request = self._held(value)
                if request is not None:
                    return request._replace(place=place)
        return None

    def _held(self, address):
        """The Request of an instance that has its environ as an attribute, or None."""
        objects = self._objects
        try:
            found = objects.attributes(self._plain(address))[:_ATTRIBUTES]
            named = {}
            for label, value in found:
                if objects.is_a(label, "str"):
                    named[objects.text(label, 32)[0]] = value
        except (Unreadable, struct.error):
            return None
        return next(filter(None, (self._environ(named[name]) for name in _INSIDE if name in named)), None)

    def _plain(self, address):
        """An object's address without a tag, and that of what a cell holds."""
        objects = self._objects
        address &= ~3 if objects.tagged else ~0
        return objects.word(address + 16) if objects.is_a(address, "cell") else address

    def _environ(self, address):
        objects = self._objects
        try:
            address = self._plain(address)
            if not objects.is_a(address, "dict"):
                return None
            found = objects.lookup(address, _WANTED, _MOST_KEYS)
            if _SURE not in found:
                return None
            number = self._text(found[_ID]) if _ID in found else None
            if number:
                before, request = self._known.get(address, ("", None))
                if before == number:    # no two requests have the same id
                    self._seen[address] = number, request
                    return request
            request = self._request({name: self._text(found[name]) for name in _WANTED[:-1] if name in found})
        except (Unreadable, struct.error):
            return None
        if number:
            self._seen[address] = number, request
        return request

    def _text(self, address):
        """A str as it is, a number or anything else as a short text."""
        objects = self._objects
        address &= ~0 if not objects.tagged or address & 3 == 3 else ~3
        return objects.string(address, _LONGEST) if address & 3 == 0 and objects.is_a(address, "str") else objects.value(address)

    @staticmethod
    def _request(told):
        path = _decoded(told.get("SCRIPT_NAME", "") + told.get("PATH_INFO", ""))
        began, queued, taken = (_stamp(told.get(name)) for name in _STARTS)
        waited = None if queued is None or taken is None else taken - queued
        return Request(told.get(_ID), told.get("mod_wsgi.thread_id"), told.get("REQUEST_METHOD"), path or None, "environ",
                       started=began, queued_s=max(0.0, round(waited, 6)) if waited is not None and -1 < waited < _LONGEST_QUEUE_S else None,
                       process_group=told.get(_GROUPS[0]), application_group=told.get(_GROUPS[1]))


def _decoded(text):
    """A text of environ, latin-1 as WSGI has it, as what it stands for; what cannot be that as it is."""
    try:
        return text.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return text


def _stamp(text):
    """Wall seconds of what mod_wsgi tells: microseconds as text up to 5, seconds as a float in 6; 0, or none, where it does not."""
    try:
        number = float(text or 0)
    except ValueError:
        return None
    return next((number / unit for unit in (1.0, 1e6) if 1e9 <= number / unit < 1e10), None)

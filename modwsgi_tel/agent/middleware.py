"""A WSGI 1.0 middleware (PEP 3333) that notes when a request begins and ends, and is otherwise the application itself.

A request lasts until the server has closed what the application returned. Some answers need nothing of the application any
more once they are returned: a list, a tuple, an instance of the server's own `wsgi.file_wrapper`. These are handed on as they
are, so that the server still sees their length and sends the file by itself, and their request ends at the return: how long
the server then takes to send them is not seen.
"""
from _thread import get_ident

_PIECES_MOST = 64                       # of a list, whose lengths are added up

# Of these nothing of the application's runs any more, nor of what no server can iterate.
_PLAIN = (list, tuple, bytes, str, dict, set, frozenset)


class Middleware:
    """The WSGI application `app`, of which hooks are told:

    begin(environ) -> request, or None for one that goes straight to `app`, as what another middleware or the server's own events
    have begun. What tells these is in environ, by `begin`; the middleware itself leaves environ alone.
    status(request, code): with what number it is answered; again when the application changes its mind.
    failed(request, type, value, traceback): an exception that leaves the application. It goes on to the server as it was.
    end(request): once. `request` has output_bytes and output_writes by then, None where they are not known.
    secret: not true while no secret is configured. secret_dump(environ) -> None, or (status, headers, body) to answer with.

    What a hook raises is counted in `errors` and goes no further. What is asked of the middleware that it has not, it asks `app`.
    """

    def __init__(self, app, hooks):
        self.app, self.hooks = app, hooks
        self.errors = 0

    def __call__(self, environ, start_response):
        request = answer = None
        hooks = self.hooks
        try:
            if hooks.secret:
                answer = hooks.secret_dump(environ)
            if answer is None:
                request = hooks.begin(environ)
        except Exception:
            self.errors += 1
        if request is None:
            if answer is None:
                return self.app(environ, start_response)
            status, headers, body = answer
            start_response(status, headers)
            return [body]
        response = _Response(self, request, start_response)
        try:
            result = self.app(environ, response.start)
        except BaseException as error:
            response.failed(error)
            response.end()
            raise
        return response.guarded(result, environ)

    def __getattr__(self, name):
        if name[:2] == "__" or name == "app":       # what copy and pickle ask of one that is not made yet
            raise AttributeError(name)
        return getattr(self.app, name)


def left(middleware, request, error):
    """An exception has left the application; for who calls it in place of a Middleware, from within `except`."""
    response = _Response(middleware, request, None)
    response.failed(error)
    response.end()


def handed_on(middleware, request, result, environ):
    """What the server gets for what the application returned; for who calls it in place of a Middleware."""
    return _Response(middleware, request, None).guarded(result, environ)


class _Response:
    """What the server gets from one request: the headers, write(), the body.

    request: None after its end, so that a start_response which the application keeps holds nothing of it.
    """

    __slots__ = ("middleware", "request", "_start", "_write")

    def __init__(self, middleware, request, start):
        self.middleware, self.request, self._start = middleware, request, start

    def start(self, *args, **named):
        """The application's start_response, with what it was given and nothing else."""
        try:
            write = self._start(*args, **named)
        except BaseException:
            args = named = None         # with exc_info in them this frame would be in its own traceback
            raise
        request = self.request
        if request is not None:
            try:
                status = args[0] if args else named["status"]
                if type(status) is str and status[:3].isdecimal():
                    self.middleware.hooks.status(request, int(status[:3]))
            except Exception:
                self.middleware.errors += 1
        if write is None:               # a server of which nothing can be written
            return None
        self._write = write
        return self.write

    def write(self, *args, **named):
        given = self._write(*args, **named)
        for data in args or named.values():
            self.sent(data)
        return given

    def sent(self, data):
        """Count a piece of the body that the application gave."""
        request = self.request
        if request is None:
            return
        try:
            size = len(data) if type(data) is bytes else bytes.__len__(data)
            if size:
                request.output_bytes = size + (request.output_bytes or 0)
                request.output_writes = 1 + (request.output_writes or 0)
        except Exception:               # no bytes: the server will say so
            pass

    def runs_here(self):
        """The calling thread makes the next piece of the body, which may be another than began it."""
        request = self.request
        if request is not None:
            request.ident = get_ident()

    def failed(self, error):
        request = self.request
        if request is not None:
            try:
                self.middleware.hooks.failed(request, type(error), error, error.__traceback__)
            except Exception:
                self.middleware.errors += 1

    def end(self):
        """The request is over; a second time does nothing."""
        request, self.request = self.request, None
        if request is None:
            return
        try:
            self.middleware.hooks.end(request)
        except Exception:
            self.middleware.errors += 1

    def guarded(self, result, environ):
        """As `handed_on`; whatever fails there, the server gets what the application returned."""
        try:
            return self.handed_on(result, environ)
        except Exception:
            self.middleware.errors += 1
            self.end()
            return result

    def handed_on(self, result, environ):
        """What the server gets for what the application returned: that itself, or a body that tells when it is closed."""
        kind, request = type(result), self.request
        if kind is list or kind is tuple:
            self._sizes(request, result)
            self.end()
            return result
        if kind in _PLAIN or not (hasattr(kind, "__iter__") or hasattr(kind, "__next__") or hasattr(kind, "__getitem__")):
            self.end()
            return result
        if _of_server(environ.get("wsgi.file_wrapper"), result):
            request.output_bytes = request.output_writes = None
            self.end()
            return result
        request.returned = True
        if request.output_bytes is None:
            request.output_bytes = request.output_writes = 0
        if not hasattr(kind, "__len__"):
            return _Body(self, result)
        return (_Sequence if hasattr(kind, "__getitem__") else _Sized)(self, result)

    def _sizes(self, request, pieces):
        """Add the lengths of a list's pieces; not known where they are too many, or no bytes."""
        size = writes = 0
        if len(pieces) <= _PIECES_MOST:
            for piece in pieces:
                if type(piece) is not bytes:
                    break
                if piece:
                    size += len(piece)
                    writes += 1
            else:
                request.output_bytes = size + (request.output_bytes or 0)
                request.output_writes = writes + (request.output_writes or 0)
                return
        request.output_bytes = request.output_writes = None


def _of_server(wrapper, result):
    """Whether a result is what the server's wsgi.file_wrapper made.

    Where that is no class (uWSGI's hands the file itself back) any result that reads like a file is taken for one.
    """
    if wrapper is None:
        return False
    if isinstance(wrapper, type):
        return isinstance(result, wrapper)
    return hasattr(result, "read") or hasattr(result, "filelike")


class _Body:
    """An iterable of the application's, of which the end is noted.

    What it has not is asked of the iterable, so that it looks the same to what is around it.
    """

    __slots__ = ("_response", "_body", "_iterator", "_closed", "__weakref__")

    def __init__(self, response, body):
        self._response, self._body, self._iterator, self._closed = response, body, body, False

    def __iter__(self):
        try:
            self._iterator = iter(self._body)
        except BaseException as error:
            self._response.failed(error)
            raise
        return self

    def __next__(self):
        self._response.runs_here()
        try:
            piece = next(self._iterator)
        except StopIteration:
            raise
        except BaseException as error:
            self._response.failed(error)
            raise
        self._response.sent(piece)
        return piece

    def close(self):
        """The server has done with it: the iterable is closed, once, and the request is over."""
        if self._closed:
            return None
        self._closed = True
        try:
            close = getattr(self._body, "close", None)
            return close() if close is not None else None
        except BaseException as error:
            self._response.failed(error)
            raise
        finally:
            self._response.end()

    def __del__(self):
        self._response.end()            # of a server that never calls close()

    def __getattr__(self, name):
        if name in _Body.__slots__:
            raise AttributeError(name)
        return getattr(self._body, name)


class _Sized(_Body):
    """One that knows its length: servers ask for it, to tell Content-Length of a body of one piece."""

    __slots__ = ()

    def __len__(self):
        return len(self._body)


class _Sequence(_Sized):
    """One that is a sequence, for servers that look no further at anything else."""

    __slots__ = ()

    def __getitem__(self, index):
        return self._body[index]

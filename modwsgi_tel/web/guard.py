"""Who may ask: the Host, Origin and token of a request, judged without I/O.

Loopback keeps other machines out, not other web pages: a page anywhere may make a browser here
send requests (foreign Origin), or give its own name our address (DNS rebinding: foreign Host).
"""
from modwsgi_tel.errors import BadRequest, UsageError
from modwsgi_tel.web.protocol import Response, error_response, parse_query, split_authority

COOKIE = "modwsgi_tel"
COOKIE_AGE_S = 7 * 86400
LOGIN = "/login"
FORM_BYTES = 4096                       # of the login form: it is read before anyone has shown a token
PREFIX_LENGTH = 128
PROXIES = 8                             # one behind another, at most
LOOPBACK_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))
WILDCARDS = frozenset(("0.0.0.0", "::", ""))

_REALM = (("WWW-Authenticate", 'Bearer realm="modwsgi-tel"'),)
_LABEL = b"modwsgi-tel session cookie 1"
_SEGMENT = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
# of a link to a view the server is not told what stands behind the #: with it the form leads there
_KEEPS_VIEW = "document.forms[0].action += location.hash"
_FORM_POLICY = (("Content-Security-Policy", "default-src 'none'; script-src 'sha256-qZLnRB+JWoEw+wv9oAy+xymN7ahIeMz/rgIM/zoog2U='; form-action 'self'; "
                                            "frame-ancestors 'none'; base-uri 'none'"),)
_FORM = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>modwsgi-tel</title>
<h1>modwsgi-tel</h1>
<form method="post" action="{action}">
<p>{notice}</p>
<p><label>Token <input type="password" name="token" autocomplete="current-password" required autofocus></label>
<button>Show</button></p>
</form>
<script>{script}</script>
</html>
"""


def hosts_for(bound_address, allow_host_options, hostname):
    """The host names a TCP listener answers to, as a set for Guard.

    bound_address: what it is bound to, a name or an address; a wildcard stands for the loopback
        names and `hostname` (of this machine), not for every address it has.
    allow_host_options: names or addresses, with or without a port, which is ignored.
    Raises UsageError for one of these that is none.
    """
    bound = _plain(bound_address)
    hosts = {_option_host(text) for text in allow_host_options}
    if bound in WILDCARDS:
        hosts |= LOOPBACK_NAMES
        if hostname:
            hosts.add(_plain(hostname))
    else:
        hosts.add(bound)
        if bound in LOOPBACK_NAMES or bound.startswith("127."):
            hosts |= LOOPBACK_NAMES
    return hosts


def _plain(host):
    """A host as Host headers are compared: lower case, no brackets, no final dot."""
    host = host.lower().strip("[]")
    return host[:-1] if host.endswith(".") else host


def _option_host(text):
    wanted = f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text
    try:
        host = _plain(split_authority(wanted)[0])
    except (BadRequest, UnicodeEncodeError):
        host = ""
    if not host:
        raise UsageError(f"--allow-host {text!r}: give a host name or an address")
    return host


class Guard:
    """Decides whether a request may pass; holds no state but the counter.

    hosts: set of host names and addresses (see `hosts_for`) that a Host may name; a port in it
        is ignored, since tunnels change it.  Not asked when `unix`: nothing but a program that
        can open the socket gets there.
    token: str that every request must show, or None.  root_path: "" or like "/telemetry".
    wrong_tokens: how many wrong ones were shown, for the log.
    Raises UsageError for an empty or unusable token and for a root path that cannot be in a link.
    """

    def __init__(self, hosts, token=None, root_path="", unix=False):
        self.hosts = frozenset(map(_plain, hosts))
        self.unix = unix
        self.root_path = root_path.rstrip("/")
        if not _is_prefix(self.root_path):
            raise UsageError(f"--root-path {root_path!r}: give a path like /telemetry, of letters, digits and ._~-")
        self.wrong_tokens = 0
        self._token = self._session = None
        if token is not None:
            if not token or not token.isprintable() or " " in token:
                raise UsageError("the token must be one word of at least one character")
            # only here: what no one asks for is not loaded at start-up
            import hashlib
            import hmac
            self._same = hmac.compare_digest
            self._token = token.encode("utf-8")
            # not the token itself: whoever sees a cookie cannot go on to use the API's token elsewhere
            self._session = hmac.new(self._token, _LABEL, hashlib.sha256).hexdigest()

    def check(self, request):
        """Raises BadRequest for a request that may not pass: 421 foreign Host, 403 foreign page, 401 no token.

        The login page needs no token; Host and Origin hold for it too.
        """
        self._check_host(request)
        self._check_origin(request)
        if self._token is not None and self.strip(request.path) != LOGIN and not self._authorized(request):
            raise BadRequest(401, "give the token: Authorization: Bearer TOKEN, or in a browser at "
                             + self.prefix(request) + LOGIN, close=False, headers=_REALM)

    def _check_host(self, request):
        # HTTP/1.0 without Host is no browser, so no page is behind it
        if self.unix or request.authority is None:
            return
        host = _plain(split_authority(request.authority)[0])
        if host not in self.hosts:
            raise BadRequest(421, f"this is not {host!r}: "
                             "ask by a name this was bound to, or start it with --allow-host NAME")

    def _check_origin(self, request):
        origin = request.headers.get("origin")
        websocket = "websocket" in request.headers.get("upgrade", "").lower()
        if request.method in ("GET", "HEAD") and not websocket:
            return                      # reading across origins is the browser's to forbid: no CORS header allows it
        # mod_proxy names the host that it was asked for; no page can have a browser send such a header to another site
        forwarded = request.headers.get("x-forwarded-host", "").split(",", PROXIES)[:PROXIES]
        if origin is not None and not any(_same_origin(origin, name.strip(" ")) for name in (request.authority or "", *forwarded)):
            raise BadRequest(403, "the Origin is another site: only this collector's own page may do that")
        if "cross-site" in request.headers.get("sec-fetch-site", "").lower():
            raise BadRequest(403, "sent by a page of another site")

    def _authorized(self, request):
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":  # others, like Basic, may be meant for a proxy in front
            if self._same(given.strip(" ").encode("latin-1"), self._token):
                return True
            self.wrong_tokens += 1
        session = self._session.encode("ascii")
        # repeated Cookie headers come joined by a comma
        for cookie in request.headers.get("cookie", "").replace(",", ";").split(";"):
            name, _, value = cookie.strip(" \t").partition("=")
            if name == COOKIE and self._same(value.encode("latin-1"), session):
                return True
        return False

    def refusal(self, request, error):
        """The Response to what `check` raised: the login form where a browser lacks the token, else JSON."""
        if error.status == 401 and request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", ""):
            return self._form(request, 401, "This collector asks for its token.")
        return error_response(error)

    def login(self, request):
        """The Response to GET and POST of /login; the request has passed `check`.

        A right token in the form's field `token` gives a cookie for this origin and leads to the
        root path.  Raises BadRequest for a form that cannot be read.
        """
        home = self.prefix(request) + "/"
        if self._token is None:
            return Response(303, headers=(("Location", home),))
        if request.method in ("GET", "HEAD"):
            return self._form(request, 200, "This collector asks for its token.")
        if request.method != "POST":
            raise BadRequest(405, "the form is sent by POST", close=False, headers=(("Allow", "GET, HEAD, POST"),))
        if len(request.body) > FORM_BYTES:
            raise BadRequest(413, f"a form of more than {FORM_BYTES} bytes", close=False)
        given = parse_query(request.body).get("token", "").strip()
        if not self._same(given.encode("utf-8"), self._token):
            self.wrong_tokens += 1
            return self._form(request, 401, "That is not the token.")
        cookie = (f"{COOKIE}={self._session}; Max-Age={COOKIE_AGE_S}; Path={self.prefix(request) or '/'}; "
                  "HttpOnly; SameSite=Strict")
        return Response(303, headers=(("Location", home), ("Set-Cookie", cookie)))

    def _form(self, request, status, notice):
        # all are safe in HTML as they stand: `notice` is ours, a prefix has no character of markup
        page = _FORM.format(action=self.prefix(request) + LOGIN, notice=notice, script=_KEEPS_VIEW)
        return Response(status, page.encode("ascii"), "text/html; charset=utf-8",
                        _FORM_POLICY + (_REALM if status == 401 else ()))

    def prefix(self, request):
        """The root path for links to write before "/api/...": "" or like "/telemetry".

        --root-path where it was given, since the operator's word goes before a client's; else
        X-Forwarded-Prefix if it is a plain path.
        """
        if self.root_path:
            return self.root_path
        given = request.headers.get("x-forwarded-prefix", "")
        return given if _is_prefix(given) else ""

    def strip(self, path):
        """The path without the root path: a proxy may have taken it off or not, both are served."""
        root = self.root_path
        if path == root or path.startswith(root + "/"):
            return path[len(root):] or "/"
        return path


def _is_prefix(text):
    """Whether text is "" or "/segment/segment" of unreserved characters, none of it "." or ".."."""
    if not text:
        return True
    first, *segments = text.split("/", PREFIX_LENGTH)
    return (len(text) <= PREFIX_LENGTH and not first
            and all(segment and segment not in (".", "..") and _SEGMENT.issuperset(segment) for segment in segments))


def _same_origin(origin, authority):
    """Whether an Origin header names the host and port that the request was sent to."""
    scheme, _, origin_authority = origin.partition("://")
    default = _DEFAULT_PORTS.get(scheme.lower())
    if default is None or not origin_authority or not authority:
        return False                    # "null", an extension, a file: none is our page
    try:
        host, port = split_authority(origin_authority)
        ours, our_port = split_authority(authority)
    except BadRequest:
        return False
    # behind a proxy that ends TLS the Origin says https and both leave the port out, so the scheme is its
    return (host, port or default) == (ours, our_port or default)

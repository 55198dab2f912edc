"""A real browser for tests: Chromium without a window, driven by its DevTools protocol over a pipe.

    @pytest.fixture(scope="module")
    def browser():
        with Browser() as browser:                      # skips, with the reason, where there is no Chromium
            yield browser

    with browser.page(url, width=1280, height=800, dark=True) as page:
        page.wait("document.querySelectorAll('tr').length > 3", "a table")
        assert page.text("h1") == "mod_wsgi"
        page.click("#slow")
        page.key("/")
        page.type("cart")
        assert page.errors == []

Starting it takes a second or two: one for each module, with a page for each test.  A page has cookies, storage and a cache of
its own.  Nothing but this machine is reachable from it.  Every wait has a deadline; what fails says what the console said.

Protocol: https://chromedevtools.github.io/devtools-protocol/ ; with --remote-debugging-pipe Chromium reads commands from
descriptor 3 and writes to descriptor 4, JSON with a NUL behind each message.
"""
import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections import namedtuple

import pytest

from running import clean_environment, wait_until

DEADLINE_S = 30.0
NAMES = "chromium", "chromium-browser", "google-chrome"
FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-default-browser-check", "--disable-gpu",
    "--disable-dev-shm-usage",                          # /dev/shm of a container is small
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
    "--disable-extensions", "--disable-domain-reliability", "--disable-client-side-phishing-detection", "--metrics-recording-only",
    "--disable-breakpad", "--password-store=basic", "--mute-audio", "--hide-scrollbars", "--force-color-profile=srgb",
    "--disable-features=Translate,MediaRouter,OptimizationHints,DialMediaRouteProvider",
    "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost", "--lang=en-US")
MODIFIERS = {"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}
# name: (code, Windows key code, text)
KEYS = {"Enter": ("Enter", 13, "\r"), "Tab": ("Tab", 9, ""), "Escape": ("Escape", 27, ""), "Backspace": ("Backspace", 8, ""),
        "Delete": ("Delete", 46, ""), "Home": ("Home", 36, ""), "End": ("End", 35, ""), "PageUp": ("PageUp", 33, ""),
        "PageDown": ("PageDown", 34, ""), "ArrowLeft": ("ArrowLeft", 37, ""), "ArrowUp": ("ArrowUp", 38, ""),
        "ArrowRight": ("ArrowRight", 39, ""), "ArrowDown": ("ArrowDown", 40, ""), " ": ("Space", 32, " ")}
# visible, and where: the middle of what of it is in the window; what covers it there, if anything does
_PLACE = """(selector => {
    const element = document.querySelector(selector)
    if (!element) return null
    element.scrollIntoView({block: 'nearest', inline: 'nearest', behavior: 'instant'})
    const box = element.getBoundingClientRect()
    const left = Math.max(box.left, 0), right = Math.min(box.right, innerWidth)
    const top = Math.max(box.top, 0), bottom = Math.min(box.bottom, innerHeight)
    const x = (left + right) / 2, y = (top + bottom) / 2
    const there = document.elementFromPoint(x, y)
    const hit = there && (element.contains(there) || there.contains(element))
    return {x, y, hit: !!hit && right > left && bottom > top, there: there ? there.outerHTML.slice(0, 200) : null}
})"""
_HIDE = """(hidden => {
    Object.defineProperty(document, 'hidden', {value: hidden, configurable: true})
    Object.defineProperty(document, 'visibilityState', {value: hidden ? 'hidden' : 'visible', configurable: true})
    document.dispatchEvent(new Event('visibilitychange', {bubbles: true}))
})"""

Node = namedtuple("Node", "depth role name states")
Node.__doc__ = """One element as a screen reader is told of it; states: {"focused": True, "expanded": False, ...}."""


class Failed(AssertionError):
    """The browser refuses a command; its words."""


def program():
    """The path of a Chromium; skips the test where there is none."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    return found or pytest.skip("no Chromium: apt-get install chromium")


class Browser:
    """A running Chromium; ended, with its profile, at the end of `with`."""

    def __init__(self):
        self._program = program()
        self._cleanup = contextlib.ExitStack()
        self._number = 0
        self._unsent = b""
        self._unread = bytearray()
        self._answers = {}              # number of a command -> its answer; None until it has come
        self._pages = {}                # session -> Page

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *exception):
        with contextlib.suppress(AssertionError, OSError):
            self.call("Browser.close")
            self._process.wait(5.0)
        self._cleanup.close()

    def _start(self):
        self.folder = tempfile.mkdtemp(prefix="mwt-browser-")
        self._cleanup.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._said = self._cleanup.enter_context(tempfile.TemporaryFile())
        theirs_in, self._out = self._pipe()
        self._in, theirs_out = self._pipe()
        os.set_blocking(self._out, False)

        def descriptors():
            os.dup2(theirs_in, 3)
            os.dup2(theirs_out, 4)

        more = ["--no-sandbox"] if os.geteuid() == 0 else []        # as root it has none
        environment = clean_environment(HOME=self.folder, XDG_CONFIG_HOME=None, XDG_CACHE_HOME=None, DISPLAY=None, TZ="UTC", LC_ALL="C.UTF-8",
                                        DBUS_SESSION_BUS_ADDRESS="disabled:", CHROMIUM_FLAGS=None)
        self._process = subprocess.Popen(
            [self._program, *FLAGS, *more, "--user-data-dir=" + os.path.join(self.folder, "profile"), "about:blank"],
            stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said, cwd=self.folder, env=environment,
            pass_fds=(3, 4), preexec_fn=descriptors, start_new_session=True)
        self._cleanup.callback(self._end)
        for descriptor in (theirs_in, theirs_out):
            os.close(descriptor)
        self.version = self.call("Browser.getVersion")["product"]

    def _pipe(self):
        """Both ends of a pipe, above the descriptors that Chromium is to find; those of this process are closed at the end."""
        ends = []
        for end in os.pipe():
            ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 16))
            os.close(end)
        return ends

    def _end(self):
        """End it and what it started: they are a session of their own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(DEADLINE_S)
        os.close(self._in)
        os.close(self._out)

    def said(self):
        """The end of what it wrote to stdout and stderr."""
        size = os.fstat(self._said.fileno()).st_size
        return os.pread(self._said.fileno(), 3000, max(0, size - 3000)).decode("utf-8", "replace")

    # --- the protocol ---------------------------------------------------------------------

    def send(self, method, session=None, **parameters):
        """Send a command without waiting; its number."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._unsent += json.dumps(message).encode() + b"\0"
        return self._number

    def call(self, method, session=None, **parameters):
        """Send a command; its result.  Raises Failed with what the browser says."""
        number = self.send(method, session, **parameters)
        self._answers[number] = None
        deadline = time.monotonic() + DEADLINE_S
        while self._answers[number] is None:
            left = deadline - time.monotonic()
            assert left > 0, f"Chromium does not answer {method}; it said: {self.said()}"
            self.turn(left)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise Failed(f"{method}: {answer['error'].get('message')} {answer['error'].get('data', '')}")
        return answer["result"]

    def turn(self, timeout):
        """Send what waits and take what has come, waiting so long (seconds) for something; whether anything has."""
        readable, writable, _ = select.select([self._in], [self._out] if self._unsent else [], [], timeout)
        if writable:
            with contextlib.suppress(BlockingIOError):
                self._unsent = self._unsent[os.write(self._out, self._unsent[:65536]):]
        if readable:
            data = os.read(self._in, 1 << 20)
            assert data, f"Chromium has ended; it said: {self.said()}"
            *messages, rest = data.split(b"\0")
            if messages:
                messages[0] = bytes(self._unread) + messages[0]
                self._unread = bytearray(rest)
                for message in messages:
                    self._take(json.loads(message))
            else:
                self._unread += rest
        return bool(readable)

    def _take(self, message):
        if "id" in message:
            if message["id"] in self._answers:
                self._answers[message["id"]] = message
        elif message.get("sessionId") in self._pages:
            self._pages[message["sessionId"]].happened(message["method"], message["params"])

    # --- pages ----------------------------------------------------------------------------

    def page(self, url="about:blank", width=1280, height=800, dark=False, user=None, password=""):
        """A new Page that has loaded a URL.  user, password: for a server that asks for them (basic authentication)."""
        context = self.call("Target.createBrowserContext", disposeOnDetach=True)["browserContextId"]
        self.call("Browser.grantPermissions", browserContextId=context,
                  permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, context, session)
        page.prepare(width, height, dark, user, password)
        if url != "about:blank":
            page.goto(url)
        return page

    def closed(self, page):
        if self._pages.pop(page.session, None) is not None:
            self.call("Target.disposeBrowserContext", browserContextId=page.context)


class Page:
    """A tab.  `errors`: what went wrong in it, as lines: errors in the console, exceptions that nobody caught, refusals of the
    Content-Security-Policy, loads that failed or were answered with 400 and up.  `console`: all lines of the console.
    `requests`: URLs that it asked, in order, websockets too, and the browser's own /favicon.ico.  All three from the start;
    clear() them as lists.  What happens in the page without being waited for comes a little later: `until` waits for it.
    """

    def __init__(self, browser, context, session):
        self.browser, self.context, self.session = browser, context, session
        self._errors, self._console, self._requests = [], [], []
        self._credentials = None
        self._loaded = set()            # loaders whose document has had its load event

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        self.browser.closed(self)

    def call(self, method, **parameters):
        """A command of the DevTools protocol to this page; its result."""
        return self.browser.call(method, self.session, **parameters)

    def prepare(self, width, height, dark, user, password):
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)      # all pages of one browser, each as if in front
        self.resize(width, height)
        self.emulate(dark=dark, reduced_motion=False)
        if user is not None:
            self._credentials = {"response": "ProvideCredentials", "username": user, "password": password}
            self.call("Fetch.enable", handleAuthRequests=True, patterns=[{"urlPattern": "*"}])

    def happened(self, method, told):
        """Take an event."""
        if method == "Runtime.consoleAPICalled":
            line = " ".join(_shown(each) for each in told["args"])
            self._console.append(line)
            if told["type"] in ("error", "assert"):
                self._errors.append(line)
        elif method == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self._errors.append(_shown(details["exception"]) if "exception" in details else details["text"])
        elif method == "Log.entryAdded":
            entry = told["entry"]
            line = f"{entry['source']}: {entry['text']} {entry.get('url', '')}".rstrip()
            self._console.append(line)
            if entry["level"] == "error":
                self._errors.append(line)
        elif method == "Network.requestWillBeSent":
            self._requests.append(told["request"]["url"])
        elif method == "Network.webSocketCreated":
            self._requests.append(told["url"])
        elif method == "Page.lifecycleEvent" and told["name"] == "load":
            self._loaded.add(told["loaderId"])
        elif method == "Fetch.authRequired":
            # asked for the second time these were wrong
            answer, self._credentials = self._credentials, {"response": "CancelAuth"}
            self.browser.send("Fetch.continueWithAuth", self.session, requestId=told["requestId"], authChallengeResponse=answer)
        elif method == "Fetch.requestPaused":
            self.browser.send("Fetch.continueRequest", self.session, requestId=told["requestId"])

    @property
    def errors(self):
        return self._now(self._errors)

    @property
    def console(self):
        return self._now(self._console)

    @property
    def requests(self):
        return self._now(self._requests)

    def _now(self, held):
        """With what has come meanwhile."""
        while self.browser.turn(0):
            pass
        return held

    # --- going and looking ----------------------------------------------------------------

    def goto(self, url):
        """Load a URL; returns when all of it has loaded.  A URL that differs in its #fragment alone loads nothing."""
        answer = self.call("Page.navigate", url=url)
        assert not answer.get("errorText"), f"{url}: {answer['errorText']}; {self.errors}"
        loader = answer.get("loaderId")
        if loader is not None:
            self.until(lambda: loader in self._loaded, f"{url} has not loaded")

    def reload(self):
        """Load the page anew."""
        self._loaded.clear()
        self.call("Page.reload")
        self.until(lambda: self._loaded, "the page has not loaded again")

    def until(self, check, what):
        """Take what the browser tells until `check()`, as `lambda: page.errors`; AssertionError with `what` at the deadline."""
        deadline = time.monotonic() + DEADLINE_S
        while not check():
            left = deadline - time.monotonic()
            assert left > 0, f"{what}; errors: {self.errors}; console: {self.console[-20:]}"
            self.browser.turn(min(left, 1.0))

    def value(self, expression):
        """What a JavaScript expression gives, as JSON would have it; a promise is awaited.  Raises Failed for an exception."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise Failed(f"{expression}: {_shown(details['exception']) if 'exception' in details else details['text']}")
        return answer["result"].get("value")

    def wait(self, expression, what):
        """What a JavaScript expression gives, once that is true; an exception in it is a no.  `what` says what did not come."""
        last = [None]

        def check():
            try:
                last[0] = self.value(expression)
            except Failed as error:
                last[0] = str(error)
                return None
            return last[0]

        return wait_until(check, DEADLINE_S, lambda: (
            f"{what} never came: {expression}; last: {last[0]!r}; errors: {self.errors}; console: {self.console[-20:]}; "
            f"the page: {self.text('body')[:3000]}"))

    def text(self, selector):
        """The text that is shown of the first element of a CSS selector; "" where there is none."""
        return self.value(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def texts(self, selector):
        """Of each element."""
        return self.value(f"[...document.querySelectorAll({json.dumps(selector)})].map(each => each.innerText)")

    def accessibility(self):
        """[Node, ...] of the whole page in its order: what a screen reader is told, without what it passes over."""
        self.call("Accessibility.enable")
        nodes = {node["nodeId"]: node for node in self.call("Accessibility.getFullAXTree")["nodes"]}
        found = []
        waiting = [(node, 0) for node in nodes.values() if "parentId" not in node]
        while waiting:
            node, depth = waiting.pop()
            if not node["ignored"]:
                states = {each["name"]: each["value"].get("value") for each in node.get("properties", ())}
                found.append(Node(depth, node["role"]["value"], node.get("name", {}).get("value", ""), states))
                depth += 1
            waiting += [(nodes[child], depth) for child in reversed(node.get("childIds", ())) if child in nodes]
        return found

    def screenshot(self, path, whole=False):
        """Write a PNG of the window, or of the whole page."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        with open(path, "wb") as file:
            file.write(base64.b64decode(answer["data"]))

    # --- doing ----------------------------------------------------------------------------

    def _place(self, selector):
        """Where the middle of an element is, scrolled to; waits until it is there and nothing covers it."""
        place = f"{_PLACE}({json.dumps(selector)})"
        seen = [None]

        def check():
            seen[0] = self.value(place)
            return seen[0] is not None and seen[0]["hit"]

        wait_until(check, DEADLINE_S, lambda: f"{selector} cannot be clicked: {seen[0]}; errors: {self.errors}")
        return seen[0]["x"], seen[0]["y"]

    def _mouse(self, kind, x, y, **more):
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def hover(self, selector):
        """Move the mouse to the middle of an element."""
        self._mouse("mouseMoved", *self._place(selector))

    def click(self, selector):
        """Click with the mouse in the middle of an element."""
        x, y = self._place(selector)
        self._mouse("mouseMoved", x, y)
        self._mouse("mousePressed", x, y, button="left", clickCount=1)
        self._mouse("mouseReleased", x, y, button="left", clickCount=1)

    def focus(self, selector):
        """Give an element the focus."""
        found = self.value(f"(each => {{ each?.focus(); return each === document.activeElement && each !== null }})"
                           f"(document.querySelector({json.dumps(selector)}))")
        assert found, f"{selector} does not take the focus"

    def key(self, name):
        """Press and release a key: a letter as it is typed, a name of KEYS, with modifiers as "Shift+Tab"."""
        *held, key = name.split("+") if len(name) > 1 else (name,)
        modifiers = sum(MODIFIERS[each] for each in held)
        if key in KEYS:
            code, number, text = KEYS[key]
        else:
            assert len(key) == 1, f"no key is called {key}; KEYS has: {', '.join(KEYS)}"
            code, number, text = ("Key" + key.upper() if key.isascii() and key.isalpha() else ""), ord(key.upper()), key
            if key.isascii() and key.isupper():
                modifiers |= MODIFIERS["Shift"]
            if not key.isalnum():
                number = 0              # the codes of signs are those of other keys: "(" is ArrowDown's
        told = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": modifiers}
        if text and not modifiers & ~MODIFIERS["Shift"]:
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **told)
        else:
            self.call("Input.dispatchKeyEvent", type="rawKeyDown", **told)
        self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def type(self, text):
        """Type a text into what has the focus."""
        for letter in text:
            self.key(letter) if letter.isascii() else self.call("Input.insertText", text=letter)

    def files(self, selector, paths):
        """Choose files in an <input type=file>."""
        found = self.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")["result"]
        assert "objectId" in found, f"no {selector}"
        self.call("DOM.setFileInputFiles", files=[os.path.abspath(path) for path in paths], objectId=found["objectId"])

    # --- the world around it --------------------------------------------------------------

    def resize(self, width, height):
        """The window's size in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def emulate(self, dark=None, reduced_motion=None, hidden=None):
        """What the user has set, or does: None leaves it.  hidden: as if another tab were in front."""
        if dark is not None or reduced_motion is not None:
            features = dict(getattr(self, "_features", {}))
            if dark is not None:
                features["prefers-color-scheme"] = "dark" if dark else "light"
            if reduced_motion is not None:
                features["prefers-reduced-motion"] = "reduce" if reduced_motion else "no-preference"
            self._features = features
            self.call("Emulation.setEmulatedMedia", features=[{"name": name, "value": features[name]} for name in features])
        if hidden is not None:
            self.value(f"{_HIDE}({json.dumps(hidden)})")

    def offline(self, off):
        """Cut the network, or join it again."""
        self.call("Network.emulateNetworkConditions", offline=off, latency=0, downloadThroughput=-1, uploadThroughput=-1)


def _shown(remote):
    """A RemoteObject as text."""
    if "value" in remote:
        return remote["value"] if isinstance(remote["value"], str) else json.dumps(remote["value"])
    return remote.get("description") or remote.get("unserializableValue") or remote["type"]

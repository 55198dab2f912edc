"""The web page in a real browser: a collector fed with what real servers sent and with hostile records, and one browser.

    @pytest.fixture(scope="module")
    def fed():
        with Fed() as fed:
            yield fed

    def test_the_view_shows_what_the_json_says(fed):
        with fed.open("slow?sort=age") as page:             # waits for the view's first answers
            assert page.text("h1") == "Slow requests"
            shown = fed.json("/api/slow?sort=age")
"""
import contextlib
import json

from browser import Browser
from builders import WALL, Worker, datagrams
from running import Collector

CAPTURES = "daemon_mixed", "gunk"
SCRIPT = "<script>document.title='run'</script>"
BIDI = "a\u202egnp.exe\u2066\x1b[31m"
GUNK_GROUP = SCRIPT + "\"'&"
LONG_PATH = "/long/" + "x" * 3000
SHOP_PID, GUNK_PID = 71, 72


def hostile():
    """Datagrams of two processes: one at work on requests, one whose every text is hostile."""
    shop, gunk = Worker(pid=SHOP_PID, group="shop"), Worker(pid=GUNK_PID, group=GUNK_GROUP, hostname=BIDI)
    slow = dict(slow_status=0, slow_duration=12.5)
    return [
        shop.started(), gunk.started(),
        shop.tick(durations=[0.05] * 90 + [0.5] * 10, status={"2xx": 96, "5xx": 4}, capacity_utilization=0.75,
                  request_threads_current_elapsed=[12.5, 0.0, 0.3, 0.0, 95.0], request_threads_busy_time=[1.0, 0.0, 0.3, 0.5, 1.0],
                  request_threads_active=3),
        gunk.tick(durations=[0.02] * 10),
        shop.slow("shop1", thread=1, slow_path_info="/cart/checkout", **slow),
        shop.slow("shop2", thread=5, slow_path_info=LONG_PATH, slow_duration=95.0, slow_status=0),
        gunk.slow("gunk1", thread=1, slow_path_info="/" + SCRIPT, slow_method="GET", slow_hostname=BIDI, **slow),
        gunk.slow("gunk2", thread=2, done=True, slow_path_info="/" + BIDI, start=WALL + 1),
        gunk.slow("gunk3", thread=3, done=True, slow_path_info="/\"'><img src=x onerror=alert(1)>", start=WALL + 2),
    ]


class Fed:
    """A collector that has received it all, and a browser; both ended at the end of `with`.  options: of `serve`."""

    def __init__(self, *options, captures=CAPTURES, more=()):
        self._options, self._sent = options, [*datagrams(*captures), *hostile(), *more]
        self._cleanup = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as started:
            self.browser = started.enter_context(Browser())
            self.collector = started.enter_context(Collector("--stacks", "off", *self._options))
            self.collector.send(*self._sent)
            self._cleanup = started.pop_all()
        return self

    def __exit__(self, *exception):
        self._cleanup.close()

    def json(self, path):
        return self.collector.json(path)

    def open(self, where="", prefix="", **look):
        """A Page at a view: `where` is what stands behind the # of its address; returns when its answers are drawn."""
        page = self.browser.page(f"http://127.0.0.1:{self.collector.port}{prefix}/#{where}", **look)
        try:
            settled(page)
        except BaseException:
            page.close()
            raise
        return page


def settled(page):
    """Wait until what is shown is of what the address asks for."""
    page.wait("document.querySelector('#main').getAttribute('aria-busy') === 'false'", "the view's answers")


def visit(page, where):
    """Go to another view of the same page, and wait for it."""
    if page.value("location.hash") != "#" + where:
        page.value("document.querySelector('#main').setAttribute('aria-busy', 'true'), location.hash = " + json.dumps("#" + where))
    settled(page)

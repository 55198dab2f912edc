"""simulate, replay and demo: what sends datagrams instead of receiving them."""
import os
import shutil
import signal
import sys
import tempfile
import time

from modwsgi_tel import simulate as fleet
from modwsgi_tel.collector import Collector
from modwsgi_tel.errors import UsageError
from modwsgi_tel.net.datagram import unix_path
from modwsgi_tel.net.helper import become_helper
from modwsgi_tel.net.replay import describe, replay, simulate_to
from modwsgi_tel.options import PROGRAM, URL, read
from modwsgi_tel.web.guard import WILDCARDS


def _say(line):
    sys.stderr.write(f"{PROGRAM}: {line}\n")


def _progress():
    return _say if sys.stderr.isatty() else None


def _stream(values, start):
    groups = min(2, values.processes) if values.groups is None else values.groups
    return fleet.stream(values.profile, values.processes, groups, values.interval, values.duration, values.seed, start)


def simulate(values):
    """Send a made-up fleet's telemetry; the exit status."""
    path = unix_path(values.target, "--target")
    if values.speed is None and values.duration is None:
        raise UsageError("--speed max: needs a --duration, or it never ends")
    past = values.duration if values.speed is None else 0.0
    counts = simulate_to(path, _stream(values, time.time() - past), values.speed, values.wait, _say, _progress())
    _say(describe(counts))
    return 0


def replay_files(values):
    """Send recorded datagrams; the exit status."""
    if not values.arguments:
        raise UsageError(f"replay: which files? see {PROGRAM} replay --help")
    counts = replay(values.arguments, unix_path(values.target, "--target"), values.speed, values.wait, _say, _progress())
    _say(describe(counts))
    return 0


def demo(values):
    """A collector and a simulated fleet on a socket of their own; the exit status."""
    items = _stream(values, time.time())        # what is wrong with the fleet is said before anything is bound
    folder = tempfile.mkdtemp(prefix="modwsgi-tel-")
    serve_values = read("serve", [], {})        # what demo does not offer is as serve has it
    serve_values.update(values, listen="unix:" + os.path.join(folder, "telemetry.sock"))
    collector = child = None
    parent = os.getpid()
    try:
        collector = Collector(serve_values)
        child = os.fork()
        if not child:
            _feed(items, collector.path, parent)
        _next_steps(values, collector)
        if values.duration is not None:
            collector.loop.after(values.duration, collector.loop.stop)
        collector.run()
    finally:
        if child:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
        if collector is not None:
            collector.close()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _feed(items, path, parent):
    """In the child: send until told to end, or until the collector is gone."""
    status = 1
    try:
        become_helper(())
        simulate_to(path, _until(items, parent), 1.0)
        status = 0
    except BaseException as error:
        if not isinstance(error, SystemExit):
            _say(f"the simulated fleet ended: {error}")
    finally:
        os._exit(status)


def _until(items, parent):
    """Items, as long as the collector lives."""
    for item in items:
        if os.getppid() != parent:
            return
        yield item


def _next_steps(values, collector):
    host = "127.0.0.1" if values.http_host in WILDCARDS else values.http_host
    host = f"[{host}]" if ":" in host else host
    where = f"http://{host}:{collector.port}" if collector.port is not None else None
    program = sys.argv[0] if not sys.argv[0].endswith("__main__.py") else "python3 -m modwsgi_tel"
    lines = ["", f"A collector runs, fed by {values.processes} simulated processes (profile {values.profile}).", "Try next, in "
             "another terminal:", ""]
    if where:
        lines += [f"  {program} top" + ("" if where == URL else f" --url {where}"), f"  curl {where}/", f"  curl {where}/api/summary | python3 -m json.tool | less",
                  f"  curl '{where}/api/slow?life=active'",
                  f"  {program} dump" + ("" if where == URL else f" --url {where}")]
    if values.http_socket:
        lines += [f"  {program} top --http-socket {values.http_socket}",
                  f"  curl --unix-socket {values.http_socket} http://localhost/",
                  f"  {program} dump --http-socket {values.http_socket}"]
    lines += [f"  {program} simulate --target unix:{collector.path} --profile gil", "", "Ctrl-C ends it.", ""]
    sys.stderr.write("\n".join(lines) + "\n")

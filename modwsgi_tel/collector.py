"""serve: the rooms joined into one running collector."""
import gc
import os
import resource
import signal
import socket
import stat
import sys
import time

from modwsgi_tel import __version__
from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.figures import counted, number
from modwsgi_tel.findings import verdict
from modwsgi_tel.net import systemd
from modwsgi_tel.net.datagram import BoundPath, Receiver, group_id, may_bind, unix_path
from modwsgi_tel.net.helper import Helper
from modwsgi_tel.net.log import Log
from modwsgi_tel.net.loop import Loop
from modwsgi_tel.net.recorder import Recorder
from modwsgi_tel.net.writer import REOPEN, Writer, writable
from modwsgi_tel.options import token_in
from modwsgi_tel.proc import procfs, samples
from modwsgi_tel.state.fleet import CREDENTIALS, Answer, Fleet, Limits
from modwsgi_tel.state.process import ENDED
from modwsgi_tel.state.taken import Taken
from modwsgi_tel.takers import Taker
from modwsgi_tel.textfile import Textfile, check_textfile
from modwsgi_tel.web import protocol
from modwsgi_tel.web.guard import LOOPBACK_NAMES, Guard, hosts_for
from modwsgi_tel.web.routes import Site
from modwsgi_tel.web.server import BACKLOG, Server, Timeouts, describe, tcp_listener

LOOK_S = 5                              # between two looks at what is wrong, when nobody asks
PATH_CHECK_S = 10.0                     # without a datagram: a helper looks whether the socket's path is still ours


def limits_of(values):
    return Limits(processes=values.max_processes, slow=values.max_slow, samples=values.max_samples,
                  interpreters=values.max_interpreters, groups=values.max_groups, events=values.max_events,
                  keep_bytes=values.keep_bytes, plain_bytes=values.unpacked_bytes, slow_bytes=values.slow_bytes, slow_s=values.slow_retention,
                  gc_s=values.gc_retention, ended_s=values.process_retention, silent_s=values.silent_retention)


def taken_of(values, handed=()):
    """What takes stacks, as the options say.

    Whoever may ask for stacks may see what the collector takes on its own; asking costs the server a read.  So it is open
    where only those on this machine ask, or who has the token.
    """
    closed = values.stacks_post == "off"
    if values.stacks_post == "auto":
        reached = [] if values.no_http_port else [values.http_host]
        reached += [listener.getsockname()[0] for listener in handed if listener.family != socket.AF_UNIX]
        closed = not (values.token_file or all(map(is_loopback, reached)))
    return Taken(values.stacks, values.stacks_rate, values.stacks_helper,
                 "" if not closed else "nobody may ask for stacks here (--stacks-post off)" if values.stacks_post == "off" else
                 "nobody may ask for stacks here: other machines reach this, and no token is asked for; give --token-file, or "
                 "--stacks-post on")


def is_loopback(host):
    return host in LOOPBACK_NAMES or host.startswith("127.")


def plan(values, handed=()):
    """What serve needs, checked as far as it can be without changing anything: (path, group, guards).

    handed: listening sockets that a service manager opened.  guards: of the HTTP port, of the unix socket, of each of handed.
    """
    path = unix_path(values.listen)
    group = group_id(values.socket_group) if values.socket_group else None
    textfile = values.get("textfile")
    if textfile:
        check_textfile(textfile)
    if values.no_http_port and not values.http_socket and not handed and not textfile and values.command != "top":
        raise UsageError("--no-http-port: then --http-socket PATH is needed")
    token = token_in(values.token_file)
    own_name, root = socket.gethostname(), values.root_path or ""
    hosts = hosts_for(values.http_host, values.allow_host, own_name)
    guards = [Guard(hosts, token, root), Guard(hosts, token, root, unix=True)]
    for listener in handed:
        unix = listener.family == socket.AF_UNIX
        guards.append(Guard(hosts if unix else hosts_for(listener.getsockname()[0], values.allow_host, own_name), token, root, unix))
    if values.http_socket:
        unix_path(values.http_socket, "--http-socket")
    if values.stacks_helper:
        path_of_helper = values["stacks_helper"] = unix_path(values.stacks_helper, "--stacks-helper")
        if not os.path.isabs(path_of_helper):
            raise UsageError(f"--stacks-helper {path_of_helper}: a path from /, as /run/modwsgi-tel-stacks/stacks.sock")
    return path, group, guards


def check(values, out):
    """serve --check-config: say what would happen, change nothing; the exit status."""
    path, group, _ = plan(values)
    dead = may_bind(path)
    lines = [f"telemetry socket   {path}, mode {values.socket_mode:04o}"
             + (f", group {values.socket_group} ({group})" if group is not None else "")
             + (": takes over a dead socket" if dead else "")]
    writable(values.record, values.log_file)
    if not values.no_http_port:
        try:
            tcp_listener(values.http_host, values.http_port).close()
        except OSError as error:
            raise TelError(_http_error(values, error)) from None
        lines.append(f"HTTP               {values.http_host} port {values.http_port or 'any free one'}")
    if values.http_socket:
        dead = may_bind(unix_path(values.http_socket, "--http-socket"), socket.SOCK_STREAM)
        lines.append(f"HTTP               {values.http_socket}, mode {values.http_socket_mode:04o}"
                     + (": takes over a dead socket" if dead else ""))
    if values.stacks_helper:
        lines.append(f"stacks             read by {values.stacks_helper}{_helper_trouble(values.stacks_helper)}")
    if values.textfile:
        lines.append(f"metrics            to {values.textfile} each {values.textfile_interval:g} s")
    lines.append(f"token              {'asked for' if values.token_file else 'none'}")
    for name in sorted(values.given):
        if values.given[name] != "default":
            lines.append(f"{name.replace('_', '-'):<18} {values[name]!r} from {values.given[name]}")
    out("\n".join(lines) + "\n")
    return 0


def _helper_trouble(path):
    try:
        return "" if stat.S_ISSOCK(os.stat(path).st_mode) else ": that is no socket; start modwsgi-tel stack-helper"
    except FileNotFoundError:
        return ": nothing is there now; start modwsgi-tel stack-helper"
    except OSError as error:
        return f": {describe(error)}"


def _http_error(values, error):
    hint = "; another program serves there, choose another --http-port, or 0 for a free one" if isinstance(
        error, OSError) and error.errno == 98 else ""
    return f"cannot serve HTTP on {values.http_host} port {values.http_port}: {describe(error)}{hint}"


class Collector:
    """Everything bound and joined; `run` until a signal, then `close`.  Raises TelError from the constructor.

    `console`: for `top --listen`, a Ring for its log lines: the terminal is the console's, and HTTP is
    served only where it was asked for.
    handed: listening sockets for HTTP that a service manager opened; closed at the end, and their paths left alone.
    manager: a systemd.Notifier, who is told how it goes.
    """

    def __init__(self, values, console=None, handed=(), manager=None):
        self.values, self.handed = values, handed
        self.manager = manager or systemd.Notifier({})
        said_there = self._said_there = None if console is None else _Lines(console)
        if values.command == "top":
            values["no_http_port"] = not (values.meant("http_port") or values.meant("http_host"))
        if handed and "default" == values.given["http_port"] == values.given["http_host"]:
            values["no_http_port"] = True
        self.path, group, guards = plan(values, handed)
        self.writer = self.telemetry = self.http_unix = None
        self.listeners = []
        may_bind(self.path)             # before anything is opened or begun
        self.loop = Loop()
        for each in (signal.SIGTERM, signal.SIGINT):        # from here on a signal finds somebody to clean up
            self.loop.on_signal(each, self.loop.stop)
        self.loop.on_signal(signal.SIGHUP, self._reopen)
        try:
            if values.record or values.log_file:
                self.writer = Writer(values.record, values.record_size, values.log_file)
            self.log = Log(values.log_level, self.writer if values.log_file else said_there)
            # HTTP first: when its port is taken, the telemetry socket is left as it was
            self._bind_http(guards)
            self.telemetry = BoundPath(self.path, values.socket_mode, group)
        except BaseException:
            self.close()
            raise
        self.began, self.began_wall = time.monotonic(), time.time()
        self.fleet = Fleet(limits_of(values))
        self.fleet.taken = taken_of(values, handed)
        self.loop.on_stall = self._stalled
        self.helper = Helper(self.loop)
        self.taker = Taker(self.loop, self.fleet, self.log)
        self.recorder = Recorder(self.writer) if values.record else None
        self.site = Site(self.fleet, guards[0], lambda: (time.monotonic(), time.time()), self.own, self.health,
                         metrics_processes=values.get("metrics_processes", 0))
        self.textfile = None
        if values.get("textfile"):
            self.textfile = Textfile(self.loop, self.log, values.textfile, values.textfile_interval, self.site.metrics_source)
        self._looks = 0                 # seconds since the findings' last look
        self.server = Server(
            self.loop, self.site.answer, values.max_connections,
            protocol.Limits(values.max_request_line, values.max_headers, values.max_header_count, values.max_body),
            Timeouts(values.request_timeout, values.idle_timeout, values.write_timeout), self._answer_failed)
        self.receiver = Receiver(self.telemetry, self._recorded if self.recorder else self.fleet.apply, self._too_long)
        self.loop.set_first(self.telemetry.socket.fileno(), self.receiver.drain)
        for listener, guard in self.listeners:
            self.server.listen(listener, guard)
        if self.writer is not None:
            self.writer.join(self.loop)
        self.path_trouble = ""
        self._path_checked = self.began
        self._received = 0
        self._said_unknown = False      # that /proc does not show all
        self.loop.every(1.0, self._second, slack_s=0.3)
        if self.manager.watchdog_s:
            self.loop.every(self.manager.watchdog_s / 2, self.manager.alive)

    def _bind_http(self, guards):
        values = self.values
        self.port = None
        if not values.no_http_port:
            try:
                listener = tcp_listener(values.http_host, values.http_port)
            except OSError as error:
                raise TelError(_http_error(values, error)) from None
            self.listeners.append((listener, guards[0]))
            self.port = listener.getsockname()[1]
        if values.http_socket:
            self.http_unix = BoundPath(values.http_socket, values.http_socket_mode, type_=socket.SOCK_STREAM)
            self.http_unix.socket.listen(BACKLOG)
            self.listeners.append((self.http_unix.socket, guards[1]))
        self.listeners += zip(self.handed, guards[2:])

    # --- what happens -------------------------------------------------------------------

    def _recorded(self, datagram, sender, now, wall):
        self.recorder.take(datagram, CREDENTIALS.unpack(sender)[0], wall)
        self.fleet.apply(datagram, sender, now, wall)

    def _too_long(self, head, sender, wall):
        self.fleet.received += 1
        self.fleet.reject("too_long", "more bytes than the buffer has", head, sender, wall)

    def _stalled(self, seconds):
        self.fleet.stalled(seconds)
        self.log.warning(f"the collector itself stood still for {seconds:.1f} s: stopped, or short of CPU")

    def _second(self):
        now, wall = time.monotonic(), time.time()
        self.fleet.expire(now, wall)
        self.taker.second()
        self.server.sweep()
        self._looks += 1
        if self._looks >= LOOK_S:
            self._looks = 0
            found = self.site.look(totals=self.manager.listens)     # so that findings know since when
            if self.manager.listens:
                self.manager.status(standing(*found))
        self.manager.again()
        if self.recorder is not None:
            self.recorder.flush()
        if self.fleet.decode_errors:
            self.log.once_in(60, "wrong", "WARNING", f"{self.fleet.decode_errors} datagrams were wrong so far: "
                             f"{dict(self.fleet.wrong)}; /api/summary shows the last")
        if not self.helper.busy:
            pids = self.fleet.questions(now)
            if self.fleet.received != self._received:
                self._received, self._path_checked, self.path_trouble = self.fleet.received, now, ""
            check_path = now - self._path_checked >= PATH_CHECK_S
            sampled = self.fleet.sampling.due(self.fleet, now, pids)
            if pids or sampled or check_path:
                if check_path:
                    self._path_checked = now
                self.helper.ask(_look, [pids, sampled, self.path], lambda answer: self._answered(pids, answer))

    def _answered(self, pids, answer):
        if answer is None:
            return                      # it died, or took too long: the same is asked again
        now, wall = time.monotonic(), time.time()
        for pid in pids:
            said = answer["pids"].get(str(pid))
            said = Answer(said["alive"], said["start"], tuple(said["nspids"]), said["age_s"]) if said else Answer(
                None, None, (), None)
            self.fleet.answer(pid, said, now, wall)
        for pid, said in answer["samples"].items():
            self.fleet.sampling.add(self.fleet, int(pid), said, now, wall)
        if self.fleet.sampling.problem and not self._said_unknown:
            self._said_unknown = True
            self.log.info(f"not all is known of the processes: {self.fleet.sampling.problem}")
        trouble = "" if answer["inode"] == list(self.telemetry.own) else (
            f"{self.path} is no longer the socket of this collector: it was removed or replaced, so nothing arrives; "
            "start the collector anew")
        if trouble and trouble != self.path_trouble:
            self.log.error(trouble)
        self.path_trouble = trouble

    def _reopen(self):
        self.manager.tell(RELOADING="1", MONOTONIC_USEC=time.monotonic_ns() // 1000)
        if self.writer is not None and self.values.log_file:
            self.writer.send(REOPEN)
            self.log.info("SIGHUP: log opened anew")
        else:
            self.log.info("SIGHUP: there is no --log-file to open anew")
        self.manager.tell(READY="1")

    def _answer_failed(self, error):
        import traceback                # a megabyte that a day without a failure does not need
        lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self.log.error(f"an answer failed: {lines[-3000:]}")

    # --- what it says of itself ---------------------------------------------------------

    def own(self):
        usage, rss = resource.getrusage(resource.RUSAGE_SELF), _rss_bytes()
        server, loop = self.server, self.loop
        return {
            "version": __version__, "pid": os.getpid(), "uptime_s": time.monotonic() - self.began,
            "started": self.began_wall, "cpu_s": usage.ru_utime + usage.ru_stime, "rss_bytes": rss,
            "max_rss_bytes": max(usage.ru_maxrss * 1024, rss or 0),         # the kernel's own is a little late
            "socket": self.path, "socket_trouble": self.path_trouble or None,
            "longest_gap_s": loop.longest_gap_s, "recent_gap_s": loop.recent_gap_s, "stalls": loop.stalls,
            "http": {"connections": len(server.connections), "accepted": server.accepted, "refused": server.refused,
                     "requests": server.requests, "errors": server.errors,
                     "websockets": server.talks, "messages_dropped": self.site.live.dropped,
                     "wrong_tokens": sum(guard.wrong_tokens for _, guard in self.listeners)},
            "helpers": {"started": self.helper.started + self.taker.helper.started,
                        "failed": self.helper.failed + self.taker.helper.failed},
            "stacks": {**self.fleet.taken.counters, "problem": self.fleet.taken.problem},
            "samples": {"taken": self.fleet.sampling.samples, "problem": self.fleet.sampling.problem},
            "recording": None if self.recorder is None else {
                "records": self.recorder.records, "lost_blocks": self.writer.lost + self.writer.unwritten,
                "lost_bytes": self.writer.lost_bytes,
                "trouble": self.writer.trouble or None},
            "textfile": None if self.textfile is None else self.textfile.view(),
            "log_lines_lost": self.log.lost}

    def health(self):
        wrong = [self.path_trouble] if self.path_trouble else []
        if self.writer is not None and self.writer.trouble:
            wrong.append(self.writer.trouble)
        if self.textfile is not None and self.textfile.trouble:
            wrong.append(self.textfile.trouble)
        return wrong

    def hello(self):
        """Log where it listens: `URL` lines are what a script reads a free port from."""
        values = self.values
        self.log.info(f"modwsgi-tel {__version__} receives on unix:{self.path}")
        if self.port is not None:
            host = f"[{values.http_host}]" if ":" in values.http_host else values.http_host
            line = f"serves http://{host}:{self.port}{values.root_path or ''}/"
            self.log.info(line)
            if values.http_port == 0 and (values.log_file or not self.log.shows("INFO")):
                Log("INFO", self._said_there).info(line)        # who lets us pick a port must be told which
            if not is_loopback(values.http_host) and not values.token_file:
                self._warn_of_readers(values.http_host)
        if values.http_socket:
            self.log.info(f"serves HTTP on unix:{values.http_socket}")
        for listener in self.handed:
            self.log.info(f"serves {systemd.place(listener)}, handed in by the service manager")
            if listener.family != socket.AF_UNIX and not is_loopback(listener.getsockname()[0]) and not values.token_file:
                self._warn_of_readers(listener.getsockname()[0])

    def _warn_of_readers(self, host):
        self.log.warning(f"whoever reaches {host} can read everything here: bind 127.0.0.1, or give --token-file")

    def run(self):
        spare_collections()
        self.hello()
        # from inside the loop: by then it turns
        self.loop.after(0.0, lambda: self.manager.status("waits for telemetry", READY="1"))
        self.loop.run()
        self.manager.status("stops", STOPPING="1")
        self.log.info("stopped")

    def close(self):
        """Remove what was bound; safe at any stage."""
        if self.telemetry is not None:
            self.receiver_last()
            self.telemetry.close()
        if getattr(self, "server", None) is not None:
            self.server.close()
        for listener, _ in self.listeners:
            listener.close()
        if self.http_unix is not None:
            self.http_unix.close()
        if getattr(self, "helper", None) is not None:
            self.helper.close()
        if getattr(self, "taker", None) is not None:
            self.taker.close()
        if getattr(self, "textfile", None) is not None:
            self.textfile.close()
        if getattr(self, "recorder", None) is not None:
            self.recorder.flush()
        if self.writer is not None:
            self.writer.close()
        if getattr(self, "loop", None) is not None:
            self.loop.close()

    def receiver_last(self):
        """Take in what is still queued: an emitter that waits in its send goes on."""
        receiver = getattr(self, "receiver", None)
        if receiver is not None:
            for _ in range(8):
                if not receiver.drain():
                    break


def spare_collections():
    """Have the garbage collector hold up the loop seldom: what is alive now stays alive, and so does most of what it has seen twice.

    A look at all objects takes a tenth of a second where thousands of slow requests are kept, and finds nothing: the state breaks its
    cycles itself.  Python looks at young ones as ever.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], 1000)


def _rss_bytes():
    """Resident memory of this process now; None where /proc is not there."""
    try:
        with open("/proc/self/statm", "rb") as handle:
            return int(handle.read().split()[1]) * resource.getpagesize()
    except OSError:
        return None


def standing(findings, totals):
    """One line for `systemctl status`: what is wrong, how many processes, what they do; totals as in the summary, with its last minute."""
    said = verdict(findings, totals)
    if findings:
        running = totals["processes"] - sum(totals["lives"].get(life, 0) for life in ENDED)
        said += f"; {counted(running, 'process', 'processes')}, {number(totals['windows']['1m']['throughput'] or 0)} requests/s"
    return said


class _Lines:
    """What a Log writes to when its lines are for a console."""

    def __init__(self, ring):
        self._ring = ring

    def send(self, kind, data):
        self._ring.append(data.decode("utf-8", "replace").rstrip("\n"))


def _look(wanted):
    """In a helper: what /proc says of pids, what those that are sampled use, and what is at the socket's path."""
    pids, sampled, path = wanted
    try:
        found = os.lstat(path)
        inode = [found.st_dev, found.st_ino] if stat.S_ISSOCK(found.st_mode) else None
    except OSError:
        inode = None
    return {"pids": procfs.senders(pids), "samples": samples.look(sampled), "inode": inode}


def serve(values):
    """Run the collector until SIGTERM or SIGINT; the exit status."""
    if values.check_config:
        return check(values, sys.stdout.write)
    manager = systemd.Notifier()
    try:
        collector = Collector(values, handed=systemd.listeners(), manager=manager)
    except TelError as error:
        manager.failed(error)
        raise
    try:
        collector.run()
    finally:
        collector.close()
    return 0

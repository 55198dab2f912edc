"""What a collector knows, for scripts.  Of all modules here the one whose names and shapes stay as they are.

    from modwsgi_tel.client import Client

    with Client("http://127.0.0.1:8888") as client:
        print(client.summary()["verdict"])
        for event in client.events():
            print(event.kind, event.data)

Answers are the JSON of the collector's paths as dicts: keys are added, never changed.  Each call is one request on a
connection of its own, over within `timeout` seconds.  Every error is a ClientError:

    ClientError      any of them, with one line that says what to do
    NoAnswer         nobody answers there, or not in time
    NotAllowed       a token is asked for, and this was none or another
    Nonsense         something answers, but no collector, or it refuses this; `said` is its reason or None
    UsageError       a URL, a path or a token that cannot be meant
"""
import time
from collections import OrderedDict
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple, Type, Union

from modwsgi_tel.errors import NoAnswer, Nonsense, NotAllowed, TelError, UsageError
from modwsgi_tel.report.client import Place, fetch

__all__ = ["Client", "ClientError", "Event", "NoAnswer", "Nonsense", "NotAllowed", "UsageError"]

ClientError = TelError
Json = Dict[str, Any]
Key = Tuple[Any, ...]
Parameter = Union[str, int, float, bool, Sequence[str], None]

REFRESH_LEAST_S = 0.05                  # what is less, or no number, would ask without a pause
OVERLAP_S = 5.0                         # asked for again: the collector's wall clock may have been set back
REMEMBERED = 20000                      # of lifecycle events, and of slow requests, that were told
LOOKED_FOR = 20                         # slow requests in one turn of which nothing was heard
FORGOTTEN_S = 60.0                      # after so long the collector knows it no more
_ACTIVE = ("active", "stale")
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Event(NamedTuple):
    """Something that happened.  time: wall seconds of the collector's clock.  data: as the collector tells it, by `kind`:

    process_started, process_stopping, process_stopped, process_vanished and others of that log: an entry of
    `lifecycle_events` of /api/lifecycle.
    slow_request, slow_request_ended: an `entry` of `slow_requests` of /api/slow; `life` says how it ended: completed, lost,
    or forgotten by the collector.
    finding, finding_ended: one of `findings` of /api/summary.
    collector_lost, collector_back: {"error"} that a ClientError told, and {"restarted"}: what it knew before is gone.
    """

    kind: str
    time: float
    data: Json


class Client:
    """A running collector.  url: as http://127.0.0.1:8888.  http_socket: the path of its unix socket, instead of `url`.

    Raises UsageError for what cannot be meant; nothing is asked yet.
    """

    def __init__(self, url: str = "http://127.0.0.1:8888", *, http_socket: Optional[str] = None, token: Optional[str] = None,
                 timeout: float = 10.0) -> None:
        self._place = Place(url, http_socket)
        self._place.request("/", token)
        self._where: Json = {"url": url, "http_socket": http_socket, "token": token, "timeout_s": timeout}
        self._closed = False

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: object) -> None:
        self.close()

    def close(self) -> None:
        """Let every stream of `events` end at its next turn.  May be called by a signal's handler."""
        self._closed = True

    # --- one question --------------------------------------------------------------------------

    def get(self, path: str, **parameters: Parameter) -> Any:
        """The JSON at a path, as get("/api/histogram", phase="queue"); a parameter None is left out, those of a list are joined."""
        return self._asked("GET", path, parameters)

    def state(self, *, group: Optional[str] = None, pid: Optional[int] = None, since: Optional[float] = None,
              samples: Optional[int] = None) -> Json:
        """Everything that is kept; since: only what was received after these wall seconds; samples: so many of each process."""
        return self._answer("/api/state", group=group, pid=pid, since=since, samples=samples)

    def summary(self, *, window: Union[str, Sequence[str], None] = None, parts: Union[str, Sequence[str], None] = None) -> Json:
        """What is wrong, totals, groups, processes.  window: of now, 1m, 10m; parts: of collector, totals, groups, agent,
        processes, findings; all without."""
        return self._answer("/api/summary", window=window, parts=parts)

    def findings(self) -> List[Json]:
        """What is wrong, the most severe first."""
        found = self.summary(window="1m", parts="findings").get("findings")
        if not isinstance(found, list):
            raise self._nonsense("/api/summary")
        return found

    def slow(self, *, group: Optional[str] = None, pid: Optional[int] = None, since: Optional[float] = None,
             life: Union[str, Sequence[str], None] = None, search: Optional[str] = None, sort: Optional[str] = None,
             order: Optional[str] = None, offset: Optional[int] = None, limit: Optional[int] = None) -> Json:
        """Slow requests; life: of active, stale, completed, lost."""
        return self._answer("/api/slow", group=group, pid=pid, since=since, life=life, search=search, sort=sort, order=order,
                            offset=offset, limit=limit)

    def stacks(self, *, group: Optional[str] = None, pid: Optional[int] = None, id: Optional[int] = None,
               offset: Optional[int] = None, limit: Optional[int] = None) -> Json:
        """The last stacks that the collector took, the newest first; id: a process's, as processes have it in the summary."""
        return self._answer("/api/stacks", group=group, pid=pid, id=id, offset=offset, limit=limit)

    def clear_slow(self) -> int:
        """Drop the slow requests that have ended; how many these were."""
        answer = self._asked("POST", "/api/slow/clear", {})
        dropped = answer.get("dropped") if isinstance(answer, dict) else None
        if not isinstance(dropped, int):
            raise self._nonsense("/api/slow/clear")
        return dropped

    def _asked(self, method: str, path: str, parameters: Dict[str, Parameter]) -> Any:
        """Raises UsageError for what is no path."""
        query = "&".join(f"{_quoted(name)}={_quoted(_text(value))}" for name, value in parameters.items() if value is not None)
        path += "?" + query if query else ""
        try:
            self._place.request(path)
        except ValueError as error:
            raise UsageError(str(error)) from None
        return fetch(path, method=method, **self._where)

    def _answer(self, path: str, **parameters: Parameter) -> Json:
        answer = self.get(path, **parameters)
        if not isinstance(answer, dict):
            raise self._nonsense(path)
        return answer

    def _nonsense(self, path: str) -> Nonsense:
        return Nonsense(f"{self._place.where}{path}: is not as it should be: another version?")

    # --- what happens --------------------------------------------------------------------------

    def events(self, refresh: float = 1.0, *, group: Optional[str] = None, since: Optional[float] = None) -> Iterator[Event]:
        """What happens from now on, or after `since` (wall seconds; 0: all that is kept), by asking every `refresh` seconds.

        Goes on until the Client is closed, or the generator is.  When the collector is gone it waits for it or its
        successor: collector_lost, collector_back.  Findings and slow requests that are there at the beginning are told.
        group: only what is about this process group, or about all.  Raises ClientError when the first turn has no answer,
        and NotAllowed at any.
        """
        stream = _Stream(self, refresh, group, since)
        began = True
        while not self._closed:
            due = time.monotonic() + max(REFRESH_LEAST_S, refresh)
            try:
                found = stream.turn()
            except NotAllowed:
                raise
            except (NoAnswer, Nonsense) as error:
                if began:
                    raise
                found = stream.lost(error)
            began = False
            for event in found:
                if self._closed:
                    return
                yield event
            while not self._closed and time.monotonic() < due:
                time.sleep(min(0.2, max(0.0, due - time.monotonic())))


class _Stream:
    """What was told already, and what is new in a turn.  All that it remembers is bounded by REMEMBERED, or is the newest answer."""

    def __init__(self, client: Client, refresh: float, group: Optional[str], since: Optional[float]) -> None:
        self._client, self._group, self._since = client, group, since
        self._overlap_s = max(OVERLAP_S, 2 * refresh)
        self._from: Optional[float] = None      # wall seconds of the answer before
        self._told = _Told()                    # lifecycle events, and slow requests that ended
        self._slow: "OrderedDict[Key, _Active]" = OrderedDict()
        self._findings: Dict[Key, Json] = {}
        self._seen: Optional[Tuple[Any, float, float]] = None       # pid and uptime of the collector, and when: monotonic
        self._away = False

    def lost(self, error: TelError) -> List[Event]:
        """The events of a turn that had no answer."""
        if self._away:
            return []
        self._away = True
        return [Event("collector_lost", time.time(), {"error": str(error)})]

    def turn(self) -> List[Event]:
        """The events since the last turn by their time.  Raises ClientError."""
        try:
            return self._turn()
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise self._client._nonsense(f"/api/summary, lifecycle or slow ({error!r:.80})") from None

    def _turn(self) -> List[Event]:
        client, group = self._client, self._group
        summary = client.summary(window="1m", parts=("collector", "findings"))
        wall, own = float(summary["time"]), summary["collector"]
        restarted = self._restarted(own["pid"], float(own["uptime_s"]))
        first = self._from is None
        # from the newest answer on, by its own clock, even where that was set back
        since = wall - self._overlap_s if self._from is None else min(self._from, wall) - self._overlap_s
        if first and self._since is not None:
            since = self._since
        lives = client.get("/api/lifecycle", since=since, group=group)["lifecycle_events"]
        slow = client.get("/api/slow", since=since, group=group, pivots=0)["slow_requests"]
        if first:
            slow += client.get("/api/slow", life=("active", "stale"), group=group, pivots=0)["slow_requests"]
        else:
            slow += self._unheard({_key(row) for row in slow}, restarted)
        if first and self._since is None:
            self._pass_over(lives, slow)
        found = [Event(str(row["kind"]), float(row["received"]), row) for row in lives if self._told.add(_moment(row))]
        found += self._slow_events(slow, wall)
        found += self._finding_events(summary["findings"], wall)
        found.sort(key=lambda event: event.time)
        if self._away or restarted:
            found.insert(0, Event("collector_back", wall, {"restarted": restarted}))
        self._away, self._from = False, wall
        self._seen = own["pid"], float(own["uptime_s"]), time.monotonic()
        return found

    def _restarted(self, pid: Any, uptime_s: float) -> bool:
        if self._seen is None:
            return False
        was, uptime_was_s, when = self._seen
        return pid != was or uptime_s + 1.0 < uptime_was_s + time.monotonic() - when

    def _pass_over(self, lives: List[Json], slow: List[Json]) -> None:
        """What had happened before the first turn is not told later."""
        for row in lives:
            self._told.add(_moment(row))
        for row in slow:
            if row["entry"]["life"] not in _ACTIVE:
                self._told.add(_key(row))

    def _unheard(self, heard: Set[Key], restarted: bool) -> List[Json]:
        """Rows of requests that were active, and of which this turn told nothing."""
        rows, now = [], time.monotonic()
        for key in [key for key in self._slow if key not in heard][:LOOKED_FOR]:
            active = self._slow[key]
            self._slow.move_to_end(key)         # the others have their turn
            again = []
            if not restarted and not active.orphan:
                again = self._client.get("/api/slow", id=active.row["entry"]["id"], pivots=0)["slow_requests"]
            if again and _key(again[0]) == key:
                rows.append(again[0])
            elif now - active.heard > FORGOTTEN_S:
                rows.append({**active.row, "entry": {**active.row["entry"], "life": "forgotten"}})
            else:                               # its number is another one's now
                self._slow[key] = active._replace(orphan=True)
        return rows

    def _slow_events(self, rows: List[Json], wall: float) -> Iterator[Event]:
        for row in rows:
            key, entry = _key(row), row["entry"]
            if entry["life"] in _ACTIVE:
                if key in self._told:
                    continue                    # it was told to have ended: that stands
                known = key in self._slow
                self._slow[key] = _Active(row, time.monotonic(), False)
                if len(self._slow) > REMEMBERED:
                    self._slow.popitem(last=False)
                if not known:
                    yield Event("slow_request", float(entry["first_received"]), entry)
            else:
                self._slow.pop(key, None)
                if self._told.add(key):
                    ended = entry.get("ended")
                    yield Event("slow_request_ended", wall if ended is None else float(ended), entry)

    def _finding_events(self, findings: List[Json], wall: float) -> Iterator[Event]:
        held: Dict[Key, Json] = {}
        for finding in findings:
            if self._group is not None and finding["process_group"] not in (None, self._group):
                continue
            about = finding["id"], finding["hostname"], finding["process_group"], finding["process"]
            held[next(key for key in ((*about, number) for number in range(len(findings))) if key not in held)] = finding
        before, self._findings = self._findings, held
        for key, finding in held.items():
            if key not in before:
                yield Event("finding", wall, finding)
        for key, finding in before.items():
            if key not in held:
                yield Event("finding_ended", wall, finding)


class _Active(NamedTuple):
    """A slow request that runs: its newest row, when that was heard (monotonic), whether its number is no longer good."""

    row: Json
    heard: float
    orphan: bool


class _Told:
    """The newest REMEMBERED keys."""

    def __init__(self) -> None:
        self._keys: "OrderedDict[Key, None]" = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def add(self, key: Key) -> bool:
        """Whether it is new."""
        if key in self._keys:
            return False
        self._keys[key] = None
        if len(self._keys) > REMEMBERED:
            self._keys.popitem(last=False)
        return True


def _key(row: Json) -> Key:
    """What tells a slow request from all others, whichever collector tells of it."""
    entry = row["entry"]
    return (entry["pid"], entry["sender_pid"], entry["process_group"], *row["key"])


def _moment(row: Json) -> Key:
    return row["kind"], row["pid"], row["sender_pid"], row["stamp"], row["received"]


def _text(value: Parameter) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, (str, int, float)) or value is None:
        return str(value)
    return ",".join(value)


def _quoted(text: str) -> str:
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in text.encode("utf-8", "replace"))

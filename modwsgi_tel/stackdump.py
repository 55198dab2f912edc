"""stacks: the Python stacks of running processes, or of a core file.  Joins proc, stacks and their text."""
import json

from modwsgi_tel import targets
from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.figures import counted
from modwsgi_tel.printable import columns, printable, printable_json, show
from modwsgi_tel.report.stacks import not_whole, text
from modwsgi_tel.stacks.model import stacks_json
from modwsgi_tel.stacks.sources import Rights, Sources

_EARLY_MOST = 256                       # processes whose files can still be read when they have ended: each takes a descriptor
_OF_PROCESSES = ("group", "apache", "all_python", "subprocesses", "interval", "count", "stop", "agent")


def stacks(values):
    """The command; its exit status: 0, 1 when some process could not be read, 2 when none could."""
    if values.self_check:
        if values.arguments:
            raise UsageError("--self-check reads a child of its own: no pid goes with it")
        values.refuse((*_OF_PROCESSES, "core", "executable", "root"), "--self-check reads a child of its own")
        return _self_check(values)
    if values.core:
        if values.arguments:
            raise UsageError("--core reads a file: no pid goes with it")
        values.refuse(_OF_PROCESSES, "--core reads a file, which does not run")
        return _core(values)
    values.refuse(("executable", "root"), "these belong to --core")
    if values.interval is not None and values.count is None:
        values["count"] = 2
    if values.flat and (values.count or 1) > 1:
        raise UsageError("--flat is a line for each thread at one look: it goes without --interval and --count")
    if values.agent:
        values.refuse(("stop",), "--agent asks: nothing is held")
    found, problems, resting = _asked(values) if values.agent else targets.readers(values)
    readers, stoppers, sources = {reader.pid: reader for reader in found}, {}, {}
    try:
        if values.stop:
            from modwsgi_tel.stacks.stop import Stopper
            targets.say_stops()
            stoppers = {reader.pid: Stopper(reader.pid) for reader in found}
        looks = _looks(values, found, stoppers, sources, problems)
    finally:
        for stopper in stoppers.values():
            stopper.close()
    seen = [each for each in looks.values() if each]
    if not seen:
        raise TelError(problems[0])
    if values.json:
        show(_json([look for each in seen for look in each]))
    else:
        _show(values, seen, resting, lambda pid: sources.get(pid) or readers[pid].sources())
    for reader in found:
        reader.close()
    targets.complain(problems)
    targets.say_missed(sum(stopper.missed for stopper in stoppers.values()))
    return 1 if problems else 0


def _asked(values):
    """As targets.readers, of agentclient.AgentReaders; a process that was not named, and has no agent, is only counted."""
    from modwsgi_tel import agentclient
    named, chosen = targets.pids(values)
    found, problems, resting = [], [], 0
    for pid in named + chosen:
        try:
            if pid in named or agentclient.find(pid):
                found.append(agentclient.AgentReader(pid))
            else:
                resting += 1
        except TelError as error:
            problems.append(str(error))
    if not found:
        raise TelError(problems[0] if problems else f"there is an agent in none of {counted(resting, 'process', 'processes')}")
    return found, problems, resting


def _looks(values, found, stoppers, sources, problems):
    """{pid: [Stacks, ...]} of --count looks, --interval apart.  sources: gets {pid: Sources}, while they can be had."""
    looks = {reader.pid: [] for reader in found}
    left = list(found)

    def look():
        for reader in list(left):
            try:
                looks[reader.pid].append(reader.look(values=values.locals, stopper=stoppers.get(reader.pid)))
            except TelError as error:
                problems.append(str(error))
                left.remove(reader)
                continue
            if not (values.json or values.flat or reader.pid in sources) and len(sources) < _EARLY_MOST:
                sources[reader.pid] = reader.sources()

    count = values.count or 1
    look()
    if count > 1 and left:
        from modwsgi_tel.net.loop import Loop
        loop, taken, early = Loop(), [1], []

        def again():
            look()
            taken[0] += 1
            if taken[0] >= count or not left:
                loop.stop()

        def end(why):
            early.append(why)
            loop.stop()

        for number, name in targets.ENDINGS.items():
            loop.on_signal(number, lambda name=name: end(name))
        loop.every(1.0 if values.interval is None else values.interval, again)
        try:
            loop.run()
        finally:
            loop.close()
        if early and taken[0] < count:
            targets.say_ended(early[0], taken[0], counted(count, "look"))
    return looks


def _json(looks):
    """Indented JSON; a script reads it as well, and a person at night reads it at all."""
    rows = [stacks_json(each) for each in looks]
    return json.dumps(rows, ensure_ascii=True, allow_nan=False, indent=1).replace("\x7f", "\\u007f") + "\n"


def _show(values, seen, resting, sources_of):
    width, parts, bare = columns(40), [], []
    for looks in seen:
        newest = looks[-1]
        if len(seen) > 1 and not any(thread.frames or thread.problem for look in looks for thread in look.threads):
            bare.append(newest)
            continue
        sources = sources_of(newest.pid)
        try:
            parts.append(text(newest, looks, sources, width, not values.no_idle, values.flat, requests=True, meant=values.count or 1))
        finally:
            sources.close()
    if values.flat:
        show("".join(parts))            # a script reads it, a line a thread
        return
    closing = [f"pid {each.pid}  Python {each.python}  no Python code runs in it now: {printable(each.command[:60])}" for each in bare]
    if resting:
        closing.append(f"{resting} more in which no {'agent is' if values.agent else 'Python code runs'}")
    closing += not_whole([looks[-1] for looks in seen])
    show("\n".join(parts + ["".join(line + "\n" for line in closing)] * bool(closing)))


# --- core files ---------------------------------------------------------------------------------

def _core(values):
    from modwsgi_tel.stacks.corefile import CoreFile
    from modwsgi_tel.stacks.reader import look_at_core
    core = CoreFile(values.core, values.executable, values.root or "/")
    try:
        try:
            found = look_at_core(core, values.locals)
        except TelError as error:
            raise type(error)(f"{values.core}: {error}") from None
        problems = core.problems()
    finally:
        core.close()
    if values.json:
        signal = None if core.signal is None else {"number": core.signal.number, "name": core.signal.name,
                                                   "address": core.signal.address, "tid": core.threads[0].tid}
        show(json.dumps([{**stacks_json(found), "core": values.core, "signal": signal, "problems": problems}], indent=1) + "\n")
        return 0
    # a core names files as it likes, and root's may be a copy of another's: then what all may read
    sources = Sources(values.root or "/", who=Rights(core.owner or None, frozenset()))
    try:
        shown = text(found, (), sources, columns(40), not values.no_idle, values.flat)
    finally:
        sources.close()
    show(_ended(core) + shown)
    targets.complain(problems)
    return 0


def _ended(core):
    """What ended the process, as one line."""
    if core.signal is None:
        return "no signal is told: gcore wrote it of a process that ran, or it is not known\n"
    line = f"ended by {core.signal.name}"
    if core.signal.address is not None:
        line += f" at address {core.signal.address:#x}"
    if core.signal.sender is not None:
        line += f", sent by pid {core.signal.sender[0]} of uid {core.signal.sender[1]}"
    return line + (f", in thread {core.threads[0].tid}, which comes first\n" if core.threads else "\n")


# --- the check of itself ----------------------------------------------------------------------------

def _self_check(values):
    """Read a child of this very Python, and compare with what it says of itself by sys._current_frames()."""
    from modwsgi_tel.stacks.check import check
    compared, wrong, python = check()
    if values.json:
        show(printable_json({"python": python, "frames": compared, "wrong": wrong}) + "\n")
    else:
        show(f"Python {python}: {compared - len(wrong)} of {compared} frames read from outside are what sys._current_frames() "
             "says inside\n" + "".join(f"  {printable(line)}\n" for line in wrong))
    return 3 if wrong else 0

"""The table RULES, and `judge`: a Scene in, findings out."""
from modwsgi_tel.apache.kinds import BY_ID
from modwsgi_tel.figures import counted, duration, percent
from modwsgi_tel.findings import CRITICAL, INFO, SEVERITIES, WARNING
from modwsgi_tel.stacks.model import Frame
from modwsgi_tel.why import capacity, gil, lives, locking, resources, waiting
from modwsgi_tel.why.judged import EVIDENCE_MOST, LONG_LEAST, LONG_S, STUCK_S, Rule, evidence, finding, severity_of
from modwsgi_tel.why.mistakes import mistake
from modwsgi_tel.why.scene import application_frame, place_of

FINDINGS_MOST = 50

RULES = (
    Rule("gil-held", CRITICAL, gil.held,
         "One thread has the GIL at nearly every look, at one and the same line, while it uses CPU and no other thread makes progress.",
         ""),
    Rule("deadlock", CRITICAL, locking.deadlock,
         "Threads wait for locks in a ring, each for one that the next one has.",
         "Take these locks in one order everywhere, or use one lock; only a restart of the process frees these threads now."),
    Rule("crash-loop", CRITICAL, lives.restarting, "Processes of a group ended, and others began, while it looked.",
         "See in the error log what ended them: a signal, os._exit, a limit, request-timeout; a failed import ends each new one too."),
    Rule("request-timeout", CRITICAL, capacity.request_timeout,
         "A request is about to run, or has run, into request-timeout of WSGIDaemonProcess.", ""),
    Rule("memory-limit", CRITICAL, resources.memory_limit, "A process uses nine tenths of what it may have.",
         "Bound what grows, which the evidence names where it is known; a higher limit (virtual-memory-limit, memory-limit of "
         "WSGIDaemonProcess, MemoryMax=) only buys time."),
    Rule("out-of-memory", CRITICAL, resources.out_of_memory, "The kernel's log tells of the OOM killer.",
         "See who takes the memory (modwsgi-tel inspect PID), and give the server a limit of its own so that the right process is ended."),
    Rule("disk-full", CRITICAL, resources.disk_full, "A file system has next to no room.",
         "Make room: df -h, df -i, and deleted files that are still open (modwsgi-tel inspect PID)."),
    Rule("backend", WARNING, waiting.of(("socket",)),
         f"{LONG_LEAST} or more requests of {duration(LONG_S)} or longer wait for the same other end of a connection.", ""),
    Rule("lock", WARNING, locking.lock, f"{LONG_LEAST} or more requests wait for one lock.",
         "Hold that lock for less time: nothing that waits (a backend, a file, sleep) belongs inside of it."),
    Rule("gil-contention", WARNING, gil.contention, "A process uses a core, and threads in it want the GIL.", ""),
    Rule("gc-storm", WARNING, gil.collecting, f"Garbage is being collected at {percent(gil.COLLECTING_SHARE)} of the looks or more.",
         "Remove calls of gc.collect() from requests; else gc.freeze() after loading, and a higher gc.set_threshold()."),
    Rule("slow-path", WARNING, waiting.of(waiting.OTHER_WAITS),
         f"{LONG_LEAST} or more requests of {duration(LONG_S)} or longer are at the same place, or one for {duration(STUCK_S)}.", ""),
    Rule("slow-response", WARNING, waiting.of(("socket", *waiting.OTHER_WAITS), bodies=True),
         f"{LONG_LEAST} or more responses are being written for {duration(LONG_S)} or longer by a generator that waits between its "
         "pieces.", ""),
    Rule("slow-clients", WARNING, waiting.of(("client",)),
         f"{LONG_LEAST} or more requests of {duration(LONG_S)} or longer wait for the rest of what their client sends.", ""),
    Rule("slow-clients", WARNING, capacity.slow_clients, "Half of a group's threads wait to hand their response on.",
         "Let something in front buffer the responses (a proxy, a larger response-buffer-size), and bound it with "
         "response-socket-timeout."),
    Rule("capacity", CRITICAL, capacity.capacity,
         "All threads of a group serve at most looks, and requests wait for one: in the socket's queue, or as the requests themselves "
         "tell.", ""),
    Rule("memory-growth", WARNING, resources.memory_growth, "The memory of a process grows, and with it a container of its modules.", ""),
    Rule("descriptors", WARNING, resources.descriptors,
         f"A process has {percent(resources.FILES_SHARE)} of its descriptors open, or ever more of the same.", ""),
    Rule("threads", WARNING, resources.threads,
         f"A process has {resources.THREADS_GROWN} more threads at the end of the look than at its beginning.", ""),
    Rule("zombies", WARNING, resources.zombies,
         f"A process has {resources.ZOMBIES_LEAST} or more children that have ended and that it has not waited for.", ""),
    Rule("stopped", CRITICAL, resources.state, "A process is stopped, or hangs in the kernel.",
         "See which disk or network file system it waits for (modwsgi-tel inspect PID)."),
    Rule("fewer-processes", WARNING, capacity.long_ago, "Fewer daemons run than the configuration says.", ""),
    Rule("collector-away", WARNING, capacity.collector_away, "Apache sends telemetry to a socket on which nobody listens.", ""),
    Rule("collector-late", WARNING, capacity.collector_late, "Processes had sent telemetry before the collector was there.", ""),
    Rule("neighbour", WARNING, resources.neighbour, "The cores are busy with other processes.",
         "Stop or renice what takes them (CPUWeight=, nice); this server's own code is not the cause."),
    Rule("throttled", WARNING, resources.throttled, "A cgroup's CPU quota holds its processes back.",
         "Raise CPUQuota= (or the container's limit)."),
    Rule("steal", WARNING, resources.stolen, f"{percent(resources.STEAL_SHARE)} of the CPU time or more is stolen.",
         "Ask who runs the host, or take a larger machine."),
    Rule("pressure", WARNING, resources.pressed, "The kernel says that work waits for memory or I/O (PSI).",
         "See the neighbours named; add memory, or move what writes elsewhere."),
    Rule("log", WARNING, lives.logged(BY_ID), "The error log tells of it; see the table of its kinds.", ""),
)
_ORDER = {rule.id: place for place, rule in enumerate(RULES)}


def judge(scene):
    """(findings, notes): findings as in `judged`, the most severe first; notes are texts of what is no trouble."""
    found = []
    for rule in RULES:
        for saw in _seen(rule, scene):
            each = finding(rule, saw)
            if scene.group and each["group"] not in (None, scene.group):
                continue                # a log tells of others too
            if rule.id == "log":
                each["id"] = saw.about[0]
            found.append((each, saw))
    found = _without_repeats(found)
    notes = []
    try:
        _join(scene, found, notes)
    except Exception as error:
        scene.unknown.append(mistake("the findings of the collector", error))
    notes += [each["text"] for each, _ in found if each["severity"] == INFO]
    found = _without_repeats(found)     # what the collector says explains some more
    _raise_causes(found)
    findings = [{**each, "evidence": each["evidence"][:EVIDENCE_MOST]} for each, _ in found if each["severity"] != INFO]
    findings.sort(key=lambda each: (severity_of(each), _ORDER.get(each["id"], len(_ORDER))))
    return findings[:FINDINGS_MOST], notes


def _seen(rule, scene):
    """What a rule sees; of one that fails what it saw before, and that it did."""
    try:
        yield from rule.check(scene)
    except Exception as error:
        scene.unknown.append(mistake(f"the rule {rule.id}", error))


def _without_repeats(found):
    """Of findings that say what another one explains only the latter, with the former as evidence."""
    owners = {id(each): owner for each, saw in found for owner in [_owner(found, each, saw)] if owner is not None}
    kept = []
    for each, saw in found:
        owner = each
        while id(owner) in owners:      # what explains it may be explained itself
            owner = owners[id(owner)]
        if owner is each:
            kept.append((each, saw))
        else:
            owner["evidence"].append(evidence("log" if each["id"] in BY_ID else "proc", each["text"], each["place"]))
    return kept


def _owner(found, each, saw):
    """The finding that explains this one, None where there is none."""
    explained = _EXPLAINED.get(each["id"], ())
    alike = [other for other, _ in found if other is not each and (each["group"] is None or other["group"] in (None, each["group"]))]
    owner = next((other for id in explained for other in alike if other["id"] == id), None)
    if each["id"] == "gil-held":
        return next((other for other in alike if other["id"] == "gc-storm" and other["place"] == each["place"]), None)
    if each["id"] != "slow-path" or owner is not None:
        return owner
    for other, _ in found:
        if other["group"] != each["group"]:
            continue
        if other["id"] == "gc-storm" and (saw.about == "gil" or saw.about in ("compute", "lock") and other["place"] == each["place"]):
            return other
        if other["id"] == "gil-contention" and saw.about in ("compute", "gil") and _function(other["place"]) == _function(each["place"]):
            return other
        if other["id"] in ("lock", "request-timeout") and each["place"] in (other["place"], *(told["place"] for told in other["evidence"])):
            return other
    return None


_CAUSES = ("backend", "lock", "slow-path", "slow-response", "slow-clients")


def _raise_causes(found):
    """What all threads of a group wait for is as severe as that, and comes before it."""
    for full, saw in found:
        for other, _ in found if full["id"] == "capacity" and saw.about == capacity.OUTSIDE else ():
            if other["id"] in _CAUSES and other["group"] == full["group"] and full["place"] in (
                    other["place"], *(told["place"] for told in other["evidence"])):
                other["severity"] = CRITICAL


def _function(place):
    """The file of a place: the line moves."""
    return (place or "").rpartition(":")[0]


# id -> ids of findings that explain it: then it is but evidence of theirs
_EXPLAINED = {
    "daemon-died": ("crash", "crash-loop", "request-timeout", "vanished"),
    "daemon-lost": ("crash", "crash-loop", "vanished"),
    "no-response": ("crash", "crash-loop", "vanished", "request-timeout", "memory-error", "too-many-files"),
    "response-cut": ("crash", "crash-loop", "request-timeout", "vanished"),
    "response-timeout": ("deadlock", "gil-held", "capacity", "backend", "lock", "slow-path"),
    "capacity": ("gil-held", "deadlock"),
    "queue-timeout": ("capacity",),
    "backlog-full": ("capacity",),
    "crash-loop": ("crash",),
    "slow-path": ("gil-held",),
    "gil-contention": ("gil-held", "gc-storm"),
    "fewer-processes": ("crash", "crash-loop", "script-failed"),
}


# --- a collector's findings -----------------------------------------------------------------------

def _join(scene, found, notes):
    """Add what a collector says: to the finding that is about the same trouble, else as one of its own, or as a note."""
    told, ours = scene.telemetry, list(found)
    for each in told.findings if told is not None else ():
        if each["severity"] not in SEVERITIES or scene.group and each["process_group"] not in (None, scene.group):
            continue
        alike = [own for own, saw in ours
                 if each["id"] in saw.same and (each["process_group"] in (None, own["group"]) or own["group"] is None)]
        if alike:
            alike[0]["evidence"].append(evidence("telemetry", each["text"]))
            if each["since"] is not None and (alike[0]["since"] is None or each["since"] < alike[0]["since"]):
                alike[0]["since"] = each["since"]
            continue
        if each["severity"] == INFO or each["id"] == "gil-contention" and not _computes(scene, each["process_group"]):
            notes.append(each["text"])
            continue
        more = _of_slow(told, each) if each["id"] in ("slow-requests", "stuck-request", "threads-busy", "queueing", "errors") else []
        more += _of_phases(told, each)
        place = next((one["place"] for one in more if one["place"]), None)
        text = each["text"] + (f"; most often at {place.rpartition('/')[2]}" if place else "")
        own = {"id": each["id"], "severity": each["severity"], "group": each["process_group"], "pid": each["pid"], "since": each["since"],
               "text": text,
               "evidence": [evidence("telemetry", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in each["figures"].items()
                                                            if value is not None)), *more],
               "advice": each["advice"], "place": place}
        found.append((own, None))


def _computes(scene, group):
    """Whether processes of a group use so much of a core that their GIL may be what is waited for; so where none was looked at."""
    cores = [process.rates["cpu"] for process in scene.processes
             if group in (None, process.group) and process.rates and process.rates.get("cpu") is not None]
    return not cores or max(cores) >= gil.BUSY_CORES_LEAST


def _of_slow(told, each):
    """Evidence out of slow requests: by path, and the stacks of the longest; and where the agents' long requests spent their time."""
    entries = [entry for entry in told.slow if each["process_group"] in (None, entry["process_group"])]
    paths = {}
    for entry in entries:
        path = (entry.get("script_name") or "") + (entry.get("path_info") or "")
        paths.setdefault(path or "(no path)", []).append(entry)
    out = [evidence("request", f"{counted(len(rows), 'slow request')} of {path}, the longest "
                    f"{duration(max(row['age_s'] or 0 for row in rows))}")
           for path, rows in sorted(paths.items(), key=lambda item: -len(item[1]))[:3]]
    for entry in sorted(entries, key=lambda entry: -(entry["age_s"] or 0)):
        frames = ((entry.get("stack") or {}).get("thread") or {}).get("frames") or (entry.get("stack") or {}).get("frames")
        if frames:
            out.append(_stack_json(frames, "the stack of one of them"))
            break
    for pivot in told.pivots[:3]:
        frames = pivot.get("frames") or []
        if frames:
            out.append(_stack_json(frames, f"{counted(pivot.get('requests', 0), 'long request')} have this in common"))
    return out


def _stack_json(frames, said):
    frame = application_frame([Frame(each["function"], each["file"], each["line"], each.get("interpreter", 0)) for each in frames])
    return evidence("stack", said, None if frame is None else place_of(frame), frames)


def _of_phases(told, each):
    """The phases of a group's requests in the last minute, where the most time goes first."""
    row = told.groups.get(each["process_group"])
    window = (row or {}).get("windows", {}).get("1m")
    phases = {name: phase for name, phase in (window or {}).get("phases", {}).items() if phase and phase.get("mean")}
    if not phases:
        return []
    shown = ", ".join(f"{name} {duration(phase['mean'])} (p95 {duration(phase['p95'])})" if phase.get("p95") is not None else
                      f"{name} {duration(phase['mean'])}"
                      for name, phase in sorted(phases.items(), key=lambda item: -item[1]["mean"])[:4])
    return [evidence("telemetry", f"mean times in the last minute: {shown}")]

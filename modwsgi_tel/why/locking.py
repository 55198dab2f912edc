"""Rules about locks: threads that wait for one another, and requests that wait for one lock."""
from modwsgi_tel.figures import counted, duration
from modwsgi_tel.why.judged import LONG_LEAST, SHOWN, STUCK_S, Saw, evidence, stack, who
from modwsgi_tel.why.scene import application_frame, place_of

LOCK_S = 0.8                            # a request that waits for a lock, served for so long
_LOCKS = ("lock", "rlock", "semaphore")


def deadlock(scene):
    for process in scene.processes:
        for cycle in process.cycles:
            places = " and ".join(f"thread {wait.tid} waits for {wait.lock or 'a lock'} at {wait.place.rpartition('/')[2]}"
                                  for wait in cycle)
            ages = [run.age_s for run in process.runs() if run.tid in {wait.tid for wait in cycle}]
            age = max(ages, default=None)
            since = "" if age is None else f" for {duration(age)} or longer"
            yield Saw(f"{who(process)}: deadlock of {counted(len(cycle), 'thread')}{since}: {places}; each has what the other wants"
                      if len(cycle) > 1 else f"{who(process)}: deadlock: {places}, which it holds itself", process.group, process.pid,
                      None if age is None else scene.at - age,
                      [*(evidence("lock", f"thread {wait.tid} waits for {wait.lock or 'a lock'} in {wait.function} at {wait.place}: "
                                  f"thread {wait.owner_tid} {wait.how}", wait.place) for wait in cycle),
                       *_stacks_of(process, [wait.tid for wait in cycle])],
                      place=cycle[0].place, same=("stuck-request", "slow-requests", "threads-busy"),
                      advice=_TWICE if len(cycle) == 1 else None)


_TWICE = ("A thread takes a plain lock that it has already: use threading.RLock, or do not take it again further in; only a restart of the "
          "process frees it now.")


def _stacks_of(process, tids):
    threads = {thread.tid: thread for thread in process.looks[-1].stacks.threads} if process.looks else {}
    return [stack(process, threads[tid]) for tid in tids[:SHOWN] if tid in threads]


def lock(scene):
    for process in scene.processes:
        in_cycle = {wait.tid for cycle in process.cycles for wait in cycle}
        runs = {run.tid: run for run in process.runs() if run.last.place == len(process.looks) - 1}
        groups = {}
        for wait in process.locks:
            run = runs.get(wait.tid)
            if wait.kind in _LOCKS and wait.tid not in in_cycle and run is not None and (run.served_s >= LOCK_S):
                groups.setdefault((wait.owner_tid, wait.lock if wait.owner_tid is None else ""), []).append((wait, run))
        for (owner, _), held in groups.items():
            if len(held) < LONG_LEAST and max(run.served_s for _, run in held) < STUCK_S:
                continue
            wait, run = max(held, key=lambda each: each[1].served_s)
            held_by = f", held by thread {owner}, which {wait.how}" if wait.how and "owns" in wait.how and owner else \
                f", likely held by thread {owner}, which {wait.how}" if owner else ""
            dead = ("; it is one of the deadlocked threads" if owner in in_cycle else
                    "" if owner or wait.kind == "semaphore" else "; no thread that could be seen has it")
            owners_wait = _wait_of(process, owner)
            owner_run = runs.get(owner)
            yield Saw(f"{who(process)}: one lock: {counted(len(held), 'request')} wait{'s' if len(held) == 1 else ''} for "
                      f"{wait.lock or 'a lock'} at {wait.place.rpartition('/')[2]} for up to {duration(run.served_s)}{held_by}"
                      f"{f' ({owners_wait})' if owners_wait else ''}{dead}",
                      process.group, process.pid, scene.at - run.served_s,
                      [*(evidence("request", f"{each_run.label} waits for {each.lock or 'a lock'} in {each.function} at {each.place} for "
                                  f"{duration(each_run.served_s)}", each.place)
                         for each, each_run in sorted(held, key=lambda each: -each[1].served_s)[:SHOWN]),
                       *_stacks_of(process, [owner] if owner else []),
                       *([evidence("request", f"who holds it serves {owner_run.label} for {duration(owner_run.served_s)}")]
                         if owner_run else []),
                       *_stacks_of(process, [wait.tid])],
                      place=_owner_place(process, owner) or wait.place,
                      advice=None if owner else _ALL_TAKEN if wait.kind == "semaphore" else _LOST,
                      same=("slow-requests", "stuck-request", "threads-busy", "queueing"))


_LOST = ("The lock was probably taken and not given back: an exception between acquire() and release(). Use `with`, or try and finally; "
         "only a restart of the process frees these threads now.")

_ALL_TAKEN = ("All that the semaphore gives are taken: see what those threads do that have them (modwsgi-tel stacks PID), and whether each "
              "gives its own back (`with`).")


def _wait_of(process, tid):
    """What the system call of a thread waits for, at the last look, in words; "" where it is in none."""
    wait = process.looks[-1].waits.get(tid) if process.looks and tid else None
    return (wait or {}).get("text") or ""


def _owner_place(process, owner):
    thread = next((thread for thread in process.looks[-1].stacks.threads if thread.tid == owner), None) if process.looks and owner else None
    frame = application_frame(thread.frames) if thread is not None else None
    return None if frame is None else place_of(frame)

"""The incidents that tests/staging.py stages: server, load, and what `why` has to say of each.

Each application is a file beside this one.  A marker is a comment at the end of the line that is to be named: "locks.HERE" are all
lines of locks.py that end in "# HERE".
"""

from collections import namedtuple

COLLECTOR, ALONE, DEBIAN, UNHEARD = MODES = ("collector", "6.1.1", "4.9.4", "unheard")
EACH = (COLLECTOR, ALONE, DEBIAN)
SEVERITIES = ("critical", "warning", "info")
HTTP_PORT = 8888                # where a collector is by default

Load = namedtuple("Load", "path clients pause_s manner", defaults=(1, 0.0, ""))
Load.__doc__ = """So many clients, each asking for this path again and again with that pause.

manner: "" as any; "reads slowly", "sends slowly": as at the end of a thin line."""

Group = namedtuple("Group", "name path app processes threads options", defaults=(1, 4, ""))
Group.__doc__ = "A daemon group: the application `app`.py below that path; options of WSGIDaemonProcess."

Says = namedtuple("Says", "ids words places severity group", defaults=((), (), (), "warning", ""))
Says.__doc__ = """One finding that has to be there: id one of `ids`; each of `words` (regular expressions) in its text, evidence or advice, and
each of `places`; at least that severe; of that group, and then of no other group any."""

Incident = namedtuple("Incident", "name app load says modes kind "
                      "processes threads options others files nofile around meanwhile warm_s ready cost",
                      defaults=(EACH, "daemon", 1, 4, "", (), (), 0, (), "", 2.0, "/", 1))
Incident.__doc__ = """says: what has to be said, one or more of Says; () is a healthy server: nothing above info, exit status 0.

modes: what is there.  "collector": mod_wsgi 6.1.1 and a collector; "6.1.1", "4.9.4": nothing set up; "unheard": telemetry that goes to a
socket on which nobody listens.  kind: "daemon", "embedded", "express" or "gunicorn".  others: further groups.  files: further modules.  nofile: the
limit of open files.  around, meanwhile: names of staging.AROUND and staging.MEANWHILE.  warm_s: from the load's start until `why` is asked.
ready: a path that answers once the server runs, None where none will.  cost: how much of this machine's time it takes, of 4."""

_ALSO = Load("/", 1, 0.2)       # somebody who asks for what is not to blame

SICK = (
    # One piece of code that everybody waits for
    Incident("locks", "locks", [Load("/pay"), Load("/refund"), _ALSO],
             [Says(["deadlock"], words=["lock", "accounts", "journal"], places=["locks.HERE"], severity="critical")]),
    Incident("lock-attributes", "lock_attributes", [Load("/to-bob"), Load("/to-alice"), _ALSO],
             [Says(["deadlock"], words=["lock", "guard"], places=["lock_attributes.HERE"], severity="critical")]),
    Incident("one-lock", "one_lock", [Load("/rates", 6), _ALSO],
             [Says(["lock"], words=["lock", "cache_lock"], places=["one_lock.WAITS", "one_lock.HOLDS"])], threads=8),
    Incident("lock-twice", "lock_twice", [Load("/sell", 2), _ALSO],
             [Says(["deadlock"], words=["lock", "stock_lock"], places=["lock_twice.HERE"])]),
    Incident("lock-lost", "lock_lost", [Load("/coffee", 3), _ALSO],
             [Says(["lock"], words=["lock", "price_lock"], places=["lock_lost.HERE"])]),
    Incident("file-lock", "file_lock", [Load("/count", 3), _ALSO],
             [Says(["slow-path"], words=["lock"], places=["file_lock.HERE"])], around=("file lock",)),

    # Something outside of the application that is late
    Incident("backend", "backend", [Load("/price", 6), _ALSO],
             [Says(["backend"], words=[r"127\.0\.0\.1:9321"], places=["backend.HERE"])],
             around=("backend",)),
    Incident("backend-client", "backend_client", [Load("/price", 6), _ALSO],
             [Says(["backend"], words=[r"127\.0\.0\.1:9321"], places=["backend_client.HERE"])], around=("backend",)),
    Incident("backend-embedded", "backend", [Load("/price", 10), _ALSO],
             [Says(["backend"], words=[r"127\.0\.0\.1:9321"], places=["backend.HERE"])], kind="embedded", processes=2, around=("backend",)),
    Incident("backend-gunicorn", "backend", [Load("/price", 6), _ALSO],
             [Says(["backend"], words=[r"127\.0\.0\.1:9321"], places=["backend.HERE"])], (ALONE,), "gunicorn", around=("backend",)),
    Incident("backend-express", "backend", [Load("/price", 6), _ALSO],
             [Says(["backend"], words=[r"127\.0\.0\.1:9321"], places=["backend.HERE"])], (COLLECTOR, ALONE), "express", around=("backend",)),
    Incident("backend-one-group", "hello", [Load("/shop/price", 6), Load("/", 2, 0.02)],
             [Says(["backend"], words=[r"127\.0\.0\.1:9321"], places=["backend.HERE"], group="shop")], files=("backend",),
             others=(Group("shop", "/shop", "backend"),), around=("backend",)),
    Incident("pool", "pool", [Load("/price", 8), _ALSO], [Says(words=["POOL|queue"], places=["pool.WAITS"]),
                                                          Says(words=[r"127\.0\.0\.1:9321"], places=["pool.HERE"])],
             threads=9, around=("backend",)),
    Incident("database", "database", [Load("/count", 4), _ALSO],
             [Says(["slow-path"], places=["database.HERE"])], around=("database",)),
    Incident("log-full", "log_full", [Load("/page", 4), _ALSO],
             [Says(["slow-path", "lock"], words=["pipe|write|lock"], places=["log_full.HERE"])], around=("full pipe",)),
    Incident("child", "child", [Load("/render", 6), _ALSO],
             [Says(["slow-path"], words=["sleep", "child|process"], places=["child.HERE"])]),
    Incident("names", "names", [Load("/price", 6), _ALSO],
             [Says(["backend"], words=["name|dns|resolv"], places=["names.HERE"])], around=("name server",)),
    Incident("slow-reader", "slow_reader", [Load("/download", 8, manner="reads slowly"), _ALSO],
             [Says(["slow-clients"], words=["client"])]),
    Incident("upload", "upload", [Load("/upload", 8, manner="sends slowly"), _ALSO],
             [Says(["slow-clients"], words=["client"], places=["upload.HERE"])]),

    # More to do than there is for it
    Incident("capacity", "capacity", [Load("/search", 7), Load("/basket", 7), Load("/account", 6)],
             [Says(["capacity"], words=["capacity", "threads"])]),
    Incident("backlog", "one_path", [Load("/statistics", 24)],
             [Says(["capacity"], words=["queue|backlog", "threads|processes"])], threads=2,
             options="queue-timeout=2 listen-backlog=4", warm_s=5.0),
    Incident("one-path", "one_path", [Load("/statistics"), Load("/", 3, 0.1)],
             [Says(words=["/statistics"], places=["one_path.HERE"])]),
    Incident("deep", "deep", [Load("/rows", 5), _ALSO],
             [Says(["slow-path"], words=["/rows"], places=["deep_work.HERE"])], files=("deep_work",)),
    Incident("slow-writer", "slow_writer", [Load("/export", 6), _ALSO], [Says(["slow-response"], places=["slow_writer.HERE"])]),

    # What grows
    Incident("leak", "leak", [Load("/page?1000000", 2, 0.1)],
             [Says(["memory-growth"], words=["memory", "HISTORY"], places=["leak.HERE"])]),
    Incident("leak-slow", "leak", [Load("/page?200000", 2, 0.1)],
             [Says(["memory-growth"], words=["memory", "HISTORY"], places=["leak.HERE"])]),
    Incident("leak-class", "leak_class", [Load("/page?2000000", 2, 0.1)],
             [Says(["memory-growth"], words=["memory", "known"], places=["leak_class.HERE"])]),
    Incident("leak-to-limit", "leak", [Load("/page?5000000", 2, 0.02)], [Says(words=["memory", "limit"], places=["leak.HERE"])],
             options="memory-limit=300000000", warm_s=4.0),
    Incident("files", "files", [Load("/page", 1, 0.02)],
             [Says(["descriptors"], words=["files|descriptors"], places=["files.HERE"])], nofile=4096),
    # The traceback is in the log of 4.9.4 alone: 6.1.1 writes what the exception says, and not where it was
    Incident("files-to-limit", "files", [Load("/page", 2, 0.02)],
             [Says(["too-many-files"], words=["files|descriptors"], places=["files.HERE"])], (DEBIAN,), nofile=64),
    Incident("files-to-limit-6", "files", [Load("/page", 2, 0.02)],
             [Says(["too-many-files"], words=["files|descriptors"])], (COLLECTOR, ALONE), nofile=64),
    Incident("sockets", "sockets", [Load("/page", 1, 0.02)],
             [Says(["descriptors"], words=["connections|sockets|descriptors|files"], places=["sockets.HERE"])],
             around=("closer",)),
    Incident("threads", "threads", [Load("/order", 1, 0.02)], [Says(words=["threads"], places=["threads.HERE"])]),
    Incident("zombies", "zombies", [Load("/page", 1, 0.05)], [Says(words=["zombie|defunct|waited for"])]),

    # Processes that end
    Incident("crash", "crash", [Load("/page", 2, 0.05)],
             [Says(["crash-loop"], words=["ended|died|exit|restart"], severity="critical")], warm_s=4.0),
    Incident("crash-import", "crash_import", [Load("/", 2, 0.1)],
             [Says(words=["ModuleNotFoundError|import"], places=["crash_import.HERE"])], ready=None),
    Incident("crash-abort", "crash_abort", [Load("/", 2, 0.1)],
             [Says(words=["abort"], severity="critical")], warm_s=4.0, ready=None),
    Incident("segfault", "segfault", [Load("/image", 1, 0.5), Load("/", 2, 0.05)],
             [Says(words=["segmentation|SIGSEGV"], places=["segfault.HERE"], severity="critical")], warm_s=4.0),
    Incident("segfault-silent", "segfault_silent", [Load("/image", 1, 0.5), Load("/", 2, 0.05)],
             [Says(words=["segmentation|SIGSEGV"], severity="critical")], warm_s=4.0),
    Incident("request-timeout", "stuck", [Load("/work", 2)], [Says(words=["request.timeout"], places=["stuck.HERE"])], threads=2,
             options="request-timeout=2 graceful-timeout=1 shutdown-timeout=1", warm_s=9.0),
    Incident("exceptions", "exceptions", [Load("/coffee", 1, 0.05), Load("/", 2, 0.05)],
             [Says(["exception"], words=["KeyError"], places=["exceptions.HERE"])], (DEBIAN,)),
    Incident("exceptions-6", "exceptions", [Load("/coffee", 1, 0.05), Load("/", 2, 0.05)],
             [Says(["exception"], words=["KeyError", r"exceptions\.py"])], (COLLECTOR, ALONE)),

    # Telemetry
    Incident("collector-away", "hello", [Load("/", 4, 0.02)],
             [Says(words=["collector|telemetry"], severity="info")], (COLLECTOR,),
             meanwhile="collector away"),
    Incident("collector-stopped", "hello", [Load("/", 4, 0.02)],
             [Says(words=["collector", "stopped|answer"], severity="info")], (COLLECTOR,),
             meanwhile="collector stopped"),
    Incident("unheard", "hello", [Load("/", 4, 0.02)],
             [Says(["collector-away"], words=["collector|telemetry", "listen"], severity="info")], (UNHEARD,)),

    # The processor
    Incident("regex", "regex", [Load("/match?7"), Load("/", 2)],
             [Says(["gil-held"], words=["GIL"], places=["regex.HERE"], severity="critical")], cost=2),
    Incident("gil-in-c", "gil_in_c", [Load("/total"), Load("/", 2)],
             [Says(["gil-held"], words=["GIL"], places=["gil_in_c.HERE"], severity="critical")], cost=2),
    Incident("hog", "hog", [Load("/report"), Load("/", 3, 0.01)],
             [Says(["gil-contention"], words=["GIL"], places=["hog.HERE"])], cost=2),
    Incident("hog-thread", "hog_thread", [Load("/", 3, 0.01)],
             [Says(["gil-contention"], words=["GIL"], places=["hog_thread.HERE"])], cost=2),
    Incident("gc-storm", "gc_storm", [Load("/page", 3)],
             [Says(["gc-storm"], words=["garbage|GC"], places=["gc_storm.HERE"])], cost=2),
    Incident("gc-threshold", "gc_threshold", [Load("/page", 3)], [Says(["gc-storm"], words=["garbage|GC"])], cost=2),
    Incident("neighbours", "compute", [Load("/page", 2)],
             [Says(["neighbour"], words=["cores|CPU", "sh"])], meanwhile="neighbours", cost=4),
)
HEALTHY = (
    Incident("hello", "hello", [Load("/", 4, 0.01)], (), cost=3),
    Incident("hello-at-once", "hello", [Load("/", 4)], (), cost=4),
    Incident("mixed", "mixed", [Load("/query", 2), Load("/", 2, 0.05)], (), threads=8, cost=2),
    Incident("polling", "mixed", [Load("/poll"), Load("/", 2, 0.05)], (), threads=16, warm_s=3.5, cost=2),
    Incident("streaming", "mixed", [Load("/stream", manner="reads slowly"), Load("/", 2, 0.05)], (), threads=8, cost=2),
    Incident("background", "background", [Load("/", 2, 0.1)], (), cost=2),
    Incident("idle", "background", [], (), cost=2),
    Incident("idle-for-good", "hello", [], (), processes=3, cost=2),
    Incident("cache", "cache", [Load("/", 2, 0.05)], (), cost=3),
    Incident("talkative", "talkative", [Load("/", 2, 0.05), Load("/nowhere", 1, 0.1), Load("/exit%20signal%20Segmentation%20fault%20(11)", 1, 0.1)],
             (), cost=2),
    Incident("recycled", "hello", [Load("/", 2, 0.05)], (), options="maximum-requests=400", cost=2),
    Incident("restarted", "hello", [Load("/", 2, 0.05)], (), meanwhile="graceful", cost=2),
    Incident("restarted-meanwhile", "hello", [Load("/", 2, 0.05)], (), processes=3, meanwhile="graceful meanwhile", cost=2),
    Incident("computing", "compute", [Load("/page", 2, 0.03)], (), processes=3, cost=4),
    Incident("embedded", "mixed", [Load("/query", 2), Load("/", 2, 0.05)], (), kind="embedded", processes=2, threads=8, cost=2),
    Incident("express", "mixed", [Load("/query", 2), Load("/", 2, 0.05)],
             (), (COLLECTOR, ALONE), "express", processes=2, threads=5, cost=2),
    Incident("gunicorn", "mixed", [Load("/query", 2), Load("/", 2, 0.05)], (), (ALONE,), "gunicorn", threads=8, cost=2),
)
INCIDENTS = SICK + HEALTHY
BY_NAME = {incident.name: incident for incident in INCIDENTS}

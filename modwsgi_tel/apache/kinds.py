"""The table KINDS: what an error log may say, what that means and what to do.

Sources: the messages of mod_wsgi 4.9.4 (src/server/*.c, no ids) and 6.1.1 (WSGI0001 and up), of Apache 2.4 (server/*.c,
server/mpm/*), gunicorn/arbiter.py, uWSGI's core/*.c; and logs of real servers.  Of mod_wsgi's lines those marked with * come
at `LogLevel info` only: at Apache's default, warn, a daemon that died shows by the requests that it left unanswered.
"""
import re
from collections import namedtuple

CRITICAL, WARNING, INFO = "critical", "warning", "info"

Kind = namedtuple("Kind", "id severity codes pattern means advice")
Kind.__doc__ = """codes: ids of messages, with a blank between them; "WSGI0003-0011" is all from the one to the other.
pattern: matches the beginning of the text where there is no id."""

KINDS = (
    Kind("crash", CRITICAL, "AH00051 AH00052",
         r"child pid \d+ exit signal|Fatal Python error: (?!init|Py_Init|Python interpreter)|!!! uWSGI process \d+ got Segmentation Fault"
         r"|Worker \(pid:\d+\) was sent SIG(?:SEGV|ABRT|BUS|ILL|FPE)!|Worker with pid \d+ was terminated due to signal (?:4|6|7|8|11)\b",
         "a process of the server died of a signal: a crash in C code, of Python, an extension or a library",
         "set PYTHONFAULTHANDLER=1 in the server's environment to have the Python stack of the next crash in the error log; "
         "CoreDumpDirectory keeps its memory"),
    Kind("killed", CRITICAL, "",
         r"Worker \(pid:\d+\) was sent SIGKILL|Process '[^']*'(?: \(pid=\d+\))? terminated by signal 9\b"
         r"|Worker with pid \d+ was terminated due to signal 9\b"
         r"|DAMN ! worker \d+ \(pid: \d+\) (?:died, |MISTERIOUSLY )killed by signal 9\b",
         "a worker was killed (SIGKILL): by the kernel for want of memory, by an operator, or by the server itself",
         "look at the kernel's log (dmesg, journalctl -k) for the OOM killer, and at the memory of the workers"),
    Kind("daemon-died", WARNING, "",                                                             # *
         r"Process '[^']*'(?: \(pid=\d+\))? terminated by signal|Process '[^']*'(?: \(pid=\d+\))? terminated normally, exit code [1-9]"
         r"|DAMN ! worker \d+ \(pid: \d+\)|Worker \(pid:\d+\) exited with code [1-9]|Worker exited with code",
         "a daemon process ended by itself (mod_wsgi's `signal` may be an exit code)",
         "look for os._exit, for what the application logged before, and for the OOM killer in the kernel's log"),
    Kind("daemon-lost", WARNING, "", r"Process '[^']*'(?: \(pid=\d+\))? appears to have been lost",
         "Apache lost sight of a daemon process and starts another", "look which other lines tell of that process"),
    Kind("daemon-restarted", INFO, "", r"Process '[^']*'(?: \(pid=\d+\))? has died[;,] dereg",     # *
         "a daemon process has ended and is started again", ""),
    Kind("no-response", WARNING, "WSGI0144 WSGI0146 WSGI0147",
         r"Truncated or oversized response headers received from daemon|Premature end of script headers",
         "a daemon took a request and gave no whole answer: it died, was stopped, or its headers are larger than header-buffer-size; "
         "the client got a 500 or 502",
         "look what ended the daemon at that moment: a crash, os._exit, request-timeout, memory; `LogLevel info wsgi:info` tells more"),
    Kind("response-timeout", WARNING, "WSGI0145", r"Timeout when reading response headers from daemon",
         "a daemon gave no answer within socket-timeout; the client got a 504, and the daemon works on",
         "look at the stacks of that group: all threads busy, or stuck"),
    Kind("request-timeout", WARNING, "",                                                          # *
         r"Daemon process request time limit\s+exceeded|Dumping stack trace for thread \d+ of daemon process '[^']*' which has exceeded"
         r"|Request interrupted by\s+RequestTimeout",
         "requests ran longer than request-timeout; mod_wsgi interrupts them, or restarts the daemon and cuts off the others",
         "look at the places where they were; raise request-timeout only if they may take that long"),
    Kind("interrupt-failed", WARNING, "", r"Unable to .{0,80}RequestTimeout injection|RequestTimeout class not initialised",
         "a request that ran too long could not be interrupted", "see request-timeout"),
    Kind("deadlock-timeout", CRITICAL, "", r"Daemon process deadlock timer expired",              # *
         "Python's global lock was held for longer than deadlock-timeout: C code that does not let go of it, or a deadlock; "
         "the daemon was restarted",
         "look what C code ran then; with the agent's watchdog its stack is written down"),
    Kind("startup-timeout", CRITICAL, "", r"Application startup timer expired",                   # *
         "the application could not be loaded within startup-timeout; the daemon is started again",
         "look why its import fails or hangs"),
    Kind("queue-timeout", WARNING, "WSGI0084", r"Queue timeout expired for WSGI daemon process",
         "requests waited for a free thread longer than queue-timeout; the client got a 504",
         "capacity: more threads or processes, or faster requests"),
    Kind("cpu-limit", WARNING, "", r"Exceeded CPU time limit", "a daemon used more CPU than cpu-time-limit and is restarted",  # *
         "look for what spins; raise cpu-time-limit if it may use that much"),
    Kind("maximum-requests", INFO, "", r"Maximum requests reached|\*\*\* EVIL RELOAD|Autorestarting worker after current request",     # *
         "a daemon has served maximum-requests and is restarted, as configured", ""),
    Kind("restart-timer", INFO, "", r"Application restart timer expired|Daemon process restart timer\s+expired"     # *
         r"|Daemon process idle inactivity timer expired|Process eviction requested|Graceful restart requested"
         r"|Requests have completed|Daemon process graceful timer expired",
         "a daemon is restarted by restart-interval, inactivity-timeout, or because it was asked to", ""),
    Kind("script-reloaded", INFO, "", r"Forc(?:e|ing) restart of (?:daemon )?process '|Reloading WSGI script", # *
         "the WSGI script has changed and is loaded anew", ""),
    Kind("shutdown-timeout", INFO, "", r"Aborting process '|Shutdown timeout expired; aborting",  # *
         "a daemon did not stop within shutdown-timeout and was ended; requests in it were cut off", ""),
    Kind("worker-timeout", WARNING, "",
         r"WORKER TIMEOUT|Worker graceful timeout|HARAKIRI(?:: --- uWSGI worker|!!!)|\*\*\* HARAKIRI ON WORKER",
         "a worker did not answer within the server's timeout and was killed with the request that it served",
         "look at the place where it was; raise the timeout only if requests may take that long"),
    Kind("worker-exit", INFO, "",
         r"Worker exiting \(pid|Respawned uWSGI worker|Booting worker with pid|worker \d+ killed successfully|worker \d+ buried",
         "a worker has ended or begun", ""),
    Kind("worker-boot", CRITICAL, "", r"Exception in worker process|Reason: Worker failed to boot",
         "a worker could not load the application", "mend what the exception says; see its place"),
    Kind("backlog-full", CRITICAL, "WSGI0116",
         r"Unable to connect to WSGI daemon process '[^']*' on '[^']*' after multiple attempts"
         r"|\*\*\* uWSGI listen queue of socket .{1,200} full",
         "the queue of a daemon group is full, or nobody listens there; the client got a 503",
         "capacity: more threads or processes; a burst: a larger listen-backlog; or the daemons are dead: see the other lines"),
    Kind("connect-failed", CRITICAL, "WSGI0115 WSGI0117 WSGI0121 WSGI0124 WSGI0125",
         r"Unable to create socket to connect to WSGI daemon|Unable to connect to WSGI daemon process"
         r"|Unable to send request details to WSGI daemon|Maximum number of WSGI daemon process",
         "Apache's children cannot reach the daemons: their socket is gone or may not be opened; the client got a 503",
         "look at WSGISocketPrefix: its folder, its mode, and that nothing cleans it up"),
    Kind("workers-full", WARNING, "AH00161 AH00286 AH00484", r"server reached MaxRequestWorkers|server reached MaxClients",
         "all of Apache's own workers are busy: connections wait before mod_wsgi sees them",
         "look why they take long (daemons that are full, slow clients); then raise MaxRequestWorkers"),
    Kind("workers-nearly-full", INFO, "AH00162 AH00289 AH00486 AH00287 AH10159", r"server (?:seems busy|is within MinSpareThreads of)",
         "Apache starts more children", ""),
    Kind("scoreboard-full", WARNING, "AH00288 AH00485 AH03490", r"scoreboard is full",
         "Apache has no slot for another child: old ones that still serve long requests hold them", "raise ServerLimit"),
    Kind("fork-failed", CRITICAL, "AH00159 AH00283 AH00481 WSGI0024", r"fork: Unable to fork new process|Couldn't spawn process",
         "no new process could be made", "look at the limits of processes and memory (ulimit, cgroup)"),
    Kind("children-die", CRITICAL, "AH00050 AH10392 AH02324", r"children are killed successively",
         "Apache's children die as soon as they start", "see the lines before"),
    Kind("memory-error", CRITICAL, "", r"(?!)",
         "the application got no memory: a limit (memory-limit, virtual-memory-limit, ulimit, cgroup) or one huge object",
         "look at the place, at how the process grows, and at the limits"),
    Kind("too-many-files", CRITICAL, "", r"(?!)",
         "a process has all the descriptors open that it may have",
         "look what it has open (inspect PID): a leak, or a limit that is too low"),
    Kind("no-space", CRITICAL, "", r"(?!)",
         "a disk is full (or has no inodes left, or no room for semaphores)", "df -h, df -i; ipcs -s where Apache says it at its start"),
    Kind("exception", WARNING, "WSGI0174 WSGI0112",
         r"Exception occurred processing WSGI script|Error handling request|Socket error processing request"
         r"|Exception occurred within event callback",
         "an exception left the application; the client got a 500", "mend it, at its place"),
    Kind("application-exit", WARNING, "WSGI0175", r"SystemExit exception raised by WSGI script",
         "the application called sys.exit() in a request; the client got a 500", "mend it, at its place"),
    Kind("script-failed", CRITICAL, "WSGI0105-0110 WSGI0087 WSGI0089",
         r"Failed to exec Python script file|SystemExit exception raised when doing exec|Could not read/compile source file"
         r"|Target WSGI script '[^']*' (?:cannot be loaded|does not contain)"
         r"|unable to load app \d|\*\*\* no app loaded|--- no python application found",
         "the WSGI script could not be loaded: each request for it gets a 500", "mend what the exception says; see its place"),
    Kind("script-missing", WARNING, "WSGI0082 WSGI0083 WSGI0134-0137",
         r"Target WSGI script not found|Unable to stat target (?:WSGI|handler) script|Attempt to invoke directory as WSGI application"
         r"|Options ExecCGI is off in this directory",
         "the WSGI script is not there, or may not be read by Apache's user",
         "look at WSGIScriptAlias and at the modes of the folders above it"),
    Kind("script-refused", WARNING, "WSGI0081 WSGI0149-0173",
         r"No WSGI daemon process called|Daemon process called '|Embedded mode of mod_wsgi disabled"
         r"|(?:Group|Owner) of (?:WSGI script|parent directory)"
         r"|WSGI script '[^']*' not located within chroot",
         "Apache's configuration does not let this script run where it is told to",
         "look at WSGIProcessGroup, WSGIDaemonProcess and WSGIRestrictEmbedded"),
    Kind("embedded-disabled", WARNING, "WSGI0143 WSGI0210", r"Embedded mode of mod_wsgi",
         "a script would run within Apache's children, which WSGIRestrictEmbedded forbids", "give it a WSGIProcessGroup"),
    Kind("python-home", CRITICAL, "WSGI0036 WSGI0100-0102",
         r"Unable to stat Python home|Python home .{1,400} is not (?:a directory|accessible)|Python path configuration:",
         "python-home is no Python, or Apache's user may not read it",
         "look at python-home (WSGIPythonHome): the path, and the modes of each folder above"),
    Kind("python-failed", CRITICAL, "WSGI0001 WSGI0002 WSGI0028 WSGI0029 WSGI0035 WSGI0038 WSGI0040 WSGI0045 WSGI0103 WSGI0188 WSGI0191",
         r"Cannot (?:create|acquire) interpreter|Fatal Python error: (?:init|Py_Init|Python interpreter)"
         r"|Python based handlers will not be available",
         "Python could not be started, or an interpreter not be made: requests get a 500",
         "see python-home, python-path and the lines before"),
    Kind("daemon-setup", CRITICAL, "WSGI0003-0023 WSGI0025-0027 WSGI0030-0034 WSGI0206 WSGI0208",
         r"Unable to (?:change|set|determine) (?:root directory|group id|supplementary|groups|to uid|working|home)"
         r"|Failure to configure the daemon process"
         r"|Couldn't (?:create (?:unix|worker|accept)|bind|listen|change owner|initialise|acquire accept)"
         r"|Request origin could not be validated|Unable to poll daemon socket",
         "a daemon process cannot be set up and ends", "mend what it says: user, group, home, socket, lock"),
    Kind("limit-not-set", WARNING, "WSGI0075-0078 WSGI0068-0070",
         r"Couldn't (?:set (?:CPU|memory|virtual)|create (?:monitor|deadlock|reaper) thread)",
         "a limit of WSGIDaemonProcess does not hold", "mend what it says"),
    Kind("python-path", WARNING, "WSGI0091 WSGI0094-0096", r"Call to 'site\.addsitedir\(\)' failed|Unable to (?:locate 'site|import 'site)",
         "python-path could not be added: imports may fail", "look at python-path"),
    Kind("locale", INFO, "WSGI0079", r"Unsupported locale setting", "the locale of a daemon group is not there", ""),
    Kind("telemetry", WARNING, "WSGI0132 WSGI0133", r"Telemetry reporter could not",
         "mod_wsgi sends no telemetry from that process",
         "look at WSGITelemetryService: a path below 108 bytes, a folder that Apache's user may search"),
    Kind("response-cut", WARNING, "WSGI0119 WSGI0122 WSGI0123", r"Failed to proxy response from daemon|Unexpected status from WSGI daemon",
         "a daemon went away in the middle of a response", "look what ended the daemon at that moment"),
    Kind("request-unread", WARNING, "WSGI0080", r"Unable to read WSGI request",
         "a daemon could not read what Apache's child sent to it", "look at its descriptors, and at the lines around"),
    Kind("client-closed", INFO, "WSGI0118 WSGI0120 WSGI0126-0129",
         r"Failed to proxy response to client|Request data (?:read|write) error|Client closed connection|Content length mismatch",
         "a client went away in the middle of a request", ""),
    Kind("bad-header", WARNING, "WSGI0148", r"Malformed header '",
         "the application sent a header that is none", "mend what makes that header"),
    Kind("version", INFO, "WSGI0099", r"(?:Compiled for|Runtime using) Python/",
         "mod_wsgi was compiled for another Python than it runs with", ""),
    Kind("signal-ignored", INFO, "", r"Callback registration for signal|Ignoring Python signal handler",
         "an application may not catch signals in mod_wsgi", ""),
    Kind("started", INFO, "AH00163 AH00292 AH00489", r"Starting gunicorn|\*\*\* Starting uWSGI",
         "the server has started, or has read its configuration anew", ""),
    Kind("graceful", INFO, "AH00171 AH00297 AH00493", r"Handling signal: hup|\.\.\.gracefully killing workers",
         "a graceful restart was asked for", ""),
    Kind("restart", INFO, "AH00173 AH00298 AH00494", r"Handling signal: usr2", "a restart was asked for: requests were cut off", ""),
    Kind("stopped", INFO, "AH00169 AH00170 AH00295 AH00296 AH00491 AH00492", r"Handling signal: (?:term|int|quit)",
         "the server was told to stop", ""),
    Kind("slow-stop", INFO, "AH00045 AH00046 AH00047", r"child process \d+ still did not exit", "a child was slow to stop", ""),
    Kind("config-failed", CRITICAL, "AH00013-0020 AH00526", r"Syntax error on line \d+ of", "Apache could not read its configuration",
         "apachectl configtest"),
    Kind("thread-exception", WARNING, "", r"Exception in thread ", "an exception ended a background thread of the application",
         "mend it, at its place; what that thread did is not done any more"),
    Kind("traceback", INFO, "", r"Traceback \(most recent call last\):", "the application logged an exception", ""),
    Kind("stack-dump", INFO, "", r"Dumping stack trace for active Python threads",
         "a daemon wrote down the stacks of its threads", ""),  # *
    Kind("mod_wsgi", INFO, "", r"(?!)", "another message of mod_wsgi", ""),
)
BY_ID = {kind.id: kind for kind in KINDS}


def _codes():
    found = {}
    for kind in KINDS:
        for word in kind.codes.split():
            first, _, last = word.partition("-")
            letters, digits = first.rstrip("0123456789"), len(first.lstrip("AHWSGI"))
            for number in range(int(first[len(letters):]), int(last or first[len(letters):]) + 1):
                assert found.setdefault(f"{letters}{number:0{digits}d}", kind) is kind, word
    return found


BY_CODE = _codes()
_BEGINNINGS = re.compile("|".join(f"(?P<k{number}>{kind.pattern})" for number, kind in enumerate(KINDS)))
# What frameworks log of an exception that they answer with a 500 themselves: Django, Flask, Pyramid
_FRAMEWORKS = re.compile(r"Internal Server Error: /|Exception on /.{0,400} \[[A-Z]{3,10}\]")
# Words that tell of it wherever they stand
_ANYWHERE = (("Too many open files", "too-many-files"), ("No space left on device", "no-space"), ("Disk quota exceeded", "no-space"),
             ("Cannot allocate memory", "memory-error"), ("Internal Server Error: /", "exception"), ("Exception on /", "exception"))


def of(line):
    """The Kind of a loglines.Line, or None.

    With an id that the table does not have, only what names a lack (files, memory, room) counts.
    """
    if line.code in BY_CODE:
        kind = BY_CODE[line.code]
        return BY_ID["no-space"] if kind.id != "client-closed" and "No space left on device" in line.trouble else kind
    if line.code.startswith("WSGI"):
        return BY_ID["mod_wsgi"]
    if line.code:
        found = None
    else:
        found = _BEGINNINGS.match(line.text)
    if found:
        return KINDS[int(found.lastgroup[1:])]
    for words, name in _ANYWHERE:
        if (words in line.text or words in line.trouble) and (name != "exception" or _FRAMEWORKS.search(line.text)):
            return BY_ID[name]
    return None

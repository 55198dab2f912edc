"""The Firefox profiler's JSON, for https://profiler.firefox.com: its "processed profile" format.

Version 56, which it upgrades by itself when it is newer.  Source: firefox-devtools/profiler, src/types/profile.ts,
docs-developer/CHANGELOG-formats.md, and what its processed-profile-versioning.ts reads of a version 56.
"""
from modwsgi_tel import __version__
from modwsgi_tel.printable import printable_json
from modwsgi_tel.profile.samples import FUNCTION_SIZE, is_group, short
from modwsgi_tel.profile.speedscope import PROGRAM, by_thread

VERSION = 56
GECKO_VERSION = 31                      # of the format it is "processed" from

# Where a frame is from, as the profiler colours it; the first grey one is its default.
CATEGORIES = (("Other", "grey"), ("Python", "blue"), ("Not read", "orange"))
_OTHER, _PYTHON, _NOT_READ = range(3)


class _Strings:
    def __init__(self):
        self.all, self._at = [], {}

    def __call__(self, text):
        at = self._at.get(text)
        if at is None:
            at = self._at[text] = len(self.all)
            self.all.append(text)
        return at


def firefox(profile):
    """Pieces of text: a thread a piece, at most."""
    strings = _Strings()
    threads = by_thread(profile)
    yield f'{{"meta":{printable_json(_meta(profile))},"libs":[],"pages":[],"threads":['
    for index, (owner, numbers) in enumerate(threads):
        yield ("," if index else "") + printable_json(_thread(profile, owner, numbers, strings))
    yield f'],"shared":{{"stringArray":{printable_json(strings.all)}}}}}\n'


def _meta(profile):
    start_ms = (profile.start or 0.0) * 1000
    counts = [{"label": name.replace("_", " "), "format": "integer", "value": value} for name, value in profile.counts().items()]
    return {
        "interval": 1000 / profile.rate, "startTime": start_ms, "endTime": start_ms + profile.duration_s * 1000,
        "profilingStartTime": 0, "profilingEndTime": profile.duration_s * 1000,
        "processType": 0, "product": "; ".join(profile.told()), "importedFrom": f"{PROGRAM} {__version__}", "stackwalk": 1,
        "debug": False, "version": GECKO_VERSION, "preprocessedProfileVersion": VERSION,
        "symbolicated": True, "symbolicationNotSupported": True, "sourceCodeIsNotOnSearchfox": True, "usesOnlyOneStackType": True,
        "keepProfileThreadOrder": True,
        "sampleUnits": {"time": "ms", "eventDelay": "ms", "threadCPUDelta": "ns"},
        "categories": [{"name": name, "color": color, "subcategories": ["Other"]} for name, color in CATEGORIES],
        "markerSchema": [], "extra": [{"label": PROGRAM, "entries": counts}],
    }


def _thread(profile, owner, numbers, strings):
    """One thread's tables: each a dict of columns of the same length."""
    thread = profile.threads[owner]
    stacks, frames, functions = {0: None}, {}, {}       # node, frame, (function, file) of the profile -> index into its table
    prefix, stack_frame = [], []
    category, frame_function, line = [], [], []
    name, file_name = [], []

    def function_at(key):
        at = functions.setdefault((key.function, key.file), len(name))
        if at == len(name):
            name.append(strings(key.function))
            file_name.append(None if key.file is None else strings(key.file))
        return at

    def frame_at(number):
        at = frames.setdefault(number, len(line))
        if at == len(line):
            key = profile.frames[number]
            frame_function.append(function_at(key))
            line.append(key.line)
            category.append(_PYTHON if key.file is not None else _OTHER if is_group(key.function) else _NOT_READ)
        return at

    def stack_at(node):
        missing = []
        while node not in stacks:
            missing.append(node)
            node = profile.parent[node]
        for each in reversed(missing):
            at = len(prefix)
            prefix.append(stacks[profile.parent[each]])
            stack_frame.append(frame_at(profile.frame[each]))
            stacks[each] = at
        return stacks[missing[0] if missing else node]

    sample_stack = [stack_at(profile.leaves[number]) for number in numbers]
    times = [round(profile.times[number] * 1000, 3) for number in numbers]
    weights = [round(profile.weights[number] * 1000, 3) for number in numbers]
    count, functions_count = len(line), len(name)
    return {
        "processType": "default", "processStartupTime": 0, "processShutdownTime": None, "registerTime": 0, "unregisterTime": None,
        "pausedRanges": [], "name": short(thread.name or thread.text(), FUNCTION_SIZE),
        "isMainThread": thread.tid is not None and thread.tid == thread.pid,
        "processName": profile.processes.get(thread.pid, ("",))[0], "pid": str(thread.pid or 0),
        "tid": f"unknown {owner}" if thread.tid is None else thread.tid,
        "samples": {"stack": sample_stack, "time": times, "weight": weights, "weightType": "tracing-ms", "length": len(numbers)},
        "stackTable": {"frame": stack_frame, "prefix": prefix, "length": len(prefix)},
        "frameTable": {"address": [-1] * count, "inlineDepth": [0] * count, "category": category, "subcategory": [0] * count,
                       "func": frame_function, "nativeSymbol": [None] * count, "innerWindowID": [0] * count, "line": line,
                       "column": [None] * count, "length": count},
        "funcTable": {"name": name, "isJS": [False] * functions_count, "relevantForJS": [False] * functions_count,
                      "resource": [-1] * functions_count, "fileName": file_name, "lineNumber": [None] * functions_count,
                      "columnNumber": [None] * functions_count, "length": functions_count},
        "resourceTable": {"lib": [], "name": [], "host": [], "type": [], "length": 0},
        "nativeSymbols": {"libIndex": [], "address": [], "name": [], "functionSize": [], "length": 0},
        "markers": {"data": [], "name": [], "startTime": [], "endTime": [], "phase": [], "category": [], "length": 0},
    }

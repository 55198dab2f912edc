"""speedscope's JSON (https://www.speedscope.app/file-format-schema.json): one sampled profile for each thread.

Functions are told apart by name and file, not by line: speedscope would draw each line as a function of its own.
"""
import json
import math

from modwsgi_tel import __version__
from modwsgi_tel.errors import UsageError
from modwsgi_tel.printable import printable_json

SCHEMA = "https://www.speedscope.app/file-format-schema.json"
PROGRAM = "modwsgi-tel"
_STEP = 2000                            # samples in a piece


def by_thread(profile):
    """[(index into threads, numbers of its samples)], those with the most samples first."""
    found = {}
    for number, owner in enumerate(profile.owners):
        found.setdefault(owner, []).append(number)
    return sorted(found.items(), key=lambda each: -len(each[1]))


def speedscope(profile):
    """Pieces of text.  Time in which a thread was not taken is an empty stack, so that the time axis is that of the clock."""
    frames, at, places = [], {}, [()]
    for number in range(1, len(profile.parent)):
        key = profile.frames[profile.frame[number]]
        name = (key.function, key.file)
        if name not in at:
            at[name] = len(frames)
            frames.append({"name": key.function} if key.file is None else {"name": key.function, "file": key.file})
        places.append((profile.parent[number], at[name]))
    yield (f'{{"$schema":"{SCHEMA}","exporter":"{PROGRAM} {__version__}","name":{printable_json("; ".join(profile.told()))},'
           f'"{PROGRAM}":{printable_json(profile.counts())},"activeProfileIndex":0,"shared":{{"frames":[')
    for start in range(0, len(frames), _STEP):
        yield ("," if start else "") + printable_json(frames[start:start + _STEP])[1:-1]
    yield ']},"profiles":['
    for index, (owner, numbers) in enumerate(by_thread(profile)):
        thread = profile.threads[owner]
        name = thread.text() if thread.pid is None else f"pid {thread.pid} {thread.text()}"
        yield (("," if index else "") + f'{{"type":"sampled","name":{printable_json(name)},"unit":"seconds","startValue":0,'
               f'"endValue":{profile.duration_s:.6f},"samples":[')
        weights, passed_s = [], 0.0
        samples = []
        for number in numbers:
            weight_s = profile.weights[number]
            gap_s = profile.times[number] - weight_s - passed_s
            if gap_s > 1e-6:
                samples.append([])
                weights.append(round(gap_s, 6))
                passed_s += gap_s
            samples.append(_stack(places, profile.leaves[number]))
            weights.append(round(weight_s, 6))
            passed_s += weight_s
            if len(samples) >= _STEP:
                yield json.dumps(samples, separators=(",", ":"))[1:-1] + ("," if number != numbers[-1] else "")
                samples = []
        yield json.dumps(samples, separators=(",", ":"))[1:-1] + '],"weights":['
        for start in range(0, len(weights), _STEP):
            yield ("," if start else "") + json.dumps(weights[start:start + _STEP], separators=(",", ":"))[1:-1]
        yield "]}"
    yield "]}\n"


def _stack(places, node):
    found = []
    while node:
        node, frame = places[node]
        found.append(frame)
    return found[::-1]


def read_speedscope(text):
    """([(path, seconds)], told) of what `speedscope` wrote; path: (function, file), outermost first.

    Raises UsageError for anything else.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError("is damaged: it is no JSON") from None
    if not isinstance(data, dict) or not str(data.get("exporter", "")).startswith(PROGRAM + " "):
        raise UsageError("is not a recording that record wrote: record it anew")
    try:
        frames = [_frame(frame) for frame in data["shared"]["frames"]]
        summed = {}
        for profile in data["profiles"]:
            if len(profile["samples"]) != len(profile["weights"]):
                raise ValueError("lengths")
            for sample, weight in zip(map(tuple, profile["samples"]), profile["weights"]):
                summed[sample] = summed.get(sample, 0.0) + _seconds(weight)
        stacks = [([frames[_index(index)] for index in sample], seconds) for sample, seconds in summed.items() if sample]
        told = data["name"]
        if not isinstance(told, str):
            raise ValueError("name")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise UsageError("is damaged: its frames, samples and weights do not fit together") from None
    return stacks, told


def _frame(frame):
    name, file = frame["name"], frame.get("file")
    if not isinstance(name, str) or not isinstance(file, (str, type(None))):
        raise ValueError("frame")
    return name, file


def _index(value):
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("index")
    return value


def _seconds(value):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ValueError("weight")
    return float(value)

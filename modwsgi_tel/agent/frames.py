"""Python stacks of this process's own threads, as plain tuples: (function, file, line), outermost first."""
from collections import namedtuple

WALKED_MOST = 20000                     # frames of one thread that are looked at
KEPT_MOST = 400                         # of a deeper stack the outermost and the innermost half of these

Stack = namedtuple("Stack", "frames left_out cut_at problem")
Stack.__doc__ = """frames: [(function, file, line or None)], outermost first.  left_out: how many were cut out of the middle, behind
the first `cut_at` of frames.  problem: "" or why it is not whole."""


def stack_of(frame):
    """The Stack of a frame object and of those that called it."""
    found, deep = [], 0
    while frame is not None and deep < WALKED_MOST:
        code = frame.f_code
        found.append((code, frame.f_lineno))
        frame = frame.f_back
        deep += 1
    problem = "" if frame is None else f"cut: more than {WALKED_MOST} frames"
    found.reverse()
    left_out = max(0, len(found) - KEPT_MOST)
    half = KEPT_MOST // 2
    if left_out:
        problem = problem or f"cut: {left_out} frames in the middle"
        found = found[:half] + found[-half:]
    return Stack([(_name(code), code.co_filename, line) for code, line in found], left_out, half if left_out else 0, problem)


def _name(code):
    return getattr(code, "co_qualname", code.co_name)       # qualified from 3.11 on


def common(first, second):
    """How many of the outermost frames two lists share."""
    depth = 0
    for one, other in zip(first, second):
        if one != other:
            break
        depth += 1
    return depth

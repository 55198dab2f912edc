"""Which thread has a lock: the one inside of a block that takes it.

What a frame keeps for the end of a `with` is the very object.  What lies between acquire() and release() is known from the
source, and which object that is from what the name stands for in that frame.  Without memory there is but the text.
"""
from collections import namedtuple

from modwsgi_tel.stacks.held import EXIT
from modwsgi_tel.stacks.seen import FRAMES_MOST, in_threading, short_name, where

# How the owner of a lock is known: the lock says so itself; the owner's frame keeps that object; a name in the owner's frame
# stands for it; the same global name in the same file; the same text in the same file
OWNER, OBJECT, NAME, GLOBAL, SOURCE = "owner", "object", "name", "global", "source"

Hold = namedtuple("Hold", "tid text block place proof")
Hold.__doc__ = """A thread that has a lock.  text: `with X` or `X.acquire()`, "" where the source does not tell.  block: "file:line" of
that, or None.  place: "file:line" at which that frame is now."""


class Holders:
    """seen: a seen.Seen.  wanted: {(tid, address)}, the lock objects that threads wait for."""

    def __init__(self, seen, wanted):
        self._seen, self._held, self._wanted = seen, seen.held, wanted
        self._found = {}                # {(address, through): [Hold]}
        self._given_back = None

    def of(self, address, through):
        """[Hold] of a lock object, by any thread.  through: of an object that takes it as it is entered, its address, or 0."""
        if (address, through) not in self._found:
            self._found[address, through] = self._of(address, through)
        return self._found[address, through]

    def _of(self, address, through):
        if self._given_back is None:
            self._given_back = set(self._waiting_again())
        for wrapped in (False, True):
            found = []
            for thread in self._seen.threads:
                if (thread.tid, address) in self._given_back:
                    continue
                for frame, raw in zip(thread.frames[:FRAMES_MOST], self._seen.raws(thread)):
                    found += (self._wrapped(thread.tid, frame, raw, address, through) if wrapped else
                              self._taken(thread.tid, frame, raw, address))
            if found:
                return found
        return []

    def _waiting_again(self):
        """(tid, address) of the lock of each Condition that a thread waits for: it has given that back meanwhile."""
        for thread in self._seen.threads:
            for frame, raw in zip(thread.frames[:FRAMES_MOST], self._seen.raws(thread)):
                if in_threading(frame) and short_name(frame) == "wait":
                    of = self._held.local(raw, "self")
                    lock = self._held.lock(of) if of else None
                    if lock is not None:
                        yield thread.tid, lock.address

    def _taken(self, tid, frame, raw, address):
        """[Hold] of a frame that has taken the lock itself."""
        ends = [each.lock for each in self._seen.kept(raw) if each.role == EXIT]
        mine = next((at for at, lock in enumerate(ends) if lock is not None and lock.address == address), None)
        found = self._inside(tid, frame, mine, address, OBJECT) if mine is not None else []
        if not found and b".acquire(" in self._seen.content(frame.file):
            for span in self._seen.spans(frame.file).between(frame.function, frame.line):
                lock = self._held.lock(self._held.value(raw, span.node))
                if lock is not None and lock.address == address:
                    return [Hold(tid, f"{span.text}.acquire()", f"{frame.file}:{span.line}", where(frame), NAME)]
        return found

    def _wrapped(self, tid, frame, raw, address, through):
        """[Hold] of a frame inside of a `with` of an object that takes the lock as it is entered, or of a generator that has it."""
        for at, each in enumerate([each for each in self._seen.kept(raw) if each.role == EXIT]):
            if each.lock is not None:
                continue
            inner = self._held.generator(each.address)
            if each.address == through or inner is not None and self._taken(tid, *inner, address):
                return self._inside(tid, frame, at, address, NAME)
        return []

    def _inside(self, tid, frame, at, address, proof):
        """[Hold] where a frame keeps, as its at-th, the end of a `with` of the lock; [] where it has not got it yet."""
        wants = (tid, address) in self._wanted
        spans = self._seen.spans(frame.file)
        if spans.scope(frame.function, frame.line) is None:
            return [] if wants else [Hold(tid, "", None, where(frame), NAME)]
        inside = spans.inside(frame.function, frame.line)
        items = inside + [each for each in spans.entered(frame.function, frame.line) if each not in inside]
        if at >= len(items) or wants and (at >= len(inside) or items[at].body_first <= items[at].last):
            return []                   # left there by what ran before; or it is what the thread waits for, on the line of the `with`
        return [Hold(tid, f"with {items[at].text}", f"{frame.file}:{items[at].first}", where(frame), proof)]

    def by_text(self, tid, frame, text):
        """[Hold] of the other threads inside of a block of the same text in the same file: without memory.

        tid: of who waits.  frame: its Frame that wants the lock.
        """
        found, everywhere = {}, self._global(frame, text)
        for thread in self._seen.threads:
            waits = in_threading(thread.frames[0]) and short_name(thread.frames[0]) == "wait"
            for at in thread.frames[:FRAMES_MOST] if thread.tid not in (None, tid) else ():
                if at.file != frame.file:
                    continue
                spans = self._seen.spans(at.file)
                blocks = [(f"with {each.text}", each.first, each.text) for each in spans.inside(at.function, at.line)]
                blocks += [(f"{each.text}.acquire()", each.line, each.text) for each in spans.between(at.function, at.line)]
                given = [each.text for each in spans.calls(at.function, at.line) if each.method == "wait"] if waits else []
                for block, line, of in blocks:
                    if of == text and of not in given:
                        proof = GLOBAL if everywhere and self._global(at, of) else SOURCE
                        found.setdefault(thread.tid, Hold(thread.tid, block, f"{at.file}:{line}", where(at), proof))
        return list(found.values())

    def _global(self, frame, text):
        return self._seen.spans(frame.file).is_global(text, frame.line)


def said(hold):
    """A Hold in words."""
    if not hold.text:
        return f"is inside a block of it, now at {hold.place}"
    block = f"is inside `{hold.text}` ({hold.block})" if hold.text.startswith("with ") else (
        f"is between `{hold.text}` ({hold.block}) and its release")
    return f"{block}, now at {hold.place}"

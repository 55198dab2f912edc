"""About how many bytes a container in foreign memory holds with its members, by a sample of them."""
import struct
from collections import Counter, deque

from modwsgi_tel.stacks.memory import Exhausted, Unreadable

HOLDING = frozenset(("list", "tuple", "set", "deque", "dict"))      # roles of what holds objects
KEYED = frozenset(("dict", "lru_cache"))
NEAR, _SPREAD = 32, 32                  # members that are looked at: the first ones, and others all over it
_WEIGHED, _INSIDE = 16, 8               # how many of these with what they hold themselves, and how much of that
_MOST_BYTES = 1 << 40                   # of a few members: more makes no sense
_SAMPLES, _OBJECTS = 4, 100             # weighed deeply: so many members, with so many objects that each leads to


def places(length):
    """Places of a table that are looked at: the first, and others all over it; the same for the same length."""
    if length <= NEAR + _SPREAD:
        return list(range(length))
    return [*range(NEAR), *sorted({NEAR + index * (length - 1 - NEAR) // (_SPREAD - 1) for index in range(_SPREAD)})]


class Weights:
    """Weighs containers by a measure.Measure, with its Pages and Objects.  spend: called for each object."""

    def __init__(self, pages, objects, measure, spend):
        self._fresh, self._objects, self._measure, self._spend = pages.fresh, objects, measure, spend

    def sampled(self, address, role, extent):
        """(about how many bytes it takes with its members, what most of them are, [(key or place, member, Kind)] of the first).

        extent: its measure.Extent.  Members that are one and the same object count once.  Raises Unreadable.
        """
        members = self._measure.members(address, role, places(self._measure.room(address, role)))
        total, names, known, near, step = 0, Counter(), set(), [], max(len(members) // _WEIGHED, 1)
        for index, (key, member) in enumerate(members):
            self._spend()
            try:
                kind = self._measure.kind(member, self._fresh if index >= NEAR else None)
                names[kind.name] += 1
                if index < NEAR:
                    near.append((key, member, kind))
                if member not in known:
                    known.add(member)
                    total += self._measure.weight(member, kind) + (self._within(member, kind) * step if index % step == 0 else 0)
                if role in KEYED:
                    total += self._measure.weight(key, self._measure.kind(key, self._fresh))
            except Exhausted:
                raise
            except (Unreadable, struct.error):
                continue
        count = sum(names.values())
        held = total * extent.length // count if count else 0
        return extent.bytes + held, names.most_common(1)[0][0] if count else "", near

    def _within(self, address, kind):
        """About how many bytes lie in what an object holds, one step deep."""
        room = self._measure.room(address, kind.role) if kind.role in HOLDING else 0
        held = self._leads_to(address, kind, _INSIDE)
        weight = sum(self._measure.weight(each, self._measure.kind(each)) for each in held)
        return weight * max(room, len(held)) // max(len(held), 1)

    def deep(self, address, role, extent):
        """About how many bytes it takes with all that some of its members lead to, each for itself.  Raises Unreadable.

        What several of them lead to is theirs in common (settings, a connection): it does not come with each new one.
        """
        room = self._measure.room(address, role)
        wanted = sorted({index * (room - 1) // (_SAMPLES - 1) for index in range(_SAMPLES)})
        members = [member for _, member in self._measure.members(address, role, wanted)[:_SAMPLES]]
        weights, reached = {}, Counter()
        for member in members:
            found, left, first = {member}, deque(((member, 1),)), None
            while left:
                self._spend()
                each, stands_for = left.popleft()
                try:
                    kind = self._measure.kind(each, self._fresh)
                    if each == member:
                        first = kind
                    elif kind == first and kind.role == "instance":
                        continue        # the next of a chain is another member
                    weights[each] = self._measure.weight(each, kind) * stands_for
                    held = self._leads_to(each, kind, 4 * _INSIDE)
                    room = self._measure.room(each, kind.role) if kind.role in HOLDING else 0
                except Exhausted:
                    raise
                except (Unreadable, struct.error):
                    continue
                held = held[:max(_OBJECTS - len(found), 0)]
                stands_for *= max(room / max(len(held), 1), 1)      # for those that are not looked at, too
                left.extend((one, stands_for) for one in held if one not in found)
                found.update(held)
            reached.update(found & weights.keys())
        total = sum(weights[each] for each, times in reached.items() if times == 1)
        return extent.bytes + int(min(total, _MOST_BYTES) * extent.length / max(len(members), 1))

    def _leads_to(self, address, kind, most):
        """The addresses of what an object holds, as far as it is data: `most` of them at most.  Raises Unreadable."""
        if kind.role in HOLDING:
            room = self._measure.room(address, kind.role)
            return [member for _, member in self._measure.members(address, kind.role, list(range(min(room, most))))]
        return [value for _, value in self._measure.attributes(address, kind)[:most]] if kind.role == "instance" else []

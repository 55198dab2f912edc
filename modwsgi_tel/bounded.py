"""Containers that own their bounds: they evict by themselves and count what they lost."""
from collections import OrderedDict, deque


class Ring:
    """The newest `limit` items in order of arrival; `dropped` counts the older ones lost to the bound."""

    def __init__(self, limit):
        self.limit = limit
        self.dropped = 0
        self._items = deque(maxlen=limit)

    def append(self, item):
        if len(self._items) == self.limit:
            self.dropped += 1
        self._items.append(item)

    def __len__(self):
        return len(self._items)

    def __iter__(self):
        return iter(self._items)


class FairMap:
    """At most `limit` items by key, each with an owner; past it the owner who holds most gives one up.

    An owner is a tuple that narrows, as (uid, process): the heaviest first element is found,
    then the heaviest owner within it.  Which of the owner's items goes is the oldest, unless
    `keep(item)` says that it is still of use: then it is moved behind the others, and after
    `SECOND_CHANCES` of those the oldest goes all the same.  Every operation takes constant
    time.  `evicted` counts what was lost to the bound.
    """

    SECOND_CHANCES = 16

    def __init__(self, limit, keep=lambda item: False):
        self.limit = limit
        self.evicted = 0
        self._keep = keep
        self._items = {}                    # key -> (owner, item)
        self._of_owner = {}                 # owner -> OrderedDict of key -> None, oldest first
        self._top = _Counts()               # owner[0] -> number of items
        self._inner = {}                    # owner[0] -> _Counts of its owners

    def __len__(self):
        return len(self._items)

    def __contains__(self, key):
        return key in self._items

    def __iter__(self):
        return iter(self._items)

    def get(self, key):
        found = self._items.get(key)
        return found[1] if found else None

    def values(self):
        return [item for _, item in self._items.values()]

    def keys(self):
        return list(self._items)

    def put(self, key, owner, item):
        """Add an item under a new key; returns the list of items that had to go."""
        gone = []
        while len(self._items) >= self.limit:
            gone.append(self.evict())
        self._items[key] = (owner, item)
        self._of_owner.setdefault(owner, OrderedDict())[key] = None
        self._top.add(owner[0], 1)
        self._inner.setdefault(owner[0], _Counts()).add(owner, 1)
        return gone

    def pop(self, key):
        """Take an item out; None when there is none."""
        found = self._items.pop(key, None)
        if found is None:
            return None
        owner, item = found
        keys = self._of_owner[owner]
        del keys[key]
        if not keys:
            del self._of_owner[owner]
        self._top.add(owner[0], -1)
        inner = self._inner[owner[0]]
        inner.add(owner, -1)
        if not inner:
            del self._inner[owner[0]]
        return item

    def evict(self):
        """Take one item out, as `put` does past the limit; it must not be empty."""
        owner = self._inner[self._top.heaviest()].heaviest()
        keys = self._of_owner[owner]
        oldest = next(iter(keys))
        for _ in range(min(self.SECOND_CHANCES, len(keys))):
            key = next(iter(keys))
            if not self._keep(self._items[key][1]):
                oldest = key
                break
            keys.move_to_end(key)
        self.evicted += 1
        return self.pop(oldest)


class _Counts:
    """Numbers by name, with the name of the largest at hand: all steps are by one."""

    def __init__(self):
        self._count = {}
        self._names = {}                    # count -> names with that count
        self._largest = 0

    def __bool__(self):
        return bool(self._count)

    def add(self, name, step):
        before = self._count.get(name, 0)
        if before:
            names = self._names[before]
            del names[name]
            if not names:
                del self._names[before]
        after = before + step
        if after:
            self._count[name] = after
            self._names.setdefault(after, {})[name] = None
        else:
            del self._count[name]
        if after > self._largest or (before == self._largest and before not in self._names):
            self._largest = after           # the one that left the top has just gone one step down

    def heaviest(self):
        return next(iter(self._names[self._largest]))

"""Nothing is wrong: a cache that is large, full and stable, and garbage collections as they come."""

CACHE = {number: {"name": "name %d" % number, "tags": [number]} for number in range(150000)}
NEXT = [0]


def page():
    NEXT[0] = (NEXT[0] + 1) % 150000
    CACHE[NEXT[0]] = {"name": "name %d" % NEXT[0], "tags": [NEXT[0]]}
    return [{"before": row, "rows": [row]} for row in list(CACHE.values())[:500]]


def application(environ, start_response):
    body = b"%d\n" % len(page())
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]

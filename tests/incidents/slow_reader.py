"""Large answers, fetched by clients that read slowly: the threads wait until somebody takes their bytes."""

PIECE = b"x" * 65536


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return (PIECE for _ in range(2000)) if environ["PATH_INFO"] == "/download" else [b"ok\n"]

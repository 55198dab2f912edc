"""Files that nobody ever sees half of."""
import contextlib
import os
import stat

from modwsgi_tel.errors import TelError


def write_whole(path, shown, option="--output"):
    """Write a file, of text or an iterable of pieces, so that nobody ever sees half of it; what is there must be a file.

    Raises TelError, which names the option that asked for it.
    """
    with _aside(path, option) as (handle, aside):
        handle.writelines([shown] if isinstance(shown, str) else shown)
        handle.flush()
        os.fsync(handle.fileno())
        os.replace(aside, path)


def check_writable(path, option="--output"):
    """Raises TelError when write_whole could not write there, as far as that can be known before."""
    with _aside(path, option) as (_, aside):
        os.unlink(aside)


@contextlib.contextmanager
def _aside(path, option):
    """(file, its path) of a new file beside `path`, to be moved or removed inside."""
    aside = f"{path}.{os.getpid()}.tmp"
    try:
        there = os.lstat(path).st_mode if os.path.lexists(path) else stat.S_IFREG
        if not stat.S_ISREG(there):     # /dev/null, as root, would be gone
            what = "a symbolic link" if stat.S_ISLNK(there) else "a folder" if stat.S_ISDIR(there) else "no regular file"
            raise TelError(f"{option} {path}: is {what}, which is left alone")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
                yield handle, aside
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)
            raise
    except OSError as error:
        raise TelError(f"{option} {path}: {error.strerror}") from None

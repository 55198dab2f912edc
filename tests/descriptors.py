"""An application that closes descriptors which it does not know of, and gets their numbers for its own files."""
import contextlib
import os


@contextlib.contextmanager
def another_file_at(number, theirs):
    """`number` stands for what the descriptor `theirs` does, in one step, as dup2 has it; closed at the end."""
    os.dup2(theirs, number, inheritable=False)
    try:
        yield
    finally:
        os.close(number)                # EBADF: somebody has closed the application's own

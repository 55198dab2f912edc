"""The one error family: a message is one line that says what failed, on what, and what to do."""


class TelError(Exception):
    """One line for the user.  `exit_status` is what the command ends with."""

    exit_status = 2         # 0 fine, 1 findings or warning, 2 could not do it, 3 nonsense from the other side


class UsageError(TelError):
    """A flag, a variable or a configuration line that cannot be meant as it stands."""


class Unwritable(TelError):
    """What should go to stdout cannot: made from the OSError."""

    def __init__(self, error):
        super().__init__(f"cannot write to stdout: {error.strerror}")


class NoAnswer(TelError):
    """Nobody answers there, or not in time."""


class NotAllowed(TelError):
    """The other side asks for a token, and this was none or another."""


class Nonsense(TelError):
    """The other side answered, but not with what it should.  `said`: what it gave as its reason, or None."""

    exit_status = 3

    def __init__(self, text, said=None):
        super().__init__(text)
        self.said = said


class WireError(TelError):
    """A datagram that is not what the format says.  `reason` is one of REASONS."""

    exit_status = 3
    REASONS = ("header", "magic", "version", "type", "truncated", "duplicate", "wrong_type", "too_long")

    def __init__(self, reason, detail):
        super().__init__(detail)
        self.reason = reason


class BadRequest(TelError):
    """An HTTP request that is answered with `status` and then, when `close`, with a close."""

    def __init__(self, status, detail, close=True, headers=()):
        super().__init__(detail)
        self.status = status
        self.close = close
        self.headers = tuple(headers)

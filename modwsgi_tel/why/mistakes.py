"""What goes wrong in the tool itself is said in one line, and the rest of the look goes on."""

_MOST = 200                             # letters of an exception's own words


def mistake(what, error):
    """The line for an exception that nobody has foreseen.  what: the work that it ended."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    place = "" if at is None else f" at {at.tb_frame.f_code.co_filename.rpartition('/')[2]}:{at.tb_lineno}"
    return f"{what}: this is a mistake of modwsgi-tel: {type(error).__name__}: {str(error)[:_MOST]}{place}"

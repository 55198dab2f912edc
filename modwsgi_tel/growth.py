"""memory: lines of a process that hold ever more memory, as the agent in its application traces them.  Asks it, and shows."""
from modwsgi_tel import agentclient
from modwsgi_tel.errors import UsageError
from modwsgi_tel.figures import duration, size
from modwsgi_tel.printable import printable, printable_json, show

TIMEOUT_S = 30.0                        # a look at a large heap takes a while


def memory(values):
    """The command; its exit status.  Raises TelError where no agent of the process answers, or all say why not."""
    if len(values.arguments) != 1 or not values.arguments[0].isascii() or not values.arguments[0].isdigit():
        raise UsageError("memory PID: of which process? (one pid)")
    if values.start and values.stop:
        raise UsageError("--start or --stop, not both")
    if values.meant("frames") and not values.start:
        raise UsageError("--frames belongs to --start")
    pid = int(values.arguments[0])
    what = "start" if values.start else "stop" if values.stop else "snapshot"
    answers = agentclient.ask(pid, {"do": "tracemalloc", "what": what, "frames": values.frames}, TIMEOUT_S)
    show(printable_json(answers) + "\n" if values.json else "".join(_text(pid, what, answer) for answer in answers))
    return 0


def _text(pid, what, answer):
    """An agent's answer; what it told may be anything."""
    if what == "start":
        ends = f"; ends by itself after {duration(_number(answer.get('seconds_most')))}"
        whose = "" if answer.get("own") else "  The application traces already: what it had traced is the start."
        return (f"pid {pid}: memory is traced from now on{ends}.  Allocations take longer meanwhile.{whose}\n"
                f"What grew: modwsgi-tel memory {pid}.  The end: modwsgi-tel memory {pid} --stop\n")
    head = (f"pid {pid}: traced for {duration(_number(answer.get('seconds')))}: {size(_number(answer.get('traced')))} now, "
            f"at most {size(_number(answer.get('peak')))}; tracing itself takes {size(_number(answer.get('overhead')))}\n")
    if what == "stop":
        return head + "tracing has ended\n"
    rows = [row for row in answer.get("lines", ()) if isinstance(row, dict)]
    if not rows:
        return head + "no line holds more than at the start\n"
    lines = [f"{'more':>10}  {'now':>10}  {'blocks':>8}  line"]
    for row in rows:
        lines.append(f"{size(_number(row.get('growth'))):>10}  {size(_number(row.get('held'))):>10}  "
                     f"{int(_number(row.get('blocks'))):>+8,}  {printable(str(row.get('file')))}:{int(_number(row.get('line')))}")
    return head + "\n".join(lines) + "\n"


def _number(value):
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0

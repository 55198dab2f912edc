"""What SELinux and AppArmor refused, out of the audit log and the kernel's.

Source: the audit records AVC (1400) of both: avc:  denied  { sendto } ... scontext= tcontext= tclass=, and apparmor="DENIED" operation=
profile= name=.
"""
import os
import re

from modwsgi_tel.doctor.scene import Denial
from modwsgi_tel.masking import masked
from modwsgi_tel.proc import kernellog, procfs

AUDIT_LOG = "/var/log/audit/audit.log"
_MOST_BYTES = 1 << 20                   # of the end of the audit log
_MOST, _TEXT_MOST = 200, 400
_STAMP = re.compile(r"audit\((\d{1,12}\.\d{1,6}):\d+\)")
_KIND = re.compile(r"avc:\s+denied|(apparmor=\"DENIED\")")
_PID = re.compile(r"\bpid=(\d{1,10})\b")
_PATH = re.compile(r"\b(?:path|name)=\"([^\"]{1,200})\"")
_OF_SOCKETS = re.compile(r"tclass=(?:unix_dgram_socket|unix_stream_socket|sock_file|dir)\b|apparmor=")


def parse(text, at):
    """The Denial of a line, or None.  at: its time, where the line does not tell it."""
    kind = _KIND.search(text)
    if not kind or not _OF_SOCKETS.search(text):
        return None
    stamp, pid, path = (each.search(text) for each in (_STAMP, _PID, _PATH))
    return Denial(float(stamp.group(1)) if stamp else at, "apparmor" if kind.group(1) else "selinux", int(pid.group(1)) if pid else None,
                  masked(text)[:_TEXT_MOST], path.group(1) if path else "")


def _of_kernel(record, boot):
    """The event of a kernel's record as kernellog.read wants it, or None."""
    line = kernellog.line(record, boot)
    found = line and parse(line[1], line[0])
    return found and {"at": found.at, "denial": found}


def read(since, audit_log=AUDIT_LOG, kernel_log="/dev/kmsg"):
    """([Denial] since then, [why a log cannot be read])."""
    found, reasons = [], []
    try:
        found += [each for each in _of_audit(audit_log) if each.at >= since]
    except FileNotFoundError:
        pass                            # no auditd: the kernel's log has them
    except OSError as error:
        reasons.append(f"{audit_log}: {error.strerror}")
    events, reason = kernellog.read(since, kernel_log, _of_kernel)
    found += [event["denial"] for event in events]
    return found[-_MOST:], reasons + ([reason] if reason else [])


def _of_audit(path):
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _MOST_BYTES))
        lines = file.read(_MOST_BYTES).split(b"\n")
    return [denial for denial in (parse(each.decode("utf-8", "replace"), 0.0) for each in lines) if denial is not None]


def policy(sys="/sys"):
    """{"selinux": "enforcing", "permissive" or "", "apparmor": whether it is on}."""
    enforce, apparmor = (_text(path) for path in (f"{sys}/fs/selinux/enforce", f"{sys}/module/apparmor/parameters/enabled"))
    return {"selinux": {"1": "enforcing", "0": "permissive"}.get(enforce, ""), "apparmor": apparmor == "Y"}


def confinement(pid, on, root="/proc"):
    """(SELinux's context, AppArmor's profile) of a process; "" where there is none, or it may not be known.  on: as policy has it."""
    told = _text(f"{root}/{pid}/attr/current") if on["selinux"] else ""
    profile = (_text(f"{root}/{pid}/attr/apparmor/current") or ("" if on["selinux"]
                                                                else _text(f"{root}/{pid}/attr/current"))) if on["apparmor"] else ""
    return told, "" if profile == "unconfined" else profile


def _text(path):
    try:
        return procfs.read(path, 4096).rstrip(b"\0\n").decode("utf-8", "replace")
    except OSError:
        return ""

"""Which WSGIDaemonProcess a daemon is of, also where its title does not show it: by the socket that it keeps."""
import re

from modwsgi_tel.proc import sockets

_SOCKET = re.compile(r"wsgi\.(\d+)\.\d+\.(\d+)\.sock$")         # of mod_wsgi's WSGISocketPrefix: Apache's pid, a generation, a number


def of_socket(path):
    """(pid of Apache's parent, the group's place in the configuration, from 1) of a daemon group's socket; None of any other."""
    found = _SOCKET.search(path or "")
    return (int(found.group(1)), int(found.group(2))) if found else None


def numbers(pids, listeners):
    """{pid: its group's place in the configuration, from 1} of these daemons: each has its own group's socket alone.

    listeners: as sockets.listeners() has them.
    """
    named = {socket.inode: found[1] for socket in listeners for found in [of_socket(socket.path)] if found}
    held = sockets.holders(named, pids=pids) if named and pids else {}
    return {pid: named[inode] for inode, keepers in held.items() for pid in keepers}


def of(daemons, group, number):
    """The config.Daemon of a daemon process, or None.

    daemons: all of its server.  group: as it shows it; of one that shows none, "", `number` tells (None: not known), or that there is
    only one.
    """
    if group:
        return next((daemon for daemon in daemons if daemon.group == group), None)
    if len(daemons) == 1:
        return daemons[0]
    return next(iter(daemons[number - 1:number]), None) if number is not None else None

"""The web page: one file out of those below static/, and the headers that let nothing else into it.

page.html has two places, for all *.css and for all *.js in the order of their names.  The scripts
are one scope and are run by their hash, as the style is: what a sender's text might become is no
script and no style.  All addresses in it are relative to its own, so that it works below any prefix.
"""
from base64 import b64encode

from modwsgi_tel import __version__
from modwsgi_tel.resources import read

PACKAGE = "modwsgi_tel.web.page"
SCRIPTS = ("10-base.js", "20-text.js", "30-charts.js", "40-table.js", "50-overview.js", "52-capacity.js", "54-processes.js",
           "56-latency.js", "58-help.js", "59-frames.js", "60-gc.js", "62-slow.js", "64-stacks.js", "66-tree.js", "67-calls.js",
           "68-flame.js", "70-exceptions.js", "72-events.js", "74-collector.js", "80-polling.js", "85-frame.js", "90-start.js")
STYLES = ("style.css", "views.css")

_POLICY = ("default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; connect-src 'self'; "
           "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
_made = []


def page():
    """(the page as bytes, its headers as (name, value) pairs); made once."""
    if not _made:
        _made.append(_joined())
    return _made[0]


def _joined():
    script = '\n"use strict";\n(() => {\n' + "".join(map(_read, SCRIPTS)) + "})();\n"
    style = "\n" + "".join(map(_read, STYLES))
    policy = _POLICY.format(script=_hash(script), style=_hash(style))
    made = _read("page.html").replace("{version}", __version__).replace("{style}", style).replace("{script}", script)
    return made.encode(), (("Content-Security-Policy", policy),)


def _read(name):
    return read(PACKAGE, "static/" + name).decode()


def _hash(text):
    import hashlib                      # only here: what no one asks for is not loaded at start-up
    return "sha256-" + b64encode(hashlib.sha256(text.encode()).digest()).decode()

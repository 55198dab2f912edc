"""The table EXTRAS: every file for operators that lies below static/, what it is and where it goes on a server.

A file may hold @PROGRAM@ where the path of modwsgi-tel.pyz belongs; `extras` fills it in.
"""
from collections import namedtuple

Extra = namedtuple("Extra", "name summary place activate")
Extra.__doc__ = """name: its path below static/, whose first part is its kind.  summary: what it is, a few words.  place: where it goes on a
server, absolute, or "" where that is for the operator to say.  activate: what to do then, in one line: a command, or words."""

PROGRAM_MARK = "@PROGRAM@"

EXTRAS = (
    Extra("prometheus/scrape.yml", "how Prometheus gathers the collectors of all hosts", "",
          "put its parts into /etc/prometheus/prometheus.yml; promtool check config /etc/prometheus/prometheus.yml; systemctl reload prometheus"),
    Extra("prometheus/recording.yml", "recording rules: rates, percentiles, shares, by process group",
          "/etc/prometheus/rules/modwsgi-tel-recording.yml", "systemctl reload prometheus"),
    Extra("prometheus/alerts.yml", "alerting rules, each with what to do", "/etc/prometheus/rules/modwsgi-tel-alerts.yml",
          "systemctl reload prometheus"),
    Extra("grafana/modwsgi-tel.json", "a dashboard for Grafana 9 and later", "",
          "in Grafana: Dashboards, New, Import, Upload dashboard JSON file"),
    Extra("completion/modwsgi-tel.bash", "completion for bash", "/etc/bash_completion.d/modwsgi-tel", "open a new shell"),
    Extra("completion/_modwsgi-tel", "completion for zsh", "/usr/local/share/zsh/site-functions/_modwsgi-tel",
          "rm -f ~/.zcompdump*, then open a new shell"),
    Extra("completion/modwsgi-tel.fish", "completion for fish", "/etc/fish/conf.d/modwsgi-tel.fish", "open a new shell"),
    Extra("nagios/modwsgi-tel.cfg", "commands and services for Nagios", "/etc/nagios4/conf.d/modwsgi-tel.cfg",
          "name your host in it; nagios4 -v /etc/nagios4/nagios.cfg; systemctl reload nagios4"),
    Extra("icinga2/modwsgi-tel.conf", "commands and services for Icinga 2", "/etc/icinga2/conf.d/modwsgi-tel.conf",
          "set vars.modwsgi_tel = true at your hosts; icinga2 daemon -C; systemctl reload icinga2"),
    Extra("cron/modwsgi-tel", "cron: a snapshot each five minutes, of the last day", "/etc/cron.d/modwsgi-tel",
          "nothing: cron sees it within a minute"),
    Extra("logrotate/modwsgi-tel", "logrotate, for serve --log-file", "/etc/logrotate.d/modwsgi-tel",
          "logrotate --debug /etc/logrotate.d/modwsgi-tel says what it would do"),
    Extra("sysusers.d/modwsgi-tel.conf", "the users of the units", "/etc/sysusers.d/modwsgi-tel.conf", "systemd-sysusers"),
    Extra("tmpfiles.d/modwsgi-tel.conf", "folders for what runs without the units", "/etc/tmpfiles.d/modwsgi-tel.conf",
          "systemd-tmpfiles --create /etc/tmpfiles.d/modwsgi-tel.conf"),
    Extra("systemd/modwsgi-tel.service", "the collector, hardened, with a watchdog", "/etc/systemd/system/modwsgi-tel.service",
          "systemctl daemon-reload; systemctl enable --now modwsgi-tel"),
    Extra("systemd/rhel.conf", "the collector, where Apache's group is apache", "/etc/systemd/system/modwsgi-tel.service.d/rhel.conf",
          "systemctl daemon-reload; systemctl restart modwsgi-tel"),
    Extra("systemd/modwsgi-tel-http.socket", "its HTTP on 127.0.0.1:8888 too, held by systemd", "/etc/systemd/system/modwsgi-tel-http.socket",
          "systemctl daemon-reload; systemctl stop modwsgi-tel; systemctl enable --now modwsgi-tel-http.socket modwsgi-tel"),
    Extra("systemd/modwsgi-tel-stacks.service", "reads Python stacks for it, with CAP_SYS_PTRACE", "/etc/systemd/system/modwsgi-tel-stacks.service",
          "systemctl daemon-reload; systemctl enable --now modwsgi-tel-stacks"),
    Extra("systemd/stacks.conf", "the collector asks modwsgi-tel-stacks", "/etc/systemd/system/modwsgi-tel.service.d/stacks.conf",
          "systemctl daemon-reload; systemctl restart modwsgi-tel"),
    Extra("systemd/modwsgi-tel-dump.service", "a snapshot of what it knows, the last day kept", "/etc/systemd/system/modwsgi-tel-dump.service",
          "systemctl daemon-reload"),
    Extra("systemd/modwsgi-tel-dump.timer", "such a snapshot each five minutes", "/etc/systemd/system/modwsgi-tel-dump.timer",
          "systemctl daemon-reload; systemctl enable --now modwsgi-tel-dump.timer"),
    Extra("systemd/apparmor.conf", "the collector under its AppArmor profile", "/etc/systemd/system/modwsgi-tel.service.d/apparmor.conf",
          "systemctl daemon-reload; systemctl restart modwsgi-tel"),
    Extra("express/modwsgi_tel_service.py", "mod_wsgi-express: the collector as --service-script", "",
          "mod_wsgi-express start-server app.wsgi --telemetry-service unix:/PATH --service-script telemetry modwsgi_tel_service.py"),
    Extra("selinux/modwsgi_tel.te", "SELinux: a policy module; not tried on an enforcing host", "",
          "checkmodule -M -m -o modwsgi_tel.mod modwsgi_tel.te; semodule_package -o modwsgi_tel.pp -m modwsgi_tel.mod -f modwsgi_tel.fc; "
          "semodule -i modwsgi_tel.pp"),
    Extra("selinux/modwsgi_tel.fc", "SELinux: the file contexts of that module", "", "restorecon -v @PROGRAM@; systemctl restart modwsgi-tel"),
    Extra("apparmor/modwsgi-tel", "AppArmor: a profile of the collector; not tried on an enforcing host", "/etc/apparmor.d/modwsgi-tel",
          "apparmor_parser -r /etc/apparmor.d/modwsgi-tel"),
    Extra("apparmor/apache2", "AppArmor: lines for Apache's profile; not tried on an enforcing host", "",
          "add them to /etc/apparmor.d/local/usr.sbin.apache2; apparmor_parser -r /etc/apparmor.d/usr.sbin.apache2"),
    Extra("apache/proxy.conf", "Apache in front: the page at /telemetry/, behind a password", "/etc/apache2/conf-available/modwsgi-tel.conf",
          "do what it says at its top; a2enconf modwsgi-tel; systemctl reload apache2"),
)

KINDS = tuple(dict.fromkeys(extra.name.split("/")[0] for extra in EXTRAS))


def named(name):
    """The rows that a name means: of one file, or of a kind, as "systemd" or "systemd/"; [] where there are none."""
    kind = name.rstrip("/") + "/"
    return [extra for extra in EXTRAS if extra.name == name or extra.name.startswith(kind)]

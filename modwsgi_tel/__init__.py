"""modwsgi_tel: what Python web processes do, on servers where nothing may be installed."""

__version__ = "0.1.0"

"""The process is ended while the file is imported: a crash loop without one request."""

import os
import sys

sys.stderr.flush()
os.abort()

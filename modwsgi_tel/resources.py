"""Files that lie beside the modules: below a package's folder static/, on a disk or in the archive."""
import importlib
import os


def read(package, name):
    """The bytes of a file of a package, as read("modwsgi_tel.extras", "static/prometheus/alerts.yml").

    Asks the loader that the package came by, so that in the .pyz it is the archive in memory that answers: what was
    started, whatever has become of the file.  Raises OSError for a name that is not there.
    """
    module = importlib.import_module(package)
    return module.__spec__.loader.get_data(os.path.join(os.path.dirname(module.__file__), *name.split("/")))

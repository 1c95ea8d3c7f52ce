# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""In a zip file (Ansible's payload, a zipapp) our modules are compiled once when they are imported, not twice.

Such a file holds sources alone, so every import compiles. Python's zipimport does it twice: before it loads a module
it asks itself for the file's name, and compiles all of it to find that out. Who tells the name beforehand halves what
the imports of a task cost on each host. Only the search is ours: Python's own importer loads the module.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pkgutil import get_importer
from types import ModuleType
from zipimport import zipimporter

OURS = __name__.rsplit(".", 2)[0] + "."  # the core and what lies beside it


class CompileOnce:
    """A finder for ``sys.meta_path``."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Where the module is; None, which leaves the search to Python, when it is not ours or not in a zip file.

        name: in full. path: where its package looks for modules. See importlib.abc.MetaPathFinder.
        """
        if not path or not name.startswith(OURS):
            return None
        importer = get_importer(path[0])
        if not isinstance(importer, zipimporter):
            return None
        try:
            is_package = importer.is_package(name)
        except ImportError:
            return None
        place = os.path.join(path[0], name.rpartition(".")[2])
        if is_package:
            inside = os.path.join(place, "__init__.py")
            return spec_from_file_location(name, inside, loader=importer, submodule_search_locations=[place])
        return spec_from_file_location(name, place + ".py", loader=importer)


def install() -> None:
    """From now on, when this file came from a zip file itself. All other imports stay as they are."""
    loader = sys.modules[__name__].__loader__
    if isinstance(loader, zipimporter) and CompileOnce not in sys.meta_path:
        sys.meta_path.insert(0, CompileOnce)

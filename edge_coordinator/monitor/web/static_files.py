"""The files of the page as they ship with the package."""

from importlib.resources import files

FOLDERS = ("", "vendor/")
"""Of the page's own, and of what others wrote (each with its licence)."""


def static_files() -> dict[str, bytes]:
    """Read all files, by their names below `static`."""
    root = files("edge_coordinator.monitor.web").joinpath("static")
    return {
        folder + file.name: file.read_bytes()
        for folder in FOLDERS
        for file in root.joinpath(folder).iterdir()
        if file.is_file()
    }

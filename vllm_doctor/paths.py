"""What a path is: questions that answer no where they cannot be asked (no permission, a loop, a name too long)."""

from pathlib import Path


def is_there(path: Path) -> bool:
    """Whether the path leads to anything."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether the path is a folder."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Whether the path is a regular file."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_link(path: Path) -> bool:
    """Whether the path is a symbolic link, to anything or nothing."""
    try:
        return path.is_symlink()
    except (OSError, ValueError):
        return False

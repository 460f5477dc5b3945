"""What a path is: questions that answer no where they cannot be asked; and the one path that images share."""

from pathlib import Path

# Where the image of vLLM keeps the hub cache (its Dockerfile runs as root and sets neither HOME nor HF_HOME).
IMAGE_HUB_CACHE = "/root/.cache/huggingface"


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

"""The errors that end a command with one clear line and exit code 2."""


class DoctorError(Exception):
    """The call or its input is wrong: what is wrong (with where), and how to mend it."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} ({self.hint})"


class InputFileError(DoctorError):
    """A file that was named cannot be read as what it should be."""


class LaunchError(DoctorError):
    """The words after `--` are not a launch of vLLM."""


class SelectionError(DoctorError):
    """An id given to --select, --ignore or `checks` names nothing."""

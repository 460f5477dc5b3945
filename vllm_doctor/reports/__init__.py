"""A diagnosis as a document: one file per format, imported when that format is asked for."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm_doctor.diagnose import Diagnosis


def _lazily(name: str) -> "Callable[[Diagnosis], str]":
    """The `render` of that format's module; the module is imported by the first call."""

    def render(diagnosis: "Diagnosis") -> str:
        document = import_module(f"vllm_doctor.reports.{name}").render(diagnosis)
        assert isinstance(document, str)
        return document

    return render


# The names users give to --format; `text` is not among them, because a terminal is painted and not returned.
FORMATS: "Mapping[str, Callable[[Diagnosis], str]]" = {
    name: _lazily(name) for name in ("json", "junit", "github", "html", "markdown")
}

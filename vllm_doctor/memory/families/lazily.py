"""Modules of readers that are imported when the first model asks for one of their readers: most plans need one."""

from collections.abc import Callable
from importlib import import_module

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.facts import Architecture


class Lazily:
    """Stands for a module of this package: its attributes are readers that import it when they are called."""

    def __init__(self, module: str) -> None:
        self._module = f"{__package__}.{module}"

    def __getattr__(self, name: str) -> Callable[[Config], Architecture]:
        """The reader of that name."""

        def read(config: Config) -> Architecture:
            found: Callable[[Config], Architecture] = getattr(import_module(self._module), name)
            return found(config)

        return read

"""Reads numbers out of a foreign config.json: of the right type and size, or a clear error."""

from collections.abc import Mapping
from typing import Any

from vllm_doctor.errors import DoctorError
from vllm_doctor.memory.config_defaults import defaults_of

HINT = "mend config.json, or take the one of the model's own repository"
# Far above any model there is (the largest vocabularies have 2^18 rows, the widest layers 2^17 columns).
LARGEST_NUMBER = 2**31
LARGEST_LAYERS = 2048
LARGEST_EXPERTS = 2**14


class ConfigError(DoctorError):
    """A config that no plan can be made of."""

    def __init__(self, what: str, hint: str = HINT) -> None:
        super().__init__(f"config.json: {what}", hint)


class Config:
    """A part of a config: a key's own value, else the default that Transformers has for the model type.

    Every reader raises ConfigError for a value of another type, a negative or a giant one. A null that is written out
    stands for nothing, as in Transformers: it takes no default.
    """

    def __init__(self, values: Mapping[str, Any], model_type: str = "", outer: Mapping[str, Any] | None = None) -> None:
        self.values = values
        own = values.get("model_type")
        self.model_type = own if isinstance(own, str) else model_type
        self.outer = outer or {}
        self._defaults = defaults_of(self.model_type)

    def get(self, key: str) -> Any:
        """The value of any type; None where neither the config nor its type's defaults have one."""
        return self.values[key] if key in self.values else self._defaults.get(key)

    def has(self, key: str) -> bool:
        """Whether the config itself has a value there."""
        return self.values.get(key) is not None

    def count(self, *keys: str, default: int | None = None, largest: int = LARGEST_NUMBER) -> int:
        """The first of the keys that has a value: a whole number from 0 on; without `default` it must be there."""
        found = self.optional(*keys, largest=largest)
        if found is not None:
            return found
        if default is None:
            raise ConfigError(f"{keys[0]} is missing, and the memory of {self.model_type or 'the model'} depends on it")
        return default

    def positive(self, *keys: str, default: int | None = None, largest: int = LARGEST_NUMBER) -> int:
        """As `count`, and not 0."""
        number = self.count(*keys, default=default, largest=largest)
        if number == 0:
            raise ConfigError(f"{keys[0]} is 0")
        return number

    def optional(self, *keys: str, largest: int = LARGEST_NUMBER) -> int | None:
        """As `count`, None where no key has a value; the config's own values win over defaults."""
        for values in (self.values, self._defaults):
            for key in keys:
                value = values.get(key)
                if value is not None and (values is self.values or key not in self.values):
                    return _whole(key, value, largest)
        return None

    def flag(self, *keys: str, default: bool = False) -> bool:
        """The truth of the first key that has a value."""
        for key in keys:
            value = self.get(key)
            if value is not None:
                if not isinstance(value, bool | int):
                    raise ConfigError(f"{key} is {_shown(value)}, not true or false")
                return bool(value)
        return default

    def text(self, *keys: str) -> str | None:
        """The first key that has a text."""
        return next((v for k in keys if isinstance(v := self.get(k), str)), None)

    def number(self, key: str, default: float) -> float:
        """A finite number, whole or not."""
        value = self.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST_NUMBER:
            raise ConfigError(f"{key} is {_shown(value)}, not a number of that kind")
        return float(value)

    def counts(self, key: str, length: int | None = None) -> tuple[int, ...]:
        """A list of whole numbers, () where there is none; with `length`, at least that many."""
        value = self.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > LARGEST_LAYERS * 4:
            raise ConfigError(f"{key} is {_shown(value)}, not a list of numbers")
        numbers = tuple(_whole(key, v, LARGEST_NUMBER) for v in value)
        if length is not None and len(numbers) < length:
            raise ConfigError(f"{key} has {len(numbers)} entries for {length} layers")
        return numbers

    def words(self, key: str, length: int) -> tuple[str, ...] | None:
        """A list of words, one per layer; None where the config has none that long (defaults are of other depths)."""
        value = self.values.get(key)
        if value is None:
            value = self._defaults.get(key) if key not in self.values else None
            if not isinstance(value, list) or len(value) != length:
                return None
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise ConfigError(f"{key} is {_shown(value)}, not a list of words")
        if len(value) < length:
            raise ConfigError(f"{key} has {len(value)} entries for {length} layers")
        return tuple(value[:length])

    def section(self, *keys: str) -> "Config | None":
        """The first nested config under those keys."""
        for key in keys:
            value = self.values.get(key)
            if isinstance(value, dict):
                nested = self._defaults.get(f"{key}.model_type")
                return Config(value, nested if isinstance(nested, str) else "", self.values)
        return None


def _whole(key: str, value: object, largest: int) -> int:
    if isinstance(value, float) and value.is_integer() and abs(value) <= largest:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{key} is {_shown(value)}, not a whole number")
    if value < 0:
        raise ConfigError(f"{key} is {value}: negative")
    if value > largest:
        raise ConfigError(f"{key} is {_shown(value)}: beyond any model")
    return value


def _shown(value: object) -> str:
    """A foreign value, short."""
    if isinstance(value, int) and abs(value) > 10**20:
        return "a giant number"
    if isinstance(value, str | int | float | bool):
        return repr(value)[:60]
    return f"a {type(value).__name__}"

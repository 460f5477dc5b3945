"""Regenerates vllm_doctor/memory/config_defaults.json: what Transformers takes for keys that a config.json leaves out.

Usage: PYTHON scripts/memory_defaults.py, with an interpreter that has the Transformers release of the newest vLLM.
Only keys that the sources of vllm_doctor/memory name are kept; `X.model_type` is the type of the nested config X.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "vllm_doctor" / "memory"
NEVER = (
    "architectures",
    "dtype",
    "torch_dtype",
    "model_type",
    "rope_parameters",
    "rope_scaling",
    "quantization_config",
)
LONGEST_LIST = 200
# vLLM reads these with classes of its own, which have other defaults (0.32 models/inkling/configs.py).
ELSEWHERE = ("inkling_audio", "inkling_text", "inkling_vision")
# vLLM's own class of the first is Transformers' of the second and a little more (0.32 transformers_utils/configs).
KIN = {"dots3_note": "deepseek_v3"}


def words() -> set[str]:
    """Every word that stands in quotes in the sources."""
    text = "".join(path.read_text() for path in FOLDER.rglob("*.py"))
    return set(re.findall(r'"([A-Za-z_0-9]+)"', text))


def kept(values: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """The plain values among the known keys, and the types of nested configs."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            if isinstance(nested := value.get("model_type"), str) and nested:
                found[f"{key}.model_type"] = nested
        elif key in known and key not in NEVER and is_plain(value):
            found[key] = value
    return found


def is_plain(value: object) -> bool:
    """A scalar, or a short list of numbers or words."""
    if isinstance(value, list):
        return len(value) <= LONGEST_LIST and all(isinstance(v, int | str) for v in value)
    return isinstance(value, bool | int | float | str)


def main() -> None:
    """Asks every config class for its defaults and writes the file."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # type: ignore[import-not-found]

    known, defaults = words(), {}
    for model_type in CONFIG_MAPPING:
        try:
            values = CONFIG_MAPPING[model_type]().to_dict()
        except Exception as problem:  # noqa: BLE001 - some classes need parts or packages that are not here
            print(f"{model_type}: {type(problem).__name__}", file=sys.stderr)
            continue
        if model_type not in ELSEWHERE and (found := kept(values, known)):
            defaults[model_type] = found
    defaults |= {name: defaults[kin] for name, kin in KIN.items()}
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v, sort_keys=True)}" for k, v in sorted(defaults.items()))
    (FOLDER / "config_defaults.json").write_text("{" + lines + "}\n")


if __name__ == "__main__":
    main()

"""The values inside of JSON flags: choices, whole numbers and their least, and what speculative decoding needs."""

from collections.abc import Iterator
from typing import Any

from vllm_doctor.facts import FlagUse
from vllm_doctor.finding import Confidence, Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.launch import config_keys, config_values
from vllm_doctor.launch.spelling import nearest
from vllm_doctor.releases import Release

SPECULATION = "--speculative-config"
TRANSFER = "--kv-transfer-config"
# Methods that draft without a model of their own. SOURCE: `SpeculativeConfig.__post_init__` of
# vllm/config/speculative.py, 0.32.0; those that end in `_mtp` become `mtp`.
_WITHOUT_MODEL = frozenset({"mtp", "dspark", "ngram", "ngram_gpu", "suffix", "extract_hidden_states"})
# SOURCE: the `register_connector` calls of vllm/distributed/kv_transfer/kv_connector/factory.py, 0.32.0.
_CONNECTORS = (
    "DecodeBenchConnector",
    "ExampleConnector",
    "ExampleHiddenStatesConnector",
    "FlexKVConnectorV1",
    "HF3FSKVConnector",
    "HiSparseConnector",
    "LMCacheConnectorV1",
    "LMCacheMPConnector",
    "MoRIIOConnector",
    "MooncakeConnector",
    "MooncakeStoreConnector",
    "MultiConnector",
    "NixlConnector",
    "NixlPullConnector",
    "NixlPushConnector",
    "OffloadingConnector",
    "SimpleCPUOffloadConnector",
)
_NGRAM = frozenset({"ngram", "ngram_gpu"})


def judge(use: FlagUse, name: str, document: dict[str, Any], release: Release) -> Iterator[Finding]:
    """The values of the keys of one JSON object, each by itself and, for some flags, together."""
    for key, value in document.items():
        yield from judge_value(use, f"{name}.{key}", value, release)
    if release.version == config_keys.RELEASE:
        for complaint, fix in _together(name, document):
            shown = f"{use.spelled} {use.value or ''}"[:300]
            yield error("bad-flag", f"{name}: {complaint}", evidence=(shown,), fixes=(Fix(title=fix),))


def judge_value(use: FlagUse, key: str, value: Any, release: Release) -> Iterator[Finding]:
    """One value, `key` being the flag and its key with a dot between."""
    wanted = _wanted(key, value)
    if wanted is None:
        return
    shown = f"{use.spelled} {use.value or ''}"[:300]
    title = f"{key} takes no {value!r}"
    fixes = _fixes(use, key, value) or (Fix(title=f"Give {wanted}"),)
    evidence = (shown, f"vLLM {config_keys.RELEASE} takes {wanted}")
    if release.version == config_keys.RELEASE:
        yield error("bad-flag", title, evidence=evidence, fixes=fixes)
    elif fixes[0].automatic:
        # Other releases have other choices; one that differs in a letter or two is a slip all the same.
        yield warning("bad-flag", title, evidence=evidence, fixes=fixes, confidence=Confidence.LIKELY)


def _wanted(key: str, value: Any) -> str | None:
    """What the key takes in place of the value; None where the value will do."""
    if value is None or isinstance(value, bool | float | list | dict):
        return None
    choices = config_values.CHOICES.get(key)
    if choices is not None:
        word = str(value).upper() if key in config_values.FOLDED else str(value)
        return None if word in choices else "one of " + ", ".join(sorted(choices))
    if key not in config_values.NUMBERS:
        return None
    least = config_values.NUMBERS[key]
    number = _whole(value)
    if number is None:
        return "a whole number"
    return None if least is None or number >= least else f"a whole number from {least} on"


def _whole(value: int | str) -> int | None:
    """pydantic takes `"3"` and `"3.0"` for 3; a unit has been expanded before."""
    try:
        return int(float(value[:30])) if isinstance(value, str) else value
    except (ValueError, OverflowError):
        return None


def _fixes(use: FlagUse, key: str, value: Any) -> tuple[Fix, ...]:
    choices = config_values.CHOICES.get(key, frozenset())
    text = str(value).upper() if key in config_values.FOLDED else str(value)
    guess = nearest(text, [c for c in choices if not c.isdecimal()], 2) if not text.isdecimal() else None
    if guess is None:
        return ()
    if "." in use.name:
        edit = LaunchEdit(set={use.spelled: guess})
    else:
        edit = LaunchEdit(set={key.partition(".")[0]: (use.value or "").replace(f'"{value}"', f'"{guess}"', 1)})
    return (Fix(title=f"Write {guess!r}", launch=edit, automatic=True),)


def _together(name: str, document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with the object as a whole, and the way out."""
    if name == TRANSFER and isinstance(connector := document.get("kv_connector"), str):
        if not document.get("kv_role"):
            yield "kv_connector needs a kv_role", 'Add "kv_role": "kv_both", "kv_producer" or "kv_consumer"'
        if connector not in _CONNECTORS and not document.get("kv_connector_module_path"):
            guess = nearest(connector, _CONNECTORS, 3)
            yield (
                f"there is no kv_connector {connector!r} in vLLM {config_keys.RELEASE}",
                f"Write {guess}" if guess else "Name one of vLLM's, or its module with kv_connector_module_path",
            )
    if name == SPECULATION:
        yield from _speculation(document)


def _speculation(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    method, model, count = document.get("method"), document.get("model"), document.get("num_speculative_tokens")
    kind = "mtp" if isinstance(method, str) and method.endswith("_mtp") else method
    if isinstance(method, str) and method not in config_values.CHOICES[f"{SPECULATION}.method"]:
        return
    if model is None and count is not None and kind not in _WITHOUT_MODEL:
        yield (
            "num_speculative_tokens without a draft model, or a method that needs none",
            'Add "model": the draft model, or "method": "ngram"',
        )
    elif kind in _NGRAM and count is None:
        yield f'"method": "{method}" needs num_speculative_tokens', 'Add "num_speculative_tokens": 3'
    low, high = document.get("prompt_lookup_min"), document.get("prompt_lookup_max")
    if kind in _NGRAM and isinstance(low, int) and isinstance(high, int) and low > high:
        yield f"prompt_lookup_min {low} is over prompt_lookup_max {high}", "Give a prompt_lookup_min that is not larger"

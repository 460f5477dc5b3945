"""Writes the snapshots with a model: the healthy machines, and tiny models as the real probe reads them.

Usage: make_model_fixtures.py MODELS (a folder with tiny-llama, tiny-mla and lora-r8 as Hugging Face repositories).
"""

import sys
from pathlib import Path
from typing import Any

import msgspec

from vllm_doctor.launch.parse import parse_line
from vllm_doctor.probes.model import probe_model

SNAPSHOTS = Path(__file__).parent.parent / "fixtures" / "snapshots"
SERVED = "/srv/models"
FIXTURES = {
    "model-llama-h100": ("healthy-h100", "tiny-llama", ""),
    "model-lora-h100": ("healthy-h100", "tiny-llama", "--enable-lora --lora-modules sql={0}/lora-r8"),
    "model-mla-cpu": ("healthy-cpu", "tiny-mla", ""),
}


def main(models: Path) -> None:
    """Write each fixture, with the models' folder named as on a server."""
    for name, (machine, model, flags) in FIXTURES.items():
        launch = parse_line(f"vllm serve {models}/{model} {flags.format(models)}".strip())
        facts = probe_model(str(launch.model), launch=launch)
        document: dict[str, Any] = msgspec.json.decode((SNAPSHOTS / f"{machine}.json").read_bytes())
        document["launch"] = msgspec.to_builtins(launch)
        document["model"] = msgspec.to_builtins(facts)
        text = msgspec.json.format(msgspec.json.encode(document), indent=1).decode().replace(str(models), SERVED)
        (SNAPSHOTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

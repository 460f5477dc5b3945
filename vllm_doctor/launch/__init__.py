"""The launch command: parsed into a typed value, changed by fixes, and printed again."""

from vllm_doctor.launch.edit import apply
from vllm_doctor.launch.parse import parse_launch, parse_line
from vllm_doctor.launch.render import argv, command_line

__all__ = ["apply", "argv", "command_line", "parse_launch", "parse_line"]

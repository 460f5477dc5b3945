"""`python -m vllm_doctor` is `vllm-doctor`."""

import sys

# `-m` searches the current folder first. What lies there may be what breaks vLLM (a `random.py`, a folder `torch`), and
# must not break the doctor: it is left out unless the doctor itself was found there (or -P left it out already).
if not getattr(sys.flags, "safe_path", False) and not __file__.startswith(sys.path[0] + "/vllm_doctor/"):
    del sys.path[0]

from vllm_doctor.cli import main

main()

"""Lines without their prefixes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_doctor.triage import reader


@pytest.mark.parametrize(
    ("raw", "process", "text"),
    [
        ("(EngineCore_DP0 pid=68) ERROR 02-06 16:34:06 [core.py:936] ValueError: x", "EngineCore_DP0", "ValueError: x"),
        ("(APIServer pid=1) (EngineCore pid=2) ERROR 02-06 16:34:06 [core.py:9] x y", "EngineCore", "x y"),
        ("(VllmWorker rank=3 pid=4867) ERROR 07-26 18:47:24 [a.py:511] boom", "VllmWorker", "boom"),
        ("(RayWorkerWrapper pid=27, ip=10.175.94.190) [rank3]: boom", "RayWorkerWrapper", "boom"),
        ("ERROR 01-21 02:26:24 engine.py:366] boom", "", "boom"),
        ("ERROR 01-20 13:03:50 [v1/executor/multiproc_executor.py:749] boom", "", "boom"),
        ("2025-06-30T13:53:19.123456789Z ERROR 06-30 13:53:19 [core.py:515] boom", "", "boom"),
        ("Jun 30 13:53:19 node7 vllm[123]: boom", "", "boom"),
        ("vllm-1  | ERROR 06-30 13:53:19 [core.py:515] boom", "", "boom"),
        ("2025-06-30T13:53:19.1Z stderr F boom", "", "boom"),
        ("\x1b[1;36m(VllmWorker rank=3 pid=4867)\x1b[0;0m ERROR 07-26 18:47:24 [a.py:5] boom", "VllmWorker", "boom"),
        (
            "1756144009120,#033[1;36m(VllmWorker pid=9)#033[0;0m ERROR 08-25 10:46:51 [a.py:5] boom#015",
            "VllmWorker",
            "boom",
        ),
        ('1756144011375,"#033[1;36m(VllmWorker pid=9)#033[0;0m boom', "VllmWorker", "boom"),
        ("[1;36m(EngineCore_0 pid=19)[0;0m ERROR 09-01 21:26:21 [a.py:8] boom", "EngineCore_0", "boom"),
        (r"\u001b[1;36m(EngineCore_0 pid=19)\u001b[0;0m ERROR 09-01 21:26:21 [a.py:8] boom", "EngineCore_0", "boom"),
        ("^[[1;36m(EngineCore_0 pid=19)^[[0;0m ERROR 09-01 21:26:21 [a.py:8] boom", "EngineCore_0", "boom"),
        (
            '<font color="#2AA1B3"><b>(VllmWorker TP0 pid=19)</b></font> ERROR 09-01 21:26:18 [a.py:1] boom',
            "VllmWorker",
            "boom",
        ),
        ("vLLM STDOUT: ERROR 05-13 23:43:20 [a.py:239] boom", "", "boom"),
        ("\u2502 (APIServer pid=1) ERROR 05-08 11:19:29 [a.py:299] boom", "APIServer", "boom"),
        ("[pod/vllm-0/vllm] ERROR 05-01 12:00:00 [a.py:1] boom", "", "boom"),
        ("vllm-0 vllm (EngineCore pid=7) ERROR 05-01 12:00:00 [a.py:1] boom", "EngineCore", "boom"),
        ("[1,0]<stderr>:ERROR 05-01 12:00:00 [a.py:1] boom", "", "boom"),
        (
            "INFO 2025-11-19T20:16:36.096675816Z [resource.labels.containerName: vllm] (EngineCore_DP0 pid=270) "
            "ERROR 11-19 12:16:36 [v1/engine/core.py:842] boom",
            "EngineCore_DP0",
            "boom",
        ),
        ("node01: ERROR 05-01 12:00:00 [a.py:1] boom", "", "boom"),
        ("[default0]:ERROR 05-01 12:00:00 [a.py:1] boom", "", "boom"),
        ("ERROR:    [Errno 98] taken", "", "[Errno 98] taken"),
        ("A tensor of shape [1, 32] and a list [0]", "", "A tensor of shape [1, 32] and a list [0]"),
        ("Error in extracting tool call", "", "Error in extracting tool call"),
        ('{"message":"the \\"auto\\" choice\\nnext"}', "", '{"message":"the "auto" choice next"}'),
        ("say &quot;no&quot; and ‘yes’", "", "say \"no\" and 'yes'"),  # noqa: RUF001 - what mails make of quotes
    ],
)
def test_prefixes_and_escapes_are_stripped(raw: str, process: str, text: str) -> None:
    line = reader.clean(raw.encode())
    assert (line.process, line.text) == (process, text)


@pytest.mark.parametrize(
    ("raw", "quiet"),
    [
        ("INFO 01-20 13:03:50 [a.py:1] CUDA out of memory", True),
        ("INFO:     10.0.0.1:1 - x", True),
        ("DEBUG 09-04 17:38:34 launcher.py:64] x", True),
        ("NCCL INFO NET/IB : No device found.", True),
        ("WARNING 01-20 13:03:50 [a.py:1] x", True),
        ("0: INFO 05-01 12:00:00 [a.py:1] x", True),
        ('1756144011375,"#033[1;36m(VllmWorker pid=96)#033[0;0m INFO 08-25 10:46:51 [x.py:559] x', True),
        ("WARNING:vllm.engine:x", True),
        (
            r'{"log":"\u001b[1;36m(EngineCore pid=7)\u001b[0;0m INFO 05-01 12:00:00 [a.py:1] x\n","stream":"stderr"}',
            True,
        ),
        (r'{"log":"ERROR 05-01 12:00:00 [a.py:1] x\n","stream":"stderr","time":"2025-11-22T10:00:00Z"}', False),
        ('{"textPayload": "WARNING 05-01 12:00:00 [a.py:1] x"}', True),
        ("ERROR:vllm.engine:x", False),
        ('time="2025-11-22T10:00:00Z" level=warning msg="x"', True),
        ('time="2025-11-22T10:00:00Z" level=error msg="x"', False),
        ("I0401 23:26:45.142969       1 main.go:161] x", True),
        ("E0401 23:26:45.142969       1 main.go:161] x", False),
        ('{"time": "2025-01-01", "level": "info", "message": "x"}', True),
        ('{"time": "2025-01-01", "level": "error", "message": "x"}', False),
        ("[Bug]: WARNING 08-13 11:31:37 a.py:386] x", False),
        ("ERROR 01-20 13:03:50 [a.py:1] x", False),
        ("RuntimeError: INFO is no level here", False),
    ],
)
def test_levels(raw: str, quiet: bool) -> None:
    assert reader.clean(raw.encode()).quiet is quiet


@given(st.binary(max_size=6000))
def test_any_bytes_are_read(raw: bytes) -> None:
    line = reader.clean(raw)
    assert "\x1b[" not in line.text
    assert len(line.text) <= reader.MAXIMUM_LINE_BYTES


@given(st.text(alphabet="\\\"'nut0027/& ;quot", max_size=300))
def test_unescaping_ends(text: str) -> None:
    assert len(reader.unescape(text)) <= len(text)


def test_workers_come_before_engines_before_servers() -> None:
    names = ["APIServer", "EngineCore_DP0", "Worker_TP1"]
    assert sorted(names, key=reader.rank_of) == ["Worker_TP1", "EngineCore_DP0", "APIServer"]

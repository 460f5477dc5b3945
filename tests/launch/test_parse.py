"""Launch commands as people type them, and what comes of each."""

from pathlib import Path

import pytest

from vllm_doctor.errors import LaunchError
from vllm_doctor.facts import LaunchForm
from vllm_doctor.launch import command_line, parse_launch, parse_line

DOCKER = "docker run --gpus all -p 8000:8000 --shm-size=16g vllm/vllm-openai"


def flags(text: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(f.name, f.values) for f in parse_line(text).flags]


@pytest.mark.parametrize(
    ("text", "form", "program", "model"),
    [
        ("vllm serve M", LaunchForm.SERVE, ("vllm", "serve"), "M"),
        ("/opt/venv/bin/vllm serve M --port 1", LaunchForm.SERVE, ("/opt/venv/bin/vllm", "serve"), "M"),
        ("vllm serve --port 1 M", LaunchForm.SERVE, ("vllm", "serve"), "M"),
        ("vllm serve --model M", LaunchForm.SERVE, ("vllm", "serve"), "M"),
        ("python -m vllm.entrypoints.openai.api_server --model=M", LaunchForm.MODULE, None, "M"),
        ("python3.12 -u -X dev -m vllm.entrypoints.openai.api_server --model M", LaunchForm.MODULE, None, "M"),
        ("python -m vllm.entrypoints.cli.main serve M", LaunchForm.SERVE, None, "M"),
        ("python -m vllm serve M", LaunchForm.SERVE, None, "M"),
        ("python /venv/bin/vllm serve M", LaunchForm.SERVE, None, "M"),
        ("python -m vllm.entrypoints.api_server --model M", LaunchForm.DEMO_SERVER, None, "M"),
        ("sudo -E nohup nice -n 5 vllm serve M", LaunchForm.SERVE, ("vllm", "serve"), "M"),
        ("uv run --with vllm==0.20 vllm serve M", LaunchForm.SERVE, ("vllm", "serve"), "M"),
        ("conda run -n vllm vllm serve M", LaunchForm.SERVE, ("vllm", "serve"), "M"),
        ("numactl --cpunodebind=0 taskset -c 0-7 timeout 60 vllm serve M", LaunchForm.SERVE, ("vllm", "serve"), "M"),
        ("bash -lc 'cd /srv; exec vllm serve M'", LaunchForm.SERVE, ("vllm", "serve"), "M"),
        (f"{DOCKER}:latest --model M", LaunchForm.DOCKER, (), "M"),
        (f"{DOCKER}:v0.20.2 M --port 8000", LaunchForm.DOCKER, (), "M"),
        (f"{DOCKER}:latest vllm serve M", LaunchForm.DOCKER, ("vllm", "serve"), "M"),
        ("podman run --entrypoint vllm vllm/vllm-openai serve M", LaunchForm.DOCKER, ("serve",), "M"),
        ("docker run --entrypoint sh i/vllm -c 'vllm serve M'", LaunchForm.DOCKER, ("vllm", "serve"), "M"),
        ("sudo docker run me/own python3 -m vllm.entrypoints.api_server --model M", LaunchForm.DEMO_SERVER, None, "M"),
    ],
)
def test_forms(text: str, form: LaunchForm, program: tuple[str, ...] | None, model: str) -> None:
    launch = parse_line(text)
    assert (launch.form, launch.model, launch.words) == (form, model, ())
    assert program is None or launch.program == program


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--max_model_len=4k", [("--max-model-len", ("4k",))]),
        ("-tp 2 -pp=3 -q fp8 -qawq -n2", None),
        ("-O3", [("--optimization-level", ("3",))]),
        ("-O 2", [("--optimization-level", ("2",))]),
        ("-cc.mode 3", [("--compilation-config.mode", ("3",))]),
        ("--compilation-config.cudagraph_mode=NONE", [("--compilation-config.cudagraph_mode", ("NONE",))]),
        ("--max-model-len -1", [("--max-model-len", ("-1",))]),
        ("--tensor-parallel 2", [("--tensor-parallel-size", ("2",))]),
        ("--enforce-eager --port 1", [("--enforce-eager", ()), ("--port", ("1",))]),
        ("--no-enable-prefix", [("--no-enable-prefix-caching", ())]),
        ("--enforce-eager True", [("--enforce-eager", ("True",))]),
        ("--served-model-name a b --port 1", [("--served-model-name", ("a", "b")), ("--port", ("1",))]),
        ("--lora-modules a=/x b=/y", [("--lora-modules", ("a=/x", "b=/y"))]),
        ("--served-models a", [("--served-models", ("a",))]),
        ("--enforce-eagr --port 1", [("--enforce-eagr", ()), ("--port", ("1",))]),
        ("--device-memory-utilization 0.5", [("--gpu-memory-utilization", ("0.5",))]),
        ("""--hf-overrides '{"a": 1}'""", [("--hf-overrides", ('{"a": 1}',))]),
    ],
)
def test_flags(words: str, expected: list[tuple[str, tuple[str, ...]]] | None) -> None:
    if expected is None:
        expected = [
            ("--tensor-parallel-size", ("2",)),
            ("--pipeline-parallel-size", ("3",)),
            ("--quantization", ("fp8",)),
            ("--quantization", ("awq",)),
            ("--nnodes", ("2",)),
        ]
    assert flags(f"vllm serve M {words}") == expected


def test_several_values_swallow_a_model_that_comes_after() -> None:
    launch = parse_line("vllm serve --served-model-name a b M")
    assert (launch.model, launch.uses("--served-model-name")[0].values) == (None, ("a", "b", "M"))


def test_numbers_are_read_as_vllm_reads_them() -> None:
    launch = parse_line(
        "vllm serve M --max-model-len 4k --max-num-batched-tokens 4K --kv-cache-memory-bytes 1.5g --port x"
    )
    names = ("--max-model-len", "--max-num-batched-tokens", "--kv-cache-memory-bytes", "--port", "--seed")
    assert [launch.number(name) for name in names] == [4000, 4096, 1_500_000_000, None, None]


def test_environment_of_the_shell() -> None:
    launch = parse_line(
        "$ export HF_HOME=/data\n$ CUDA_VISIBLE_DEVICES=0,1 env -u VLLM_X VLLM_USE_V1=0 \\\n  vllm serve M > log 2>&1 &"
    )
    assert launch.environment == {"HF_HOME": "/data", "CUDA_VISIBLE_DEVICES": "0,1", "VLLM_USE_V1": "0"}
    assert (launch.unset_variables, launch.words, launch.flags) == (("VLLM_X",), (), ())


def test_a_container_has_its_own_environment(tmp_path: Path) -> None:
    (tmp_path / "vars").write_text("# mine\nVLLM_A=1\nVLLM_B=2\n")
    text = (
        "HF_HOME=/x TOK=1 docker run -itd --rm -e HF_HOME -e VLLM_B=3 --env-file vars -p 127.0.0.1:9000:8000/tcp"
        " -v /models:/m:ro --mount type=bind,src=/a,dst=/b --ipc=host --network host --gpus '\"device=0,1\"'"
        " vllm/vllm-openai:v0.20.1-cu129 /m/llama"
    )
    launch = parse_line(text, folder=tmp_path)
    assert launch.docker is not None
    assert launch.environment == {"HF_HOME": "/x", "VLLM_A": "1", "VLLM_B": "3"}
    assert (launch.docker.version, launch.docker.tag, launch.docker.gpus) == ("0.20.1", "v0.20.1-cu129", "device=0,1")
    assert (launch.docker.published, launch.docker.mounts) == ({"8000": "9000"}, {"/m": "/models", "/b": "/a"})
    assert (launch.docker.ipc, launch.docker.network, launch.model) == ("host", "host", "/m/llama")


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("vllm/vllm-openai:v0.10.2", "0.10.2"),
        ("vllm/vllm-openai:v0.9.0.1", "0.9.0.1"),
        ("docker.io/vllm/vllm-openai:0.5.3.post1", "0.5.3.post1"),
        ("vllm/vllm-openai:latest", None),
        ("vllm/vllm-openai:nightly-0123456", None),
        ("vllm/vllm-openai", None),
        ("vllm/vllm-openai@sha256:0123", None),
        ("registry:5000/me/vllm:1.2.3", None),
        ("registry:5000/me/vllm:v0.11.0", "0.11.0"),
    ],
)
def test_the_release_of_an_image(image: str, version: str | None) -> None:
    docker = parse_line(f"docker run {image} --model M").docker
    assert docker is not None
    assert docker.version == version


def test_config_file_yields_to_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text(
        "model: M\ntensor_parallel_size: 2\nport: 1\nenforce-eager: true\nenable-prefix-caching: false\n"
        "headless: false\nserved-model-name: [a, b]\nspeculative-config:\n  model: X\n"
    )
    launch = parse_line("vllm serve --config serve.yaml --port 2", folder=tmp_path)
    assert (launch.model, launch.value("--port"), launch.config_file) == ("M", "2", "serve.yaml")
    assert [(f.name, f.values, f.source) for f in launch.flags if f.source != "command"] == [
        ("--model", ("M",), "serve.yaml"),
        ("--tensor-parallel-size", ("2",), "serve.yaml"),
        ("--port", ("1",), "serve.yaml"),
        ("--enforce-eager", (), "serve.yaml"),
        ("--no-enable-prefix-caching", (), "serve.yaml"),
        ("--served-model-name", ("a", "b"), "serve.yaml"),
        ("--speculative-config", ('{"model": "X"}',), "serve.yaml"),
    ]
    assert command_line(launch) == "vllm serve --config serve.yaml --port 2"


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("none.yaml", None, "--config: none.yaml cannot be read: No such file or directory"),
        ("a.json", "{}", "--config: a.json must end in .yaml or .yml, else vLLM refuses it"),
        ("a.yaml", "a: [1", "--config: a.yaml is no valid YAML, line 1"),
        ("a.yaml", "- 1", "--config: a.yaml holds no mapping of flags to values"),
        ("a.yaml", "a: &x [1]\nb: *x", "--config: a.yaml cannot be read as flags: it uses YAML aliases"),
        (
            "a.yaml",
            "a: " + "[" * 99 + "]" * 99,
            "--config: a.yaml cannot be read as flags: it is nested too deeply or too long",
        ),
        ("a.yaml", "x: " + "y" * 300_000, "--config: a.yaml is larger than 256 KiB and was not read"),
    ],
)
def test_a_config_file_that_cannot_be_read(tmp_path: Path, name: str, text: str | None, problem: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    assert parse_line(f"vllm serve M --config {name}", folder=tmp_path).problems == (problem,)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("vllm serve M --max-model-len", "--max-model-len needs a value, and none follows"),
        ("vllm serve M --port --host 0", "--port needs a value, and none follows"),
        ("vllm serve M --served-model-name", "--served-model-name needs at least one value, and none follows"),
        ("vllm serve M --enforce-eager=1", "--enforce-eager takes no value, and '1' was given"),
        ("vllm serve 'M", "a quote ' is never closed"),
        (
            "vllm serve M \\ \n --port 1",
            "a blank after the backslash at the end of a line: the shell does not continue the line",
        ),
        (
            "vllm serve M\n  --port 1",
            "the line that begins with --port is not part of the command: the line before it lacks a backslash",
        ),
    ],
)
def test_problems(text: str, problem: str) -> None:
    assert parse_line(text).problems == (problem,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ls -l",
        "vllm bench serve",
        "vllm M",
        "docker run",
        "docker run ubuntu ls",
        "docker ps",
        "python -m http.server",
    ],
)
def test_no_launch(text: str) -> None:
    with pytest.raises(LaunchError):
        parse_line(text)


def test_no_secret_is_kept() -> None:
    text = (
        "HF_TOKEN=hunter2 vllm serve M --api-key hunter2 hunter22 --hf-token=hunter2"
        " --ssl-keyfile key.pem --max-num-batched-tokens 2048"
    )
    for launch in (
        parse_line(text),
        parse_line(f"docker run -e HF_TOKEN=hunter2 -eAPI_KEY=hunter22 {DOCKER.split()[-1]} M"),
    ):
        assert "hunter2" not in repr(launch)
        assert "hunter2" not in command_line(launch)
    assert parse_line(text).value("--max-num-batched-tokens") == "2048"


def test_words_as_given_are_not_read_as_shell() -> None:
    launch = parse_launch(["vllm", "serve", "M", "--chat-template", "{{ a; b }} # c"])
    assert launch.value("--chat-template") == "{{ a; b }} # c"


def test_a_command_in_quotes_is_read_as_it_would_be_typed() -> None:
    launch = parse_launch(["export A=b; cd /x && vllm serve M --port 1 > log.txt 2>&1 &"])
    assert (launch.model, launch.value("--port"), launch.environment) == ("M", "1", {"A": "b"})
    assert (launch.words, launch.problems) == ((), ())


@pytest.mark.parametrize("words", [["kubectl", "run", "vllm", "--image=vllm/vllm-openai"], ["docker", "compose", "up"]])
def test_a_launch_that_stands_elsewhere_is_asked_for(words: list[str]) -> None:
    with pytest.raises(LaunchError, match="takes the launch from elsewhere"):
        parse_launch(words)


def test_a_command_in_quotes_whose_quotes_do_not_match_is_not_shown() -> None:
    with pytest.raises(LaunchError) as raised:
        parse_launch(["vllm serve M --api-key 'top secret"])
    assert "secret" not in str(raised.value)

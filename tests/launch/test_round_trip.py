"""Printing and parsing again gives the same launch; edits done twice do nothing more; any text survives."""

import contextlib
import shlex
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from vllm_doctor.errors import LaunchError
from vllm_doctor.facts import Launch
from vllm_doctor.finding import LaunchEdit
from vllm_doctor.launch import apply, argv, command_line, parse_launch, parse_line

PROGRAMS = (
    "vllm serve",
    "CUDA_VISIBLE_DEVICES=0,1 HF_TOKEN=x nohup vllm serve",
    "sudo -E env -u A B=c /opt/v/bin/vllm serve",
    "python3 -m vllm.entrypoints.openai.api_server --model",
    "docker run --gpus all -e A=b -eC=d --env=HF_TOKEN=x -p 8000:8000 -it vllm/vllm-openai:v0.20.2",
    "podman run --entrypoint vllm vllm/vllm-openai serve",
    "docker run vllm/vllm-openai:latest vllm serve",
)
FLAGS = (
    "--port",
    "--max_model_len",
    "-tp",
    "--enforce-eager",
    "--no-enable-prefix-caching",
    "--served-model-name",
    "--api-key",
    "--hf-token",
    "-O",
    "-O3",
    "-cc.mode",
    "--compilation-config",
    "--served-models",
    "--lora-modules",
    "-q=fp8",
    "--seed=-1",
    "--model",
    "--",
    "--chat-template=",
)
WORDS = st.one_of(
    st.sampled_from(FLAGS),
    st.sampled_from(
        ("8", "-1", "4k", "", " ", "a b", "M", '{"a": 1}', "True", "'", '"', "\\", "$X", "a=b", "#", "ü", "-")
    ),
    st.text(max_size=12),
)
LAUNCHES = st.builds(
    lambda program, words: [*shlex.split(program), "M", *words], st.sampled_from(PROGRAMS), st.lists(WORDS, max_size=8)
)
NAMES = (
    "--port",
    "--max-model-len",
    "--enforce-eager",
    "--tensor-parallel-size",
    "--served-models",
    "--model",
    "--bogus",
)
EDITS = st.builds(
    LaunchEdit,
    set=st.dictionaries(st.sampled_from(NAMES), st.none() | st.sampled_from(("8", "x", "-1", "")), max_size=3),
    unset=st.lists(st.sampled_from(NAMES), max_size=3).map(tuple),
    env=st.dictionaries(st.sampled_from(("A", "B", "C", "CUDA_VISIBLE_DEVICES")), st.none() | st.just("1"), max_size=3),
    positional=st.none() | st.just("N"),
    drop_words=st.lists(st.sampled_from(("a b", "8", "True", "vllm", "serve")), max_size=2).map(tuple),
)


def same(launch: Launch) -> Launch:
    """Without what is said of the text itself: how it was written, and what was wrong with it."""
    return replace(launch, given="", problems=())


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LAUNCHES)
@example(["vllm", "serve", "M", "-:", "-1"])
def test_printed_and_parsed_again_it_is_the_same(words: list[str]) -> None:
    launch = parse_launch(words)
    assert same(parse_launch(argv(launch))) == same(launch)
    assert same(parse_line(command_line(launch))) == same(launch)


@settings(max_examples=400, deadline=None)
@given(LAUNCHES, EDITS)
def test_an_edit_done_twice_does_nothing_more(words: list[str], edit: LaunchEdit) -> None:
    once = apply(parse_launch(words), edit)
    assert apply(once, edit) == once


def printed(parse: Callable[[], Launch]) -> None:
    try:
        launch = parse()
    except LaunchError as problem:
        assert "\n" not in str(problem)
    else:
        command_line(launch)


@settings(max_examples=300, deadline=1000)
@given(st.text(max_size=2000), st.sampled_from(("{}", "vllm serve {}", "docker run {}", "docker run i/vllm {}")))
def test_any_text_is_parsed_or_refused(text: str, line: str) -> None:
    printed(lambda: parse_line(line.format(text)))
    printed(lambda: parse_line(f"bash -c {shlex.quote(text)}"))


@settings(max_examples=200, deadline=1000)
@given(st.lists(st.text(max_size=40), max_size=40), st.sampled_from(((), ("vllm", "serve"), ("docker", "run"))))
def test_any_words_are_parsed_or_refused(words: list[str], before: tuple[str, ...]) -> None:
    printed(lambda: parse_launch([*before, *words]))


@pytest.mark.parametrize(
    "text",
    [
        "vllm serve M " + "\\" * 200_000,
        "vllm serve M " + "'\"" * 100_000,
        "vllm serve M " + "$(" * 120_000,
        "vllm serve " + "a " * 120_000,
        "vllm serve M " + "--x" * 80_000,
        "vllm serve M " + "> " * 100_000,
        "vllm serve M " + "--a=b " * 40_000,
        "bash -c " * 30_000,
        "docker run " + "-e A=b " * 30_000 + "vllm/vllm-openai M",
        "export " + "A=b " * 60_000 + "\nvllm serve M",
    ],
)
def test_long_texts_take_no_long_time(text: str) -> None:
    started = time.process_time()
    with contextlib.suppress(LaunchError):
        command_line(parse_line(text))
    assert time.process_time() - started < 4


def launch_after(text: str, edit: LaunchEdit) -> str:
    return command_line(apply(parse_line(text), edit))


@pytest.mark.parametrize(
    ("text", "edit", "expected"),
    [
        ("vllm serve M --port 1 -tp 2", LaunchEdit(set={"--tensor-parallel-size": "1"}), "vllm serve M --port 1 -tp 1"),
        ("vllm serve M -tp 2 --tensor_parallel_size 4", LaunchEdit(set={"-tp": "1"}), "vllm serve M -tp 1"),
        ("vllm serve M", LaunchEdit(set={"--enforce-eager": None}), "vllm serve M --enforce-eager"),
        ("vllm serve M --served-models a", LaunchEdit(unset=("--served-models",)), "vllm serve M"),
        (
            "vllm serve M --no-enable-prefix-caching --port 1",
            LaunchEdit(set={"--enable-prefix-caching": None}),
            "vllm serve M --enable-prefix-caching --port 1",
        ),
        ("A=b vllm serve M", LaunchEdit(env={"A": "c", "D": "e"}), "D=e A=c vllm serve M"),
        ("A=b vllm serve M", LaunchEdit(env={"A": None}), "vllm serve M"),
        ("sudo -E vllm serve M", LaunchEdit(env={"A": "c"}), "sudo -E A=c vllm serve M"),
        ("docker run -e A=b i/vllm M", LaunchEdit(env={"A": "c"}), "docker run -e A=c i/vllm M"),
        ("docker run -eA=b --env=B=c i/vllm M", LaunchEdit(env={"A": None, "B": None}), "docker run i/vllm M"),
        ("vllm serve M", LaunchEdit(positional="N"), "vllm serve N"),
        (
            "python -m vllm.entrypoints.openai.api_server M --port 1",
            LaunchEdit(set={"--model": "M"}),
            "python -m vllm.entrypoints.openai.api_server --port 1 --model M",
        ),
        (
            "vllm serve M --served-model-name a --port 1",
            LaunchEdit(set={"--served-model-name": "a b"}),
            "vllm serve M --served-model-name a b --port 1",
        ),
        ("vllm serve --model M", LaunchEdit(positional="N"), "vllm serve --model N"),
        ("vllm serve M a b", LaunchEdit(drop_words=("a", "b")), "vllm serve M"),
        (
            "docker run vllm/vllm-openai vllm serve M",
            LaunchEdit(drop_words=("vllm", "serve")),
            "docker run vllm/vllm-openai M",
        ),
        (
            "bash -c 'A=b vllm serve M -tp 2'",
            LaunchEdit(set={"-tp": "1"}, env={"A": None}),
            "bash -c 'vllm serve M -tp 1'",
        ),
    ],
)
def test_edits(text: str, edit: LaunchEdit, expected: str) -> None:
    assert launch_after(text, edit) == expected


def test_a_complaint_goes_with_its_flag() -> None:
    launch = parse_line("vllm serve M --port --max-model-len")
    assert [p.split()[0] for p in launch.problems] == ["--port", "--max-model-len"]
    edited = apply(launch, LaunchEdit(set={"--port": "8000"}, unset=("--max-model-len",)))
    assert (edited.problems, command_line(edited)) == ((), "vllm serve M --port 8000")


def test_a_flag_of_the_config_file_is_overridden_on_the_command_line(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "a.yaml").write_text("port: 1\n")
    launch = parse_line("vllm serve M --config a.yaml", folder=tmp_path)
    edited = apply(launch, LaunchEdit(set={"--port": "2"}))
    assert (edited.value("--port"), command_line(edited)) == ("2", "vllm serve M --config a.yaml --port 2")

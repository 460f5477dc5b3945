"""`vllm-doctor releases`: one, all, and the way from one to another."""

import json

from tests.cli.calling import doctor


def test_json_of_a_release_has_the_keys_of_the_contract() -> None:
    document = json.loads(doctor("releases", "0.10.0", "--format", "json").stdout)
    keys = {"schema", "release", "date", "requires_python", "cuda", "pins", "flags", "env", "architectures"}
    assert keys | {"tool_parsers", "reasoning_parsers", "quantization", "attention_backends"} <= set(document)
    assert (document["schema"], document["release"]) == ("vllm-doctor/release/1", "0.10.0")
    assert (document["requires_python"], document["cuda"], document["pins"]["torch"]) == (
        "<3.13,>=3.9",
        "12.6",
        "==2.7.1",
    )
    assert document["flags"]["--max-model-len"] == {"choices": None, "default": None}
    assert document["quantization"]["fp8"] == 80


def test_all_releases_with_what_stands_against_them() -> None:
    done = doctor("releases", "--driver", "550.54.15", "--gpu", "Tesla V100-SXM2-16GB")
    assert done.stdout.count("\n") > 70
    assert "pip install vllm==0.19.1" in done.stdout.splitlines()[-1]


def test_a_launch_that_breaks_on_the_way() -> None:
    launch = ("vllm", "serve", "m", "--swap-space", "4", "--task", "embed")
    done = doctor("releases", "--diff", "0.9.2", "0.20.0", "--format", "json", "--", *launch)
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert [f["cause"] for f in document["findings"]] == ["bad-flag", "bad-flag"]
    assert document["corrected"] == "vllm serve m --runner pooling --convert embed"
    assert document["defaults"]["--gpu-memory-utilization"] == {"old": "0.9", "new": "0.92"}


def test_a_launch_that_does_not_break() -> None:
    done = doctor("releases", "--diff", "0.19.0", "0.19.1", "--", "vllm", "serve", "m", "--max-model-len", "4k")
    assert done.returncode == 0
    assert "nothing of this launch breaks" in done.stdout


def test_the_way_without_a_launch() -> None:
    document = json.loads(doctor("releases", "--diff", "0.17.1", "0.18.0", "--format", "json").stdout)
    assert "--swap-space" in document["changes"]["flags"]["gone"]


def test_a_release_that_is_not_known_is_one_line() -> None:
    done = doctor("releases", "9.9.9")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "9.9.9 is not in the data" in done.stderr


def test_a_diff_for_a_launch_names_no_default_that_stays_nothing_or_that_the_launch_gives() -> None:
    done = doctor("releases", "--diff", "0.8.5", "0.20.2", "--format", "json", "--", "vllm", "serve", "M")
    defaults = json.loads(done.stdout)["defaults"]
    assert defaults["--gpu-memory-utilization"] == {"old": "0.9", "new": "0.92"}
    assert not {"--model", "--hf-overrides", "--config"} & defaults.keys()

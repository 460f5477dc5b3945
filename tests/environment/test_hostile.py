"""Whatever bytes the environment holds, the inspector ends soon and tells nothing but strings."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.environment.builders import build_library
from vllm_doctor.facts import Unknown
from vllm_doctor.probes.environment import decoded
from vllm_doctor.probes.environment.inspector import elf, files, libraries, metadata, modules, output, packages, records

SLOW = settings(deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)


@pytest.fixture(autouse=True)
def fresh() -> None:
    files.forget()


def write(folder: Path, name: str, content: bytes) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


@SLOW
@given(
    content=st.binary(max_size=2000)
    | st.lists(st.sampled_from([b"Name: x", b"Version: 1", b"\n", b":", b"Requires-Dist: y"])).map(b"\n".join)
)
def test_any_metadata(content: bytes, tmp_path: Path) -> None:
    write(tmp_path, "a-1.dist-info/METADATA", content)
    item = metadata.read(str(tmp_path), "a-1.dist-info")
    assert item.name
    assert all(isinstance(name, str) for name in metadata.required_names(item))
    json.loads(output.document(item.fields()))


@SLOW
@given(
    content=st.binary(max_size=3000)
    | st.lists(st.sampled_from([b"../../etc/x.py", b"/etc/passwd.py", b"a\0b.py", b",sha256=", b"\n", b"a/b.py"])).map(
        b"".join
    )
)
def test_any_record(content: bytes, tmp_path: Path) -> None:
    record = write(tmp_path, "RECORD", content)
    sample, count = records.missing_files(str(tmp_path), record, shallow=False)
    assert len(sample) == min(count, records.SAMPLE)
    json.loads(output.document(sample))


@SLOW
@given(st.text(max_size=2000))
def test_any_version_file(text: str) -> None:
    assert all(value is None or len(value) <= 200 for value in packages.assignments(text).values())


@SLOW
@given(st.text(max_size=500))
def test_any_finder(text: str) -> None:
    mapping = modules._finder_mapping("MAPPING: dict[str, str] = " + text)
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in mapping.items())


@pytest.mark.parametrize("text", ["(" * 10_000, "{'a':" * 500, "9" * 100_000, "{**{'a': 'b'}}", "__import__('os')"])
def test_hostile_finders(text: str) -> None:
    assert modules._finder_mapping("MAPPING = " + text) == {}


def examine(path: str, folder: Path) -> None:
    """Everything that is ever asked of a library."""
    found = libraries.Libraries(str(folder / "torch"), [str(folder)], [], "")
    try:
        with elf.Elf(path) as library:
            found.missing(library)
            found.undefined(library)
            library.defines(b"_ZN2at4goneEv", elf.gnu_hash(b"_ZN2at4goneEv"))
            for name in library.undefined((b"",)):
                assert len(name) <= elf.MAXIMUM_NAME_BYTES
    except elf.ElfError as problem:
        assert "\n" not in str(problem)


@SLOW
@given(content=st.binary(max_size=4000).map(lambda rest: b"\x7fELF\x02\x01\x01" + rest) | st.binary(max_size=100))
def test_any_bytes_as_a_library(content: bytes, tmp_path: Path) -> None:
    examine(write(tmp_path, "x.so", content), tmp_path)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("elf") / "good.so"
    source = "void _ZN2at4goneEv(void); void _ZN2at5thereEv(void) { _ZN2at4goneEv(); } void f(void) {}"
    return build_library(path, source, "-Wl,--hash-style=gnu", "-Wl,-rpath,$ORIGIN/x").read_bytes()


@settings(SLOW, max_examples=600)
@given(data=st.data())
def test_any_damage_to_a_library(data: st.DataObject, library: bytes, tmp_path: Path) -> None:
    damaged = bytearray(library)
    # The headers and the dynamic section are where damage matters; the rest is code.
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, min(len(library), 0x400) - 1) | st.integers(0, len(library) - 1))
        damaged[place] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    write(tmp_path, "torch/lib/libtorch.so", bytes(damaged))
    files.forget()
    examine(
        write(tmp_path, "x.so", bytes(damaged[: data.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))])),
        tmp_path,
    )


@SLOW
@given(st.binary(max_size=300) | st.sampled_from([b"[" * 200_000, b'{"python": "\\ud800"}', b"null", b"1e999", b"{}"]))
def test_any_answer_of_the_child(content: bytes) -> None:
    found = decoded(content, Path("/x/python"))
    assert isinstance(found, Unknown)
    assert "\n" not in found.reason and len(found.reason) < 800


@SLOW
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=30,
    )
)
def test_what_is_written_is_json(value: object) -> None:
    def surrogates_shown(item: object) -> object:
        if isinstance(item, str):
            return item.encode("utf-8", "backslashreplace").decode()
        if isinstance(item, list):
            return [surrogates_shown(member) for member in item]
        if isinstance(item, dict):
            return {surrogates_shown(key): surrogates_shown(member) for key, member in item.items()}
        return item

    assert json.loads(output.document(value)) == surrogates_shown(value)


def test_a_path_that_is_no_text_is_shown_escaped() -> None:
    assert json.loads(output.document("/x/\udcff")) == "/x/\\udcff"


def test_a_fifo_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    import os

    (tmp_path / "a-1.dist-info").mkdir()
    os.mkfifo(tmp_path / "a-1.dist-info" / "METADATA")
    os.mkfifo(tmp_path / "x.so")
    assert metadata.read(str(tmp_path), "a-1.dist-info").version is None
    with pytest.raises(elf.ElfError):
        elf.Elf(str(tmp_path / "x.so"))

"""Bad files in short: part of what `reliability/inputs.py` gives to readers, a fuzzer, and each fault once found."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reliability import pickles
from reliability.bad_records import record_of, run_of
from reliability.inputs import damaged
from reliability.reader import Reader
from reliability.readers import READERS
from reliability.watched import FAULT, HARMLESS, REFUSED, SECONDS, attempt, watch
from sftn.errors import LONGEST, InputError
from sftn.networks.weights import read_state
from sftn.runs.folder import BROKEN, RunFolder
from sftn.runs.trained import Trained
from sftn.storage import lease, torch_files
from sftn.storage.records import LARGEST, decode_value, read_text
from sftn.storage.safe_pickle import ARRAYS, Forbidden, unpickle
from tests.support.command import refusal

AGAIN = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
SMALL = 50_000
"""Bytes of the inputs that are tried here; the script tries the large ones too."""
BY_NAME = [pytest.param(reader, id=reader.name) for reader in READERS]


@pytest.fixture(scope="module", autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No data of the machine's user comes into a test, and what readers do is seen."""
    sys.addaudithook(watch)
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("HOME", str(home))
        for name in ("SFTN_DATA", "TORCH_HOME"):
            patch.delenv(name, raising=False)
        for reader in READERS:
            folder = tmp_path_factory.mktemp("valid")
            assert attempt(reader, reader.wrap(reader.valid()), folder) == (HARMLESS, ""), reader.name
        yield


@pytest.mark.parametrize("reader", BY_NAME)
def test_every_reader_refuses_in_one_line_or_does_no_harm(reader: Reader, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    small = [(name, raw) for name, raw in reader.handmade(canary) if len(raw) < SMALL] if reader.small else []
    tried = [(name, raw) for number, (name, raw) in enumerate(small) if number % 6 == 0]
    tried += [(one.name, one.content) for one in damaged(reader, 4, seed=1)]
    for number, (name, content) in enumerate(tried):
        began = time.process_time()
        outcome, about = attempt(reader, content, tmp_path / str(number))
        assert outcome != FAULT, (name, about)
        assert time.process_time() - began < SECONDS, name
    assert not canary.exists()


@pytest.mark.parametrize("reader", BY_NAME)
def test_no_bytes_put_anywhere_make_a_reader_fail_otherwise(reader: Reader, tmp_path: Path) -> None:
    valid = reader.valid()

    @settings(max_examples=4, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, len(valid)), st.integers(0, 64), st.binary(max_size=64))
    def check(at: int, taken: int, put: bytes) -> None:
        content = reader.wrap(valid[:at] + put + valid[at + taken :])
        outcome, about = attempt(reader, content, tmp_path)
        assert outcome != FAULT, about

    check()


def test_the_watch_sees_what_a_reader_must_not_do(tmp_path: Path) -> None:
    def bad(folder: Path) -> None:
        (folder / "written").write_text("x")

    def calls(folder: Path) -> None:
        subprocess.run(["true"], check=True)

    for read in (bad, calls, lambda folder: 1 / 0, lambda folder: bytearray(2**62)):
        outcome, about = attempt(Reader("x", "x", bytes, read), b"", tmp_path)
        assert outcome == FAULT, about


@pytest.mark.parametrize(
    "raw",
    [
        b"\x80\x02Nr" + struct.pack("<I", 2**31) + b".",  # a table of 2³¹ places in C's unpickler
        b"Np2000000000\n.",
        b")" + b"\x85" * 50_000 + b".",
        b"N" * 50_000 + b"\x85" * 50_000 + b".",
    ],
)
def test_forged_memos_and_deep_pickles_cost_nothing(raw: bytes) -> None:
    began = time.process_time()
    unpickle(raw)
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"})" + b"q\x00h\x00\x86" * 100 + b"Ns.", "invalid keys"),  # hashing takes 2¹⁰⁰ steps
        (b"(l" + b"q\x00h\x00\x86" * 100 + b"Q.", "persistent"),
        (b"cnumpy\ndtype\n)" + b"q\x00h\x00\x86" * 100 + b"K\x00K\x01\x87R.", "integers"),
        (b"\x80\x05\x96" + struct.pack("<Q", 20 * 2**30) + b".", "truncated"),
        (b"(X\x00\x00\x10\x00" + b"a" * 2**20 + b"q\x00" + AGAIN * 300 + b"l.", "too many"),
    ],
)  # fmt: skip
def test_pickles_that_cost_more_than_they_weigh_are_refused(raw: bytes, why: str) -> None:
    with pytest.raises(pickle.UnpicklingError, match=why):
        unpickle(raw)


def test_opcodes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftn.storage.safe_pickle.OPERATIONS", 100)
    assert len(unpickle(b"(" + b"]" * 90 + b"l.")) == 90
    with pytest.raises(pickle.UnpicklingError, match="more than 100 opcodes"):
        unpickle(b"(" + b"]" * 100 + b"l.")


def test_a_pickle_can_call_nothing_but_what_it_is_given(tmp_path: Path) -> None:
    names = [name for name, raw in pickles.armed(tmp_path / "canary") if _forbidden(raw)]
    assert len(names) > 25
    assert not (tmp_path / "canary").exists()
    assert set(ARRAYS) == {name for name in ARRAYS if name.startswith("numpy.")}


def _forbidden(raw: bytes) -> bool:
    try:
        unpickle(raw)
    except Forbidden:
        return True
    except pickle.UnpicklingError:
        return False
    raise AssertionError("it was read")


@pytest.mark.parametrize("new", [True, False])
def test_our_reader_and_pytorch_s_read_the_same(new: bool, tmp_path: Path) -> None:
    kinds = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    state = {str(kind): torch.arange(12).reshape(3, 4).to(kind) for kind in kinds}
    whole = torch.arange(10.0)
    state |= {"view": whole[2:8].view(2, 3), "turned": whole[:6].view(2, 3).T, "scalar": torch.tensor(3.5)}
    state["parameter"] = torch.nn.Parameter(torch.ones(2))
    torch.save({"model": state, "epoch": 3, "lr": [0.1, None]}, tmp_path / "w.pth", _use_new_zipfile_serialization=new)
    theirs = torch.load(tmp_path / "w.pth", weights_only=True)
    ours = torch_files.read(tmp_path / "w.pth")
    assert (ours["epoch"], ours["lr"]) == (3, [0.1, None])
    assert ours["model"].keys() == theirs["model"].keys()
    for name, tensor in theirs["model"].items():
        assert ours["model"][name].dtype == tensor.dtype
        assert torch.equal(ours["model"][name], tensor)


@pytest.mark.parametrize("size", [-512, -(2**40)])
def test_a_tar_that_leads_back_to_itself_ends(size: int, tmp_path: Path) -> None:
    member = tarfile.TarInfo("cifar-100-python/train")
    member.size = size
    reader = next(one for one in READERS if one.name == "CIFAR tar within its .gz")
    outcome, about = attempt(reader, reader.wrap(member.tobuf(tarfile.GNU_FORMAT) + bytes(2048)), tmp_path)
    assert outcome == REFUSED
    assert "is truncated or not a .tar.gz" in about


def test_an_empty_matrix_does_not_say_how_many_classes_are_built(tmp_path: Path) -> None:
    header = json.dumps({"head.weight": {"dtype": "F32", "shape": [10**9, 0], "data_offsets": [0, 0]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(InputError, match="holds no image classifier"):
        Trained.of(str(tmp_path / "w.safetensors"), "resnet8").network_alone((32, 32))


def test_a_header_of_many_megabytes_is_not_parsed(tmp_path: Path) -> None:
    with open(tmp_path / "w.safetensors", "wb") as file:
        file.write(struct.pack("<Q", LARGEST + 1))
        file.truncate(LARGEST + 100)
    with pytest.raises(InputError, match="its header is too large"):
        read_state(tmp_path / "w.safetensors")


@pytest.mark.parametrize("changes", [{"network": "x" * 10**6}, {"seed": 1e308}, {"network": "a\x1b[2Jb"}])
def test_a_record_that_fits_its_id_must_still_be_one(changes: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(record_of(run_of(**changes)))
    with pytest.raises(InputError, match="is not a record of a run"):
        RunFolder(tmp_path).run()


def test_a_name_may_look_like_terminal_markup(tmp_path: Path) -> None:
    run = run_of(network="[red]x[/]")
    (tmp_path / "run.json").write_bytes(record_of(run))
    assert RunFolder(tmp_path).run() == run


def test_teachers_of_teachers_come_to_an_end(tmp_path: Path) -> None:
    run = run_of(teacher=run_of())
    (tmp_path / "run.json").write_bytes(record_of(run))
    assert RunFolder(tmp_path).run() == run
    for _ in range(30):
        run = run_of(teacher=run)
    (tmp_path / "run.json").write_bytes(record_of(run))
    with pytest.raises(InputError, match="is not a record of a run"):
        RunFolder(tmp_path).run()


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    for name in ("run.json", "log.jsonl", "lease.000001", "w.pth", "fog.npy"):
        os.mkfifo(tmp_path / name)
    assert RunFolder(tmp_path).inspect().state == BROKEN
    assert lease.holder(tmp_path) is None
    for read in (lambda folder: RunFolder(folder).history(), lambda folder: read_state(folder / "w.pth")):
        with pytest.raises(InputError):
            read(tmp_path)


def test_text_of_any_size_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(bytes(100))
    with pytest.raises(InputError, match="larger than"):
        read_text(tmp_path / "log.jsonl", largest=99)


@pytest.mark.parametrize(
    ("value", "hint"), [(True, int), (1.5, int), (float("nan"), float), (2**63, int), ("3", float), (3, str)]
)
def test_values_of_another_type_are_refused(value: object, hint: type) -> None:
    with pytest.raises(ValueError, match="instead of"):
        decode_value(value, hint)


def test_a_message_is_one_line_whatever_is_in_it() -> None:
    message = str(InputError("a\nb\x1b[2J" + "c" * 10**6 + ": remedy"))
    assert message.startswith("a\\nb\\x1b[2J")
    assert message.endswith(": remedy")
    assert message.isprintable()
    assert len(message) < LONGEST + 20


def test_a_version_of_npy_that_forged_shapes_crash_is_refused(tmp_path: Path) -> None:
    reader = next(one for one in READERS if one.file == "labels.npy")
    header = b"{'descr': '|S0', 'fortran_order': False, 'shape': (-1,)}\n"
    raw = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    assert attempt(reader, raw, tmp_path / "a")[0] == REFUSED
    np.lib.format.write_array(open(tmp_path / "two.npy", "wb"), np.zeros(3), version=(2, 0))  # noqa: SIM115
    assert attempt(reader, (tmp_path / "two.npy").read_bytes(), tmp_path / "b")[0] == REFUSED


def test_the_command_line_says_one_line_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w.pth").write_bytes(b"")
    (tmp_path / "run.json").write_bytes(b"[" * 10**5)
    for arguments in (
        ["evaluate", str(tmp_path / "w.pth"), "--network", "resnet8", "--data", "digits"],
        ["evaluate", str(tmp_path)],
    ):
        assert refusal(*arguments, capsys=capsys)
    assert not (tmp_path / "canary").exists()

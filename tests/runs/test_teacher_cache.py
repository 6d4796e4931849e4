from __future__ import annotations

import errno
import gc
import json
import os
import signal
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import sftn.experiments.queue
import sftn.runs.output_stores
import sftn.runs.teacher_cache
import sftn.training.output_cache
from sftn.data.dataset import Dataset
from sftn.data.load import load
from sftn.data.loader import Loader, training_batches
from sftn.errors import InputError, Stopped
from sftn.experiments.grid import Planned
from sftn.experiments.table import Cell, Pair
from sftn.methods import METHODS
from sftn.networks.staged import Activations
from sftn.runs.cohort import train_together
from sftn.runs.runner import train
from sftn.runs.teacher_cache import FIELDS, LEAST, SharedOutputs, TeacherCache, outputs_needed, sharing
from sftn.spec.execution import Execution
from sftn.spec.objective import Objective, Term
from sftn.spec.run import Run
from sftn.storage.store_folder import HEAD, SEAL, stores
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import objective
from sftn.training.output_cache import FLOOR, OutputCache, hit_rate
from sftn.training.teacher_outputs import KnownOutputs, TeacherOutputs
from tests.support import tiny
from tests.support.interruptions import Bomb, crash, interrupt, terminate
from tests.support.run_files import left

pytestmark = pytest.mark.usefixtures("tiny_networks")
IMAGES, BATCH, EPOCHS, VIEWS = 100, 32, 5, 9
SAVED = {"views": VIEWS, "kept": IMAGES, "from_other_runs": 0}
"""What a run that finds nothing from other runs says of its teacher's outputs, but for what it looked up."""


def images() -> Dataset:
    """Three batches of 32 and one of 4 an epoch."""
    return tiny.dataset(IMAGES)


def students(out: Path, *methods: str, epochs: int = EPOCHS, **changes: Any) -> list[Run]:
    """Runs of students, whose teacher is trained."""
    data = images()
    teacher = tiny.run(data, "wide", epochs=1)
    train(teacher, data, out)
    plain = tiny.run(data, epochs=epochs, teacher=teacher, **changes)
    plain = replace(plain, schedule=replace(plain.schedule, batch=BATCH))
    return [replace(plain, objective=objective(method)) for method in methods]


def compared(out: Path, run: Run) -> tuple[dict[str, int] | None, tuple[Any, ...]]:
    """What a run says of its teacher's answers, and everything else that it left."""
    record, *rest = left(out, run)
    return record.pop("asked_once", None), (record, *rest)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Lines about the teacher."""
    return [record.getMessage() for record in caplog.records if record.name == "sftn.runs.teacher_cache"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has stores of its own; they are beside the folders of its runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sftn" / "teacher-outputs"


@pytest.fixture(autouse=True)
def _all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


def looked_up(run: Run, kept: int = IMAGES) -> int:
    """What can be, by going through the epochs."""
    data = images()
    loader = Loader(data.train, batch=BATCH, normalisation=data.normalisation, padding=1, seed=run.seed)
    seen: set[tuple[int, int]] = set()
    hits = 0
    for epoch in range(run.schedule.epochs):
        outcomes = loader.outcomes(epoch)
        for batch in loader.epoch(epoch):
            if len(batch.index) == BATCH:
                views = {(int(i), int(outcomes[i])) for i in batch.index if i < kept}
                hits += len(views & seen)
                seen |= views
    return hits


@pytest.mark.parametrize(
    ("method", "precision"), [("kd", "float32"), ("kd", "bf16"), ("crd+kd", "float32"), ("rkd", "bf16")]
)
def test_a_run_ends_with_the_bits_that_it_has_without(
    method: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sftn.runs.teacher_cache, "TELL", 0.0)
    (run,) = students(tmp_path / "plain", method, precision=precision)
    students(tmp_path / "once", method)
    train(run, images(), tmp_path / "plain", Execution(teacher_cache=0.0))
    train(run, images(), tmp_path / "once", Execution(teacher_cache=0.1))
    none, expected = compared(tmp_path / "plain", run)
    record, found = compared(tmp_path / "once", run)
    assert found == expected
    assert none is None
    full = IMAGES // BATCH * BATCH * EPOCHS
    assert record == {**SAVED, "questions": full, "looked_up": looked_up(run)}
    assert record["looked_up"] > 0.1 * full
    (line,) = told(caplog)
    rate = 100 * hit_rate(EPOCHS, VIEWS)
    what = "9 views of all 100 images in at most 0.0 GiB on disk"
    share = f"{rate:.0f} % will be looked up over 5 epochs, 0 % are there already"
    assert line == f"outputs of teacher wide are stored for {what}: {share}"


def test_an_interrupted_run_ends_with_the_bits_that_it_has_without(tmp_path: Path) -> None:
    (run,) = students(tmp_path / "plain", "crd+kd", epochs=6)
    students(tmp_path / "once", "kd")
    train(run, images(), tmp_path / "plain", Execution(teacher_cache=0.0))
    execution = Execution(checkpoint_seconds=0.0, teacher_cache=0.1)
    for at, act, error in ((6, crash, ConnectionError), (7, terminate, Stopped), (3, interrupt, Stopped)):
        with pytest.raises(error):
            train(run, images(), tmp_path / "once", execution, callback=Bomb(at, act))
    train(run, images(), tmp_path / "once", execution)
    assert compared(tmp_path / "once", run)[1] == compared(tmp_path / "plain", run)[1]


@pytest.mark.parametrize(("methods", "precision"), [("kd oh ab", "float32"), ("kd crd", "bf16")])
def test_a_cohort_shares_the_answers_and_ends_with_the_bits_that_each_has_alone(
    methods: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sftn.runs.teacher_cache, "TELL", 0.0)
    """OH has a teacher of its own, and AB's first stage asks it itself."""
    runs = students(tmp_path / "alone", *methods.split(), precision=precision)
    runs.append(replace(runs[0], schedule=replace(runs[0].schedule, epochs=6)))
    for run in runs:
        train(run, images(), tmp_path / "alone", Execution(teacher_cache=0.0))
    students(tmp_path / "together", "kd")
    execution, bomb = Execution(checkpoint_seconds=0.0, teacher_cache=0.1), Bomb(25, terminate)
    with pytest.raises(Stopped):
        train_together(runs, images(), tmp_path / "together", execution, callback=bomb)
    before = told(caplog)
    caplog.clear()
    train_together(runs, images(), tmp_path / "together", execution)
    for run in runs:
        assert compared(tmp_path / "together", run)[1] == compared(tmp_path / "alone", run)[1], run.name
    assert len(before) == len(told(caplog)) == 1, "before the stop, and after it"


def test_in_a_cohort_a_batch_is_one_question(tmp_path: Path) -> None:
    runs = students(tmp_path, "kd", "crd")
    train_together(runs, images(), tmp_path, Execution(teacher_cache=0.1))
    record, _ = compared(tmp_path, runs[1])
    full = IMAGES // BATCH * BATCH * EPOCHS
    assert record == {**SAVED, "questions": full, "looked_up": looked_up(runs[1])}


def test_where_one_of_a_cohort_needs_the_maps_all_have_the_whole_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs = students(tmp_path, "kd", "at")
    train_together(runs, images(), tmp_path, Execution(teacher_cache=0.1))
    assert told(caplog) == []
    assert all(compared(tmp_path, run)[0] is None for run in runs)


def test_memory_is_given_back_as_soon_as_a_run_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when the next collection of cyclic garbage comes: the next run has answers of its own."""
    tables: list[Any] = []

    class Noted(OutputCache):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            tables.append(weakref.ref(self))

    monkeypatch.setattr(sftn.runs.teacher_cache, "OutputCache", Noted)
    run, other = students(tmp_path, "kd", "pkt")
    gc.disable()
    try:
        train(run, images(), tmp_path, Execution(teacher_cache=0.1))
        train_together([other, run], images(), tmp_path, Execution(teacher_cache=0.1))
    finally:
        gc.enable()
    assert [table() for table in tables] == [None, None]


def test_what_does_not_fit_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sftn.runs.teacher_cache, "TELL", 0.0)
    (run,) = students(tmp_path / "plain", "kd")
    students(tmp_path / "once", "kd")
    train(run, images(), tmp_path / "plain", Execution(teacher_cache=0.0))
    row = VIEWS * (tiny.CLASSES * 4 + SEAL)
    train(run, images(), tmp_path / "once", Execution(teacher_cache=(HEAD + 70.5 * row) / 2**30))
    record, found = compared(tmp_path / "once", run)
    assert found == compared(tmp_path / "plain", run)[1]
    assert record is not None
    assert (record["kept"], record["looked_up"]) == (70, looked_up(run, kept=70))
    assert "9 views of 70 of 100 images" in told(caplog)[0]


def test_a_teacher_whose_answers_depend_on_their_company_is_asked_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sftn.runs.teacher_cache, "same_in_parts", lambda answer, images: False)
    (run,) = students(tmp_path, "kd")
    train(run, images(), tmp_path, Execution(teacher_cache=0.1))
    assert compared(tmp_path, run)[0] is None
    (line,) = told(caplog)
    assert line == "teacher wide is run on every batch: in parts of a batch its outputs are rounded differently"


def test_where_answers_are_kept(tmp_path: Path) -> None:
    data = images()
    teacher = tiny.run(data, "wide")
    runs = {name: tiny.run(data, teacher=teacher, objective=objective(name), epochs=EPOCHS) for name in METHODS}
    runs["kd"] = replace(runs["rkd"], objective=objective("kd"))
    assert outputs_needed(teacher) is outputs_needed(runs["oh"]) is outputs_needed(runs["sskd"]) is None
    assert outputs_needed(replace(runs["ab"], objective=objective("ab(batch_statistics=true)"))) is None
    assert outputs_needed(replace(runs["ab"], objective=objective("ab(batch_statistics=false)"))) == {"logits"}
    runs = {name: replace(run, schedule=replace(run.schedule, batch=BATCH)) for name, run in runs.items()}
    kd, crd, at, oh = (runs[name] for name in ("kd", "crd", "at", "oh"))
    short, small = (replace(kd, schedule=replace(kd.schedule, **{k: v})) for k, v in (("epochs", 2), ("batch", FLOOR)))

    def keeps(*runs: Run, gib: float = 1.0, data: Dataset = data, **how: bool) -> bool:
        return TeacherCache(runs, data, gib, **how).keeps

    newer = {"dkd", "dist", "nkd", "ctkd", "wkd-l"}
    assert {name for name, run in runs.items() if keeps(run)} == {"kd", "rkd", "pkt", "crd", "ab"} | newer
    assert not keeps(kd, at)
    assert not keeps(kd, gib=0.0)
    assert not keeps(small)
    assert hit_rate(2, VIEWS) < LEAST
    assert keeps(short), "that is for the first batch to say, except where it may change bits"
    assert not keeps(short, compiled=True)
    assert keeps(kd, compiled=True)
    assert TeacherCache([kd, crd, oh], data, 1.0).fields == ["logits", "embedding"]


@pytest.mark.parametrize("room", [-1.0, float("inf"), float("nan"), "none"])
def test_room_is_checked_before_anything_is_written(room: Any, tmp_path: Path) -> None:
    run = tiny.run(images())
    with pytest.raises(InputError, match=f"teacher_cache is {room}: give GiB, or off"):
        train(run, images(), tmp_path / "runs", Execution(teacher_cache=room))
    assert not (tmp_path / "runs").exists()


def test_where_outputs_are_shared() -> None:
    data, cpu, gpu = images(), torch.device("cpu"), torch.device("cuda")
    teacher = tiny.run(data, "wide")
    kd, at, oh, sskd = (
        tiny.run(data, teacher=teacher, objective=objective(name), epochs=EPOCHS) for name in ("kd", "at", "oh", "sskd")
    )
    kd = replace(kd, schedule=replace(kd.schedule, batch=BATCH))
    alone, cohort = TeacherCache([kd], data, 1.0), TeacherCache([kd, at, oh, sskd], data, 1.0)
    assert type(alone.outputs(kd, cpu)) is SharedOutputs
    assert type(alone.outputs(kd, gpu)) is TeacherOutputs, "a lookup waits for the device"
    assert type(TeacherCache([at], data, 1.0).outputs(at, cpu)) is TeacherOutputs, "nothing is kept"
    assert [type(cohort.outputs(run, gpu)) for run in (kd, at)] == [SharedOutputs] * 2
    assert [type(cohort.outputs(run, cpu)) for run in (oh, sskd)] == [TeacherOutputs] * 2


def test_streamed_images_have_no_views_that_could_be_kept(tmp_path: Path) -> None:
    data = images()
    run = tiny.run(data, teacher=tiny.run(data, "wide"), objective=objective("kd"), epochs=EPOCHS)
    run = replace(run, schedule=replace(run.schedule, batch=BATCH))
    for place in (tmp_path / part / label for part in ("train", "test") for label in "ab"):
        place.mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (20, 20), (9 * i, 0, 0)).save(place / f"{i}.png")
    streamed = load(f"folder:{tmp_path}", size=16, stream=True, workers=0)
    assert TeacherCache([run], data, 1.0).keeps
    assert not TeacherCache([run], streamed, 1.0).keeps
    batches = training_batches(streamed, batch=4, device="cpu")
    assert batches.views is None
    assert batches.outcomes(0) is None


@pytest.mark.parametrize("name", sorted(name for name in METHODS if set(METHODS[name].teacher_outputs) <= set(FIELDS)))
def test_a_method_takes_no_more_of_the_teacher_than_it_says(name: str) -> None:
    options = {"crd": {"dimensions": 8, "negatives": 12}}.get(name, {})
    labels = torch.arange(48) % tiny.CLASSES
    found = Objective(name, ce=1.0, terms=(Term(name, 1.0, options),))
    task = Distiller(tiny.network(), tiny.network((6, 8, 12)), found, tiny.IMAGE, labels=labels).eval()
    pictures, index = torch.randn(16 * task.copies, *tiny.IMAGE), torch.arange(16)
    if name == "mlkd":
        task.methods[name].distort = False  # the outputs are to be of the very images

    whole, needed = task.teacher.activations(pictures), METHODS[name].teacher_outputs
    parts = [getattr(whole, field).detach() if field in needed else torch.empty(len(pictures), 0) for field in FIELDS]
    outputs = KnownOutputs(Activations(parts[0], parts[1], (), ()))
    torch.manual_seed(1)
    expected = task(pictures, labels[:16], index)
    torch.manual_seed(1)
    assert torch.equal(task(pictures, labels[:16], index, outputs)["loss"], expected["loss"])


def test_a_person_is_told_of_much_memory_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (run,) = students(tmp_path, "kd")
    train(run, images(), tmp_path, Execution(teacher_cache=0.1))
    assert compared(tmp_path, run)[0] is not None
    assert told(caplog) == []


def test_the_queue_keeps_answers(tmp_path: Path) -> None:
    (run,) = students(tmp_path, "kd")
    planned = [Planned(Cell(Pair("wide", "tiny"), "student", "standard"), run)]
    sftn.experiments.queue.work(planned, images(), tmp_path, Execution(teacher_cache=0.1))
    record = json.loads((tmp_path / run.folder / "result.json").read_text())
    assert record["asked_once"]["looked_up"] > 0


def later(out: Path, method: str = "kd", seed: int = 1, epochs: int = EPOCHS, **changes: Any) -> Run:
    """Another student of the teacher of `students`, with other batches."""
    (run,) = students(out, method, epochs=epochs, **changes)
    return replace(run, seed=seed)


def alone(out: Path, run: Run) -> Any:
    """What a run leaves whose teacher is run on every batch."""
    students(out, "kd")
    train(run, images(), out, Execution(teacher_cache="off"))
    return compared(out, run)


STORED = Execution(teacher_cache=0.1)


@pytest.mark.parametrize(("method", "precision"), [("kd", "bf16"), ("crd+kd", "float32")])
def test_a_later_run_finds_what_an_earlier_one_left_and_ends_with_the_same_bits(
    method: str, precision: str, tmp_path: Path, cache: Path
) -> None:
    (first,) = students(tmp_path / "once", method, precision=precision, epochs=20)
    train(first, images(), tmp_path / "once", STORED)
    second = later(tmp_path / "once", method, precision=precision)
    train(second, images(), tmp_path / "once", STORED)
    record, found = compared(tmp_path / "once", second)
    none, expected = alone(tmp_path / "plain", second)
    assert none is None
    assert found == expected
    assert record is not None
    assert record["from_other_runs"] > 0.6 * record["questions"]
    assert record["looked_up"] > looked_up(second)
    kept = {entry.record["field"]: entry.filled for entry in stores(cache) if entry.record}
    assert kept.keys() == ({"logits", "embedding"} if method == "crd+kd" else {"logits"})
    assert all(0.8 < share <= 1 for share in kept.values())


def test_methods_share_the_outputs_that_both_need(tmp_path: Path, cache: Path) -> None:
    (first,) = students(tmp_path, "crd+kd", epochs=20)
    train(first, images(), tmp_path, STORED)
    for method in ("dkd", "rkd"):
        run = later(tmp_path, method)
        train(run, images(), tmp_path, STORED)
        record, _ = compared(tmp_path, run)
        assert record is not None
        assert record["from_other_runs"] > 0.6 * record["questions"], method
    assert len(stores(cache)) == 2


def test_what_other_bits_may_come_from_has_a_store_of_its_own(tmp_path: Path, cache: Path) -> None:
    (first,) = students(tmp_path, "kd")
    train(first, images(), tmp_path, STORED)
    teacher = replace(first.teacher, seed=5)
    train(teacher, images(), tmp_path, STORED)
    smaller = replace(first, schedule=replace(first.schedule, batch=24))
    for count, run in enumerate((replace(first, teacher=teacher), smaller, replace(first, precision="bf16")), 2):
        train(run, images(), tmp_path, STORED)
        record, _ = compared(tmp_path, run)
        assert record is not None
        assert record["from_other_runs"] == 0
        assert len(stores(cache)) == count
    run = later(tmp_path)
    train(run, images(), tmp_path, replace(STORED, threads="2"))
    record, _ = compared(tmp_path, run)
    assert record is not None
    assert record["from_other_runs"] == 0
    assert len(stores(cache)) == 5


@pytest.mark.parametrize("damage", ["bytes", "short", "version", "folder", "full", "foreign"])
def test_a_store_that_cannot_be_used_is_one_line_and_changes_no_result(
    damage: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (first,) = students(tmp_path / "once", "kd", epochs=20)
    train(first, images(), tmp_path / "once", STORED)
    run = later(tmp_path / "once")
    (path,) = cache.glob("*.rows")
    content = path.read_bytes()
    if damage == "bytes":
        path.write_bytes(content[:HEAD] + bytes(byte ^ 1 for byte in content[HEAD:]))
    elif damage == "short":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "version":
        path.write_bytes(content.replace(b"rows 1", b"rows 2"))
    elif damage == "folder":
        path.unlink()
        (cache / ".lock").unlink()
        cache.rmdir()
        cache.write_text("not a folder")
    elif damage == "full":
        path.unlink()

        def full(*how: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "posix_fallocate", full)
    else:  # rows that are sealed, but of another teacher
        monkeypatch.setattr(sftn.runs.output_stores, "_digest", lambda network: "the same")
        path.unlink()
        train(replace(first, teacher=other(first, tmp_path / "once")), images(), tmp_path / "once", STORED)
    caplog.clear()
    train(run, images(), tmp_path / "once", STORED)
    record, found = compared(tmp_path / "once", run)
    monkeypatch.undo()
    assert found == alone(tmp_path / "plain", run)[1]
    assert record is not None
    assert record["from_other_runs"] == 0
    about = ("sftn.runs.teacher_cache", "sftn.training.output_cache")
    lines = [entry.getMessage() for entry in caplog.records if entry.name in about]
    expected = {
        "bytes": [],
        "short": ["is damaged"],
        "version": ["is damaged"],
        "folder": ["cannot use"],
        "full": ["No space left on device"],
        "foreign": ["are not its own"],
    }[damage]
    assert len(lines) == len(expected)
    assert all(part in line for part, line in zip(expected, lines))
    least = looked_up(run) - (0 if damage != "foreign" else 64)
    assert record["looked_up"] >= least, "memory serves instead"


def other(run: Run, out: Path) -> Run:
    """A teacher like a run's, with other weights."""
    assert isinstance(run.teacher, Run)
    teacher = replace(run.teacher, seed=5)
    train(teacher, images(), out)
    return teacher


def test_a_short_run_pays_for_later_ones_or_by_earlier_ones(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sftn.training.output_cache, "DOUBTED", 1)
    (short,) = students(tmp_path, "kd", epochs=2)
    assert hit_rate(2, VIEWS) < LEAST
    train(short, images(), tmp_path, STORED)
    assert compared(tmp_path, short)[0] is None
    assert not cache.exists()
    train(replace(short, seed=1), images(), tmp_path, STORED, waiting=9)
    assert compared(tmp_path, replace(short, seed=1))[0] is not None
    assert stores(cache)[0].filled > LEAST
    train(replace(short, seed=2), images(), tmp_path, STORED)
    record, _ = compared(tmp_path, replace(short, seed=2))
    assert record is not None
    assert record["from_other_runs"] > 0


def test_runs_that_will_ask_the_same_are_counted(tmp_path: Path) -> None:
    kd, crd, both, at, oh = students(tmp_path, "kd", "crd", "crd+kd", "at", "oh")
    half, teacher = replace(kd, precision="bf16"), kd.teacher
    assert isinstance(teacher, Run)
    others = [replace(kd, seed=1), replace(crd, seed=1), at, oh, half, teacher, replace(kd, teacher=half)]
    assert [sharing([run], others) for run in (kd, crd, both)] == [1, 1, 2]
    assert sharing([kd, crd], others) == 2
    assert [sharing([run], others) for run in (at, oh, teacher)] == [0, 0, 0]
    assert sharing([kd, at], others) == 0, "a cohort that needs maps keeps nothing"


def test_the_queue_says_who_waits(tmp_path: Path, cache: Path) -> None:
    (short,) = students(tmp_path, "kd", epochs=2)
    runs = [replace(short, seed=seed) for seed in range(6)]
    planned = [Planned(Cell(Pair("wide", "tiny"), "student", "standard"), run) for run in runs]
    sftn.experiments.queue.work(planned, images(), tmp_path, replace(STORED, cohort=1, jobs="1"))
    assert cache.exists()
    record, _ = compared(tmp_path, runs[5])
    assert record is not None
    assert record["from_other_runs"] > 0


PROCESS = """
import os, signal, sys
from functools import partial
from pathlib import Path
from sftn.networks import KEYS, NETWORKS
from sftn.runs.runner import train
from tests.runs.test_teacher_cache import STORED, images, later
from tests.support import tiny
from tests.support.interruptions import Bomb
NETWORKS.update(tiny=partial(tiny.network, (4, 6, 8)), wide=partial(tiny.network, (6, 8, 12)))
KEYS.update(tiny=(), wide=())
out, seed, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
train(later(out, seed=seed), images(), out, STORED, callback=Bomb(last, lambda: os.kill(os.getpid(), signal.SIGKILL)))
"""


def process(out: Path, seed: int, last: int = 0) -> subprocess.Popen[bytes]:
    """A student is trained by another process, which is killed at a step."""
    return subprocess.Popen([sys.executable, "-c", PROCESS, str(out), str(seed), str(last)])


def test_processes_share_a_store_and_one_that_is_killed_spoils_nothing(tmp_path: Path, cache: Path) -> None:
    (first, second) = (later(tmp_path / "once", seed=seed) for seed in (1, 2))
    at_once = [process(tmp_path / "once", seed=3, last=9), process(tmp_path / "once", seed=1)]
    assert [each.wait() for each in at_once] == [-signal.SIGKILL, 0]
    train(second, images(), tmp_path / "once", STORED)
    for run in (first, second):
        record, found = compared(tmp_path / "once", run)
        assert found == alone(tmp_path / "plain", run)[1]
    assert record is not None
    assert record["from_other_runs"] > 0
    assert [entry.busy for entry in stores(cache)] == [False]

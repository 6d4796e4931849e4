"""Exported networks: safetensors, ONNX, the files beside them, and the results that they are made from."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import torch as safetensors

from reliability import hostile
from reliability.bad_records import record_of, run_of
from reliability.pictures import image_file
from reliability.reader import Bad, Reader, needing
from sftn.deploy.predict import opened, predict
from sftn.deploy.preprocessing import Images, config
from sftn.deploy.source import Source
from sftn.networks import build
from sftn.spec.run import FORMAT

IMAGES = Images(("a", "b", "c"), (3, 16, 16), 16, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


def _about(**changes: Any) -> dict[str, Any]:
    return IMAGES.record() | changes


def _exported(images: Any = None) -> bytes:
    torch.manual_seed(0)
    said = {"network": "wrn_10_1", "classes": "3", "images": json.dumps(_about() if images is None else images)}
    return safetensors.save(build("wrn_10_1", classes=3).state_dict(), {"sftn": json.dumps(said)})


def _picture(folder: Path) -> None:
    (folder / "1.png").write_bytes(image_file("PNG"))


def _predict(name: str, folder: Path) -> None:
    list(predict(opened(folder / name), [folder / "1.png"]))


def _claims(make: Callable[[Any], bytes]) -> Bad:
    """Records of a network's input that would be expensive or are invalid."""
    several: tuple[dict[str, Any], ...] = (
        {"shape": [3, 10**6, 10**6]},
        {"shape": [10**9, 16, 16]},
        {"shape": [3, -16, -16]},
        {"resize": 10**9},
        {"resize": 1e308},
        {"classes": ["x"] * 10**6},
        {"classes": []},
        {"classes": ["\x1b[2J\n", "[/x]", "\ud800"]},
        {"mean": [float("nan")] * 3},
        {"std": [0, 0, 0]},
        {"std": [5e-324] * 3},
    )
    for changes in several:
        yield f"{next(iter(changes))} {str(next(iter(changes.values())))[:20]}", make(_about(**changes))
    others: tuple[Any, ...] = (3, [], "x", [[[]]] * 9)
    for other in others:
        yield f"the record {str(other)[:9]}", make(other)


def _shipped(canary: Path) -> Bad:
    return _claims(_exported)


def _result(images: Any = None) -> bytes:
    numbers = {
        "accuracy": 50.0,
        "best_accuracy": 51.0,
        "seconds": 3.0,
        "images": _about() if images is None else images,
    }
    return json.dumps({"format": FORMAT, "id": run_of(network="wrn_10_1").id, **numbers}).encode()


def _results(canary: Path) -> Bad:
    yield from _claims(_result)
    yield from hostile.texts()


def _beside_result(folder: Path) -> None:
    (folder / "run.json").write_bytes(record_of(run_of(network="wrn_10_1")))
    (folder / "weights.safetensors").write_bytes(_exported())


def _config() -> bytes:
    return json.dumps(config("wrn_10_1", IMAGES, "0" * 12)).encode()


def _configs(canary: Path) -> Bad:
    yield from hostile.texts()
    for name in ("model_id", "cache_dir", "revision", "token", "classifier", "card", "self", "cls", "config", "pickle"):
        yield f"says {name}", json.dumps({name: str(canary)}).encode()


def _student(folder: Path) -> None:
    from sftn.deploy.hub import Student

    Student.from_pretrained(folder)


def _beside_config(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(_exported())


def onnx_file(record: Any = None, elsewhere: str | None = None, **changes: Any) -> bytes:
    """Make a tiny network, optionally with its numbers in another file or with another size."""
    from onnx import TensorProto, helper

    count, shape = changes.get("classes", 3), changes.get("shape", IMAGES.shape)
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3, count], [0.01] * 3 * count)
    if elsewhere is not None:
        weight.ClearField("float_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in {"location": elsewhere, "offset": "0", "length": "36"}.items():
            entry = weight.external_data.add()
            entry.key, entry.value = key, value
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    given = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *shape])
    answers = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", count]) for name in ("logits", "probabilities")
    ]
    graph = helper.make_graph(nodes, "g", [given], answers, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    about = config("x", IMAGES, "") | {"images": _about() if record is None else record}
    helper.set_model_props(model, {"sftn": changes.get("text", json.dumps(about))})
    content: bytes = model.SerializeToString()
    return content


def at_length(place: str, longer: bytes = b"\x88\x80\x00") -> bytes:
    """Put its numbers in another file, with the length of the word "location" encoded in more bytes than needed."""
    spare = b"#" * (len(longer) - 1)
    content, short = onnx_file(elsewhere=place + spare.decode()), place.encode()
    written = b"\x08location\x12" + bytes([len(short + spare)]) + short + spare
    assert content.count(written) == 1
    return content.replace(written, longer + b"location\x12" + bytes([len(short)]) + short)


def _onnx_files(canary: Path) -> Bad:
    for place in ("1.png", "../1.png", "/etc/passwd", "/dev/zero", "*/_ORT_MEM_ADDR_/*", "missing", "a/../../1.png"):
        yield f"numbers in {place}", onnx_file(elsewhere=place)
        yield f"numbers in {place}, at length", at_length(place)
    yield from _claims(lambda record: onnx_file(record))
    yield "records 100,000 deep", onnx_file(text="[" * 100_000)
    yield "another number of classes", onnx_file(classes=4)
    yield "images of 10¹⁰ numbers", onnx_file(_about(shape=[3, 2**17, 2**15]), shape=(3, 2**17, 2**15))
    yield "onnxruntime's own format", struct.pack("<I", 8) + b"ORTM" + bytes(4000)
    yield "nothing", b""


_VALUE = hostile.damaged_json
_IMAGES = partial(_predict, "m.safetensors")
_ONNX = partial(_predict, "m.onnx")
SHIPPED = (
    Reader("exported weights", "m.safetensors", _exported, _IMAGES, _shipped, _picture),
    Reader("result.json, exported", "result.json", _result, Source.of, _results, _beside_result),
    Reader(
        "result.json, exported, another value", "result.json", _result, Source.of, beside=_beside_result, damage=_VALUE
    ),
    *needing(
        ("onnx", "onnxruntime"),
        Reader("ONNX file", "m.onnx", onnx_file, _ONNX, _onnx_files, _picture),
    ),
    *needing(
        ("huggingface_hub",),
        Reader("config.json", "config.json", _config, _student, _configs, _beside_config),
        Reader("config.json, another value", "config.json", _config, _student, beside=_beside_config, damage=_VALUE),
    ),
)

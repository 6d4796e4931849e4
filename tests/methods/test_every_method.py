"""What is asked of methods alike: hostile activations, a state that goes round, half precision.

AB, CRD, FT and SSKD need tests of their own under hostile activations, and KD has no `Method`: see their files.
"""

import doctest
import re

import pytest
import torch
from torch.nn import functional as F

from sftn.errors import InputError
from sftn.methods import (
    AT,
    CTKD,
    DIST,
    DKD,
    FT,
    METHODS,
    NKD,
    OH,
    PKT,
    RKD,
    SP,
    USKD,
    VID,
    WKDF,
    WKDL,
    Batch,
    FitNet,
    Method,
    ReviewKD,
)
from sftn.methods.kd import distillation_loss
from sftn.methods.options import options
from sftn.networks.alignment import Pair
from sftn.spec.schedule import Schedule
from tests.support import golden_methods as golden
from tests.support import tiny


@golden.hostile
@pytest.mark.parametrize("build", [AT, CTKD, DIST, DKD, FitNet, NKD, OH, PKT, ReviewKD, RKD, SP, USKD, VID, WKDF, WKDL])
def test_hostile_activations(build, kind, dtype, size):
    golden.assert_survives(build(golden.pair("halved")), kind, dtype, size)


@golden.hostile
@pytest.mark.parametrize("build", [CTKD, DIST, DKD, NKD, WKDL])
def test_hostile_standardised_logits(build, kind, dtype, size):
    golden.assert_survives(build(golden.pair("halved"), standardise=True), kind, dtype, size)


@pytest.mark.parametrize("build", [AT, PKT, RKD, SP])
def test_a_loss_alone_has_no_state(build):
    assert not build(golden.pair("doubled")).state_dict()


@pytest.mark.parametrize(
    ("build", "case"),
    [(FitNet, "equal"), (FitNet, "doubled"), (FT, "equal"), (FT, "doubled"), (VID, "halved"), (VID, "doubled")],
)
def test_state_round_trip(build, case):
    golden.assert_round_trip(build(golden.pair(case)), build(golden.pair(case)))


@pytest.mark.parametrize("build", [FitNet, FT, ReviewKD, VID])
def test_under_autocast(build):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        golden.assert_survives(build(golden.pair("doubled")), "random", torch.bfloat16, 2)


@pytest.mark.parametrize("documented", [Method, distillation_loss, *METHODS.values()])
def test_the_example_of_a_docstring_runs(documented):
    """With networks, images and labels as the page about own methods has them; it ends in a loss or a first stage."""
    torch.manual_seed(0)
    teacher, student = tiny.network((6, 8, 12)), tiny.network()
    images, labels, index = torch.randn(8, *tiny.IMAGE), torch.arange(8) % tiny.CLASSES, torch.arange(8)
    names = {
        **{method.__name__: method for method in (*METHODS.values(), Pair, Batch, Schedule, distillation_loss)},
        **{"F": F, "teacher": teacher, "student": student, "images": images, "labels": labels, "index": index},
        "training_labels": torch.arange(48) % tiny.CLASSES,
        "batch": Batch(images, labels, index),
    }
    names["pair"] = Pair.of(teacher, student, tiny.IMAGE, names["training_labels"])
    code = "".join(example.source for example in doctest.DocTestParser().get_examples(documented.__doc__))
    exec(code.replace("(3, 32, 32)", str(tiny.IMAGE)), names)
    assert "loss" in names or "first_stage" in names
    if "loss" in names:
        assert names["loss"].shape == ()
        names["loss"].backward()
        assert any(parameter.grad is not None for parameter in student.parameters())


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in METHODS for option in options(METHODS[name])])
def test_a_hyper_parameter_out_of_range_is_one_line(name, option):
    """-1, whatever it is; only a switch and CTKD's parameter may be anything."""
    if options(METHODS[name])[option].kind is not bool and (name, option) != ("ctkd", "start"):
        with pytest.raises(InputError, match=option) as caught:
            METHODS[name](golden.pair("equal"), **{option: -1})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", METHODS)
def test_a_class_says_where_it_is_from_and_what_it_reads(name):
    """In its docstring the paper, the shapes and what is different; for the list of methods a line of each."""
    method = METHODS[name]
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|CVPR 2023", method.__doc__)
    assert re.search(r"\((4?B|\d?B), ", method.__doc__)
    assert "eviation" in method.__doc__
    assert method.summary
    assert method.reads
    assert method.source

"""What is asked of methods alike: hostile activations, a state that goes round, half precision.

AB, CRD, FT and SSKD need tests of their own under hostile activations, and KD has no `Method`: see their files.
"""

import pytest
import torch

from sftn.methods.at import AT
from sftn.methods.fitnet import FitNet
from sftn.methods.ft import FT
from sftn.methods.oh import OH
from sftn.methods.pkt import PKT
from sftn.methods.rkd import RKD
from sftn.methods.sp import SP
from sftn.methods.vid import VID
from tests.support import golden_methods as golden


@golden.hostile
@pytest.mark.parametrize("build", [AT, FitNet, OH, PKT, RKD, SP, VID])
def test_hostile_activations(build, kind, dtype, size):
    golden.assert_survives(build(golden.pair("halved")), kind, dtype, size)


@pytest.mark.parametrize("build", [AT, PKT, RKD, SP])
def test_a_loss_alone_has_no_state(build):
    assert not build(golden.pair("doubled")).state_dict()
    golden.assert_round_trip(build(golden.pair("doubled")), build(golden.pair("doubled")))


@pytest.mark.parametrize(
    ("build", "case"),
    [(FitNet, "equal"), (FitNet, "doubled"), (FT, "equal"), (FT, "doubled"), (VID, "halved"), (VID, "doubled")],
)
def test_state_round_trip(build, case):
    assert build(golden.pair(case)).state_dict()
    golden.assert_round_trip(build(golden.pair(case)), build(golden.pair(case)))


@pytest.mark.parametrize("build", [FitNet, FT, VID])
def test_under_autocast(build):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        golden.assert_survives(build(golden.pair("doubled")), "random", torch.bfloat16, 2)

"""The distillation methods by name. A new one is a file, a line here and a test."""

from __future__ import annotations

from sftn.methods.ab import AB
from sftn.methods.at import AT
from sftn.methods.base import Batch, Method, in_float32
from sftn.methods.catkd import CATKD
from sftn.methods.crd import CRD
from sftn.methods.ctkd import CTKD
from sftn.methods.dist import DIST
from sftn.methods.dkd import DKD
from sftn.methods.fitnet import FitNet
from sftn.methods.ft import FT
from sftn.methods.mlkd import MLKD
from sftn.methods.nkd import NKD
from sftn.methods.oh import OH
from sftn.methods.pkt import PKT
from sftn.methods.reviewkd import ReviewKD
from sftn.methods.rkd import RKD
from sftn.methods.simkd import SimKD
from sftn.methods.sp import SP
from sftn.methods.sskd import SSKD
from sftn.methods.uskd import USKD
from sftn.methods.vid import VID
from sftn.methods.wkd import WKDF, WKDL

__all__ = [
    "AB",
    "AT",
    "CATKD",
    "CRD",
    "CTKD",
    "DIST",
    "DKD",
    "FT",
    "METHODS",
    "MLKD",
    "NKD",
    "OH",
    "PKT",
    "RKD",
    "SP",
    "SSKD",
    "USKD",
    "VID",
    "WKDF",
    "WKDL",
    "Batch",
    "FitNet",
    "Method",
    "ReviewKD",
    "SimKD",
    "in_float32",
]

METHODS: dict[str, type[Method]] = {
    # Tables 17 and 18, in their order. Plain KD is not here: it stands once, in the objective.
    "fitnet": FitNet,
    "at": AT,
    "sp": SP,
    "vid": VID,
    "rkd": RKD,
    "pkt": PKT,
    "ab": AB,
    "ft": FT,
    "crd": CRD,
    "sskd": SSKD,
    "oh": OH,
    # Newer than the paper's tables.
    "dkd": DKD,
    "dist": DIST,
    "reviewkd": ReviewKD,
    "mlkd": MLKD,
    "nkd": NKD,
    "simkd": SimKD,
    "ctkd": CTKD,
    "catkd": CATKD,
    "uskd": USKD,
    "wkd-l": WKDL,
    "wkd-f": WKDF,
}

#!/usr/bin/env bash
# torchdistill's KDLoss loses its factor τ² where alpha is exactly 0.
#
# Guess, written down before: alpha weighs cross-entropy against distillation, alpha·CE + (1 − alpha)·τ²·KL, so the loss
# is continuous in alpha and alpha = 0 gives τ²·KL; a given `beta` replaces 1 − alpha.
# Seen: torchdistill 1.1.5 (torch 2.13.0, torchvision 0.28.0, CPU). With alpha = 0 or None the loss is KL alone, without
# τ² and without beta. At τ = 4, alpha = 1e-6 gives 16 times what alpha = 0 gives, and beta = 3 changes nothing at
# alpha = 0. A weight from a configuration without hard labels is therefore τ² too large anywhere else.
# Fails if that changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0
"$place/venv/bin/pip" install --quiet --no-deps torchvision==0.28.0 torchdistill==1.1.5
"$place/venv/bin/pip" install --quiet numpy==2.4.6 scipy==1.17.1 pyyaml==6.0.4 pillow==13.0.0 cython==3.3.1
cat > "$place/seen.py" <<'P'
import torch
from torch.nn import functional as F

try:
    import torchvision
except RuntimeError:  # a wheel built for CUDA beside a CPU build of torch: declare what it cannot load
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from torchdistill.losses.mid_level import KDLoss

torch.manual_seed(0)
student, teacher, labels = 3 * torch.randn(8, 10), 3 * torch.randn(8, 10), torch.arange(8)


def loss(**options):
    kd = KDLoss(".", "output", ".", "output", temperature=4.0, **options)
    return kd({".": {"output": student}}, {".": {"output": teacher}}, labels).item()


kl = F.kl_div((student / 4).log_softmax(1), (teacher / 4).softmax(1), reduction="batchmean").item()
seen = {"alpha 0": loss(alpha=0.0), "alpha 0, beta 3": loss(alpha=0.0, beta=3.0), "alpha 1e-6": loss(alpha=1e-6)}
print(f"KL at temperature 4: {kl:.4f}; 16 KL: {16 * kl:.4f};", "; ".join(f"{k}: {v:.4f}" for k, v in seen.items()))
assert abs(seen["alpha 0"] - kl) < 1e-5
assert abs(seen["alpha 0, beta 3"] - kl) < 1e-5
assert abs(seen["alpha 1e-6"] / kl - 16) < 1e-3
P
"$place/venv/bin/python" "$place/seen.py"

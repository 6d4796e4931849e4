#!/usr/bin/env bash
# timm's distillation task computes its KD term in bfloat16 under autocast on a CPU, and loses it near the end.
#
# Guess, written down before: under autocast the softmax and the divergence are computed in float32, as autocast does
# with log_softmax and kl_div on CUDA, so bf16 costs the KD term no more than the rounding of the logits.
# Seen: timm 1.0.31 (torch 2.13.0, torchvision 0.28.0, CPU). Autocast for CPUs leaves log_softmax in bfloat16, and the
# task does not convert the logits. For a student that is near its teacher (logits 0.05 apart, 100 classes, τ = 4), the
# loss of the very same bf16 logits is about twice that in float32, and the gradient's relative error is about 1: the
# gradient that is left is noise. With float32 logits all is exact. Convert logits to float32 before such a loss.
# Fails if that changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0
"$place/venv/bin/pip" install --quiet --no-deps torchvision==0.28.0 timm==1.0.31
"$place/venv/bin/pip" install --quiet numpy==2.4.6 pyyaml==6.0.4 pillow==13.0.0 huggingface_hub==2.4.0 safetensors
cat > "$place/seen.py" <<'P'
import torch
from torch import nn
from torch.nn import functional as F

try:
    import torchvision
except RuntimeError:  # a wheel built for CUDA beside a CPU build of torch: declare what it cannot load
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from timm.task import DistillationTeacher, LogitDistillationTask

torch.manual_seed(0)
TAU = 4.0
images, labels = torch.randn(64, 3, 8, 8), torch.arange(64)
logits = torch.randn(64, 100)
near = logits + 0.05 * torch.randn(64, 100)


class Logits(nn.Module):
    """Gives the same logits for any images."""

    def __init__(self, values):
        super().__init__()
        self.values = nn.Parameter(values)
        self.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.25,) * 3}

    def forward(self, images):
        return self.values * 1


def errors(dtype):
    """Loss of the task, loss in float32 of the same logits, and relative error of the gradient."""
    student, teacher = Logits(near.to(dtype)), Logits(logits.to(dtype))
    options = {"task_loss_weight": 0.0, "temperature": TAU, "verbose": False}
    task = LogitDistillationTask(student, DistillationTeacher(teacher), nn.CrossEntropyLoss(), **options)
    with torch.autocast("cpu", torch.bfloat16):
        found = task(images, labels)
    found["loss"].backward()
    exact, fixed = student.values.detach().float().requires_grad_(), teacher.values.detach().float()
    wanted = F.kl_div(
        (exact / TAU).log_softmax(1), (fixed / TAU).log_softmax(1), reduction="batchmean", log_target=True
    )
    (wanted * TAU**2).backward()
    gradient = student.values.grad.float()
    return found["kd_loss"].item(), (wanted * TAU**2).item(), ((gradient - exact.grad).norm() / exact.grad.norm()).item()


for dtype in (torch.float32, torch.bfloat16):
    ours, wanted, error = errors(dtype)
    print(f"{dtype} logits: KD term {ours:.6f}, in float32 {wanted:.6f}, relative error of the gradient {error:.2g}")
    if dtype == torch.float32:
        assert abs(ours / wanted - 1) < 1e-4 and error < 1e-3
    else:
        assert ours / wanted > 1.5 and error > 0.5
P
"$place/venv/bin/python" "$place/seen.py"

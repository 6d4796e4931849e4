#!/usr/bin/env bash
# A teacher in torchdistill's distillation box keeps learning its batch statistics.
#
# Guess, written down before: a teacher with `requires_grad: False` is frozen; the box puts it into evaluation mode, as
# RepDistiller, mdistiller and timm do, so that distilling leaves the teacher as it was.
# Seen: torchdistill 1.1.5 (torch 2.13.0, torchvision 0.28.0, CPU). The box never calls `eval()` on the teacher. After
# `pre_epoch_process` it is in training mode: its batch norm normalises by the batch, and each forward pass moves its
# running statistics. After two batches of other images than it was trained on, the same teacher in evaluation mode
# gives other logits. Teachers must be put into evaluation mode by hand, after `pre_epoch_process` in every epoch.
# Fails if that changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0
"$place/venv/bin/pip" install --quiet --no-deps torchvision==0.28.0 torchdistill==1.1.5
"$place/venv/bin/pip" install --quiet numpy==2.4.6 scipy==1.17.1 pyyaml==6.0.4 pillow==13.0.0 cython==3.3.1
cat > "$place/seen.py" <<'P'
import copy
import logging

import torch
from torch import nn

try:
    import torchvision
except RuntimeError:  # a wheel built for CUDA beside a CPU build of torch: declare what it cannot load
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from torchdistill.core.distillation import get_distillation_box

logging.disable(logging.CRITICAL)
torch.manual_seed(0)


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.append(nn.Linear(16, 10))


class Images(torch.utils.data.Dataset):
    classes = list(range(10))
    targets = [i % 10 for i in range(64)]

    def __len__(self):
        return 64

    def __getitem__(self, i):
        return 2 * torch.randn(3, 8, 8) + 1, i % 10


place = {"student_module_path": ".", "student_module_io": "output", "teacher_module_path": ".", "teacher_module_io": "output"}
kd = {"key": "KDLoss", "kwargs": {**place, "temperature": 4.0, "alpha": 0.1}}
config = {
    "num_epochs": 1,
    "train_data_loader": {
        "dataset_id": "train",
        "sampler": {"class_or_func": torch.utils.data.RandomSampler},
        "kwargs": {"batch_size": 32},
    },
    "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
    "student": {"forward_proc": "forward_batch_only"},
    "optimizer": {"key": "SGD", "kwargs": {"lr": 0.01}},
    "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": kd, "weight": 1.0}}}},
}
teacher, student, images = Net(), Net(), torch.randn(32, 3, 8, 8)
before, statistics = copy.deepcopy(teacher).eval()(images), teacher[1].running_mean.clone()
box = get_distillation_box(teacher, student, {"train": Images()}, config, torch.device("cpu"), None, False, 1)
box.pre_epoch_process(epoch=0)
training = teacher.training
for batch in box.train_data_loader:
    box.post_forward_process(loss=box.forward_process(*batch))
moved = (teacher[1].running_mean - statistics).abs().max().item()
drift = (teacher.eval()(images) - before).abs().max().item()
print(f"teacher in training mode: {training}; running mean moved by {moved:.2f}; evaluation logits by {drift:.4f}")
assert training and moved > 0.05 and drift > 1e-3
P
"$place/venv/bin/python" "$place/seen.py"

#!/usr/bin/env bash
# Table 3, ResNet50 on ImageNet.
# Published: base 76.13, pruned 74.93, speedup 2.56x.
# Written by make_paper_scripts.py; flags given to this script are added to the command.
set -euo pipefail
cd "$(dirname "$0")/../.."
python main.py --dataset imagenet --arch resnet50 --pretrained --method GReg-2 --screen --stage_pr '[0,0.74,0.74,0.6,0.21,0]' --project GReg-2__resnet50__imagenet__2.56x_pr0.740.60.21 "$@"

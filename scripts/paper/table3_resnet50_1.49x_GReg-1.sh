#!/usr/bin/env bash
# Table 3, ResNet50 on ImageNet.
# Published: base 76.13, pruned 76.27, speedup 1.49x.
# Written by make_paper_scripts.py; flags given to this script are added to the command.
set -euo pipefail
cd "$(dirname "$0")/../.."
python main.py --dataset imagenet --arch resnet50 --pretrained --method GReg-1 --screen --stage_pr '[0,0.3,0.3,0.3,0.14,0]' --project GReg-1__resnet50__imagenet__1.49x_pr0.30.14 "$@"

#!/usr/bin/env bash
# Table 3, ResNet50 on ImageNet.
# Published: base 76.13, pruned 75.36, speedup 2.31x.
# Written by make_paper_scripts.py; flags given to this script are added to the command.
set -euo pipefail
cd "$(dirname "$0")/../.."
python main.py --dataset imagenet --arch resnet50 --pretrained --method GReg-2 --screen --stage_pr '[0,0.6,0.6,0.6,0.21,0]' --project GReg-2__resnet50__imagenet__2.31x_pr0.60.21 "$@"

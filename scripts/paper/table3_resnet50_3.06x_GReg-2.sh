#!/usr/bin/env bash
# Table 3, ResNet50 on ImageNet.
# Published: base 76.13, pruned 73.90, speedup 3.06x.
# Written by make_paper_scripts.py; flags given to this script are added to the command.
set -euo pipefail
cd "$(dirname "$0")/../.."
python main.py --dataset imagenet --arch resnet50 --pretrained --method GReg-2 --screen --stage_pr '[0,0.68,0.68,0.68,0.5,0]' --project GReg-2__resnet50__imagenet__3.06x_pr0.680.5 "$@"

#!/usr/bin/env bash
# Table 3, ResNet34 on ImageNet.
# Published: base 73.31, pruned 73.54, speedup 1.32x.
# Written by make_paper_scripts.py; flags given to this script are added to the command.
set -euo pipefail
cd "$(dirname "$0")/../.."
python main.py --dataset imagenet --arch resnet34 --pretrained --method GReg-1 --screen --stage_pr '[0,0.5,0.6,0.4,0,0]' --skip_layers '[1.0,2.0,2.3,3.0,3.5]' --project GReg-1__resnet34__imagenet__1.32x_pr0.50.60.4 "$@"

#!/usr/bin/env bash
# Table 3, ResNet50 on ImageNet, from the authors' own weaker base.
# Published: base 75.40, pruned 76.13, speedup 1.49x.
# Written by make_paper_scripts.py; flags given to this script are added to the command.
set -euo pipefail
cd "$(dirname "$0")/../.."
python main.py --dataset imagenet --arch resnet50 --method GReg-2 --screen --stage_pr '[0,0.3,0.3,0.3,0.14,0]' --project GReg-2__resnet50__imagenet__1.49x_pr0.30.14 --base_model_path "${BASE:?a ResNet50 of about 75.40 %; the authors published none}" "$@"

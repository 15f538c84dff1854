#!/usr/bin/env bash
# Table 3, ResNet50 on ImageNet, from the authors' own weaker base.
# Published: base 75.40, pruned 75.22, speedup 2.31x.
# Written by make_paper_scripts.py; flags given to this script are added to the command.
set -euo pipefail
cd "$(dirname "$0")/../.."
python main.py --dataset imagenet --arch resnet50 --method GReg-2 --screen --stage_pr '[0,0.6,0.6,0.6,0.21,0]' --project GReg-2__resnet50__imagenet__2.31x_pr0.60.21 --base_model_path "${BASE:?a ResNet50 of about 75.40 %; the authors published none}" "$@"

#!/usr/bin/env bash
# Table 4, unstructured, ResNet50 on ImageNet.
# Published: base 76.13, pruned 75.27, sparsity 82.70 %.
# Written by make_paper_scripts.py; flags given to this script are added to the command.
set -euo pipefail
cd "$(dirname "$0")/../.."
python main.py --dataset imagenet --arch resnet50 --pretrained --method GReg-2 --wg weight --screen --stage_pr '[0,0.827,0.827,0.827,0.827,0.827]' --project GReg-2__resnet50__imagenet__wgweight_pr0.827 "$@"

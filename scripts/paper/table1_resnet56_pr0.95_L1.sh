#!/usr/bin/env bash
# Table 1, ResNet56 on CIFAR-10, ratio 0.95, L1.
# Published: base 93.36, pruned 82.79±0.22 (3 runs), speedup 19.31x, sparsity 95.19 %.
# Written by make_paper_scripts.py; flags given to this script are added to the command.
set -euo pipefail
cd "$(dirname "$0")/../.."
python main.py --method L1 -a resnet56 --dataset cifar10 --wd 0.0005 --lr_ft 0:0.01,60:0.001,90:0.0001 --epochs 120 --base_model_path 'Experiments/*scratch__resnet56__cifar10*/weights/checkpoint_best.pth' --batch_size 128 --stage_pr '[0,0.95,0.95,0.95,0]' --project L1__resnet56__cifar10__pr0.95 --screen "$@"

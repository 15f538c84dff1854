#!/usr/bin/env bash
# Table 1, VGG19 on CIFAR-100, ratio 0.6, L1.
# Published: base 74.02, pruned 70.27±0.12 (3 runs), speedup 5.41x, sparsity 84.0 %.
# Written by make_paper_scripts.py; flags given to this script are added to the command.
set -euo pipefail
cd "$(dirname "$0")/../.."
python main.py --method L1 -a vgg19 --dataset cifar100 --wd 0.0005 --lr_ft 0:0.01,60:0.001,90:0.0001 --epochs 120 --base_model_path 'Experiments/*scratch__vgg19__cifar100*/weights/checkpoint_best.pth' --batch_size 256 --stage_pr '[1-15:0.6]' --project L1__vgg19__cifar100__pr0.6 --screen "$@"

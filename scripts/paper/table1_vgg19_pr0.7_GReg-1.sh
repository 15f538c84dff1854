#!/usr/bin/env bash
# Table 1, VGG19 on CIFAR-100, ratio 0.7, GReg-1.
# Published: base 74.02, pruned 67.35±0.15 (3 runs), speedup 8.84x, sparsity 90.98 %.
# Written by make_paper_scripts.py; flags given to this script are added to the command.
set -euo pipefail
cd "$(dirname "$0")/../.."
python main.py --method GReg-1 -a vgg19 --dataset cifar100 --wd 0.0005 --lr_ft 0:0.01,60:0.001,90:0.0001 --epochs 120 --base_model_path 'Experiments/*scratch__vgg19__cifar100*/weights/checkpoint_best.pth' --batch_size_prune 256 --batch_size 256 --update_reg_interval 10 --stabilize 10000 --stage_pr '[1-15:0.7]' --project GReg-1__vgg19__cifar100__pr0.7 --screen "$@"

#!/usr/bin/env bash
# Table 1, VGG19 on CIFAR-100, ratio 0.5, GReg-1.
# Published: base 74.02, pruned 71.50±0.12 (3 runs), speedup 3.6x, sparsity 74.87 %.
# Written by make_paper_scripts.py; flags given to this script are added to the command.
set -euo pipefail
cd "$(dirname "$0")/../.."
python main.py --method GReg-1 -a vgg19 --dataset cifar100 --wd 0.0005 --lr_ft 0:0.01,60:0.001,90:0.0001 --epochs 120 --base_model_path 'Experiments/*scratch__vgg19__cifar100*/weights/checkpoint_best.pth' --batch_size_prune 256 --batch_size 256 --update_reg_interval 10 --stabilize 10000 --stage_pr '[1-15:0.5]' --project GReg-1__vgg19__cifar100__pr0.5 --screen "$@"

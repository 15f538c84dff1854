#!/usr/bin/env bash
# The unpruned VGG19 on CIFAR-100 that tables 1 and 2 start from.
# Published: accuracy 74.02.
# Written by make_paper_scripts.py; flags given to this script are added to the command.
set -euo pipefail
cd "$(dirname "$0")/../.."
python main.py --arch vgg19 --dataset cifar100 --method L1 --stage_pr '[0-18:0]' --batch_size 256 --wd 0.0005 --lr_ft 0:0.1,100:0.01,150:0.001 --epochs 200 --project scratch__vgg19__cifar100 "$@"

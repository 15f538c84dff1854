#!/usr/bin/env bash
# The unpruned ResNet56 on CIFAR-10 that tables 1 and 2 start from.
# Published: accuracy 93.36.
# Written by make_paper_scripts.py; flags given to this script are added to the command.
set -euo pipefail
cd "$(dirname "$0")/../.."
python main.py --arch resnet56 --dataset cifar10 --method L1 --stage_pr '[0,0,0,0,0]' --batch_size 128 --wd 0.0005 --lr_ft 0:0.1,100:0.01,150:0.001 --epochs 200 --project scratch__resnet56__cifar10 "$@"

#!/usr/bin/env bash
# The ImageNet path on ten of its classes at 224 px (about a quarter of an hour on two cores): a ResNet18 trained for two
# epochs, then 300 steps of GReg-1, the cut and an epoch of fine-tuning. It shows that the path works, not that the
# method does: 1,200 images and two epochs train no network worth pruning.
#
#   scripts/imagenette.sh IMAGES [flags of main.py]
#
# IMAGES: a folder with train/<class>/ and val/<class>/.
set -euo pipefail
[[ $# -ge 1 && $1 != -* ]] || { sed -n '2,8p' "$0" >&2; exit 2; }
images=$(realpath "$1")
shift
cd "$(dirname "$0")/.."

stamp=$(date +%Y%m%d-%H%M%S)
common=(--dataset folder --data_path "$images" --arch resnet18 --seed 0 --batch_size 16 --print_freq 25)
python main.py "${common[@]}" --method none --lr_ft 0:0.02,1:0.004 --epochs 2 --project "nette-$stamp-base" "$@"
python main.py "${common[@]}" --method GReg-1 --stage_pr "[0,0.5,0.5,0.5,0.5,0]" --expect_speedup 1.86 \
    --base_model_path "*/nette-$stamp-base_*/weights/checkpoint_best.pth" --batch_size_prune 4 --lr_prune 0.01 \
    --update_reg_interval 1 --reg_granularity_prune 0.05 --reg_upper_limit 10 --stabilize_reg_interval 99 \
    --print_interval 25 --epochs 1 --lr_ft 0:0.01 --project "nette-$stamp-GReg-1" "$@"
python scripts/compare.py */nette-"$stamp"-*

#!/usr/bin/env bash
# A real experiment on a small machine (about an hour on two cores): a trained ResNet20, fine-tuned on the user's images,
# then cut to half its FLOPs by L1, GReg-1 and GReg-2 with the same fine-tuning, on shortened schedules.
#
#   scripts/cifar10_jpeg.sh IMAGES WEIGHTS [flags of main.py]
#
# IMAGES: a folder with train.npz and test.npz (CIFAR-10 through JPEG at quality 75, for the README's figures).
# WEIGHTS: a ResNet20 state dict, such as resnet20-cifar10-12fca82f.th.
set -euo pipefail
[[ $# -ge 2 && $1 != -* ]] || { sed -n '2,8p' "$0" >&2; exit 2; }
images=$(realpath "$1") weights=$(realpath "$2")
shift 2
cd "$(dirname "$0")/.."

stamp=$(date +%Y%m%d-%H%M%S)
common=(--dataset npz --data_path "$images" --arch resnet20 --seed 0 --batch_size 128 --wd 0.0005)
cut=("${common[@]}" --base_model_path "*/jpeg-$stamp-base_*/weights/checkpoint_best.pth"
     --stage_pr "[0,0.5,0.5,0.5,0]" --expect_speedup 1.99 --lr_ft 0:0.01,1:0.001 --epochs 2)
greg=(--batch_size_prune 128 --lr_prune 0.01 --update_reg_interval 2 --reg_granularity_prune 0.05
      --reg_upper_limit 10 --stabilize_reg_interval 200)

python main.py "${common[@]}" --method none --base_model_path "$weights" --lr_ft 0:0.01,1:0.001 --epochs 2 \
    --project "jpeg-$stamp-base" "$@"
python main.py "${cut[@]}" --method L1 --project "jpeg-$stamp-L1" "$@"
python main.py "${cut[@]}" --method GReg-1 "${greg[@]}" --project "jpeg-$stamp-GReg-1" "$@"
python main.py "${cut[@]}" --method GReg-2 "${greg[@]}" --reg_granularity_pick 0.002 --reg_upper_limit_pick 0.1 \
    --project "jpeg-$stamp-GReg-2" "$@"
# L1 with as many training steps as GReg takes in total: the control at equal steps.
python main.py "${cut[@]}" --method L1 --epochs 4 --lr_ft 0:0.01,3:0.001 --project "jpeg-$stamp-L1-longer" "$@"
python scripts/compare.py */jpeg-"$stamp"-*

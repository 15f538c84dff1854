#!/usr/bin/env bash
# A complete example in about a minute on two cores, without downloads: train a small ResNet on scikit-learn's
# digits, cut it to half its FLOPs by one-shot L1, then by GReg-2. Extra flags are passed to every run;
# under --debug, runs are in Debug_Dir/.
#
# The schedule is short, so λ goes to 10 at a learning rate of 0.01, where the paper takes it to 1 at 0.001 in
# 100,000 steps: the pruned filters must have decayed to zero before the cut.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=$(date +%Y%m%d-%H%M%S)
common=(--dataset digits --arch resnet20 --seed 0 --batch_size 64 --wd 0.0005 --print_freq 23)
cut=("${common[@]}" --base_model_path "*/demo-$stamp-base_*/weights/checkpoint_best.pth"
     --stage_pr "[0,0.5,0.5,0.5,0]" --expect_speedup 1.99 --lr_ft 0:0.01,1:0.001 --epochs 2)

echo "1/3  Train the base network"
python main.py "${common[@]}" --method none --lr_ft 0:0.1,3:0.01,5:0.001 --epochs 6 --project "demo-$stamp-base" "$@"
echo
echo "2/3  L1: cut at one shot, for comparison"
python main.py "${cut[@]}" --method L1 --project "demo-$stamp-L1" "$@"
echo
echo "3/3  GReg-2: let the penalty grow, pick, push to zero, cut"
python main.py "${cut[@]}" --method GReg-2 --batch_size_prune 32 --lr_prune 0.01 --update_reg_interval 1 \
    --reg_granularity_pick 0.01 --reg_upper_limit_pick 0.2 --reg_granularity_prune 0.06 --reg_upper_limit 10 \
    --stabilize_reg_interval 60 --print_interval 50 --project "demo-$stamp-GReg-2" "$@"
echo
python scripts/compare.py */demo-"$stamp"-*
echo "figure: $(ls */demo-"$stamp"-GReg-2_*/log/filter_norms.png)"

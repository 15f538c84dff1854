#!/bin/bash
# One process of a run, a task of train.sbatch. srun returns the largest exit code of all tasks, and those that it stops
# because of another's error end with 143: so an error that ends the job stands in $FINAL_CODE.

source scripts/slurm/requeue.sh
trap : TERM # bash waits for Python, which saves the state
RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS TORCHELASTIC_RUN_ID=$SLURM_JOB_ID \
    python main.py "$@"
code=$?
is_final "$code" && echo "$code" > "$FINAL_CODE"
exit "$code"

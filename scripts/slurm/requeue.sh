# Sourced by the scripts of this folder: queue a job again, or pass its exit code on.

STOPPED=143 # by SIGTERM, before the time limit; the state is saved
LOST=75     # another process of the run is gone

# Usage: is_final EXIT_CODE_OF_A_PROCESS; whether it is of an error, which another attempt would repeat.
is_final() {
    [[ $1 != 0 && $1 != "$STOPPED" && $1 != "$LOST" ]]
}

cancelled=
trap 'cancelled=yes' TERM # by scancel; the signal before the time limit goes to the steps alone

# Usage: end_with EXIT_CODE_OF_THE_RUN
end_with() {
    if [[ -z $cancelled && ($1 == "$STOPPED" || $1 == "$LOST") ]]; then
        scontrol requeue "$SLURM_JOB_ID"
        sleep 300 # SLURM ends this script as it requeues the job
    fi
    exit "$1"
}

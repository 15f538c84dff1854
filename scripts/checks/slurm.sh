#!/usr/bin/env bash
# A SLURM cluster of one node on this computer, in a temporary folder, for slurm.py; taken down at the end. Needs root and
# Debian's slurmctld, slurmd, slurm-client and munge. All traffic stays on the loopback device.
#
#   bash scripts/checks/slurm.sh      (a quarter of an hour)
set -euo pipefail
cd "$(dirname "$0")/../.."

[[ $(id -u) == 0 ]] || { echo "slurm.sh: needs root, to start SLURM's daemons" >&2; exit 2; }
for program in slurmctld slurmd munged sbatch; do
    command -v $program > /dev/null || {
        echo "slurm.sh: needs $program: apt-get install slurmctld slurmd slurm-client munge" >&2; exit 2; }
done

work=$(mktemp -d -t slurm_check_XXXXXX)
down() {
    scancel --me 2> /dev/null || true
    sleep 2
    for daemon in slurmd slurmctld munged; do
        [[ -f $work/$daemon.pid ]] && kill "$(cat "$work/$daemon.pid")" 2> /dev/null
    done
    sleep 1
    pkill -f "slurmstepd.*$work" 2> /dev/null || true
    [[ ${1:-$?} == 0 ]] && rm -rf "$work" || echo "slurm.sh: logs are kept in $work" >&2
}
trap 'code=$?; down $code; exit $code' EXIT

chmod 755 "$work"
dd if=/dev/urandom of="$work/munge.key" bs=1024 count=1 2> /dev/null
chmod 600 "$work/munge.key"
port=$((20000 + RANDOM % 10000))
cat > "$work/slurm.conf" << EOF
ClusterName=check
SlurmctldHost=localhost
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket,cred_expire=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdTimeout=60
KillWait=20
MinJobAge=600
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
NodeName=localhost CPUs=$(nproc) RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=INFINITE State=UP
EOF
export SLURM_CONF=$work/slurm.conf
munged --force --key-file="$work/munge.key" --socket="$work/munge.socket" --pid-file="$work/munged.pid" \
    --log-file="$work/munged.log" --seed-file="$work/munge.seed"
mkdir -p "$work/state" "$work/spool"
slurmctld -c
slurmd -c -N localhost
for _ in {1..30}; do
    [[ $(sinfo --noheader --format=%T 2> /dev/null) == idle ]] && break
    sleep 1
done
python scripts/checks/slurm.py "$work"

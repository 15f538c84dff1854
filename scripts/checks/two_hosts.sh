#!/usr/bin/env bash
# Two hosts on this computer: two network namespaces joined by a cable (a veth pair), with a host name each. Runs
# two_hosts.py between them and takes everything down again. Needs root and Debian's iproute2; 10.77.0.0/24 exists
# inside the namespaces only.
#
#   bash scripts/checks/two_hosts.sh [--cuts N] [--seed N]      (default: 10 cuts, half an hour)
set -euo pipefail
cd "$(dirname "$0")/../.."

[[ $(id -u) == 0 ]] || { echo "two_hosts.sh: needs root, to make network namespaces" >&2; exit 2; }
command -v ip > /dev/null || { echo "two_hosts.sh: needs ip: apt-get install iproute2" >&2; exit 2; }

a=pruning-$$-a b=pruning-$$-b
down() {
    for space in $a $b; do
        ip netns pids $space 2> /dev/null | xargs --no-run-if-empty kill -9 2> /dev/null || true
        ip netns del $space 2> /dev/null || true
    done
}
trap down EXIT
ip netns add $a
ip netns add $b
ip link add cable netns $a type veth peer name cable netns $b
ip -n $a addr add 10.77.0.1/24 dev cable
ip -n $b addr add 10.77.0.2/24 dev cable
for space in $a $b; do
    ip -n $space link set lo up
    ip -n $space link set cable up
done
python scripts/checks/two_hosts.py $a=10.77.0.1 $b=10.77.0.2 "$@"

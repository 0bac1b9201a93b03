#!/usr/bin/env bash
# A Slurm cluster of one node, this machine, on the loopback only: no systemd, no accounting, all state in one folder.
#
#   single_node.sh start DIR     starts it; `export SLURM_CONF=DIR/slurm.conf` makes it yours
#   single_node.sh stop DIR      stops it, and what it still runs
#   single_node.sh run DIR CMD   starts it, runs the command with it, stops it
#   single_node.sh install       Debian, Ubuntu: installs what it needs; nothing else here installs anything
#
# Exit code 3: this machine cannot (not root, or Slurm is not installed).
set -euo pipefail

fail() { echo "single_node.sh: $*" >&2; exit 3; }

needs() {
    [ "$(id -u)" = 0 ] || fail "starting slurmd and munged needs root"
    local command
    for command in slurmctld slurmd sbatch squeue scancel sinfo munged munge; do
        command -v "$command" >/dev/null || fail "$command is not installed; try: $0 install"
    done
}

configure() {
    local host memory
    host=$(hostname -s)
    memory=$(awk '/^MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    mkdir -p "$1"/{state,spool,log}
    cat > "$1/slurm.conf" <<END
ClusterName=single
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=$2
SlurmdPort=$(($2 + 1))
AuthType=auth/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=100000
MpiDefault=none
ReturnToService=2
KillWait=5
MinJobAge=300
StateSaveLocation=$1/state
SlurmdSpoolDir=$1/spool
SlurmctldPidFile=$1/slurmctld.pid
SlurmdPidFile=$1/slurmd.pid
SlurmctldLogFile=$1/log/slurmctld.log
SlurmdLogFile=$1/log/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
}

# A munged that runs already is used, and left running.
start_munge() {
    if munge -n >/dev/null 2>&1; then return; fi
    [ -f /etc/munge/munge.key ] || fail "/etc/munge/munge.key is missing; try: dpkg-reconfigure munge"
    install -d -o munge -g munge -m 755 /run/munge
    runuser -u munge -- /usr/sbin/munged --force
    touch "$1/munge.ours"
}

start() {
    local folder=$1 port attempt
    # Two free ports next to each other, so that several clusters can live side by side.
    port=$(python3 - <<'END'
import socket
while True:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        try:
            two.bind(("127.0.0.1", port + 1))
        except OSError:
            continue
        print(port)
        break
END
)
    configure "$folder" "$port"
    start_munge "$folder"
    export SLURM_CONF="$folder/slurm.conf"
    slurmctld -f "$SLURM_CONF" -c
    slurmd -f "$SLURM_CONF"
    for attempt in $(seq 100); do
        if sinfo -h -o %T 2>/dev/null | grep -q '^idle'; then return; fi
        sleep 0.2
    done
    tail -n 20 "$folder"/log/*.log >&2
    stop "$folder"
    echo "single_node.sh: the node did not become idle within 20 s" >&2
    exit 1
}

stop() {
    local folder=$1 daemon pid attempt
    if [ -f "$folder/slurm.conf" ]; then
        SLURM_CONF="$folder/slurm.conf" timeout 5 scancel --user=root 2>/dev/null || true
    fi
    for daemon in slurmd slurmctld; do
        if [ ! -f "$folder/$daemon.pid" ]; then continue; fi
        pid=$(cat "$folder/$daemon.pid")
        kill "$pid" 2>/dev/null || true
        for attempt in $(seq 50); do
            if ! kill -0 "$pid" 2>/dev/null; then break; fi
            sleep 0.1
        done
    done
    if [ -f "$folder/munge.ours" ] && [ -f /run/munge/munged.pid ]; then
        kill "$(cat /run/munge/munged.pid)" 2>/dev/null || true
    fi
}

case "${1:-}:${2:+folder}" in
    install:*) apt-get update && apt-get install -y --no-install-recommends slurm-wlm munge ;;
    start:folder) needs; mkdir -p "$2"; start "$(realpath "$2")" ;;
    stop:folder) stop "$(realpath "$2")" ;;
    run:folder)
        needs
        mkdir -p "$2"
        folder=$(realpath "$2")
        shift 2
        trap 'stop "$folder"' EXIT
        start "$folder"
        SLURM_CONF="$folder/slurm.conf" "$@"
        ;;
    *) sed -n '2,/^set/ s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

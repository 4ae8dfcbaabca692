#!/bin/bash
# A real S3 on loopback: Ceph's RADOS Gateway (Debian 12's radosgw) on one ceph-mon and one ceph-osd, all in memory.
#   start-real-s3.sh start   DIR PORT   idempotent; up when it ends; prints DIR/env
#   start-real-s3.sh stop    DIR        ends only the processes that it started; their data is gone
#   start-real-s3.sh destroy DIR        stop, then removes DIR
# DIR/env has S3_ENDPOINT S3_REGION S3_ACCESS_KEY_ID S3_SECRET_ACCESS_KEY S3_PID_RGW S3_CONF. The first start installs
# the packages (as root). Uses PORT (http), PORT+2 (mon), PORT+10..PORT+49 (osd) of 127.0.0.1.
set -euo pipefail
cmd=${1:-}; S=$(realpath -m "${2:?the state directory}"); PORT=${3:-9400}; CONF=$S/ceph.conf
[ "${#S}" -le 70 ] || { echo "state path too long for unix sockets: $S" >&2; exit 2; }
log() { echo "real-s3: $*" >&2; }

# Is the process of pid file $1 alive and ours? Its command line names our ceph.conf.
mine() { local p; { p=$(cat "$S/$1.pid") && [ -n "$p" ] && tr '\0' ' ' <"/proc/$p/cmdline" | grep -qF -- "-c $CONF "; } 2>/dev/null; }
taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
answers() { mine rgw && curl -sf -m 2 -o /dev/null "http://127.0.0.1:$PORT/"; }
end_one() {
  mine "$1" || { rm -f "$S/$1.pid"; return 0; }
  local p; p=$(cat "$S/$1.pid"); kill -CONT "$p" 2>/dev/null || true; kill -TERM "$p" 2>/dev/null || true
  for _ in $(seq 50); do mine "$1" || break; sleep 0.1; done
  if mine "$1"; then kill -KILL "$p" 2>/dev/null || true; fi
  rm -f "$S/$1.pid"
}
stop_all() { for n in rgw osd mon; do end_one $n; done; }

install() {
  local packages=() x
  for x in radosgw:radosgw radosgw-admin:radosgw ceph-mon:ceph-mon ceph-osd:ceph-osd ceph:ceph-common monmaptool:ceph-common curl:curl openssl:openssl; do
    command -v "${x%%:*}" >/dev/null || [[ " ${packages[*]-} " == *" ${x#*:} "* ]] || packages+=("${x#*:}")
  done
  [ ${#packages[@]} -gt 0 ] || return 0
  log "installing ${packages[*]}"; export DEBIAN_FRONTEND=noninteractive
  local apt=(apt-get -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 -qq)
  get() { "${apt[@]}" install -y --no-install-recommends --no-upgrade "${packages[@]}" >"$S/log/apt.log" 2>&1; }
  get || { "${apt[@]}" update >>"$S/log/apt.log" 2>&1 || true; get; } || { tail -5 "$S/log/apt.log" >&2; exit 1; }
}

write_conf() { cat >"$CONF" <<C; }
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon initial members = a
mon host = v2:127.0.0.1:$((PORT+2))/0
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr1 = false
ms bind port min = $((PORT+10))
ms bind port max = $((PORT+49))
# loopback only, one tenant: no cephx; radosgw's default "secure" mon session needs cephx
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms mon cluster mode = crc
ms mon service mode = crc
run dir = $S/run
admin socket = $S/run/\$name.asok
pid file =
log file = $S/log/\$name.log
crash dir = $S/log
mon data = $S/mon
osd data = $S/osd
rgw data = $S/rgw
keyring = $S/keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd crush chooseleaf type = 0
osd class update on start = true
osd objectstore = memstore
memstore device bytes = 4294967296
mon allow pool size one = true
mon data avail warn = 1
mon data avail crit = 1
mon osd full ratio = 0.99
mon osd backfillfull ratio = 0.98
mon osd nearfull ratio = 0.97
# pools come up in tenths of a second instead of one second each
paxos propose interval = 0.05
paxos min wait = 0.02
mon tick interval = 1
rgw frontends = beast endpoint=127.0.0.1:$PORT tcp_nodelay=1
rgw thread pool size = 128
rgw enable usage log = false
rgw rados pool pg num min = 4
C

spawn() { local n=$1; shift; (cd "$S"; exec setsid "$@" >>"$S/log/$n.out" 2>&1 </dev/null 9>&-) & echo $! >"$S/$n.pid"; }
wait_for() {
  local what=$1 secs=$2; shift 2
  for _ in $(seq $((secs*10))); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done
  log "$what did not come up in $secs s; see $S/log"; tail -n 5 "$S"/log/*.out >&2 || true; stop_all; exit 1
}

start() {
  mkdir -p "$S/log"; exec 9>"$S/.lock"; flock 9
  if [ -f "$S/env" ] && answers; then cat "$S/env"; return; fi
  install; stop_all
  for q in "$PORT" $((PORT+2)); do ! taken "$q" || { log "port $q is taken by someone else"; exit 1; }; done
  rm -rf "$S"/{mon,osd,rgw,run,env}; mkdir -p "$S"/{mon,osd,rgw,run}
  write_conf
  local ceph="ceph -c $CONF --connect-timeout 5" key secret uuid
  monmaptool --create --clobber --fsid "$(sed -n 's/^fsid = //p' "$CONF")" --addv a "[v2:127.0.0.1:$((PORT+2))/0]" "$S/monmap" >"$S/log/mkfs.out" 2>&1
  ceph-mon -c "$CONF" -i a --mkfs --monmap "$S/monmap" >>"$S/log/mkfs.out" 2>&1
  spawn mon ceph-mon -c "$CONF" -i a -f; wait_for ceph-mon 20 $ceph mon stat
  uuid=$(cat /proc/sys/kernel/random/uuid); $ceph osd new "$uuid" >/dev/null
  ceph-osd -c "$CONF" -i 0 --mkfs --osd-uuid "$uuid" >>"$S/log/mkfs.out" 2>&1
  spawn osd ceph-osd -c "$CONF" -i 0 -f; wait_for ceph-osd 40 bash -c "$ceph osd stat | grep -q '1 up'"
  spawn rgw radosgw -c "$CONF" -n client.rgw.a -f; wait_for radosgw 60 answers
  key=AK$(openssl rand -hex 9 | tr a-f A-F); secret=$(openssl rand -hex 20)
  radosgw-admin -c "$CONF" user create --uid=test --display-name=test --access-key="$key" --secret="$secret" >"$S/log/user.out" 2>&1
  (
    umask 077
    printf '%s\n' "S3_ENDPOINT=http://127.0.0.1:$PORT" S3_REGION=us-east-1 "S3_ACCESS_KEY_ID=$key" \
      "S3_SECRET_ACCESS_KEY=$secret" "S3_PID_RGW=$(cat "$S/rgw.pid")" "S3_CONF=$CONF" >"$S/env.tmp"
  )
  mv "$S/env.tmp" "$S/env"; cat "$S/env"
}

case $cmd in
  start) start ;;
  stop) stop_all ;;
  destroy) stop_all; rm -rf "$S" ;;
  *) sed -n 2,7p "$0"; exit 2 ;;
esac

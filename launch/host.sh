#!/usr/bin/env bash
# Runs on every host, called by tpu.py over ssh: sets Python up, starts the program so that it
# outlives the connection, and tells how it is. All it keeps is in ~/hbt: code, venv, log, exit.
set -euo pipefail
root=$HOME/hbt

# The program holds this lock while it lives; a lock, unlike a number, does not outlive a reboot.
alive() { [[ -e $root/lock ]] && ! { flock -n 9; } 9<"$root/lock"; }

idle() {
  if alive; then
    echo "$HOSTNAME: a program is running already" >&2
    exit 1
  fi
}

# setup JAX DATE BUCKET: the code in ~/hbt/code.new, JAX and what else hbt needs, nothing newer
# than DATE; BUCKET, if not empty, as the folder bucket of the code.
setup() {
  idle
  rm -rf "$root/code"
  mv "$root/code.new" "$root/code"
  PATH=$HOME/.local/bin:$PATH
  command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
  # The images' own Python is older than jax allows.
  [[ -x $root/venv/bin/python ]] || uv venv --quiet --python 3.12 "$root/venv"
  uv pip install --quiet --python "$root/venv/bin/python" --exclude-newer "$2" \
    -e "$root/code" "$1"
  if [[ -n $3 ]]; then
    mount_bucket "$3"
    ln -sfn "$root/bucket" "$root/code/bucket"
  fi
}

# Directories are renamed when a checkpoint is complete, hence the limit.
mount_bucket() {
  mkdir -p "$root/bucket"
  mountpoint -q "$root/bucket" && return
  command -v gcsfuse >/dev/null || install_gcsfuse
  gcsfuse --implicit-dirs --rename-dir-limit=1000000 "$1" "$root/bucket"
}

install_gcsfuse() {
  local apt=https://packages.cloud.google.com/apt key=/usr/share/keyrings/cloud.google.asc
  curl -sSf "$apt/doc/apt-key.gpg" | sudo tee "$key" >/dev/null
  echo "deb [signed-by=$key] $apt gcsfuse-$(lsb_release -cs) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  sudo apt-get update -q && sudo apt-get install -yq gcsfuse
}

# start ARGS: Python with these arguments, in ~/hbt/code; its output goes to the end of ~/hbt/log.
start() {
  idle
  rm -f "$root/exit"
  local cache=$root
  [[ -e $root/code/bucket ]] && cache=$root/bucket
  cd "$root/code"
  # The port is one that the firewall rules of TPU slices open; jax's own default is not.
  JAX_COORDINATOR_PORT=8476 JAX_COMPILATION_CACHE_DIR=$cache/xla-cache \
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1 \
    PYTHONUNBUFFERED=1 setsid flock -w 10 "$root/lock" bash "$root/code/launch/host.sh" hold "$@" \
    </dev/null >/dev/null 2>&1 &
  echo $! >"$root/pid"
  for _ in {1..500}; do
    if alive || [[ -e $root/exit ]]; then return; fi
    sleep 0.02
  done
  echo "$HOSTNAME: the program did not start" >&2
  exit 1
}

# The program under the lock, and then its exit code. Signals are the program's to answer.
hold() {
  trap : TERM INT HUP
  local code=0
  "$root/venv/bin/python" "$@" >>"$root/log" 2>&1 || code=$?
  echo "$code" >"$root/exit.new"
  mv "$root/exit.new" "$root/exit"
}

# One word (running, exit, lost: it ended without telling, or none), and the last line of the log.
state() {
  local word=none
  [[ -e $root/pid ]] && word=lost
  alive && word=running
  [[ -e $root/exit ]] && word="exit $(<"$root/exit")"
  echo "$word"
  if [[ -s $root/log ]]; then tail -n 1 "$root/log" | tr '\r' '\n' | tail -n 1 | cut -c 1-200; fi
}

# Ends the program: it has a minute to save and leave. What was ended so did not fail: unless it
# was done, its state is lost.
end() {
  alive || return 0
  local pid
  pid=$(<"$root/pid")
  kill -TERM -- "-$pid" || true
  for _ in {1..600}; do
    alive || break
    sleep 0.1
  done
  if alive; then kill -KILL -- "-$pid" || true; fi
  if [[ -e $root/exit && $(<"$root/exit") != 0 ]]; then rm "$root/exit"; fi
}

case ${1:-} in
  setup | start | hold | state | end) "$@" ;;
  *)
    echo "expected setup, start, state or end, got ${1:-nothing}" >&2
    exit 2
    ;;
esac

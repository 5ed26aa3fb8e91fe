#!/usr/bin/env bash
# SPDX-FileCopyrightText: The Headgate Authors
# SPDX-License-Identifier: Apache-2.0

# Runs everything, one step after the other, also after one has failed; says at the end what took how long, which tests were
# skipped, and in the last line how many passed and failed. A test that is skipped has failed, unless hack/skips.txt says why it
# may be.
#
#   hack/test.sh [STEP...]     default: all of them
set -euo pipefail
cd "$(dirname "$0")/.."

steps=("$@")
[[ $# -gt 0 ]] || steps=(unit simulate race lint verify e2e)
declare -A about=(
  [unit]="vet, tests, fuzz seeds, the rendered chart"
  [simulate]="random histories, a minute of them"
  [race]="tests under the race detector"
  [lint]="house rules, chart"
  [verify]="generated files, formatting, go.mod"
  [e2e]="a real cluster, from nothing"
)
# The same histories every time: what fails here fails for everybody. New ones are for make simulate and make soak.
declare -A with=([simulate]="SEED=1")

# Without them tests are skipped.
go -C e2e/cluster run . build envoy prometheus </dev/null || true

rm -rf out/tests
failed=0
summary=()
for step in "${steps[@]}"; do
  printf '\n== make %s: %s\n\n' "$step" "${about[$step]-}"
  start=$SECONDS
  result=ok
  make --no-print-directory "$step" ${with[$step]-} </dev/null || { result=FAILED; failed=1; }
  took=$((SECONDS - start))
  summary+=("$(printf '%-7s %3dm %02ds  %-8s %s' "$result" $((took / 60)) $((took % 60)) "$step" "${about[$step]-}")")
done

# Events of tests have a name; those of packages have not, and a package that does not compile has no tests.
count() {
  local files=(out/tests/*.json)
  [[ -e ${files[0]} ]] || { echo 0; return; }
  cat "${files[@]}" | grep -c "\"Action\":\"$1\".*\"Test\":" || true
}
failures=$(count fail)
if [[ $failed -eq 1 && $failures -eq 0 ]]; then
  failures=1 # a step without tests, or one that did not come to them
fi

# What the failed tests said, in short: the whole of it is far above, between thousands of lines.
said() {
  local test
  compgen -G 'out/tests/*.json' >/dev/null || return 0 # nothing but lint or the like
  cat out/tests/*.json | sed -n 's/.*"Action":"fail".*"Test":"\([^"]*\)".*/\1/p' | while read -r test; do
    cat out/tests/*.json | grep -F "\"Test\":\"$test\"" | sed -n 's|.*"Output":"\(.*\)\\n"}$|\1|p' |
      grep -A3 --no-group-separator '^ *[a-z0-9_]*\.go:[0-9]*: ' | cut -c1-400 | sed "s|^|$test: |" | head -40
  done
}
# Each skipped test, with the reason that it may be.
skips() {
  local test pattern reason
  compgen -G 'out/tests/*.json' >/dev/null || return 0
  cat out/tests/*.json |
    sed -n 's|.*"Action":"skip","Package":"github.com/headgate/headgate/*\([^"]*\)","Test":"\([^"]*\)".*|\1 \2|p' | sort -u |
    while read -r test; do
      while IFS=$'\t' read -r pattern reason; do
        [[ $pattern == '#'* || ! $test =~ ^$pattern$ ]] || { printf '%s: %s\n' "$test" "$reason"; continue 2; }
      done <hack/skips.txt
      printf '%s: NOT EXPECTED; hack/skips.txt has those that are\n' "$test"
    done
}
skipped=$(skips)
if [[ -n $skipped ]]; then
  printf '\n== What was skipped\n\n%s\n' "$skipped"
fi
if [[ $failures -gt 0 ]]; then
  printf '\n== What failed\n\n'
  said || true
fi
unexpected=$(grep -c ': NOT EXPECTED; ' <<<"$skipped" || true)
if [[ $unexpected -gt 0 ]]; then
  failed=1
  failures=$((failures + unexpected))
fi

printf '\n== Result, after %dm %02ds\n\n' $((SECONDS / 60)) $((SECONDS % 60))
printf '%s\n' "${summary[@]}"
printf '\n%d passed, %d failed\n' "$(count pass)" "$failures"
exit $failed

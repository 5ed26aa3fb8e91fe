#!/usr/bin/env bash
# SPDX-FileCopyrightText: The Headgate Authors
# SPDX-License-Identifier: Apache-2.0

# Lets every fuzz test look for new inputs for a while: hack/fuzz.sh 30s
set -euo pipefail
cd "$(dirname "$0")/.."
for file in $(git grep -l '^func Fuzz' -- '*_test.go'); do
  for name in $(grep -oP '^func \KFuzz\w+' "$file"); do
    printf '\n== %s in %s\n' "$name" "$(dirname "$file")"
    go -C "$(dirname "$file")" test -run '^$' -fuzz "^$name\$" -fuzztime "$1" -fuzzminimizetime 10x
  done
done
